//! Pictures for the tests of the writers.

use std::cmp::Reverse;

use proptest::prelude::*;

use super::picture::*;

/// Texts that a format may have trouble with, each with a place of its own in `texts`. The first
/// names the attribute with a slice's or mark's own number, by which the tests find it again.
const TEXTS: [&str; 12] = [
    "number",
    "load",
    "a \"quoted\" <name> & more",
    "größer \u{1f980}\n\ttab",
    "back\\slash\\",
    "",
    "wait",
    "load (failed)",
    "a.b",
    "a_b",
    "failure",
    "e\u{301}\u{7f}\u{1}",
];

/// An hour after the start of the system: where a picture's times begin.
pub(super) const BEGIN: i64 = 3_600_000_000_000;

/// A picture of one process without tracks.
pub(super) fn process(pid: u32) -> Picture {
    Picture {
        process: ProcessFacts {
            pid,
            name: format!("process {pid}"),
            unique: 77 + u64::from(pid),
        },
        clocks: ClockReading {
            boottime: BEGIN + 1_000,
            monotonic: BEGIN - 500_000,
            realtime: 1_764_000_000_000_000_000,
        },
        texts: TEXTS.map(str::to_owned).into(),
        ..Picture::default()
    }
}

/// Chunks that three streams work on one after the other, and a thread that submits them.
pub(super) fn pipeline(chunks: usize) -> Picture {
    let mut picture = process(1);
    picture.texts = ["load", "count", "reduce", "submit", "no more paper"]
        .map(str::to_owned)
        .into();
    picture.dropped = 2;
    let stream = |id: u32| Track {
        name: format!("stream {} \"{}\"", id + 1, picture.texts[id as usize]),
        kind: Kind::Stream {
            device: "host".to_owned(),
        },
    };
    picture.tracks = (0..3).map(stream).collect();
    picture.tracks.push(Track {
        name: "main".to_owned(),
        kind: Kind::Thread { tid: 4_000 },
    });
    for stage in 0..3 {
        for chunk in 0..chunks as u32 {
            stage_of(&mut picture, stage, chunk, chunks);
        }
    }
    for chunk in 0..chunks as i64 {
        let start = chunk * 15_000;
        for (name, from, to) in [(3, 0, 12_000), (0, 1_000, 5_000), (1, 5_000, 9_000)] {
            let within = slice(3, name, start + from, start + to, State::Complete);
            picture.slices.push(within);
        }
    }
    picture
}

/// What a stream does for a chunk, and that it waits for the stream before it.
fn stage_of(picture: &mut Picture, stage: u32, chunk: u32, chunks: usize) {
    let (ready, length) = [(0, 90_000), (105_000, 120_000), (230_000, 20_000)][stage as usize];
    let start = ready + i64::from(chunk) * 126_000;
    let state = match (stage, chunk) {
        (1, 4) => State::Failed(4),
        (2, 5) => State::Unfinished,
        _ => State::Complete,
    };
    let own = picture.slices.len() as u32;
    let own_slice = slice(stage, stage, start, start + length, state);
    picture.slices.push(own_slice);
    if stage > 0 {
        let before = own - chunks as u32;
        picture.arrows.push(Arrow {
            from: ArrowEnd {
                track: stage - 1,
                time: picture.slices[before as usize].end,
                on: On::Slice(before),
            },
            to: ArrowEnd {
                track: stage,
                time: BEGIN + start,
                on: On::Slice(own),
            },
        });
    }
}

fn slice(track: u32, name: u32, start: i64, end: i64, state: State) -> Slice {
    Slice {
        track,
        name,
        start: BEGIN + start,
        end: BEGIN + end,
        state,
        ticks: None,
        uncertainty: 50,
        attributes: 0..0,
    }
}

/// Track, start, length, name, state, ticks and uncertainty of a slice.
type SlicePart = (usize, i64, i64, u32, u8, Option<(u64, u64)>, u32);

/// What a picture consists of; times count from [`BEGIN`].
#[derive(Clone, Debug)]
pub(super) struct Parts {
    tracks: Vec<bool>,
    slices: Vec<SlicePart>,
    marks: Vec<(usize, i64, u32, u8)>,
    arrows: Vec<(usize, usize, i64, i64)>,
    values: Vec<(u32, Value)>,
}

impl Parts {
    /// The picture of these parts, as of the process `pid`.
    pub(super) fn picture(&self, pid: u32) -> Picture {
        let mut picture = process(pid);
        picture.tracks = self.tracks();
        let count = self.tracks.len();
        let mut slices = self.slices.clone();
        slices.sort_by_key(|slice| (slice.0 % count, slice.1, Reverse(slice.2)));
        for (track, start, length, name, state, ticks, uncertainty) in slices {
            let attributes = self.attributes(&mut picture);
            picture.slices.push(Slice {
                track: (track % count) as u32,
                name,
                start: BEGIN + start,
                end: BEGIN + start + length,
                state: state_of(state),
                ticks,
                uncertainty,
                attributes,
            });
        }
        let mut marks = self.marks.clone();
        marks.sort_by_key(|mark| (mark.0 % count, mark.1));
        for (track, time, name, state) in marks {
            let attributes = self.attributes(&mut picture);
            picture.marks.push(Mark {
                track: (track % count) as u32,
                name,
                time: BEGIN + time,
                state: state_of(state),
                ticks: None,
                uncertainty: 3,
                attributes,
            });
        }
        self.join(&mut picture);
        picture
    }

    fn tracks(&self) -> Vec<Track> {
        let track = |(id, stream): (u32, &bool)| Track {
            // Two of three tracks have the same name.
            name: ["one", "one", "two"][id as usize % 3].to_owned(),
            kind: match stream {
                true => Kind::Stream {
                    device: "host".to_owned(),
                },
                false => Kind::Thread {
                    tid: 1_000 + u64::from(id),
                },
            },
        };
        (0..).zip(&self.tracks).map(track).collect()
    }

    /// Its number, and two values of any kind.
    fn attributes(&self, picture: &mut Picture) -> std::ops::Range<u32> {
        let number = (picture.slices.len() + picture.marks.len()) as u32;
        let from = picture.attributes.len() as u32;
        picture.attributes.push(Attribute {
            name: 0,
            value: Value::Unsigned(number.into()),
        });
        for (name, value) in self.values.iter().skip(2 * number as usize).take(2) {
            picture.attributes.push(Attribute {
                name: *name,
                value: *value,
            });
        }
        from..picture.attributes.len() as u32
    }

    fn join(&self, picture: &mut Picture) {
        let (slices, marks) = (picture.slices.len(), picture.marks.len());
        if slices + marks == 0 {
            return;
        }
        let end = |index: usize, within: i64| {
            let index = index % (slices + marks);
            if let Some(slice) = picture.slices.get(index) {
                return ArrowEnd {
                    track: slice.track,
                    time: (slice.start + within).min(slice.end),
                    on: On::Slice(index as u32),
                };
            }
            let mark = &picture.marks[index - slices];
            ArrowEnd {
                track: mark.track,
                time: mark.time,
                on: On::Mark((index - slices) as u32),
            }
        };
        let arrow = |(from, to, begin, ending): &(usize, usize, i64, i64)| Arrow {
            from: end(*from, *begin),
            to: end(*to, *ending),
        };
        picture.arrows = self.arrows.iter().map(arrow).collect();
    }
}

fn state_of(number: u8) -> State {
    match number {
        0 => State::Failed(3),
        1 => State::Unfinished,
        _ => State::Complete,
    }
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<i64>().prop_map(Value::Signed),
        any::<u64>().prop_map(Value::Unsigned),
        any::<f64>().prop_map(Value::Float),
        Just(Value::Float(f64::NAN)),
        Just(Value::Float(f64::NEG_INFINITY)),
        any::<bool>().prop_map(Value::Bool),
        (0..TEXTS.len() as u32).prop_map(Value::Text),
    ]
}

/// Few different times, so that many are equal and slices nest, touch and overlap.
pub(super) fn parts() -> impl Strategy<Value = Parts> {
    let text = 0..TEXTS.len() as u32;
    let ticks = proptest::option::of((any::<u64>(), any::<u64>()));
    let slice = (
        0..3usize,
        0..40i64,
        0..12i64,
        text.clone(),
        0..8u8,
        ticks,
        any::<u32>(),
    );
    let mark = (0..3usize, 0..50i64, text, 0..8u8);
    let arrow = (0..100usize, 0..100usize, 0..12i64, 0..12i64);
    (
        proptest::collection::vec(any::<bool>(), 1..4),
        proptest::collection::vec(slice, 0..24),
        proptest::collection::vec(mark, 0..8),
        proptest::collection::vec(arrow, 0..8),
        proptest::collection::vec((1..TEXTS.len() as u32, value()), 0..64),
    )
        .prop_map(|(tracks, slices, marks, arrows, values)| Parts {
            tracks,
            slices,
            marks,
            arrows,
            values,
        })
}
