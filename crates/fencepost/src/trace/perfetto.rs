//! A trace as a file for Perfetto, in its own format.
//!
//! Files of one boot join by being written one behind the other, in any order:
//! - Times are on `CLOCK_BOOTTIME`, the clock that the reader takes as the trace's.
//! - The first packet ties that clock to the two others, as of a moment that is the same in all
//!   files. `CLOCK_BOOTTIME` is the first in it: of a snapshot that the reader refuses, it takes
//!   the clocks in front of the refused one.
//! - The identifiers of tracks, arrows and of the sequence of packets come from a number that no
//!   other process or trace has.
//! - The first packet of the sequence says that nothing before it counts, so that names stand for
//!   themselves.
//! - The process is described in each file.

use std::io::{self, Write};

use prost::Message as _;

use super::{
    flows::{Flows, Late},
    identifiers,
    lanes::{Lane, Lanes, Step},
    messages::*,
    names::{self, Keys},
    picture::{ClockReading, Kind, On, Picture, State, Value},
};

/// Writes when so many bytes have come together.
const ENOUGH: usize = 1 << 18;

/// Numbers of names of our own. Those of texts come behind them.
const CATEGORY_COMPLETE: u64 = 1;
const CATEGORY_FAILED: u64 = 2;
const CATEGORY_UNFINISHED: u64 = 3;
const CATEGORY_WAIT: u64 = 4;
const NAME_WAIT: u64 = 1;
const NAME_DROPPED: u64 = 2;
const START_TICKS: u64 = 1;
const END_TICKS: u64 = 2;
const TICKS: u64 = 3;
const UNCERTAINTY: u64 = 4;
const FAILURE: u64 = 5;
const DROPPED: u64 = 6;
const OWN: u64 = 7;

pub(super) fn write(picture: &Picture, out: &mut dyn Write) -> io::Result<()> {
    // Which lanes there are must be known before the first event, so they are found twice.
    let lanes = Lanes::of(picture, |_, _| ());
    let flows = Flows::of(picture);
    let mut file = File::new(picture, out);
    file.head()?;
    file.tracks(&lanes)?;
    let mut result = Ok(());
    Lanes::of(picture, |lane, step| {
        if result.is_ok() {
            result = file.step(lane, step, &flows);
        }
    });
    result?;
    for late in &flows.late {
        file.late(late, &lanes)?;
    }
    file.dropped()?;
    file.flush()
}

struct File<'a> {
    picture: &'a Picture,
    out: &'a mut dyn Write,
    bytes: Vec<u8>,
    /// The packet of the last event. Used again, for its lists.
    event: TracePacket,
    sequence: u32,
    keys: Keys,
}

impl<'a> File<'a> {
    fn new(picture: &'a Picture, out: &'a mut dyn Write) -> Self {
        let sequence = identifiers::sequence(picture);
        Self {
            picture,
            out,
            bytes: Vec::with_capacity(ENOUGH + (1 << 12)),
            event: TracePacket {
                trusted_packet_sequence_id: Some(sequence),
                sequence_flags: Some(SEQ_NEEDS_INCREMENTAL_STATE),
                track_event: Some(TrackEvent::default()),
                ..TracePacket::default()
            },
            sequence,
            // As the reader has them.
            keys: Keys::new(picture, |name| name.replace(['.', '[', ']'], "_")),
        }
    }

    fn put(&mut self, packet: &TracePacket) -> io::Result<()> {
        self.bytes.push(PACKET);
        packet.encode_length_delimited(&mut self.bytes)?;
        if self.bytes.len() < ENOUGH {
            return Ok(());
        }
        self.flush()
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.write_all(&self.bytes)?;
        self.bytes.clear();
        Ok(())
    }

    /// The clocks, and the names that events refer to by number.
    fn head(&mut self) -> io::Result<()> {
        self.put(&TracePacket {
            clock_snapshot: Some(snapshot(self.picture.clocks)),
            trusted_packet_sequence_id: Some(self.sequence),
            sequence_flags: Some(SEQ_INCREMENTAL_STATE_CLEARED),
            trace_packet_defaults: Some(TracePacketDefaults {
                timestamp_clock_id: Some(CLOCK_BOOTTIME),
            }),
            ..TracePacket::default()
        })?;
        self.put(&TracePacket {
            trusted_packet_sequence_id: Some(self.sequence),
            sequence_flags: Some(SEQ_NEEDS_INCREMENTAL_STATE),
            interned_data: Some(interned(self.picture)),
            ..TracePacket::default()
        })
    }

    fn tracks(&mut self, lanes: &Lanes) -> io::Result<()> {
        let process = &self.picture.process;
        let pid = i32::try_from(process.pid).ok();
        self.describe(TrackDescriptor {
            uuid: Some(identifiers::process(self.picture)),
            process: Some(ProcessDescriptor {
                pid,
                process_name: Some(process.name.clone()),
            }),
            child_ordering: Some(CHILD_ORDER_EXPLICIT),
            ..TrackDescriptor::default()
        })?;
        for (rank, lane) in lanes.lanes.iter().enumerate() {
            let track = &self.picture.tracks[lane.track as usize];
            let parent = match (&track.kind, lane.number) {
                // In the reader's picture the further lanes of a thread hang from its own row.
                (Kind::Thread { .. }, 1..) => {
                    identifiers::track(self.picture, Lane { number: 0, ..*lane })
                }
                _ => identifiers::process(self.picture),
            };
            let thread = match (&track.kind, lane.number) {
                (Kind::Thread { tid }, 0) if *tid != 0 => Some(ThreadDescriptor {
                    pid,
                    tid: i64::try_from(*tid).ok(),
                    thread_name: Some(track.name.clone()),
                }),
                _ => None,
            };
            self.describe(TrackDescriptor {
                uuid: Some(identifiers::track(self.picture, *lane)),
                name: Some(names::title(track, *lane)),
                parent_uuid: Some(parent),
                thread,
                sibling_order_rank: i32::try_from(rank).ok(),
                // Two streams with one name are two, and lanes are apart for a reason.
                sibling_merge_behavior: Some(SIBLING_MERGE_NONE),
                ..TrackDescriptor::default()
            })?;
        }
        Ok(())
    }

    fn describe(&mut self, track: TrackDescriptor) -> io::Result<()> {
        self.put(&TracePacket {
            trusted_packet_sequence_id: Some(self.sequence),
            track_descriptor: Some(track),
            ..TracePacket::default()
        })
    }

    fn step(&mut self, lane: Lane, step: Step, flows: &Flows) -> io::Result<()> {
        let track = identifiers::track(self.picture, lane);
        match step {
            Step::Begin(number, _) => {
                let slice = &self.picture.slices[number as usize];
                let event = self.named(TYPE_SLICE_BEGIN, slice.start, track);
                event.name_iid = Some(name(slice.name, slice.state));
                let ticks = slice
                    .ticks
                    .map(|(start, end)| [START_TICKS, END_TICKS].into_iter().zip([start, end]));
                self.state(slice.state);
                self.facts(ticks.into_iter().flatten(), slice.uncertainty);
                self.attributes(slice.attributes.clone());
                self.flows(flows, On::Slice(number));
            }
            Step::End(number) => {
                let slice = &self.picture.slices[number as usize];
                self.named(TYPE_SLICE_END, slice.end.max(slice.start), track);
            }
            Step::Mark(number, _) => {
                let mark = &self.picture.marks[number as usize];
                let event = self.named(TYPE_INSTANT, mark.time, track);
                event.name_iid = Some(name(mark.name, mark.state));
                self.state(mark.state);
                self.facts(mark.ticks.map(|ticks| (TICKS, ticks)), mark.uncertainty);
                self.attributes(mark.attributes.clone());
                self.flows(flows, On::Mark(number));
            }
        }
        self.put_event()
    }

    /// Begins an event without a name.
    fn named(&mut self, r#type: i32, time: i64, track: u64) -> &mut TrackEvent {
        self.event.timestamp = Some(unsigned(time));
        let event = self.event.track_event.get_or_insert_default();
        event.category_iids.clear();
        event.debug_annotations.clear();
        event.flow_ids.clear();
        event.name_iid = None;
        event.r#type = Some(r#type);
        event.track_uuid = Some(track);
        event
    }

    fn put_event(&mut self) -> io::Result<()> {
        let event = std::mem::take(&mut self.event);
        let result = self.put(&event);
        self.event = event;
        result
    }

    fn annotate(&mut self, name: u64, value: Annotated) {
        let event = self.event.track_event.get_or_insert_default();
        event.debug_annotations.push(DebugAnnotation {
            name_iid: Some(name),
            name: None,
            value: Some(value),
        });
    }

    fn state(&mut self, state: State) {
        let event = self.event.track_event.get_or_insert_default();
        match state {
            // The reader's export to Chrome's format leaves out what has no category.
            State::Complete => event.category_iids.push(CATEGORY_COMPLETE),
            State::Unfinished => event.category_iids.push(CATEGORY_UNFINISHED),
            State::Failed(why) => {
                event.category_iids.push(CATEGORY_FAILED);
                self.annotate(FAILURE, Annotated::Text(OWN + u64::from(why)));
            }
        }
    }

    fn facts(&mut self, ticks: impl IntoIterator<Item = (u64, u64)>, uncertainty: u32) {
        for (name, ticks) in ticks {
            self.annotate(name, exact(ticks));
        }
        if uncertainty != 0 {
            self.annotate(UNCERTAINTY, Annotated::Unsigned(uncertainty.into()));
        }
    }

    fn attributes(&mut self, range: std::ops::Range<u32>) {
        let picture = self.picture;
        let attributes = names::attributes(picture, range);
        let event = self.event.track_event.get_or_insert_default();
        for (number, attribute) in attributes.iter().enumerate() {
            let (name_iid, name) = match self.keys.before(attributes, number) {
                0 => (Some(OWN + u64::from(attribute.name)), None),
                before => {
                    let text = &picture.texts[attribute.name as usize];
                    (None, Some(names::again(text, before)))
                }
            };
            let value = match attribute.value {
                Value::Signed(value) => Annotated::Signed(value),
                Value::Unsigned(value) => exact(value),
                Value::Float(value) => Annotated::Double(value),
                Value::Bool(value) => Annotated::Bool(value),
                Value::Text(text) => Annotated::Text(OWN + u64::from(text)),
            };
            event.debug_annotations.push(DebugAnnotation {
                name_iid,
                name,
                value: Some(value),
            });
        }
    }

    fn flows(&mut self, flows: &Flows, on: On) {
        let picture = self.picture;
        let event = self.event.track_event.get_or_insert_default();
        event
            .flow_ids
            .extend(flows.at(on).map(|arrow| identifiers::arrow(picture, arrow)));
    }

    fn late(&mut self, late: &Late, lanes: &Lanes) -> io::Result<()> {
        let lane = lanes.lanes[late.lane(self.picture, lanes)];
        let track = identifiers::track(self.picture, lane);
        let id = identifiers::arrow(self.picture, late.arrow);
        let event = self.named(TYPE_INSTANT, late.time, track);
        event.name_iid = Some(NAME_WAIT);
        event.category_iids.push(CATEGORY_WAIT);
        event.flow_ids.push(id);
        self.put_event()
    }

    /// Says how much is missing, on the process's own row.
    fn dropped(&mut self) -> io::Result<()> {
        let dropped = self.picture.dropped;
        if dropped == 0 {
            return Ok(());
        }
        let process = identifiers::process(self.picture);
        let event = self.named(TYPE_INSTANT, self.picture.clocks.boottime, process);
        event.name_iid = Some(NAME_DROPPED);
        self.annotate(DROPPED, Annotated::Unsigned(dropped));
        self.put_event()
    }
}

/// What ties the three clocks, as of the moment at which `CLOCK_MONOTONIC` was a second.
///
/// The reader refuses a snapshot that is earlier than one before it, and counts an error. So files
/// that are joined in any order must have the same one. The clocks run at one rate, and their
/// distances change only when the system sleeps or its date is set. Rounding takes away what the
/// readings of two processes differ by.
fn snapshot(clocks: ClockReading) -> ClockSnapshot {
    const SECOND: i64 = 1_000_000_000;
    let rounded = |nanoseconds: i64| (nanoseconds + 5_000).div_euclid(10_000) * 10_000;
    let boottime = SECOND + rounded(clocks.boottime - clocks.monotonic);
    let realtime = boottime + rounded(clocks.realtime - clocks.boottime);
    let clock = |(id, time)| Clock {
        clock_id: Some(id),
        timestamp: Some(unsigned(time)),
    };
    let clocks = [
        (CLOCK_BOOTTIME, boottime),
        (CLOCK_MONOTONIC, SECOND),
        (CLOCK_REALTIME, realtime),
    ];
    ClockSnapshot {
        clocks: clocks.map(clock).into(),
    }
}

/// The number of a text as a name. A span that is not complete says so in its name, since nothing
/// else of it is seen in the reader's picture.
fn name(text: u32, state: State) -> u64 {
    OWN + u64::from(text) * 3 + kind(state) as u64
}

/// One of each kind of state, in the order of [`kind`].
const KINDS: [State; 3] = [State::Complete, State::Failed(0), State::Unfinished];

fn kind(state: State) -> usize {
    match state {
        State::Complete => 0,
        State::Failed(_) => 1,
        State::Unfinished => 2,
    }
}

/// Every text that events refer to, in the lists it is referred to in.
fn interned(picture: &Picture) -> InternedData {
    let used = Used::of(picture);
    let text = |number: u32| picture.texts[number as usize].clone();
    let listed = |used: &[bool]| -> Vec<Interned> {
        let numbers = (0..).zip(used).filter(|(_, used)| **used);
        numbers
            .map(|(number, _)| entry(OWN + u64::from(number), text(number)))
            .collect()
    };
    let mut event_names = own(&[(NAME_WAIT, "wait"), (NAME_DROPPED, "spans were dropped")]);
    for (number, kinds) in (0..).zip(&used.names) {
        for (kind, used) in kinds.iter().enumerate() {
            if *used {
                let suffix = names::suffix(KINDS[kind]);
                let iid = OWN + u64::from(number) * 3 + kind as u64;
                event_names.push(entry(iid, text(number) + suffix));
            }
        }
    }
    let mut debug_annotation_names = own(&[
        (START_TICKS, names::START_TICKS),
        (END_TICKS, names::END_TICKS),
        (TICKS, names::TICKS),
        (UNCERTAINTY, names::UNCERTAINTY),
        (FAILURE, names::FAILURE),
        (DROPPED, "dropped"),
    ]);
    debug_annotation_names.extend(listed(&used.keys));
    InternedData {
        event_categories: own(&[
            (CATEGORY_COMPLETE, "complete"),
            (CATEGORY_FAILED, "failed"),
            (CATEGORY_UNFINISHED, "unfinished"),
            (CATEGORY_WAIT, "wait"),
        ]),
        event_names,
        debug_annotation_names,
        debug_annotation_string_values: listed(&used.values),
    }
}

/// Which texts are used as what.
struct Used {
    /// By [`kind`].
    names: Vec<[bool; 3]>,
    keys: Vec<bool>,
    values: Vec<bool>,
}

impl Used {
    fn of(picture: &Picture) -> Self {
        let count = picture.texts.len();
        let mut used = Self {
            names: vec![[false; 3]; count],
            keys: vec![false; count],
            values: vec![false; count],
        };
        let of_slices = picture.slices.iter().map(|slice| (slice.name, slice.state));
        let of_marks = picture.marks.iter().map(|mark| (mark.name, mark.state));
        for (name, state) in of_slices.chain(of_marks) {
            used.names[name as usize][kind(state)] = true;
            if let State::Failed(why) = state {
                used.values[why as usize] = true;
            }
        }
        for attribute in &picture.attributes {
            used.keys[attribute.name as usize] = true;
            if let Value::Text(text) = attribute.value {
                used.values[text as usize] = true;
            }
        }
        used
    }
}

fn entry(iid: u64, text: String) -> Interned {
    Interned {
        iid: Some(iid),
        text: Some(text),
    }
}

fn own(names: &[(u64, &str)]) -> Vec<Interned> {
    let entries = names.iter();
    entries
        .map(|(iid, text)| entry(*iid, (*text).to_owned()))
        .collect()
}

/// The reader takes numbers of 64 bits as ones with a sign. Larger ones are written as text.
fn exact(number: u64) -> Annotated {
    match i64::try_from(number) {
        Ok(_) => Annotated::Unsigned(number),
        Err(_) => Annotated::String(number.to_string()),
    }
}

/// The clocks of a file have no sign; none of them was ever below zero.
fn unsigned(time: i64) -> u64 {
    u64::try_from(time).unwrap_or(0)
}
