//! A trace in Chrome's format, for whatever reads that.
//!
//! Times are microseconds from about the first moment of the trace, since readers keep them as
//! floats: of times since 1970 they round to a quarter of a microsecond.
//!
//! A slice is one event with a length, since a reader may match begins and ends of all threads
//! against each other. Readers add begin and length as floats. So the length is the float with
//! which that gives the end: else, of slices that touch, the first could end after the second
//! begins.
//!
//! Every event has a category, and those that describe rows have the time 0, as Chrome writes them:
//! there are readers that take nothing less. What has no arguments has no object for them, which a
//! reader would show behind the name.
//!
//! # References
//! - <https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU>

use std::{
    borrow::Cow,
    collections::HashSet,
    io::{self, Write},
    ops::Range,
};

use serde::{Serialize, Serializer, ser::SerializeMap as _};
use serde_json::ser::{CharEscape, CompactFormatter, Formatter};

use super::{
    flows::Flows,
    identifiers,
    lanes::{Lane, Lanes, Step},
    names::{self, Keys},
    picture::{Attribute, Kind, On, Picture, State, Value},
};

/// Where the numbers of rows begin that are no threads: above those that Linux gives to threads.
const ROWS: u64 = 1 << 30;

/// The largest whole number up to which a float has every one.
const EXACT: u64 = 1 << 53;

pub(super) fn write(picture: &Picture, out: &mut dyn Write) -> io::Result<()> {
    let lanes = Lanes::of(picture, |_, _| ());
    let flows = Flows::of(picture);
    let mut file = File {
        picture,
        out,
        rows: rows(picture, &lanes),
        lanes: &lanes,
        flows: &flows,
        keys: &Keys::new(picture, str::to_owned),
        origin: origin(picture),
        first: true,
    };
    file.head()?;
    let mut result = Ok(());
    Lanes::of(picture, |lane, step| {
        if result.is_ok() {
            result = file.step(lane, step);
        }
    });
    result?;
    file.late()?;
    file.out.write_all(b"\n]}\n")
}

struct File<'a> {
    picture: &'a Picture,
    out: &'a mut dyn Write,
    lanes: &'a Lanes,
    /// The `tid` of each lane.
    rows: Vec<u64>,
    flows: &'a Flows,
    keys: &'a Keys,
    origin: i64,
    first: bool,
}

#[derive(Default, Serialize)]
struct Event<'a> {
    ph: &'static str,
    pid: u32,
    tid: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    ts: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dur: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<Cow<'a, str>>,
    cat: &'static str,
    /// Of an arrow. As text, since floats have no place for it; readers take hexadecimal digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    /// Of an arrow's end: that it is on the slice around it.
    #[serde(skip_serializing_if = "Option::is_none")]
    bp: Option<&'static str>,
    /// Of an instant: that it is on its row only.
    #[serde(skip_serializing_if = "Option::is_none")]
    s: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    args: Option<Args<'a>>,
}

impl<'a> File<'a> {
    /// The origin and the clocks, and what the rows are called.
    fn head(&mut self) -> io::Result<()> {
        #[derive(Serialize)]
        struct Other {
            origin_boottime_ns: String,
            snapshot_boottime_ns: String,
            snapshot_monotonic_ns: String,
            snapshot_realtime_ns: String,
            dropped: u64,
        }
        let clocks = self.picture.clocks;
        let other = Other {
            origin_boottime_ns: self.origin.to_string(),
            snapshot_boottime_ns: clocks.boottime.to_string(),
            snapshot_monotonic_ns: clocks.monotonic.to_string(),
            snapshot_realtime_ns: clocks.realtime.to_string(),
            dropped: self.picture.dropped,
        };
        self.out
            .write_all(b"{\"displayTimeUnit\":\"ns\",\"otherData\":")?;
        serde_json::to_writer(&mut *self.out, &other)?;
        self.out.write_all(b",\"traceEvents\":[")?;

        let process = self.picture.process.name.as_str();
        self.describe(0, "process_name", Fact::Text("name", process.into()))?;
        if self.picture.dropped > 0 {
            let text = format!("{} dropped", self.picture.dropped);
            self.describe(0, "process_labels", Fact::Text("labels", text.into()))?;
        }
        let lanes = self.lanes;
        for (number, lane) in lanes.lanes.iter().enumerate() {
            let title = names::title(&self.picture.tracks[lane.track as usize], *lane);
            let row = self.rows[number];
            self.describe(row, "thread_name", Fact::Text("name", title.into()))?;
            self.describe(
                row,
                "thread_sort_index",
                Fact::Number("sort_index", number as u64),
            )?;
        }
        Ok(())
    }

    fn describe(&mut self, row: u64, what: &'static str, fact: Fact<'_>) -> io::Result<()> {
        self.put(&Event {
            ph: "M",
            tid: row,
            ts: Some(0.0),
            name: Some(what.into()),
            cat: "__metadata",
            args: self.args([fact], 0..0),
            ..self.event()
        })
    }

    fn args<'b>(
        &self,
        facts: impl IntoIterator<Item = Fact<'b>>,
        attributes: Range<u32>,
    ) -> Option<Args<'b>>
    where
        'a: 'b,
    {
        let args = Args {
            picture: self.picture,
            facts: facts.into_iter().collect(),
            attributes: names::attributes(self.picture, attributes),
            keys: self.keys,
        };
        (!args.facts.is_empty() || !args.attributes.is_empty()).then_some(args)
    }

    fn event<'b>(&self) -> Event<'b> {
        Event {
            pid: self.picture.process.pid,
            ..Event::default()
        }
    }

    fn put(&mut self, event: &Event<'_>) -> io::Result<()> {
        let between: &[u8] = if self.first { b"\n" } else { b",\n" };
        self.first = false;
        self.out.write_all(between)?;
        let mut serializer = serde_json::Serializer::with_formatter(&mut *self.out, Escaping);
        Ok(event.serialize(&mut serializer)?)
    }

    fn microseconds(&self, time: i64) -> f64 {
        (time - self.origin) as f64 / 1e3
    }

    fn step(&mut self, lane: Lane, step: Step) -> io::Result<()> {
        let tid = self.rows[self.lanes.index(lane)];
        let picture = self.picture;
        match step {
            Step::Begin(number, _) => {
                let slice = &picture.slices[number as usize];
                let ticks = slice.ticks.map(|(start, end)| {
                    [(names::START_TICKS, start), (names::END_TICKS, end)]
                        .map(|(n, t)| Fact::Number(n, t))
                });
                let facts = facts(
                    picture,
                    ticks.into_iter().flatten(),
                    slice.state,
                    slice.uncertainty,
                );
                let ts = self.microseconds(slice.start);
                self.put(&Event {
                    ph: "X",
                    tid,
                    ts: Some(ts),
                    dur: Some(length(ts, self.microseconds(slice.end.max(slice.start)))),
                    name: Some(names::of(picture, slice.name, slice.state)),
                    cat: category(slice.state),
                    args: self.args(facts, slice.attributes.clone()),
                    ..self.event()
                })?;
                self.arrows(On::Slice(number), tid, slice.start)
            }
            Step::End(_) => Ok(()),
            Step::Mark(number, _) => self.mark(number, tid),
        }
    }

    /// An instant, or a slice without length where an arrow is on it: arrows are on slices only.
    fn mark(&mut self, number: u32, tid: u64) -> io::Result<()> {
        let picture = self.picture;
        let mark = &picture.marks[number as usize];
        let arrows = self.flows.at(On::Mark(number)).next().is_some();
        let ticks = mark.ticks.map(|ticks| Fact::Number(names::TICKS, ticks));
        let facts = facts(picture, ticks, mark.state, mark.uncertainty);
        self.put(&Event {
            ph: if arrows { "X" } else { "i" },
            s: (!arrows).then_some("t"),
            dur: arrows.then_some(0.0),
            tid,
            ts: Some(self.microseconds(mark.time)),
            name: Some(names::of(picture, mark.name, mark.state)),
            cat: category(mark.state),
            args: self.args(facts, mark.attributes.clone()),
            ..self.event()
        })?;
        self.arrows(On::Mark(number), tid, mark.time)
    }

    /// The ends of arrows on what has just begun.
    fn arrows(&mut self, on: On, tid: u64, time: i64) -> io::Result<()> {
        let flows = self.flows;
        for arrow in flows.at(on) {
            let begins = self.picture.arrows[arrow as usize].from.on == on;
            self.arrow(arrow, begins, tid, time)?;
        }
        Ok(())
    }

    fn arrow(&mut self, arrow: u32, begins: bool, tid: u64, time: i64) -> io::Result<()> {
        self.put(&Event {
            ph: if begins { "s" } else { "f" },
            bp: if begins { None } else { Some("e") },
            tid,
            ts: Some(self.microseconds(time)),
            name: Some("wait".into()),
            cat: "wait",
            id: Some(format!("{:#x}", identifiers::arrow(self.picture, arrow))),
            ..self.event()
        })
    }

    /// The ends of arrows that have an instant of their own.
    fn late(&mut self) -> io::Result<()> {
        for late in &self.flows.late {
            let lane = late.lane(self.picture, self.lanes);
            let tid = self.rows[lane];
            self.put(&Event {
                ph: "X",
                tid,
                ts: Some(self.microseconds(late.time)),
                dur: Some(0.0),
                name: Some("wait".into()),
                cat: "wait",
                ..self.event()
            })?;
            self.arrow(late.arrow, false, tid, late.time)?;
        }
        Ok(())
    }
}

/// A microsecond before the first moment: of what begins at 0, a reader takes no notice when it
/// looks for the begin of the trace.
pub(super) fn origin(picture: &Picture) -> i64 {
    let slices = picture.slices.iter().map(|slice| slice.start);
    let marks = picture.marks.iter().map(|mark| mark.time);
    slices.chain(marks).min().unwrap_or(picture.clocks.boottime) - 1_000
}

/// The float that makes `start` `end` when it is added, as readers do that.
pub(super) fn length(start: f64, end: f64) -> f64 {
    let mut length = end - start;
    // The difference is rounded, too: there is one beside it at most.
    while start + length > end {
        length = length.next_down();
    }
    while start + length < end && start + length.next_up() <= end {
        length = length.next_up();
    }
    length
}

/// The number of each lane's row: that of its thread, or one of our own.
fn rows(picture: &Picture, lanes: &Lanes) -> Vec<u64> {
    let mut taken = HashSet::new();
    let row = |(number, lane): (u64, &Lane)| {
        let own = ROWS + number;
        match picture.tracks[lane.track as usize].kind {
            Kind::Thread { tid } if lane.number == 0 && (1..ROWS).contains(&tid) => {
                // A thread may get the number of one that has ended.
                if taken.insert(tid) { tid } else { own }
            }
            _ => own,
        }
    };
    (0..).zip(&lanes.lanes).map(row).collect()
}

fn category(state: State) -> &'static str {
    match state {
        State::Complete => "complete",
        State::Failed(_) => "failed",
        State::Unfinished => "unfinished",
    }
}

/// What we say of a slice or mark ourselves.
enum Fact<'a> {
    Number(&'static str, u64),
    Text(&'static str, Cow<'a, str>),
}

fn facts<'a>(
    picture: &'a Picture,
    ticks: impl IntoIterator<Item = Fact<'a>>,
    state: State,
    uncertainty: u32,
) -> impl Iterator<Item = Fact<'a>> {
    let failure = match state {
        State::Failed(why) => Some(Fact::Text(
            "failure",
            picture.texts[why as usize].as_str().into(),
        )),
        _ => None,
    };
    let uncertainty =
        (uncertainty != 0).then(|| Fact::Number(names::UNCERTAINTY, uncertainty.into()));
    ticks.into_iter().chain(failure).chain(uncertainty)
}

/// An object: facts, then attributes.
struct Args<'a> {
    picture: &'a Picture,
    facts: Vec<Fact<'a>>,
    attributes: &'a [Attribute],
    keys: &'a Keys,
}

impl<'a> Args<'a> {
    /// The name of an attribute.
    fn key(&self, number: usize) -> Cow<'a, str> {
        let text = self.picture.texts[self.attributes[number].name as usize].as_str();
        match self.keys.before(self.attributes, number) {
            0 => text.into(),
            before => names::again(text, before).into(),
        }
    }
}

impl Serialize for Args<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for fact in &self.facts {
            match fact {
                Fact::Number(name, number) => map.serialize_entry(name, &Exact(*number))?,
                Fact::Text(name, text) => map.serialize_entry(name, text)?,
            }
        }
        for (number, attribute) in self.attributes.iter().enumerate() {
            let key = self.key(number);
            match attribute.value {
                Value::Signed(value) if value.unsigned_abs() <= EXACT => {
                    map.serialize_entry(&key, &value)?;
                }
                Value::Signed(value) => map.serialize_entry(&key, &value.to_string())?,
                Value::Unsigned(value) => map.serialize_entry(&key, &Exact(value))?,
                // JSON has neither infinity nor NaN. A reader drops what stands behind them.
                Value::Float(value) if value.is_finite() => map.serialize_entry(&key, &value)?,
                Value::Float(value) => map.serialize_entry(&key, &value.to_string())?,
                Value::Bool(value) => map.serialize_entry(&key, &value)?,
                Value::Text(text) => {
                    map.serialize_entry(&key, &self.picture.texts[text as usize])?;
                }
            }
        }
        map.end()
    }
}

/// Perfetto's reader refuses a file with a string that ends in an escaped backslash: it takes the
/// quote behind that for an escaped one. So a backslash is written by its number.
struct Escaping;

impl Formatter for Escaping {
    fn write_char_escape<W>(&mut self, writer: &mut W, escape: CharEscape) -> io::Result<()>
    where
        W: ?Sized + Write,
    {
        match escape {
            CharEscape::ReverseSolidus => writer.write_all(b"\\u005c"),
            other => CompactFormatter.write_char_escape(writer, other),
        }
    }
}

/// A number, as text where a reader's float has no place for it.
struct Exact(u64);

impl Serialize for Exact {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            0..=EXACT => serializer.serialize_u64(self.0),
            _ => serializer.collect_str(&self.0),
        }
    }
}
