//! From records to a picture: all times on one axis, in the order that each stream had.

use std::{collections::HashMap, ops::Range, sync::Arc, time::Duration};

use super::{
    arrows,
    axis::Axis,
    clocks::Reading,
    intake::Intake,
    pending::Noted,
    picture::{Arrow, ArrowEnd, Attribute, Kind, Mark, On, Picture, Slice, State, Track, Value},
    shared::{self, Shared},
    store::{Block, NameOf, Record},
    value,
};
use crate::sync::{Ordering, lock};

/// A slice or a mark that is not placed yet.
struct Rough {
    is_mark: bool,
    name: u32,
    state: State,
    /// On the axis of the picture, where it is known.
    start: Option<i64>,
    end: Option<i64>,
    /// The last moment at which it was seen, for what has no end.
    seen: i64,
    values: [u64; 2],
    ticks: Option<(u64, u64)>,
    uncertainty: u32,
    attributes: Range<u32>,
}

/// The value of the end of a span that has none yet.
const OPEN: u64 = u64::MAX;

struct Drawing<'a> {
    shared: &'a Shared,
    /// By the number of the device.
    axes: HashMap<u64, Axis>,
    readings: Vec<Reading>,
    now: i64,
    picture: Picture,
    texts: HashMap<Arc<str>, u32>,
    /// Where each track is in the lists below.
    index: HashMap<u32, u32>,
    tracks: Vec<Vec<Rough>>,
    facts: Vec<Facts>,
}

/// A track as it will be, and the device of its stream.
struct Facts {
    name: String,
    kind: Kind,
    device: Option<u64>,
}

/// What is not over, as it was when the picture was begun.
struct Unfinished {
    track: u32,
    noted: Noted,
    start: Option<f64>,
    values: [u64; 2],
}

/// What is at a track, in the order of the stream: for the ends of arrows.
#[derive(Default)]
struct Placed {
    /// Values of start and end, and what it is.
    items: Vec<([u64; 2], On)>,
    /// The items by their ends.
    by_end: Vec<u32>,
}

impl Shared {
    /// What is there now. Who collects waits only while that is copied.
    pub(super) fn picture(&self) -> Picture {
        let intake = lock(&self.intake);
        let now = Reading::now();
        let unfinished = self.unfinished(&intake);
        let axes = intake.axes();
        let stored = lock(&self.store);
        let (blocks, gone) = stored.store.blocks();
        let dropped = stored.store.dropped + self.dropped.load(Ordering::Relaxed);
        drop(stored);
        drop(intake);
        let mut drawing = Drawing {
            shared: self,
            axes,
            readings: lock(&self.readings).clone(),
            now: now.clocks.boottime,
            picture: Picture {
                process: self.facts.clone(),
                clocks: now.clocks,
                dropped,
                ..Picture::default()
            },
            texts: HashMap::new(),
            index: HashMap::new(),
            tracks: Vec::new(),
            facts: Vec::new(),
        };
        drawing.add_tracks();
        drawing.add_finished(&blocks, gone);
        for unfinished in unfinished {
            drawing.add_unfinished(unfinished);
        }
        let (placed, gates) = drawing.place();
        drawing.add_arrows(&placed, &gates);
        drawing.finish()
    }

    /// What was begun and is not over.
    fn unfinished(&self, intake: &Intake) -> Vec<Unfinished> {
        let mut all = Vec::new();
        for recorder in self.recorders() {
            let ended = recorder
                .pending
                .ended()
                .into_iter()
                .map(|ended| (ended, false));
            let open = recorder.pending.open().into_iter().map(|open| (open, true));
            for (pending, is_open) in ended.chain(open) {
                let mut values = pending.values();
                if is_open {
                    values[0] = pending.pair.start.marker().map_or(0, |start| start.value());
                    values[1] = OPEN;
                }
                all.extend(recorder.pending.noted(&pending).map(|noted| Unfinished {
                    track: recorder.track,
                    noted,
                    start: intake.start_of(&recorder, &pending.pair),
                    values,
                }));
            }
        }
        all
    }
}

impl Drawing<'_> {
    fn text(&mut self, text: &str) -> u32 {
        if let Some(known) = self.texts.get(text) {
            return *known;
        }
        self.text_of(&text.into())
    }

    fn text_of(&mut self, text: &Arc<str>) -> u32 {
        if let Some(known) = self.texts.get(text) {
            return *known;
        }
        let number = self.picture.texts.len() as u32;
        self.picture.texts.push(text.to_string());
        self.texts.insert(text.clone(), number);
        number
    }

    /// The time on the picture's axis of so many nanoseconds since the trace began.
    fn on_axis(&self, nanos: f64) -> i64 {
        let way = Duration::from_nanos(nanos.abs() as u64);
        let origin = self.shared.origin.at;
        let at = if nanos < 0.0 {
            origin.checked_sub(way)
        } else {
            origin.checked_add(way)
        };
        let at = at.unwrap_or(origin);
        let reading = self.readings.iter().rev().find(|reading| reading.at <= at);
        reading
            .or(self.readings.first())
            .map_or(0, |reading| reading.on_axis(at))
    }

    fn add_tracks(&mut self) {
        let shared = self.shared;
        let list = lock(&shared.tracks);
        let mut known: Vec<_> = list.list.iter().collect();
        known.sort_unstable_by_key(|(number, _)| **number);
        for (number, track) in known {
            self.add_track(*number, facts_of(track));
        }
    }

    fn add_track(&mut self, number: u32, facts: Facts) -> u32 {
        let place = self.facts.len() as u32;
        self.index.insert(number, place);
        self.facts.push(facts);
        self.tracks.push(Vec::new());
        place
    }

    /// The place of the track of a record.
    fn place_of(&mut self, number: u32) -> u32 {
        if let Some(place) = self.index.get(&number) {
            return *place;
        }
        // Of a thread that had ended long before its span did.
        let facts = Facts {
            name: "an ended thread".into(),
            kind: Kind::Thread { tid: 0 },
            device: None,
        };
        self.add_track(number, facts)
    }

    fn axis(&self, track: u32) -> Option<&Axis> {
        self.axes.get(&self.facts.get(track as usize)?.device?)
    }

    /// A time of a track on the picture's axis, and how far off it may be.
    fn time(&self, track: u32, position: f64) -> Option<(i64, f64)> {
        if position.is_nan() {
            return None;
        }
        let (host, off) = match self.facts.get(track as usize)?.device {
            Some(_) => self.axis(track)?.host(position)?,
            None => (position, 0.0),
        };
        Some((self.on_axis(host), off))
    }

    fn add_finished(&mut self, blocks: &[Arc<Block>], gone: usize) {
        let mut skip = gone;
        // Taken after the blocks: each name in them is there.
        let names = self.shared.names.all();
        let mut known = vec![None; names.len()];
        for block in blocks {
            let texts: Vec<_> = block.texts.iter().map(|text| self.text_of(text)).collect();
            for record in block.records.iter().skip(std::mem::take(&mut skip)) {
                let name = match record.name() {
                    NameOf::Block(text) => texts.get(text as usize).copied(),
                    NameOf::Known(number) => known.get_mut(number as usize).map(|text| {
                        *text.get_or_insert_with(|| self.text_of(&names[number as usize]))
                    }),
                };
                self.add_record(block, &texts, record, name.unwrap_or_default());
            }
        }
    }

    fn add_record(&mut self, block: &Block, texts: &[u32], record: &Record, name: u32) {
        let text = |number: u32| texts.get(number as usize).copied().unwrap_or_default();
        let first = self.picture.attributes.len() as u32;
        let attributes = block.attributes_of(record).map(|(name, value)| Attribute {
            name: text(name),
            value: match value {
                Value::Text(value) => Value::Text(text(value)),
                other => other,
            },
        });
        self.picture.attributes.extend(attributes);
        let track = self.place_of(record.track);
        let start = self.time(track, record.start);
        let failure = record.failure();
        let ends = record.start + record.length;
        let end = match failure {
            None => self.time(track, ends),
            Some(_) => None,
        };
        let axis = self.axis(track);
        let ticks = axis.filter(|_| failure.is_none()).and_then(|axis| {
            let end = if record.is_mark { record.start } else { ends };
            Some((axis.ticks_at(record.start)?, axis.ticks_at(end)?))
        });
        let off = [start, end]
            .into_iter()
            .flatten()
            .map(|(_, off)| off)
            .fold(0.0, f64::max);
        let rough = Rough {
            is_mark: record.is_mark,
            name,
            state: failure.map_or(State::Complete, |why| State::Failed(text(why))),
            start: start.map(|(time, _)| time),
            end: end.map(|(time, _)| time),
            // Of what has failed, the length is when that was seen.
            seen: failure.map_or(self.now, |_| self.on_axis(record.length)),
            values: record.values,
            ticks,
            uncertainty: off.ceil() as u32,
            attributes: first..self.picture.attributes.len() as u32,
        };
        if let Some(roughs) = self.tracks.get_mut(track as usize) {
            roughs.push(rough);
        }
    }

    fn add_unfinished(&mut self, unfinished: Unfinished) {
        let Unfinished {
            track,
            noted,
            start,
            values,
        } = unfinished;
        let (track, is_mark) = (self.place_of(track), noted.is_mark);
        let start = start.and_then(|position| self.time(track, position));
        let name = self.text(&noted.name.get());
        let first = self.picture.attributes.len() as u32;
        for noted in noted.attributes.iter().flat_map(|noted| noted.iter()) {
            let name = self.text(&noted.name.get());
            let value = match &noted.value {
                value::Value::Signed(value) => Value::Signed(*value),
                value::Value::Unsigned(value) => Value::Unsigned(*value),
                value::Value::Float(value) => Value::Float(*value),
                value::Value::Bool(value) => Value::Bool(*value),
                value::Value::Text(value) => Value::Text(self.text(value)),
            };
            self.picture.attributes.push(Attribute { name, value });
        }
        let rough = Rough {
            is_mark,
            name,
            state: State::Unfinished,
            start: start.map(|(time, _)| time),
            end: None,
            seen: self.now,
            values,
            ticks: None,
            uncertainty: start.map_or(0, |(_, off)| off.ceil() as u32),
            attributes: first..self.picture.attributes.len() as u32,
        };
        if let Some(roughs) = self.tracks.get_mut(track as usize) {
            roughs.push(rough);
        }
    }

    /// Gives everything its place. Tells what is where, and the marks of gates that were opened.
    fn place(&mut self) -> (Vec<Placed>, HashMap<u64, On>) {
        let tracks = std::mem::take(&mut self.tracks);
        let mut all = Vec::new();
        let mut gates = HashMap::new();
        for (track, mut roughs) in tracks.into_iter().enumerate() {
            let is_stream = self
                .facts
                .get(track)
                .is_some_and(|facts| facts.device.is_some());
            match is_stream {
                true => settle(&mut roughs),
                false => roughs.sort_by_key(|r| (r.start, std::cmp::Reverse(r.end))),
            }
            let mut placed = Placed::default();
            for rough in roughs {
                let values = rough.values;
                let on = self.put(track as u32, rough);
                match is_stream {
                    true => placed.items.push((values, on)),
                    false if values[1] != 0 => drop(gates.insert(values[1], on)),
                    false => {}
                }
            }
            placed.sort();
            all.push(placed);
        }
        (all, gates)
    }

    fn put(&mut self, track: u32, rough: Rough) -> On {
        let start = rough.start.unwrap_or(rough.seen);
        if rough.is_mark {
            self.picture.marks.push(Mark {
                track,
                name: rough.name,
                time: start,
                state: rough.state,
                ticks: rough.ticks.map(|(start, _)| start),
                uncertainty: rough.uncertainty,
                attributes: rough.attributes,
            });
            return On::Mark(self.picture.marks.len() as u32 - 1);
        }
        self.picture.slices.push(Slice {
            track,
            name: rough.name,
            start,
            end: rough.end.unwrap_or(rough.seen).max(start),
            state: rough.state,
            ticks: rough.ticks,
            uncertainty: rough.uncertainty,
            attributes: rough.attributes,
        });
        On::Slice(self.picture.slices.len() as u32 - 1)
    }

    fn add_arrows(&mut self, placed: &[Placed], gates: &HashMap<u64, On>) {
        let list = lock(&self.shared.arrows).list();
        let empty = Placed::default();
        for mut wait in list {
            // Those whose track is forgotten have nothing at that end.
            let Some(to) = self.index.get(&wait.to) else {
                continue;
            };
            wait.to = *to;
            if let arrows::From::Marker(track, _) = &mut wait.from {
                let Some(from) = self.index.get(track) else {
                    continue;
                };
                *track = *from;
            }
            let to = placed.get(wait.to as usize).unwrap_or(&empty);
            let from = match wait.from {
                arrows::From::Marker(track, value) => {
                    let items = placed.get(track as usize).unwrap_or(&empty);
                    items
                        .last_before(value)
                        .map(|(on, at_end)| self.end_at(on, at_end))
                }
                arrows::From::Gate(gate) => gates.get(&gate).map(|on| self.end_at(*on, true)),
            };
            let time = from.map(|from| from.time);
            let to = self.waits_at(to, &wait, time);
            let (from, to) = match (from, to, wait.from) {
                (Some(from), Some(to), _) => (from, to),
                (None, Some(to), arrows::From::Marker(track, _)) => {
                    (self.mark_at(track, "awaited marker", to.time), to)
                }
                // Nothing tells when it was.
                _ => continue,
            };
            self.picture.arrows.push(Arrow { from, to });
        }
    }

    /// The end of an arrow at the start or the end of what is there.
    fn end_at(&self, on: On, at_end: bool) -> ArrowEnd {
        let (track, time) = match on {
            On::Slice(index) => {
                let slice = &self.picture.slices[index as usize];
                (slice.track, if at_end { slice.end } else { slice.start })
            }
            On::Mark(index) => {
                let mark = &self.picture.marks[index as usize];
                (mark.track, mark.time)
            }
        };
        ArrowEnd { track, time, on }
    }

    /// Where a stream waits: in the span that the wait is in, else at the first span behind it,
    /// else at a mark, where the time of what it waits for is known.
    fn waits_at(
        &mut self,
        placed: &Placed,
        wait: &arrows::Noted,
        from: Option<i64>,
    ) -> Option<ArrowEnd> {
        if let Some(on @ On::Slice(index)) = placed.around(wait.after) {
            let slice = &self.picture.slices[index as usize];
            return Some(ArrowEnd {
                track: wait.to,
                time: from.unwrap_or(slice.start).clamp(slice.start, slice.end),
                on,
            });
        }
        if let Some(on) = placed.first_after(wait.after) {
            return Some(self.end_at(on, false));
        }
        let before = placed.last_before(wait.after);
        let before = before.map_or(i64::MIN, |(on, at_end)| self.end_at(on, at_end).time);
        Some(self.mark_at(wait.to, "wait", from?.max(before)))
    }

    fn mark_at(&mut self, track: u32, name: &str, time: i64) -> ArrowEnd {
        let name = self.text(name);
        let on = self.put(
            track,
            Rough {
                is_mark: true,
                name,
                state: State::Complete,
                start: Some(time),
                end: None,
                seen: time,
                values: [0, 0],
                ticks: None,
                uncertainty: 0,
                attributes: 0..0,
            },
        );
        ArrowEnd { track, time, on }
    }

    /// Puts the marks into their order, and keeps the tracks on which something is.
    fn finish(mut self) -> Picture {
        let picture = &mut self.picture;
        let mut order: Vec<_> = (0..picture.marks.len() as u32).collect();
        order.sort_by_key(|index| {
            let mark = &picture.marks[*index as usize];
            (mark.track, mark.time)
        });
        let mut new = vec![0; order.len()];
        for (to, from) in order.iter().enumerate() {
            new[*from as usize] = to as u32;
        }
        picture.marks = order
            .iter()
            .map(|i| picture.marks[*i as usize].clone())
            .collect();
        let mut used = vec![None; self.facts.len()];
        let tracks = picture.slices.iter().map(|slice| slice.track);
        for track in tracks.chain(picture.marks.iter().map(|mark| mark.track)) {
            used[track as usize] = Some(0);
        }
        for (id, facts) in used.iter_mut().zip(self.facts) {
            if id.is_some() {
                let track = picture.tracks.len() as u32;
                *id = Some(track);
                picture.tracks.push(Track {
                    name: facts.name,
                    kind: facts.kind,
                });
            }
        }
        let id = |track: &mut u32| *track = used[*track as usize].unwrap_or_default();
        picture
            .slices
            .iter_mut()
            .for_each(|slice| id(&mut slice.track));
        picture
            .marks
            .iter_mut()
            .for_each(|mark| id(&mut mark.track));
        for arrow in &mut picture.arrows {
            for end in [&mut arrow.from, &mut arrow.to] {
                id(&mut end.track);
                if let On::Mark(index) = &mut end.on {
                    *index = new[*index as usize];
                }
            }
        }
        self.picture
    }
}

fn facts_of(track: &shared::Track) -> Facts {
    match track {
        shared::Track::Stream(core) => Facts {
            name: core.short(),
            kind: Kind::Stream {
                device: core.device.name.clone(),
            },
            device: Some(core.device.id),
        },
        shared::Track::Thread { name, tid } => Facts {
            name: name.clone(),
            kind: Kind::Thread { tid: *tid },
            device: None,
        },
    }
}

/// Puts what is on a stream into the stream's order. Times are read from the device one by one, and
/// each is rounded. So one may seem to be earlier than what was in front of it by a step of the
/// clock or of that rounding: then it is as late as that.
fn settle(roughs: &mut [Rough]) {
    roughs.sort_by_key(|rough| rough.values[0]);
    let mut points: Vec<(u64, u32, bool)> = Vec::with_capacity(roughs.len() * 2);
    for (rough, index) in roughs.iter().zip(0..) {
        points.push((rough.values[0], index, false));
        if !rough.is_mark {
            points.push((rough.values[1], index, true));
        }
    }
    points.sort_by_key(|(value, index, is_end)| (*value, *is_end, *index));
    let mut last = None;
    for (_, index, is_end) in &points {
        let rough = &mut roughs[*index as usize];
        let time = if *is_end {
            &mut rough.end
        } else {
            &mut rough.start
        };
        if let Some(time) = time {
            *time = last.map_or(*time, |last| (*time).max(last));
            last = Some(*time);
        } else if *is_end {
            // It is not over before what is in it.
            rough.seen = last.map_or(rough.seen, |last| rough.seen.max(last));
        } else {
            *time = last;
        }
    }
    let mut next = i64::MAX;
    for (_, index, is_end) in points.iter().rev() {
        let rough = &mut roughs[*index as usize];
        let latest = rough.seen.min(next);
        let time = if *is_end {
            &mut rough.end
        } else {
            &mut rough.start
        };
        next = match *time {
            Some(time) => time,
            None => {
                *time = Some(latest);
                next
            }
        };
    }
}

impl Placed {
    fn sort(&mut self) {
        self.by_end = (0..self.items.len() as u32).collect();
        let items = &self.items;
        self.by_end
            .sort_by_key(|index| end_of(&items[*index as usize]));
    }

    /// Where the stream was at a value, and whether that is the end of what is there: what ended
    /// last, or the innermost span that was open, if that was begun later.
    fn last_before(&self, value: u64) -> Option<(On, bool)> {
        let ended = self
            .by_end
            .partition_point(|i| end_of(&self.items[*i as usize]) <= value);
        let ended = ended
            .checked_sub(1)
            .map(|at| &self.items[self.by_end[at] as usize]);
        let begun = self.items.partition_point(|item| item.0[0] <= value);
        let begun = begun.checked_sub(1).map(|at| &self.items[at]);
        match (ended, begun) {
            (Some(ended), Some(begun)) if end_of(begun) > value && begun.0[0] > end_of(ended) => {
                Some((begun.1, false))
            }
            (Some(ended), _) => Some((ended.1, true)),
            (None, begun) => begun.map(|begun| (begun.1, false)),
        }
    }

    /// The span that was open at a value, if nothing was begun in it behind that.
    fn around(&self, value: u64) -> Option<On> {
        let ended = self
            .by_end
            .partition_point(|i| end_of(&self.items[*i as usize]) <= value);
        let next = &self.items[*self.by_end.get(ended)? as usize];
        // Of what is over next: whatever is begun in a span is over before the span is.
        (next.0[0] <= value).then_some(next.1)
    }

    /// What was begun first behind a value.
    fn first_after(&self, value: u64) -> Option<On> {
        let after = self.items.partition_point(|item| item.0[0] <= value);
        self.items.get(after).map(|item| item.1)
    }
}

/// The value at which it is over.
fn end_of(item: &([u64; 2], On)) -> u64 {
    match item.1 {
        On::Slice(_) => item.0[1],
        On::Mark(_) => item.0[0],
    }
}
