//! A small model of streams and events, and a comparison of a device with it.
//!
//! The model keeps a list of items for each stream. After every step it computes anew how far each
//! list can have come: an item is passed if everything before it is passed, and its gate is open or
//! its marker is passed. The test waits for what must be complete. What must be pending must not be
//! complete. The log that the work writes must respect every order that follows from the model.

use std::{
    collections::BTreeSet,
    future::{Future as _, IntoFuture as _},
    pin::pin,
    sync::mpsc::{self, Receiver},
    task::{Context, Poll, Waker},
    time::Duration,
};

use fencepost::{
    Device, Error, Event, Marker, Status, Stream,
    testing::{
        Mutant, mutated,
        work::{self, Gate, Log},
    },
};
use proptest::{
    prelude::*,
    strategy::ValueTree,
    test_runner::{Config, TestRunner},
};

const STREAMS: usize = 4;
const EVENTS: usize = 4;

/// One step of a random run. A number chooses an object modulo how many there are.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Op {
    Work(usize),
    Gate(usize),
    Open(usize),
    Record(usize, usize),
    Wait(usize, usize),
    Query(usize),
    Synchronize(usize),
    Replace(usize),
    Fail(usize),
    ClearError(usize),
    /// Begins to await an event, and gives up.
    Cancel(usize),
    /// Waits for an event for a moment only.
    Deadline(usize),
    /// Asks to be called when an event is over.
    Callback(usize),
    /// Uses everything in a forked child. An error is a good answer there, a hang is not.
    #[allow(dead_code)] // Only for fuzzing: it costs more than all the others.
    Fork(usize),
}

pub(crate) fn ops() -> impl Strategy<Value = Vec<Op>> {
    let n = 0..64_usize;
    let op = prop_oneof![
        6 => n.clone().prop_map(Op::Work),
        3 => n.clone().prop_map(Op::Gate),
        3 => n.clone().prop_map(Op::Open),
        6 => (n.clone(), n.clone()).prop_map(|(e, s)| Op::Record(e, s)),
        6 => (n.clone(), n.clone()).prop_map(|(e, s)| Op::Wait(e, s)),
        3 => n.clone().prop_map(Op::Query),
        2 => n.clone().prop_map(Op::Synchronize),
        1 => n.clone().prop_map(Op::Replace),
        1 => n.clone().prop_map(Op::Fail),
        1 => n.clone().prop_map(Op::ClearError),
        2 => n.clone().prop_map(Op::Cancel),
        1 => n.clone().prop_map(Op::Deadline),
        2 => n.prop_map(Op::Callback),
    ];
    prop::collection::vec(op, 1..80)
}

#[derive(Clone, Copy)]
enum Item {
    Work(u32),
    Gate(usize),
    Mark,
    Wait(usize),
    Fail,
    /// Everything before it is over: complete, failed or skipped.
    Cleared,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Pending,
    Complete,
    Failed,
}

#[derive(Default)]
struct Model {
    streams: [Vec<Item>; STREAMS],
    /// When each item was submitted, counted over all streams.
    turns: [Vec<usize>; STREAMS],
    submitted: usize,
    /// The first of the streams that each shares a hardware queue with: such streams share its
    /// order, so what holds one up holds up what is submitted to the others later.
    queues: [usize; STREAMS],
    gates: Vec<bool>,
    /// Where each marker stands: stream and index.
    markers: Vec<(usize, usize)>,
    work: u32,
}

impl Model {
    fn push(&mut self, stream: usize, item: Item) {
        self.streams[stream].push(item);
        self.turns[stream].push(self.submitted);
        self.submitted += 1;
    }

    /// How every item of every stream ends.
    fn fates(&self) -> Vec<Vec<Fate>> {
        // With every gate open: a gate behind a failure is never submitted, and holds nothing up.
        let at_last = self.fates_if(|_| true, &[usize::MAX; STREAMS]);
        let mut held_from = [usize::MAX; STREAMS];
        loop {
            let fates = self.fates_if(|gate| self.gates[gate], &held_from);
            let before = held_from;
            for (stream, items) in self.streams.iter().enumerate() {
                for (index, item) in items.iter().enumerate() {
                    let before = index.checked_sub(1).map(|index| at_last[stream][index]);
                    let submitted = before.unwrap_or(Fate::Complete) == Fate::Complete;
                    let holds = match *item {
                        Item::Gate(gate) => !self.gates[gate],
                        // A wait holds up its whole queue, as a gate does, also where what it waits
                        // for is going to fail.
                        Item::Wait(marker) => {
                            let (other, at) = self.markers[marker];
                            fates[other][at] == Fate::Pending
                        }
                        _ => false,
                    };
                    if holds && submitted {
                        let from = &mut held_from[self.queues[stream]];
                        *from = self.turns[stream][index].min(*from);
                    }
                }
            }
            if held_from == before {
                return fates;
            }
        }
    }

    /// The same with these gates open, and each queue held up from this turn on.
    fn fates_if(
        &self,
        is_open: impl Fn(usize) -> bool,
        held_from: &[usize; STREAMS],
    ) -> Vec<Vec<Fate>> {
        let mut fates: Vec<Vec<_>> = self
            .streams
            .iter()
            .map(|items| vec![Fate::Pending; items.len()])
            .collect();
        loop {
            let before = fates.clone();
            for (stream, items) in self.streams.iter().enumerate() {
                let mut state = Fate::Complete;
                for (index, item) in items.iter().enumerate() {
                    let held = self.turns[stream][index] > held_from[self.queues[stream]];
                    if state == Fate::Complete && held {
                        state = Fate::Pending;
                    } else if state == Fate::Complete {
                        state = match *item {
                            Item::Work(_) | Item::Mark | Item::Cleared => Fate::Complete,
                            Item::Gate(gate) if is_open(gate) => Fate::Complete,
                            Item::Gate(_) => Fate::Pending,
                            Item::Wait(marker) => {
                                let (other, at) = self.markers[marker];
                                fates[other][at]
                            }
                            Item::Fail => Fate::Failed,
                        };
                    } else if state == Fate::Failed && matches!(item, Item::Cleared) {
                        state = Fate::Complete;
                    }
                    fates[stream][index] = state;
                }
            }
            if fates == before {
                return fates;
            }
        }
    }

    fn marker(&self, marker: usize) -> Fate {
        let (stream, index) = self.markers[marker];
        self.fates()[stream][index]
    }

    fn end_of(&self, stream: usize) -> Fate {
        *self.fates()[stream].last().unwrap_or(&Fate::Complete)
    }

    /// Every piece of work that must have run before the item at this place. Work that a failure
    /// skipped orders nothing.
    fn before(&self, fates: &[Vec<Fate>], (stream, index): (usize, usize)) -> BTreeSet<u32> {
        let mut found = BTreeSet::new();
        for (at, item) in self.streams[stream][..index].iter().enumerate() {
            match *item {
                _ if fates[stream][at] != Fate::Complete => {}
                Item::Work(token) => drop(found.insert(token)),
                Item::Wait(marker) => found.extend(self.before(fates, self.markers[marker])),
                _ => {}
            }
        }
        found
    }
}

/// Devices that are compared with the model. Streams and events are dealt out to them in turn.
struct Run<'a> {
    devices: &'a [Device],
    /// The limit for what must happen.
    patience: Duration,
    model: Model,
    streams: Vec<Stream>,
    log: Log,
    gates: Vec<Option<Gate>>,
    events: Vec<Event>,
    /// The marker that each event holds, by the model's numbers.
    held: Vec<Option<usize>>,
    markers: Vec<Marker>,
    /// What the callbacks were called with, each with its marker.
    told: Vec<(usize, Receiver<bool>)>,
}

/// Each mutant of the devices that `make` returns must differ from the model in one of `runs` runs:
/// a model that every device agrees with would prove nothing.
#[allow(dead_code)] // Not for several devices.
pub(crate) fn tells_apart(make: impl Fn() -> Device, mutants: &[Mutant], runs: usize) {
    tells_several_apart(|| vec![make()], mutants, runs);
}

/// As [`tells_apart`], for several devices whose streams may wait for each other.
pub(crate) fn tells_several_apart(make: impl Fn() -> Vec<Device>, mutants: &[Mutant], runs: usize) {
    for &mutant in mutants {
        let mut runner = TestRunner::deterministic();
        let caught = (0..runs).any(|_| {
            let ops = ops().new_tree(&mut runner).expect("a strategy").current();
            let devices = make();
            let devices: Vec<_> = devices.iter().map(|one| mutated(one, mutant)).collect();
            run_on(&devices, &ops, Duration::from_secs(1), work::share_order).is_err()
        });
        assert!(caught, "the model agrees with {mutant} in {runs} runs");
    }
}

/// Compares this many random runs on a GPU, or on its stand-in, with the model; `share` is as in
/// [`run_shared`].
#[allow(dead_code)] // The host has its own.
pub(crate) fn holds_for(device: &Device, runs: u32, share: impl Fn(&Stream, &Stream) -> bool) {
    holds_for_several(std::slice::from_ref(device), runs, share);
}

/// As [`holds_for`], for several devices whose streams may wait for each other.
#[allow(dead_code)] // Only OpenCL has them in CI.
pub(crate) fn holds_for_several(
    devices: &[Device],
    runs: u32,
    share: impl Fn(&Stream, &Stream) -> bool,
) {
    let config = Config {
        cases: runs,
        max_shrink_iters: 20,
        failure_persistence: None,
        ..Config::default()
    };
    TestRunner::new(config)
        .run(&ops(), |ops| {
            let told = run_on(devices, &ops, fencepost_sim::HANG_TIMEOUT, &share);
            prop_assert_eq!(told, Ok(()));
            Ok(())
        })
        .unwrap();
}

/// As [`tells_apart`], for the mutants that show on a GPU.
#[allow(dead_code)] // The host shows more.
pub(crate) fn tells_gpus_apart(make: impl Fn() -> Device) {
    let mutants = [
        Mutant::WaitDoesNothing,
        Mutant::QueryAlwaysTrue,
        Mutant::FailureLooksPending,
        Mutant::SignalBeforeTheWork,
    ];
    tells_apart(make, &mutants, 1000);
}

/// Runs `ops` on `device`. An error says where the device and the model differ.
#[allow(dead_code)] // Only the host's streams share no queue for sure.
pub(crate) fn run(device: &Device, ops: &[Op], patience: Duration) -> Result<(), String> {
    run_shared(device, ops, patience, |_, _| false)
}

/// As [`run`], on a device whose streams may share hardware queues: `share` says which do.
pub(crate) fn run_shared(
    device: &Device,
    ops: &[Op],
    patience: Duration,
    share: impl Fn(&Stream, &Stream) -> bool,
) -> Result<(), String> {
    run_on(std::slice::from_ref(device), ops, patience, share)
}

/// As [`run_shared`], on several devices.
fn run_on(
    devices: &[Device],
    ops: &[Op],
    patience: Duration,
    share: impl Fn(&Stream, &Stream) -> bool,
) -> Result<(), String> {
    let device = |number| &devices[number % devices.len()];
    let streams: Vec<_> = (0..STREAMS)
        .map(|stream| device(stream).new_stream())
        .collect::<Result<_, _>>()
        .map_err(text)?;
    let first = |stream| {
        (0..STREAMS).find(|&other| other == stream || share(&streams[other], &streams[stream]))
    };
    let mut run = Run {
        devices,
        patience,
        model: Model {
            queues: std::array::from_fn(|stream| first(stream).unwrap_or(stream)),
            ..Model::default()
        },
        streams,
        log: work::new_log(device(0)).map_err(text)?,
        gates: Vec::new(),
        events: (0..EVENTS)
            .map(|event| Event::with_timing(device(event)))
            .collect(),
        held: vec![None; EVENTS],
        markers: Vec::new(),
        told: Vec::new(),
    };
    let result = ops
        .iter()
        .enumerate()
        .try_for_each(|(number, op)| {
            run.step(*op)
                .map_err(|why| format!("step {number}, {op:?}: {why}"))
        })
        .and_then(|()| run.finish());
    // Whatever happened, no stream stays behind a gate.
    run.gates.clear();
    result
}

fn text(error: Error) -> String {
    error.to_string()
}

/// A call on a stream that has failed may return the error at once, if the model agrees that it has
/// failed.
fn unless_failed(result: Result<(), Error>, fate: Fate) -> Result<(), String> {
    match result {
        Err(Error::StreamFailed { .. }) if fate == Fate::Failed => Ok(()),
        other => other.map_err(text),
    }
}

impl Run<'_> {
    fn step(&mut self, op: Op) -> Result<(), String> {
        match op {
            Op::Work(stream) => {
                let stream = stream % STREAMS;
                let token = self.model.work;
                self.model.work += 1;
                let result = work::append(&self.streams[stream], &self.log, token);
                unless_failed(result, self.model.end_of(stream))?;
                self.model.push(stream, Item::Work(token));
            }
            Op::Gate(stream) => {
                let stream = stream % STREAMS;
                let gate = work::gate(&self.streams[stream]).map_err(text)?;
                self.model.push(stream, Item::Gate(self.gates.len()));
                self.gates.push(Some(gate));
                self.model.gates.push(false);
            }
            Op::Open(gate) if !self.gates.is_empty() => {
                let gate = gate % self.gates.len();
                self.gates[gate] = None;
                self.model.gates[gate] = true;
            }
            Op::Open(_) => {}
            Op::Record(event, stream) => {
                let (event, stream) = (event % EVENTS, stream % STREAMS);
                let device = self.streams[stream].device();
                if self.events[event].device() != device {
                    self.events[event] = Event::with_timing(device);
                }
                self.events[event]
                    .record(&self.streams[stream])
                    .map_err(text)?;
                let index = self.model.streams[stream].len();
                self.held[event] = Some(self.markers.len());
                self.model.markers.push((stream, index));
                self.model.push(stream, Item::Mark);
                self.markers.push(
                    self.events[event]
                        .marker()
                        .ok_or("no marker after record")?,
                );
            }
            Op::Wait(event, stream) => {
                let (event, stream) = (event % EVENTS, stream % STREAMS);
                self.events[event]
                    .wait(&self.streams[stream])
                    .map_err(text)?;
                if let Some(marker) = self.held[event]
                    && self.model.markers[marker].0 != stream
                {
                    self.model.push(stream, Item::Wait(marker));
                }
            }
            Op::Query(event) => self.look_at(event % EVENTS)?,
            Op::Synchronize(event) => {
                let event = event % EVENTS;
                if let Some(marker) = self.held[event] {
                    self.settle(marker)?;
                }
                self.look_at(event)?;
            }
            Op::Replace(event) => {
                let event = event % EVENTS;
                let device = &self.devices[event % self.devices.len()];
                self.events[event] = Event::with_timing(device);
                self.held[event] = None;
            }
            Op::Fail(stream) => {
                let stream = stream % STREAMS;
                let result = work::fail(&self.streams[stream], "a step of the model");
                unless_failed(result, self.model.end_of(stream))?;
                self.model.push(stream, Item::Fail);
            }
            Op::ClearError(stream) => {
                let stream = stream % STREAMS;
                // Only if the failure is certain: what a clear does depends on what has happened.
                if self.model.end_of(stream) == Fate::Failed {
                    let end = self.streams[stream].record().map_err(text)?;
                    if end.synchronize_timeout(self.patience).is_ok() {
                        return Err("the stream has failed, and its end completes".into());
                    }
                    self.streams[stream].clear_error().map_err(text)?;
                    self.model.push(stream, Item::Cleared);
                }
            }
            Op::Cancel(event) => {
                let event = event % EVENTS;
                let Some(marker) = self.held[event] else {
                    return Ok(());
                };
                let answer = pin!((&self.events[event]).into_future())
                    .poll(&mut Context::from_waker(Waker::noop()));
                match (self.model.marker(marker), answer) {
                    // What is over by the model may be late on the device.
                    (_, Poll::Pending)
                    | (Fate::Complete, Poll::Ready(Ok(())))
                    | (Fate::Failed, Poll::Ready(Err(_))) => {}
                    (fate, answer) => {
                        return Err(format!("must be {fate:?}, and an await says {answer:?}"));
                    }
                }
            }
            Op::Deadline(event) => {
                let event = event % EVENTS;
                let Some(marker) = self.held[event] else {
                    return Ok(());
                };
                let limit = Duration::from_micros(100);
                match (
                    self.model.marker(marker),
                    self.events[event].synchronize_timeout(limit),
                ) {
                    (_, Err(Error::Timeout(_)))
                    | (Fate::Complete, Ok(()))
                    | (Fate::Failed, Err(Error::StreamFailed { .. })) => {}
                    (fate, answer) => {
                        return Err(format!(
                            "must be {fate:?}, and a short wait says {answer:?}"
                        ));
                    }
                }
            }
            Op::Callback(event) => {
                if let Some(marker) = self.held[event % EVENTS] {
                    let (tell, told) = mpsc::channel();
                    self.markers[marker]
                        .on_complete(move |result| tell.send(result.is_ok()).unwrap_or(()))
                        .map_err(text)?;
                    self.told.push((marker, told));
                }
            }
            Op::Fork(stream) => self.fork(stream % STREAMS)?,
        }
        Ok(())
    }

    #[cfg(not(unix))]
    fn fork(&self, _: usize) -> Result<(), String> {
        Ok(())
    }

    #[cfg(unix)]
    fn fork(&self, stream: usize) -> Result<(), String> {
        // SAFETY: the child calls nothing but the library, which is what is tested, and _exit.
        match unsafe { libc::fork() } {
            -1 => Err("fork failed".into()),
            0 => {
                // SAFETY: ends a child that hangs.
                unsafe { libc::alarm(20) };
                let stream = &self.streams[stream];
                for event in &self.events {
                    let _ = (event.query(), event.record(stream), event.wait(stream));
                    let _ = event.synchronize_timeout(Duration::ZERO);
                }
                let _ = (
                    stream.record(),
                    stream.query(),
                    stream.device().new_stream(),
                );
                // SAFETY: ends the child at once, without what its parent would do at exit.
                unsafe { libc::_exit(0) }
            }
            child => {
                let mut status = 0;
                // SAFETY: `status` is a valid place for an int, and `child` is a child of ours.
                unsafe { libc::waitpid(child, &raw mut status, 0) };
                match status {
                    0 => Ok(()),
                    status => Err(format!("a forked child ended with status {status:#x}")),
                }
            }
        }
    }

    /// Waits for what must happen to a marker, and checks that it did.
    fn settle(&self, marker: usize) -> Result<(), String> {
        let real = &self.markers[marker];
        let fate = self.model.marker(marker);
        let outcome = match fate {
            Fate::Pending => real.query(),
            _ => real.synchronize_timeout(self.patience).map(|()| true),
        };
        // After a wait, a query must give the same result.
        match (fate, outcome, real.query()) {
            (Fate::Pending, Ok(false), Ok(false)) | (Fate::Complete, Ok(true), Ok(true)) => Ok(()),
            (Fate::Failed, Err(Error::StreamFailed { cause, .. }), Err(_))
                if cause.root().contains("a step of the model") =>
            {
                Ok(())
            }
            (fate, outcome, query) => Err(format!(
                "{real} must be {fate:?}; waiting says {outcome:?}, a query {query:?}"
            )),
        }
    }

    /// Compares an event's query with the model.
    fn look_at(&self, event: usize) -> Result<(), String> {
        let real = &self.events[event];
        let Some(marker) = self.held[event] else {
            return match (real.status(), real.query()) {
                (Ok(Status::Unrecorded), Ok(true)) => Ok(()),
                other => Err(format!("unrecorded, and says {other:?}")),
            };
        };
        match (self.model.marker(marker), real.query()) {
            (Fate::Pending, Ok(false)) | (Fate::Complete, Ok(_)) | (Fate::Failed, Err(_)) => Ok(()),
            // It will fail, but has not failed yet.
            (Fate::Failed, Ok(false)) => Ok(()),
            (fate, answer) => Err(format!("must be {fate:?}, and a query says {answer:?}")),
        }
    }

    /// Opens every gate, and checks everything that is left.
    fn finish(&mut self) -> Result<(), String> {
        self.gates.clear();
        self.model.gates.fill(true);
        for marker in 0..self.markers.len() {
            self.settle(marker)?;
        }
        for (stream, real) in self.streams.iter().enumerate() {
            let end = real.synchronize_timeout(self.patience);
            match (self.model.end_of(stream), end) {
                (Fate::Complete, Ok(())) | (Fate::Failed, Err(Error::StreamFailed { .. })) => {}
                (fate, end) => return Err(format!("{real} must be {fate:?}, and is {end:?}")),
            }
        }
        for (marker, told) in &self.told {
            let fate = self.model.marker(*marker);
            match (fate, told.recv_timeout(self.patience)) {
                (Fate::Complete, Ok(true)) | (Fate::Failed, Ok(false)) => {}
                (fate, told) => {
                    return Err(format!("must be {fate:?}, and its callback got {told:?}"));
                }
            }
        }
        self.check_log()?;
        self.check_times()
    }

    fn check_log(&self) -> Result<(), String> {
        let ran = self.log.read().map_err(text)?;
        let fates = self.model.fates();
        let position = |token| ran.iter().position(|&seen| seen == token);
        for (stream, items) in self.model.streams.iter().enumerate() {
            for (index, item) in items.iter().enumerate() {
                let Item::Work(token) = *item else { continue };
                let at = match (fates[stream][index], position(token)) {
                    (Fate::Complete, Some(at)) => at,
                    (Fate::Failed, None) => continue,
                    (fate, at) => {
                        return Err(format!("work {token} is {fate:?}, and ran at {at:?}"));
                    }
                };
                for before in self.model.before(&fates, (stream, index)) {
                    if position(before).is_none_or(|before| before > at) {
                        return Err(format!("work {before} did not run before {token}: {ran:?}"));
                    }
                }
            }
        }
        let mut once = ran.clone();
        once.sort_unstable();
        once.dedup();
        match once.len() == ran.len() {
            true => Ok(()),
            false => Err(format!("some work ran twice: {ran:?}")),
        }
    }

    fn check_times(&self) -> Result<(), String> {
        for (earlier, &(stream, _)) in self.model.markers.iter().enumerate() {
            for (later, &(other, _)) in self.model.markers.iter().enumerate().skip(earlier + 1) {
                let complete = |m| self.model.marker(m) == Fate::Complete;
                if stream != other || !complete(earlier) || !complete(later) {
                    continue;
                }
                let (from, to) = (&self.markers[earlier], &self.markers[later]);
                let time = from.elapsed(to).map_err(text)?;
                if time.is_negative() {
                    return Err(format!("{time} from {from} to {to}"));
                }
            }
        }
        Ok(())
    }
}
