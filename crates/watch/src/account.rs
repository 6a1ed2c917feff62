//! Who waits for what: what was seen, as the graph that fencepost's own timeouts tell of.
//!
//! Nothing is guessed. What cannot be seen is said to be unknown: whether a function of the program
//! has returned, what a value in memory is, what a graph does inside.

use std::{
    cell::Cell,
    collections::{HashMap, HashSet},
    sync::atomic::Ordering,
};

use fencepost::bindings::{
    self,
    waits::{self, End, Node, Step, Stop, Waiter, What, walk},
};

use crate::{
    asking::{Facts, State},
    calls::Kind,
    events::{self, EventState},
    kernel_name,
    lock::Me,
    place::Line,
    seen::{self, Awaits, Life, Mark, Point},
};

/// The streams, by their numbers.
///
/// A report asks of each stream what all those on its chain wait for, so what is asked for must not
/// be searched among all streams.
#[derive(Debug)]
pub(crate) struct Account {
    all: Vec<Facts>,
    by_number: HashMap<u64, usize>,
    /// By context, the legacy default streams that have work, and the streams that keep their
    /// order.
    legacy: HashMap<usize, Vec<usize>>,
    blocking: HashMap<usize, Vec<usize>>,
    /// By address, the pending writes of a value: the stream and the place among its points.
    writes: HashMap<u64, Vec<(usize, usize)>>,
}

/// Something of a stream that is awaited.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target<'a> {
    account: &'a Account,
    /// `None` where the stream is not kept any more.
    facts: Option<&'a Facts>,
    number: u64,
    position: u64,
    pub(crate) what: Of,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Of {
    /// All of its work, as far as it was submitted.
    Work,
    Marker(Mark),
    Write(Line),
    /// What was submitted in front, by the order of the legacy default stream.
    InFront,
}

impl waits::Mark for Target<'_> {
    fn stream(&self) -> u64 {
        self.number
    }

    fn position(&self) -> u64 {
        self.position
    }

    fn is_pending(&self) -> bool {
        // What is not known to be complete is told of, with what is not known.
        self.facts
            .is_none_or(|facts| self.position > facts.inner.complete)
    }
}

/// What ends a circle. One can only be closed by a value: an event that is awaited was recorded
/// before. Whether the host or a kernel writes that value cannot be seen.
pub(crate) const CIRCLE_ENDS: &str =
    "ends only if something that was not seen writes the value, such as the host or a kernel";

/// Where a stream stands.
#[derive(Debug)]
pub(crate) enum Front<'a> {
    /// It waits for that, or has not come so far.
    Waits(Option<&'a Point>, Target<'a>),
    /// It has this in front of it, and nobody can see whether that is over.
    At(&'a Point),
    /// It waits for that by the legacy default stream's order, or is at work of its own, behind or
    /// in front of which that is. Nobody can see which.
    Unsure(Target<'a>),
    Works,
}

impl Account {
    pub(crate) fn new(all: Vec<Facts>) -> Account {
        let mut account = Account {
            by_number: HashMap::with_capacity(all.len()),
            legacy: HashMap::new(),
            blocking: HashMap::new(),
            writes: HashMap::new(),
            all,
        };
        for (at, facts) in account.all.iter().enumerate() {
            let inner = &facts.inner;
            account.by_number.insert(inner.number, at);
            let ordered = match (inner.is_legacy(), inner.blocking) {
                (true, _) => Some(&mut account.legacy),
                (false, Some(true)) => Some(&mut account.blocking),
                _ => None,
            };
            if let Some(ordered) = ordered.filter(|_| facts.has_work()) {
                ordered.entry(inner.context).or_default().push(at);
            }
            for (place, point) in inner.points.iter().enumerate() {
                if let Awaits::Writes { address } = point.awaits
                    && point.position > inner.complete
                {
                    let writes = account.writes.entry(address).or_default();
                    writes.push((at, place));
                }
            }
        }
        account
    }

    pub(crate) fn streams(&self) -> &[Facts] {
        &self.all
    }

    /// The streams that are known to have work, and those that these wait for.
    pub(crate) fn busy(&self) -> Vec<&Facts> {
        let busy = self.all.iter().filter(|facts| facts.is_busy());
        let awaited: HashSet<u64> = busy.flat_map(awaited_by).collect();
        let is_told = |facts: &&Facts| {
            facts.is_busy() || facts.has_work() && awaited.contains(&facts.inner.number)
        };
        self.all.iter().filter(is_told).collect()
    }

    fn facts(&self, number: u64) -> Option<&Facts> {
        self.all.get(*self.by_number.get(&number)?)
    }

    pub(crate) fn target(&self, number: u64, position: u64, what: Of) -> Target<'_> {
        Target {
            account: self,
            facts: self.facts(number),
            number,
            position,
            what,
        }
    }

    /// Where the stream stands, as far as its work up to `position` is concerned: at the first of
    /// what may stop it. Where that is over, unseen, [`Account::behind`] tells what is next.
    pub(crate) fn front<'a>(&'a self, facts: &'a Facts, position: u64) -> Front<'a> {
        let inner = &facts.inner;
        let by_order = self.in_front_of(facts, position).unwrap_or(Front::Works);
        if matches!(by_order, Front::Waits(..)) {
            // It is in front of the stream's first pending work, so of all its waits.
            return by_order;
        }
        let ahead = inner
            .points
            .iter()
            .filter(|point| point.position > inner.complete && point.position <= position);
        for point in ahead {
            match point.awaits {
                Awaits::Marker(mark) => {
                    if let Some(target) = self.pending(mark) {
                        return Front::Waits(Some(point), target);
                    }
                }
                Awaits::Value { address } => {
                    return match self.writer_of(address, inner.number) {
                        Some(target) => Front::Waits(Some(point), target),
                        None => Front::At(point),
                    };
                }
                Awaits::Unseen | Awaits::Values | Awaits::Semaphore | Awaits::Host => {
                    return Front::At(point);
                }
                Awaits::NeverRecorded | Awaits::Writes { .. } => {}
            }
        }
        by_order
    }

    /// The marker, if it is not known to be complete.
    fn pending(&self, mark: Mark) -> Option<Target<'_>> {
        let target = self.target(mark.stream.number, mark.position, Of::Marker(mark));
        waits::Mark::is_pending(&target).then_some(target)
    }

    /// What the stream waits for instead where `point` is over, which nobody can see, in words that
    /// follow those of `point`.
    pub(crate) fn behind(&self, facts: &Facts, point: &Point, position: u64) -> String {
        if matches!(point.awaits, Awaits::Marker(_)) {
            return String::new();
        }
        let later = facts
            .inner
            .points
            .iter()
            .filter(|later| later.position > point.position && later.position <= position);
        let mut awaited = later.filter_map(|later| match later.awaits {
            Awaits::Marker(mark) => self.pending(mark),
            _ => None,
        });
        awaited.next().map_or_else(String::new, |target| {
            format!(", or, where that is over, waits for {}", target.words())
        })
    }

    /// The pending write of the value at an address, if a stream other than `waiting` has one.
    fn writer_of(&self, address: u64, waiting: u64) -> Option<Target<'_>> {
        let writes = self.writes.get(&address)?;
        writes.iter().find_map(|&(at, place)| {
            let inner = &self.all[at].inner;
            let point = inner.points.get(place)?;
            let target = self.target(inner.number, point.position, Of::Write(point.line));
            (inner.number != waiting).then_some(target)
        })
    }

    /// What is in front of the work up to `position`, by the legacy default stream's order:
    /// <https://docs.nvidia.com/cuda/cuda-driver-api/stream-sync-behavior.html>.
    ///
    /// Work waits for all that has a lower place in the order. It is sure that the stream waits for
    /// another where all that the other has came before the stream's first pending work. Where the
    /// two took turns, either may wait for the other.
    fn in_front_of(&self, facts: &Facts, position: u64) -> Option<Front<'_>> {
        let inner = &facts.inner;
        if position <= inner.complete {
            return None;
        }
        let ordered = match (inner.is_legacy(), inner.blocking) {
            (true, _) => self.blocking.get(&inner.context)?,
            (false, Some(true)) => self.legacy.get(&inner.context)?,
            _ => return None,
        };
        let mut unsure = None;
        for other in ordered.iter().map(|&at| &self.all[at]) {
            let of = &other.inner;
            let before = |position| of.last_before(inner.order_of(position)?);
            let last = before(position).unwrap_or(of.submitted);
            if last <= of.complete {
                continue;
            }
            let target = self.target(of.number, last, Of::InFront);
            let all_before = before(inner.complete + 1) == Some(of.submitted);
            // Of the legacy stream, the driver may say so because of the work of others.
            if all_before && other.state == State::Busy && !of.is_legacy() {
                return Some(Front::Waits(None, target));
            }
            unsure = unsure.or(Some(Front::Unsure(target)));
        }
        unsure
    }

    /// The chain from all of a stream's work to what is stuck: in words, how many streams it has,
    /// and whether it is a circle. `None` where the stream itself is at work.
    pub(crate) fn chain(&self, facts: &Facts) -> (Option<String>, usize, bool) {
        let inner = &facts.inner;
        let first = self.target(inner.number, inner.submitted, Of::Work);
        // Whether any of the streams may be elsewhere.
        let unsure = Cell::new(false);
        let (steps, stop) = walk(first, |target: &Target<'_>| {
            let facts = target.facts?;
            match target.account.front(facts, target.position) {
                Front::Waits(point, marker) => {
                    let may_be_elsewhere = |point| may_be_elsewhere(facts, point);
                    unsure.set(unsure.get() || point.is_some_and(may_be_elsewhere));
                    Some(Step {
                        marker,
                        in_work: false,
                        on_device: true,
                        // The default stream's order is in front of all that is pending.
                        after: point.map_or(facts.inner.complete, |point| point.position - 1),
                    })
                }
                _ => None,
            }
        });
        let circle = matches!(stop, Stop::Circle);
        let end = match (stop, steps.last()) {
            (Stop::Circle, _) => End::Circle(CIRCLE_ENDS),
            (Stop::NoWait, Some(last)) => self.end(&last.marker),
            _ => End::GoesOn,
        };
        let mut text = waits::tell(steps.len(), |at| node(&steps[at].marker), true, &end).text;
        if let (Some(text), Some(last)) = (&mut text, steps.last())
            && let Some(facts) = last.marker.facts
            && facts.inner.last.kind == Kind::Launch
            && !circle
        {
            let kernel = kernel_name::readable(&facts.inner.last.symbol);
            text.push_str(&format!(". The last kernel launched there is {kernel}"));
        }
        if let Some(text) = text.as_mut().filter(|_| unsure.get()) {
            text.push_str(". Some of these streams may be elsewhere, as their lines say");
        }
        (text, steps.len(), circle)
    }

    fn end(&self, target: &Target<'_>) -> End {
        let Some(facts) = target.facts else {
            return End::Other("was destroyed long ago, so nothing is known of it".into());
        };
        let inner = &facts.inner;
        if let Front::At(point) = self.front(facts, target.position) {
            let behind = self.behind(facts, point, target.position);
            return End::Other(words_of(facts, point, target.position) + &behind);
        }
        if let Front::Unsure(target) = self.front(facts, target.position) {
            return End::Other(target.unsure_words());
        }
        match &facts.state {
            _ if inner.life == Life::Destroyed => End::Other(facts.destroyed_words().into()),
            State::Failed(code) => End::Other(format!("has failed: the driver says error {code}")),
            State::NotAsked(why) => End::Other(format!(
                "has work of which nobody knows whether it is done: {why}"
            )),
            _ => match target.what {
                Of::Marker(_) => End::Native {
                    complete: complete_markers(facts),
                },
                _ => End::Other(format!(
                    "has {} pending",
                    pieces(target.position.saturating_sub(inner.complete))
                )),
            },
        }
    }
}

/// Whether a stream may be in front of or behind the wait at `point`.
fn may_be_elsewhere(facts: &Facts, point: &Point) -> bool {
    others(facts, point.position, point.position) > 0 || !matches!(point.awaits, Awaits::Marker(_))
}

/// The streams of the records that a stream has yet to wait for.
fn awaited_by(facts: &Facts) -> impl Iterator<Item = u64> {
    let inner = &facts.inner;
    let ahead = |point: &&Point| point.position > inner.complete;
    let points = inner.points.iter().filter(ahead);
    points.filter_map(|point| match point.awaits {
        Awaits::Marker(mark) => Some(mark.stream.number),
        _ => None,
    })
}

/// The last of the stream's markers that is complete.
pub(crate) fn complete_markers(facts: &Facts) -> u64 {
    let marks = facts.inner.marks.iter().rev();
    let mut complete = marks.filter(|mark| mark.position <= facts.inner.complete);
    complete.next().map_or(0, |mark| mark.value)
}

/// What `facts` has at `point`, as what a stream does: `waits for a value in memory`.
pub(crate) fn words_of(facts: &Facts, point: &Point, position: u64) -> String {
    let what = match point.awaits {
        Awaits::Host => "is in a function of the program that the driver calls (cuLaunchHostFunc)",
        Awaits::Value { address } if writes(facts, address) => {
            "waits for a value in memory (cuStreamWaitValue), which only its own work is seen to \
             write"
        }
        Awaits::Value { .. } => {
            "waits for a value in memory (cuStreamWaitValue), which no stream that was seen writes"
        }
        Awaits::Values => "may wait for values in memory (cuStreamBatchMemOp)",
        Awaits::Semaphore => "waits for an external semaphore",
        _ => {
            "waits for an event that was recorded where it cannot be seen (another process, a \
             graph, a whole context, or while nothing was followed)"
        }
    };
    let others = others(facts, point.position, position);
    let line = point.line.after("submitted");
    match others {
        0 => format!("{what}{line}"),
        _ => format!("{what}{line}, or is at the {} around that", pieces(others)),
    }
}

/// Whether the stream has a pending write of the value at an address.
fn writes(facts: &Facts, address: u64) -> bool {
    let inner = &facts.inner;
    inner.points.iter().any(|point| {
        point.position > inner.complete
            && matches!(point.awaits, Awaits::Writes { address: of } if of == address)
    })
}

/// How many pieces of work, other than records and the one at `point`, are not known to be complete
/// up to `position`.
pub(crate) fn others(facts: &Facts, point: u64, position: u64) -> u64 {
    let inner = &facts.inner;
    let range = |at: u64| at > inner.complete && at <= position;
    let all = position.saturating_sub(inner.complete);
    let records = inner
        .marks
        .iter()
        .filter(|mark| range(mark.position))
        .count() as u64;
    all.saturating_sub(records + u64::from(range(point)))
}

pub(crate) fn pieces(count: u64) -> String {
    match count {
        1 => "1 piece of work".into(),
        count => format!("{count} pieces of work"),
    }
}

/// `stream 3`, or `stream 1 "default"`.
pub(crate) fn short(facts: &Facts) -> String {
    let inner = &facts.inner;
    let number = inner.number;
    match (inner.is_legacy(), inner.thread) {
        (true, _) => format!("stream {number} \"default\""),
        (false, 0) => format!("stream {number}"),
        (false, thread) => format!("stream {number} \"default of thread {thread}\""),
    }
}

pub(crate) fn full(facts: &Facts) -> String {
    match facts.device {
        Some(device) => format!("{} of cuda:{device}", short(facts)),
        None => short(facts),
    }
}

fn node(target: &Target<'_>) -> Node {
    let (stream, full) = match target.facts {
        Some(facts) => (short(facts), full(facts)),
        None => {
            let name = format!("stream {}, which was destroyed", target.number);
            (name.clone(), name)
        }
    };
    let (what, line, value) = match target.what {
        Of::Marker(mark) => (What::Marker, mark.line, mark.value),
        Of::Write(line) => (
            What::Other("a value in memory that a write sets on".into()),
            line,
            0,
        ),
        Of::InFront => (
            What::Other("what came before it, by the default stream's order, on".into()),
            Line::UNKNOWN,
            0,
        ),
        Of::Work => (What::Other("the work of".into()), Line::UNKNOWN, 0),
    };
    Node {
        stream,
        full,
        value,
        at: line.0.unwrap_or_else(bindings::unknown_place),
        what,
        waiter: Waiter::Stream,
    }
}

impl Target<'_> {
    /// What it is, behind `waits for`.
    pub(crate) fn words(&self) -> String {
        let node = node(self);
        node.to_string().trim_start_matches(" for ").to_owned()
    }

    /// Of a wait of which it is unknown whether it is the stream's.
    pub(crate) fn unsure_words(&self) -> String {
        format!(
            "waits for {}, or is at work of its own: which of the two is unknown",
            self.words()
        )
    }

    /// What one would not expect of a record that is awaited.
    pub(crate) fn remark(&self) -> Option<String> {
        let Of::Marker(mark) = self.what else {
            return None;
        };
        match events::event(Me::get(), mark.event) {
            Some(EventState::Recorded(now)) if now.is(&mark) => None,
            Some(EventState::Recorded(now)) => Some(format!(
                "that event was recorded again since, as marker {} of stream {}: this wait is for \
                 the earlier record",
                now.value, now.stream.number
            )),
            Some(EventState::Captured(_) | EventState::Unseen) => Some(
                "that event was recorded again since, where it cannot be seen: this wait is for \
                 the earlier record"
                    .into(),
            ),
            Some(EventState::Elsewhere) => Some(
                "a graph or another process may have recorded that event again since: this wait \
                 is for the earlier record"
                    .into(),
            ),
            None => Some("that event was destroyed since".into()),
        }
    }
}

/// How many waits were for events that nothing had recorded.
pub(crate) fn never_recorded() -> u64 {
    seen::NEVER_RECORDED.load(Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        lock::Lock,
        seen::{Inner, Stream, StreamOf},
    };

    const HERE: (Line, u64) = (Line::UNKNOWN, 0);

    /// A stream that the driver says is busy.
    fn busy(number: u64) -> Facts {
        let mut inner = Inner::new();
        (inner.number, inner.handle, inner.life) = (number, number as usize, Life::Alive);
        let entry: &Stream = Box::leak(Box::new(Stream(Lock::new(Inner::new()))));
        Facts {
            of: StreamOf { entry, number },
            inner,
            state: State::Busy,
            has_pending_record: false,
            device: Some(0),
        }
    }

    fn launch(facts: &mut Facts) {
        facts.inner.submit(Kind::Launch, HERE);
    }

    fn record(facts: &mut Facts) -> Mark {
        let position = facts.inner.submit(Kind::Record, HERE).unwrap();
        facts.inner.mark(facts.of.entry, position, 0x77)
    }

    fn stop(facts: &mut Facts, awaits: Awaits) {
        let position = facts.inner.submit(Kind::Wait, HERE).unwrap();
        facts.inner.stop_at(position, awaits, Line::UNKNOWN);
    }

    /// Each is told to its end, so this takes as many steps as there are pairs of streams.
    #[test]
    fn a_chain_of_thousands_of_streams_is_told() {
        let mut all: Vec<Facts> = (1..=2000).map(busy).collect();
        launch(&mut all[0]);
        for at in 1..all.len() {
            let mark = record(&mut all[at - 1]);
            stop(&mut all[at], Awaits::Marker(mark));
        }
        let account = Account::new(all);
        let chains: Vec<_> = account
            .all
            .iter()
            .map(|facts| account.chain(facts))
            .collect();
        let (text, streams, circle) = chains.last().unwrap();
        let text = text.as_deref().unwrap();
        assert_eq!((*streams, *circle), (2000, false));
        assert!(
            text.contains("stuck is stream 1 of cuda:0 (1998 streams lie between)"),
            "{text}"
        );
        assert!(
            text.contains("stream 2000 waits for marker 1 of stream 1999"),
            "{text}"
        );
    }

    #[test]
    fn the_first_of_a_streams_waits_is_told() {
        for first in [Awaits::Value { address: 64 }, Awaits::Host, Awaits::Unseen] {
            let (mut a, mut b) = (busy(1), busy(2));
            launch(&mut b);
            stop(&mut a, first);
            stop(&mut a, Awaits::Marker(record(&mut b)));
            let account = Account::new(vec![a, b]);
            let front = account.front(&account.all[0], 2);
            assert!(
                matches!(front, Front::At(point) if point.position == 1),
                "{front:?}"
            );
        }
        // What is behind a wait for a record cannot have begun.
        let (mut a, mut b) = (busy(1), busy(2));
        launch(&mut b);
        stop(&mut a, Awaits::Marker(record(&mut b)));
        stop(&mut a, Awaits::Host);
        let account = Account::new(vec![a, b]);
        let front = account.front(&account.all[0], 2);
        assert!(
            matches!(front, Front::Waits(Some(point), _) if point.position == 1),
            "{front:?}"
        );
    }

    #[test]
    fn a_destroyed_stream_is_told_where_its_work_is_pending_or_awaited() {
        let (mut a, mut b, mut c) = (busy(1), busy(2), busy(3));
        for facts in [&mut a, &mut b, &mut c] {
            launch(facts);
            facts.inner.life = Life::Destroyed;
            facts.state = State::NotAsked("it was destroyed");
        }
        let mark = record(&mut a);
        b.has_pending_record = true;
        let told = |all: &[Facts]| -> Vec<u64> {
            let account = Account::new(all.to_vec());
            let told = account.busy().into_iter();
            told.map(|facts| facts.inner.number).collect()
        };
        let all = [a, b, c];
        assert_eq!(told(&all), [2]);
        let mut waits = busy(4);
        stop(&mut waits, Awaits::Marker(mark));
        let all: Vec<Facts> = all.into_iter().chain([waits]).collect();
        assert_eq!(told(&all), [1, 2, 4]);
    }

    #[test]
    fn a_stream_does_not_wait_for_its_own_write() {
        let mut a = busy(1);
        stop(&mut a, Awaits::Value { address: 64 });
        stop(&mut a, Awaits::Writes { address: 64 });
        let account = Account::new(vec![a]);
        let front = account.front(&account.all[0], 2);
        let Front::At(point) = front else {
            panic!("{front:?}")
        };
        let words = words_of(&account.all[0], point, 2);
        assert!(
            words.contains("which only its own work is seen to write"),
            "{words}"
        );
        assert!(!account.chain(&account.all[0]).2);
    }

    #[test]
    fn an_external_semaphore_is_told_as_what_it_is() {
        let mut a = busy(1);
        stop(&mut a, Awaits::Semaphore);
        launch(&mut a);
        let account = Account::new(vec![a]);
        let Front::At(point) = account.front(&account.all[0], 2) else {
            panic!("the semaphore is in front")
        };
        assert_eq!(
            words_of(&account.all[0], point, 2),
            "waits for an external semaphore, or is at the 1 piece of work around that"
        );
    }

    #[test]
    fn a_circle_through_a_value_is_not_said_to_have_no_end() {
        let (mut a, mut b) = (busy(1), busy(2));
        stop(&mut a, Awaits::Value { address: 64 });
        stop(&mut b, Awaits::Marker(record(&mut a)));
        stop(&mut b, Awaits::Writes { address: 64 });
        let account = Account::new(vec![a, b]);
        let (text, _, circle) = account.chain(&account.all[0]);
        let text = text.unwrap();
        assert!(circle && !text.contains("never ends"), "{text}");
    }

    /// Two streams of one context in the order of the legacy default stream: that one and another.
    fn in_order() -> (Facts, Facts) {
        seen::created(0x20, 0xa000, true, Line::UNKNOWN);
        seen::destroyed(0x20, 0xa000);
        let (mut legacy, mut blocking) = (busy(1), busy(2));
        (legacy.inner.handle, blocking.inner.blocking) = (0, Some(true));
        (legacy, blocking)
    }

    #[test]
    fn a_stream_waits_by_the_default_streams_order_for_what_was_submitted_before() {
        let (mut legacy, mut blocking) = in_order();
        launch(&mut blocking);
        launch(&mut legacy);
        let account = Account::new(vec![legacy, blocking]);
        let [legacy, blocking] = account.streams() else {
            panic!("two streams")
        };
        let front = account.front(legacy, 1);
        assert!(
            matches!(front, Front::Waits(None, of) if (of.number, of.position) == (2, 1)),
            "{front:?}"
        );
        assert!(matches!(account.front(blocking, 1), Front::Works));
    }

    #[test]
    fn where_streams_took_turns_it_is_unknown_which_of_them_waits() {
        let (mut legacy, mut blocking) = in_order();
        launch(&mut blocking);
        launch(&mut legacy);
        launch(&mut blocking);
        let account = Account::new(vec![legacy, blocking]);
        let [legacy, blocking] = account.streams() else {
            panic!("two streams")
        };
        for (facts, position) in [(legacy, 1), (blocking, 2)] {
            let front = account.front(facts, position);
            assert!(matches!(front, Front::Unsure(_)), "{front:?}");
        }
        // What came before all of the other's work waits for none of it.
        assert!(matches!(account.front(blocking, 1), Front::Works));
    }

    #[test]
    fn what_is_complete_is_not_waited_for_by_the_order() {
        let (mut legacy, mut blocking) = in_order();
        launch(&mut blocking);
        launch(&mut legacy);
        launch(&mut blocking);
        blocking.inner.complete = 1;
        let account = Account::new(vec![legacy, blocking]);
        let [legacy, blocking] = account.streams() else {
            panic!("two streams")
        };
        assert!(matches!(account.front(legacy, 1), Front::Works));
        let front = account.front(blocking, 2);
        assert!(
            matches!(front, Front::Unsure(target) if target.number == 1),
            "{front:?}"
        );
    }
}
