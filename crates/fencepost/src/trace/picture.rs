//! What a trace has collected, as plain data: what a writer of a file gets.
//!
//! All times are nanoseconds on one axis, that of `CLOCK_BOOTTIME`, on which the files of all
//! processes since the system started join. Where a system has no such clock, the axis is the best
//! that it has: see [`ClockReading`].
//!
//! Numbers are indices into the lists of the [`Picture`]. A writer may rely on what is said here
//! of order and of nesting, and on nothing else.

use std::ops::Range;

/// Everything that a trace has collected at one moment.
#[derive(Clone, Debug, Default)]
pub struct Picture {
    pub process: ProcessFacts,
    pub clocks: ClockReading,
    pub tracks: Vec<Track>,
    /// In the order of track, then of start; of equal starts, the one that was begun first comes
    /// first. So where slices of a track nest, the outer is in front of the inner. They may overlap
    /// without nesting: on a stream that several threads use, or where a span of a thread was ended
    /// out of order or on another thread.
    pub slices: Vec<Slice>,
    /// In the order of track, then of time.
    pub marks: Vec<Mark>,
    pub arrows: Vec<Arrow>,
    /// Each text once: names of slices, marks and attributes, values of attributes, failures.
    pub texts: Vec<String>,
    pub attributes: Vec<Attribute>,
    /// How many spans and marks are missing: there was no room for them, or they could not be
    /// recorded.
    pub dropped: u64,
}

/// The process that a trace was collected in.
#[derive(Clone, Debug, Default)]
pub struct ProcessFacts {
    pub pid: u32,
    pub name: String,
    /// Tells this process and trace from all others, also from those with the same `pid`: for the
    /// identifiers in files that are joined.
    pub unique: u64,
}

/// The clocks of the host at one moment, in nanoseconds: `CLOCK_BOOTTIME`, `CLOCK_MONOTONIC` and
/// `CLOCK_REALTIME`, read within some hundred nanoseconds.
///
/// On systems without `CLOCK_BOOTTIME`, `boottime` is what [`std::time::Instant`] counts there,
/// moved so that it was the time since 1970 when the trace was made, and `monotonic` is the same
/// number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClockReading {
    pub boottime: i64,
    pub monotonic: i64,
    pub realtime: i64,
}

/// One row: what happened on a stream or on a thread.
#[derive(Clone, Debug)]
pub struct Track {
    /// As in `stream 3 "load"`, or a thread's name.
    pub name: String,
    pub kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A stream of the device of this name: `cuda:0`.
    Stream { device: String },
    /// A thread of the process, by its number in the system where that has one.
    Thread { tid: u64 },
}

/// A span.
#[derive(Clone, Debug)]
pub struct Slice {
    pub track: u32,
    /// Of a text.
    pub name: u32,
    pub start: i64,
    /// Never earlier than `start`. Of a span that is not complete, the last moment that is known of
    /// it: when the failure was seen, or when the picture was taken.
    pub end: i64,
    pub state: State,
    /// The device's clock at the start and at the end, where it counts ticks that can be read, and
    /// the span is complete.
    pub ticks: Option<(u64, u64)>,
    /// How far `start` and `end` may be from the truth on this axis, in nanoseconds, or the
    /// largest number for more. The length of the slice is far more exact than that.
    pub uncertainty: u32,
    /// Of attributes.
    pub attributes: Range<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Complete,
    /// The stream failed; the number is of the text that says why.
    Failed(u32),
    /// It was begun and has not ended, or its end is not complete yet.
    Unfinished,
}

/// One moment.
#[derive(Clone, Debug)]
pub struct Mark {
    pub track: u32,
    /// Of a text.
    pub name: u32,
    pub time: i64,
    pub state: State,
    pub ticks: Option<u64>,
    /// As in [`Slice`].
    pub uncertainty: u32,
    /// Of attributes.
    pub attributes: Range<u32>,
}

/// A wait: from what was awaited to what waited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrow {
    pub from: ArrowEnd,
    pub to: ArrowEnd,
}

/// Every arrow begins and ends at a slice or a mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArrowEnd {
    pub track: u32,
    /// Within the slice, or that of the mark.
    pub time: i64,
    pub on: On,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum On {
    Slice(u32),
    Mark(u32),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Attribute {
    /// Of a text.
    pub name: u32,
    pub value: Value,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    Signed(i64),
    Unsigned(u64),
    /// Any, also an infinite one and NaN.
    Float(f64),
    Bool(bool),
    /// Of a text.
    Text(u32),
}
