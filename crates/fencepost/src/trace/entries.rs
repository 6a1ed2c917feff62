//! What a trace has collected, for bindings: a list of spans and marks, with times since 1970.

use super::{
    Trace, Value,
    picture::{self, ClockReading, Kind, On, Picture, State},
};
use crate::sync::lock;

/// Everything that a trace has collected at one moment.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Entries {
    /// What the entries are on: numbers of tracks are places in this list.
    pub tracks: Vec<EntryTrack>,
    /// In the order of track, then of start; an outer span is in front of those inside it. Behind
    /// all spans come the marks.
    pub entries: Vec<Entry>,
    /// How many spans and marks are missing.
    pub dropped: u64,
}

/// A stream or a thread.
#[derive(Debug)]
pub struct EntryTrack {
    /// As in `stream 3 "load"`, or a thread's name.
    pub name: String,
    /// The device of a stream, as in `cuda:0`.
    pub device: Option<String>,
    /// The number that the system has for a thread.
    pub thread: Option<u64>,
}

/// A span or a mark.
#[derive(Debug)]
pub struct Entry {
    /// The name that it was begun with.
    pub name: String,
    /// The place of its track.
    pub track: usize,
    /// Whether it is a mark, whose start is its end.
    pub is_mark: bool,
    /// In nanoseconds since 1970.
    pub start: i64,
    /// Never earlier than `start`; in nanoseconds since 1970.
    pub end: i64,
    /// How far both may be off, in nanoseconds.
    pub uncertainty: u32,
    /// Whether it is complete.
    pub state: EntryState,
    /// In the order in which they were added.
    pub attributes: Vec<(String, Value)>,
    /// The places of those that it waited for.
    pub awaited: Vec<usize>,
}

/// How a span ended.
#[derive(Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EntryState {
    /// As it should.
    Complete,
    /// Its stream failed, for this reason.
    Failed(String),
    /// Not at all, yet.
    Unfinished,
}

impl Trace {
    /// Takes in what is complete, and lists all that there is.
    pub(crate) fn entries(&self) -> Entries {
        if !self.is_ours() {
            return Entries::default();
        }
        let picture = self.picture();
        // The first reading of the clocks, so that a span has the same times in each list, also
        // where the system's time is set meanwhile.
        let readings = lock(&self.shared().readings);
        let clocks = readings
            .first()
            .map_or(picture.clocks, |first| first.clocks);
        drop(readings);
        Entries::of(&picture, clocks)
    }
}

impl Entries {
    fn of(picture: &Picture, clocks: ClockReading) -> Entries {
        let since_1970 = clocks.realtime.saturating_sub(clocks.boottime);
        let slices = picture.slices.iter().map(|slice| Entry {
            name: text(picture, slice.name),
            track: slice.track as usize,
            is_mark: false,
            start: slice.start.saturating_add(since_1970),
            end: slice.end.saturating_add(since_1970),
            uncertainty: slice.uncertainty,
            state: state(picture, slice.state),
            attributes: attributes(picture, &slice.attributes),
            awaited: Vec::new(),
        });
        let marks = picture.marks.iter().map(|mark| Entry {
            name: text(picture, mark.name),
            track: mark.track as usize,
            is_mark: true,
            start: mark.time.saturating_add(since_1970),
            end: mark.time.saturating_add(since_1970),
            uncertainty: mark.uncertainty,
            state: state(picture, mark.state),
            attributes: attributes(picture, &mark.attributes),
            awaited: Vec::new(),
        });
        let mut entries: Vec<_> = slices.chain(marks).collect();
        let place = |on| match on {
            On::Slice(slice) => slice as usize,
            On::Mark(mark) => picture.slices.len() + mark as usize,
        };
        for arrow in &picture.arrows {
            if let Some(entry) = entries.get_mut(place(arrow.to.on)) {
                entry.awaited.push(place(arrow.from.on));
            }
        }
        Entries {
            tracks: picture.tracks.iter().map(track).collect(),
            entries,
            dropped: picture.dropped,
        }
    }
}

fn track(track: &picture::Track) -> EntryTrack {
    let (device, thread) = match &track.kind {
        Kind::Stream { device } => (Some(device.clone()), None),
        Kind::Thread { tid } => (None, Some(*tid)),
    };
    EntryTrack {
        name: track.name.clone(),
        device,
        thread,
    }
}

fn text(picture: &Picture, number: u32) -> String {
    let text = picture.texts.get(number as usize);
    text.cloned().unwrap_or_default()
}

fn state(picture: &Picture, state: State) -> EntryState {
    match state {
        State::Complete => EntryState::Complete,
        State::Failed(why) => EntryState::Failed(text(picture, why)),
        State::Unfinished => EntryState::Unfinished,
    }
}

fn attributes(picture: &Picture, which: &std::ops::Range<u32>) -> Vec<(String, Value)> {
    let which = which.start as usize..which.end as usize;
    let those = picture.attributes.get(which).unwrap_or_default();
    let value = |value| match value {
        picture::Value::Signed(value) => Value::Signed(value),
        picture::Value::Unsigned(value) => Value::Unsigned(value),
        picture::Value::Float(value) => Value::Float(value),
        picture::Value::Bool(value) => Value::Bool(value),
        picture::Value::Text(number) => Value::Text(text(picture, number)),
    };
    let those = those.iter();
    those
        .map(|attribute| (text(picture, attribute.name), value(attribute.value)))
        .collect()
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::{Device, Event};

    #[test]
    fn entries_tell_all_that_a_picture_shows_in_times_since_1970() {
        let now = || {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            now.unwrap().as_nanos() as i64
        };
        let before = now();
        let device = Device::open("host").unwrap();
        let (load, compute) = (device.new_stream().unwrap(), device.new_stream().unwrap());
        let (trace, loaded) = (Trace::new(), Event::new(&device));
        let step = trace.host_span("step").with("number", -1);
        trace.span("load", &load).with("bytes", 4096_u32).end();
        loaded.record(&load).unwrap();
        compute.wait_event(&loaded).unwrap();
        trace.span("compute", &compute).with("exact", true).end();
        trace.instant("checkpoint", &compute);
        step.end();
        compute.synchronize().unwrap();

        let found = trace.entries();
        // Gates of other tests leave marks in every trace of the process.
        let own = ["step", "load", "compute", "checkpoint"];
        let times = |found: &Entries| -> Vec<_> {
            let entries = found.entries.iter();
            let of_own = entries.filter(|entry| own.contains(&entry.name.as_str()));
            of_own.map(|entry| (entry.start, entry.end)).collect()
        };
        assert_eq!(times(&trace.entries()), times(&found));
        let named = |name: &str| {
            let place = found.entries.iter().position(|entry| entry.name == name);
            (place.unwrap(), &found.entries[place.unwrap()])
        };
        let ((_, step), (load, loading), (_, computing), (_, mark)) = (
            named("step"),
            named("load"),
            named("compute"),
            named("checkpoint"),
        );
        assert_eq!(step.attributes, [("number".into(), Value::Signed(-1))]);
        assert_eq!(
            loading.attributes,
            [("bytes".into(), Value::Unsigned(4096))]
        );
        assert_eq!(computing.attributes, [("exact".into(), Value::Bool(true))]);
        assert_eq!(computing.awaited, [load]);
        assert!(mark.is_mark && !step.is_mark);
        assert!(found.tracks[step.track].thread.is_some());
        assert_eq!(found.tracks[mark.track].device.as_deref(), Some("host"));
        // Whether somebody sets the clock meanwhile is not ours to say: a day is enough.
        let day = 86_400_000_000_000;
        for entry in [step, loading, computing, mark] {
            assert_eq!(entry.state, EntryState::Complete);
            assert!(entry.start <= entry.end);
            assert!((before - day..now() + day).contains(&entry.start));
        }
    }
}
