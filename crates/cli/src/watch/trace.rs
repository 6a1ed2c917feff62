//! The file of `fencepost watch --trace`: the calls that a watched process has sent, as slices of
//! its threads, and waits of streams for records as arrows.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    path::{Path, PathBuf},
};

use fencepost::bindings::pictures::{
    self, Arrow, ArrowEnd, Attribute, Kind, On, Picture, Slice, State, Track, Value,
};
use serde::Deserialize;

/// How many calls of a process are kept: the last ones.
const MOST: usize = 1_000_000;

/// A message of `crates/watch/src/batch.rs`, which says what the numbers are.
#[derive(Deserialize)]
pub(super) struct Message {
    pid: u32,
    message: Batch,
}

#[derive(Deserialize)]
struct Batch {
    process: String,
    threads: Vec<(i32, String)>,
    texts: Vec<String>,
    calls: Vec<[u64; 10]>,
    inside: Vec<[u64; 10]>,
    at: u64,
    dropped: u64,
}

#[derive(Clone, Copy)]
struct Call {
    thread: u64,
    /// Of a text.
    name: u64,
    start: u64,
    /// `None` where it has not returned.
    end: Option<u64>,
    stream: u64,
    /// Of a text.
    kernel: u64,
    marker: u64,
    /// Stream and marker.
    awaited: (u64, u64),
    code: u64,
}

impl Call {
    /// `texts` are the places of a message's texts.
    fn new(row: [u64; 10], texts: &[u64]) -> Call {
        let [
            thread,
            name,
            start,
            end,
            stream,
            kernel,
            marker,
            of,
            awaited,
            code,
        ] = row;
        let text = |at: u64| texts.get(at as usize).copied().unwrap_or(0);
        Call {
            thread,
            name: text(name),
            start,
            end: (end != 0).then_some(end),
            stream,
            kernel: text(kernel),
            marker,
            awaited: (of, awaited),
            code,
        }
    }
}

/// How such a message begins, so that no other is read as one.
pub(super) const BEGIN: &str = "{\"kind\":\"calls\"";

/// The calls of one process.
#[derive(Default)]
pub(super) struct Calls {
    pid: u32,
    process: String,
    threads: BTreeMap<u64, String>,
    texts: Vec<String>,
    numbers: HashMap<String, u64>,
    calls: VecDeque<Call>,
    /// Those that had not returned, as of `at`.
    inside: Vec<Call>,
    at: u64,
    dropped: u64,
}

impl Calls {
    pub(super) fn add(&mut self, message: Message) {
        let batch = message.message;
        (self.pid, self.process) = (message.pid, batch.process);
        self.dropped += batch.dropped;
        for (tid, name) in batch.threads {
            self.threads.insert(tid as u64, name);
        }
        let texts = batch.texts.into_iter().map(|text| self.text(text));
        let texts: Vec<u64> = texts.collect();
        let call = |row| Call::new(row, &texts);
        self.at = batch.at;
        self.inside = batch.inside.into_iter().map(call).collect();
        self.calls.extend(batch.calls.into_iter().map(call));
        while self.calls.len() > MOST {
            self.calls.pop_front();
            self.dropped += 1;
        }
    }

    fn text(&mut self, text: String) -> u64 {
        if let Some(&number) = self.numbers.get(&text) {
            return number;
        }
        let number = self.texts.len() as u64;
        self.texts.push(text.clone());
        self.numbers.insert(text, number);
        number
    }

    /// Writes the file, in the format that its suffix names.
    pub(super) fn save(mut self, path: &Path) -> std::io::Result<()> {
        let mut calls: Vec<Call> = self.calls.into_iter().chain(self.inside).collect();
        let end = |call: &Call| call.end.unwrap_or_else(|| self.at.max(call.start));
        calls.sort_by_key(|call| (call.thread, call.start, u64::MAX - end(call)));
        let mut picture = Picture::of_process(self.pid, std::mem::take(&mut self.process));
        picture.dropped = self.dropped;
        let mut drawing = Drawing::new(&mut picture, self.texts);
        for call in &calls {
            drawing.slice(call, end(call), &self.threads);
        }
        drawing.arrows(&calls);
        pictures::save(&picture, path)
    }
}

/// The names of attributes, behind the texts of the calls.
const NAMES: [&str; 5] = ["stream", "kernel", "marker", "waits_for", "error"];

struct Drawing<'a> {
    picture: &'a mut Picture,
    names: u32,
    /// The texts of what is awaited.
    awaited: HashMap<(u64, u64), u32>,
}

impl<'a> Drawing<'a> {
    fn new(picture: &'a mut Picture, mut texts: Vec<String>) -> Drawing<'a> {
        let names = texts.len() as u32;
        texts.extend(NAMES.map(str::to_owned));
        picture.texts = texts;
        Drawing {
            picture,
            names,
            awaited: HashMap::new(),
        }
    }

    fn slice(&mut self, call: &Call, end: u64, threads: &BTreeMap<u64, String>) {
        let kind = Kind::Thread { tid: call.thread };
        let track = self.picture.tracks.last();
        if track.is_none_or(|track| track.kind != kind) {
            let name = threads.get(&call.thread).cloned().unwrap_or_default();
            self.picture.tracks.push(Track { name, kind });
        }
        let first = self.picture.attributes.len() as u32;
        self.attributes(call);
        self.picture.slices.push(Slice {
            track: self.picture.tracks.len() as u32 - 1,
            name: call.name as u32,
            start: call.start as i64,
            end: end as i64,
            state: match call.end {
                Some(_) => State::Complete,
                None => State::Unfinished,
            },
            ticks: None,
            uncertainty: 0,
            attributes: first..self.picture.attributes.len() as u32,
        });
    }

    fn attributes(&mut self, call: &Call) {
        let awaited = match call.awaited {
            (_, 0) => 0,
            awaited => self.text_of(awaited),
        };
        let number = |number| (number != 0).then_some(Value::Unsigned(number));
        let text = |text: u32| (text != 0).then_some(Value::Text(text));
        let values = [
            number(call.stream),
            text(call.kernel as u32),
            number(call.marker),
            text(awaited),
            number(call.code),
        ];
        for (name, value) in (self.names..).zip(values) {
            let attribute = value.map(|value| Attribute { name, value });
            self.picture.attributes.extend(attribute);
        }
    }

    fn text_of(&mut self, (stream, marker): (u64, u64)) -> u32 {
        *self.awaited.entry((stream, marker)).or_insert_with(|| {
            let texts = &mut self.picture.texts;
            texts.push(format!("marker {marker} of stream {stream}"));
            texts.len() as u32 - 1
        })
    }

    /// From records to the waits for them. The slices are those of the calls, in their order.
    fn arrows(&mut self, calls: &[Call]) {
        let mut records = HashMap::new();
        for (slice, call) in (0_u32..).zip(calls) {
            if call.marker != 0 {
                records.insert((call.stream, call.marker), slice);
            }
        }
        let end_of = |picture: &Picture, slice: u32| {
            let of = &picture.slices[slice as usize];
            ArrowEnd {
                track: of.track,
                time: of.end,
                on: On::Slice(slice),
            }
        };
        for (slice, call) in (0_u32..).zip(calls) {
            if let Some(&record) = records.get(&call.awaited) {
                let (from, to) = (end_of(self.picture, record), end_of(self.picture, slice));
                self.picture.arrows.push(Arrow { from, to });
            }
        }
    }
}

/// The files of processes: the first has the one that was named, and others have their number in
/// front of its suffix. One that became another program is told of twice, or more often.
pub(super) fn files(named: &Path, all: &[Calls]) -> Vec<PathBuf> {
    let mut times: HashMap<u32, u32> = HashMap::new();
    let file = |(place, calls): (usize, &Calls)| {
        let times = times.entry(calls.pid).or_default();
        *times += 1;
        let mut name = named.file_stem().unwrap_or_default().to_owned();
        match (place, *times) {
            (0, _) => return named.to_owned(),
            (_, 1) => name.push(format!(".{}", calls.pid)),
            (_, times) => name.push(format!(".{}-{times}", calls.pid)),
        }
        if let Some(suffix) = named.extension() {
            name.push(".");
            name.push(suffix);
        }
        named.with_file_name(name)
    };
    all.iter().enumerate().map(file).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_process_and_each_program_that_it_becomes_has_a_file_of_its_own() {
        let all = [7, 7, 7, 8, 8].map(|pid| Calls {
            pid,
            ..Calls::default()
        });
        let files = files(Path::new("a/calls.json"), &all);
        let files: Vec<_> = files.iter().map(|file| file.to_str().unwrap()).collect();
        assert_eq!(
            files,
            [
                "a/calls.json",
                "a/calls.7-2.json",
                "a/calls.7-3.json",
                "a/calls.8.json",
                "a/calls.8-2.json"
            ]
        );
    }
}
