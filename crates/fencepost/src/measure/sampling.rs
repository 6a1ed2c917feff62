//! Takes the samples: the warm-up, the batches, and when to stop.

use std::time::{Duration, Instant};

use super::{
    hold::{Hold, NEVER_RETURNS, longest},
    options::Measure,
    report::{Evidence, Measurement},
    statistics::{Sorted, is_within, median},
};
use crate::{
    contract::Backend,
    error::{Error, Result},
    event::Event,
    stream::Stream,
};

/// No fewer samples than these are taken while there is budget.
const FEWEST: usize = 20;
/// Enough: each end of the interval lies this near to the median.
const NARROW: f64 = 0.01;
/// How many calls more the longer run of a sample has, at most.
const MORE: usize = 10;
/// What takes longer than this to queue, in seconds, may not fit into the queue.
const LONG_TO_QUEUE: f64 = 2e-3;
/// How long a batch may take to queue, in seconds of the warm-up's pace: far less than the time
/// after which the gate is opened.
const QUEUED_WITHIN: f64 = 4e-3;
/// A call that takes this much longer than usual, in seconds, tells of a queue that is filling.
const STALL: f64 = 40e-6;
/// A call on a held stream that fails after longer than this, in seconds, may fail for that.
const LATE: f64 = 5e-3;
const FAILS_LATE: &str = "the function failed while it was, after a long time; it may have a \
     deadline for the device's work";
const BUDGET_SPENT: &str = "the budget was spent before a sample was queued while it was; give it \
     a larger one";
/// How long a wait goes on before it looks for signals.
const SLICE: Duration = Duration::from_millis(50);

/// How many records and calls one batch may have. Fewer than half of the 1,020 entries of CUDA's
/// queue, since a call may have two launches; and of the 60 command buffers of Metal's.
pub(super) fn most_entries(backend: Backend) -> usize {
    match backend {
        Backend::Metal => 48,
        _ => 450,
    }
}

pub(super) struct Sampler<'a, E> {
    measure: &'a Measure<'a>,
    f: &'a mut dyn FnMut() -> Result<(), E>,
    look: &'a mut dyn FnMut() -> Result<(), E>,
    /// Those of each sample of a batch.
    events: Vec<[Event; 4]>,
    pace: Pace,
    /// How many calls more than one the longer run of a sample has.
    more: usize,
    found: Found,
}

/// How long one call takes in the warm-up, in seconds.
#[derive(Clone, Copy, Default)]
struct Pace {
    /// To queue.
    host: f64,
    /// From the event before it to the one after it.
    device: f64,
}

#[derive(Default)]
struct Found {
    samples: Vec<f64>,
    /// A single call less an empty pair.
    alone: Vec<f64>,
    empty: Vec<f64>,
}

/// What became of a batch.
#[derive(Clone, Copy)]
struct Queued {
    /// How many whole samples were queued.
    samples: usize,
    /// How many calls of the function returned.
    calls: usize,
    /// Whether one took longer than usual.
    slow: bool,
    /// Whether the stream was let go before all of it was queued.
    let_go: bool,
    /// Whether the function failed, after it had taken so long that the held stream may be the
    /// reason.
    late: bool,
}

impl<'a, E: From<Error>> Sampler<'a, E> {
    pub(super) fn new(
        measure: &'a Measure<'a>,
        f: &'a mut dyn FnMut() -> Result<(), E>,
        look: &'a mut dyn FnMut() -> Result<(), E>,
    ) -> Sampler<'a, E> {
        Sampler {
            measure,
            f,
            look,
            events: Vec::new(),
            pace: Pace::default(),
            more: 1,
            found: Found::default(),
        }
    }

    pub(super) fn run(mut self, ungated: Option<String>) -> Result<Measurement, E> {
        let began = Instant::now();
        self.check_capture()?;
        self.warm_up()?;
        self.more = self.more_calls();
        let mut ungated = ungated.or_else(|| Hold::refusal(self.stream().device()));
        if ungated.is_none() {
            ungated = self.probe()?.map(Into::into);
        }
        self.sample(&mut ungated)?;
        Ok(self.report(ungated, began))
    }

    fn stream(&self) -> &'a Stream {
        self.measure.stream
    }

    /// In a capture nothing runs, so there is nothing to wait for.
    fn check_capture(&mut self) -> Result<(), E> {
        match self.stream().record()?.query() {
            Err(Error::Captured { .. }) => Err(self.measure.unsupported(
                "a stream that is being captured into a graph",
                "measure outside of the capture, or measure the launch of the graph",
            )),
            Err(error) => Err(error.into()),
            Ok(_) => self.drain(),
        }
    }

    /// Calls the function until its pace is known. The first call does not count: it may load and
    /// compile.
    fn warm_up(&mut self) -> Result<(), E> {
        self.make_events(1)?;
        if self.measure.cold {
            // The memory is made now.
            self.overwrite_cache()?;
        }
        (self.f)()?;
        self.drain()?;
        let began = Instant::now();
        let enough = (self.measure.budget / 10).min(Duration::from_millis(10));
        let (mut host, mut device) = (Vec::new(), Vec::new());
        while host.len() < 3 || began.elapsed() < enough {
            self.record(0, 0)?;
            let call = Instant::now();
            (self.f)()?;
            host.push(call.elapsed().as_secs_f64());
            self.record(0, 1)?;
            self.wait_for(0, 1)?;
            device.push(self.between(0, 0, 1)?);
            if began.elapsed() >= self.measure.budget {
                break;
            }
        }
        self.pace = Pace {
            host: median(&host),
            device: median(&device),
        };
        Ok(())
    }

    /// As many as leave room for many samples in the budget, and for the longer run in the queue:
    /// the more they are, the less the events' noise counts.
    fn more_calls(&self) -> usize {
        let call = self.pace.host.max(self.pace.device).max(1e-9);
        let by_budget = self.measure.budget.as_secs_f64() / (FEWEST as f64 * call) - 2.0;
        let by_queue = LONG_TO_QUEUE / self.pace.host.max(1e-9);
        let calls = by_queue.min(by_budget);
        // A float beyond the range of the integer becomes its end.
        (calls as usize).clamp(1, MORE)
    }

    /// Takes samples until there are enough. `ungated` says why the stream is not held, once it is
    /// not.
    fn sample(&mut self, ungated: &mut Option<String>) -> Result<(), E> {
        let began = Instant::now();
        // How many batches of one sample in a row the stream was let go in.
        let (mut batch, mut failed) = (1, 0);
        loop {
            let asked = batch.clamp(1, self.most_samples());
            self.make_events(asked)?;
            let queued = match ungated {
                Some(_) => self.queue(asked, None)?,
                None => match self.queue_held(asked)? {
                    Ok(queued) => queued,
                    Err(why) => {
                        self.go_ungated(ungated, &why);
                        continue;
                    }
                },
            };
            if queued.late {
                self.drain()?;
                self.go_ungated(ungated, FAILS_LATE);
            } else if queued.let_go {
                // What ran while the stream was not held is of no use.
                self.drain()?;
                failed += 1;
                if asked > 1 {
                    (batch, failed) = (asked / 2, 0);
                } else if failed > 1 && (queued.calls == 0 || self.more == 1) {
                    self.go_ungated(ungated, NEVER_RETURNS);
                } else {
                    self.more = (self.more / 2).max(1);
                }
            } else {
                failed = 0;
                self.read(queued.samples)?;
                batch = if queued.slow {
                    queued.samples
                } else {
                    asked * 2
                };
            }
            let is_over = began.elapsed() >= self.measure.budget;
            let sorted = Sorted::new(&self.found.samples);
            let is_enough = self.found.samples.len() >= FEWEST && is_within(&sorted, NARROW);
            match self.found.samples.is_empty() {
                true if is_over && ungated.is_none() => {
                    let did_not_return = queued.let_go && queued.calls == 0;
                    let why = [BUDGET_SPENT, NEVER_RETURNS][usize::from(did_not_return)];
                    self.go_ungated(ungated, why);
                }
                false if is_over || is_enough => return Ok(()),
                _ => {}
            }
        }
    }

    /// Holds the stream no more. What was measured while it was held would be told as ungated too.
    fn go_ungated(&mut self, ungated: &mut Option<String>, why: &str) {
        *ungated = Some(why.into());
        self.found = Found::default();
        self.more = self.more_calls();
    }

    /// How many samples a batch may have: by what the queue takes, by the time to queue them, and
    /// by the budget.
    fn most_samples(&self) -> usize {
        let calls = self.calls_of_a_sample();
        let entries = most_entries(self.stream().device().backend()) / (5 + calls);
        let queueing = QUEUED_WITHIN / (calls as f64 * self.pace.host).max(1e-9);
        let sample = calls as f64 * self.pace.host.max(self.pace.device);
        let budget = self.measure.budget.as_secs_f64() / (8.0 * sample).max(1e-9);
        // A float beyond the range of the integer becomes its end.
        entries.min(queueing as usize).min(budget as usize).max(1)
    }

    fn calls_of_a_sample(&self) -> usize {
        match self.measure.cold {
            true => 1,
            false => 2 + self.more,
        }
    }

    /// A batch on a stream that is held meanwhile; or why the stream cannot be held.
    fn queue_held(&mut self, samples: usize) -> Result<Result<Queued, String>, E> {
        let calls = samples * self.calls_of_a_sample();
        let usual = Duration::from_secs_f64(calls as f64 * self.pace.host);
        let hold = match Hold::begin(self.stream(), self.longest(usual)) {
            Ok(hold) => hold,
            Err(error @ Error::Unsupported { .. }) => return Ok(Err(error.to_string())),
            Err(error) => return Err(error.into()),
        };
        // An error, or a panic of the function, drops the hold, which lets the stream go.
        let queued = self.queue(samples, Some(&hold))?;
        let let_go = queued.let_go || hold.end();
        Ok(Ok(Queued { let_go, ..queued }))
    }

    fn longest(&self, usual: Duration) -> Duration {
        longest(self.measure.hold, usual, self.measure.budget)
    }

    /// Why the stream is not to be held for the function, by one call of it: if a call takes long,
    /// a function that waits for the device is found out before a whole sample is queued, so that
    /// the stream is idle for one call only.
    fn probe(&mut self) -> Result<Option<&'static str>, E> {
        let usual = Duration::from_secs_f64(self.pace.host);
        if self.longest(usual) <= self.measure.hold {
            return Ok(None);
        }
        let hold = match Hold::begin(self.stream(), self.longest(usual)) {
            Ok(hold) => hold,
            // The first batch says so.
            Err(Error::Unsupported { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let call = Instant::now();
        let result = (self.f)();
        let was_let_go = hold.end();
        let why = match result {
            Ok(()) => was_let_go.then_some(NEVER_RETURNS),
            Err(_) if was_let_go || self.is_late(call) => Some(FAILS_LATE),
            Err(error) => return Err(error),
        };
        self.drain()?;
        Ok(why)
    }

    /// Whether a call that began then has taken so long that the held stream may be the reason.
    fn is_late(&self, began: Instant) -> bool {
        began.elapsed().as_secs_f64() > LATE.max(2.0 * self.pace.host)
    }

    fn queue(&mut self, samples: usize, hold: Option<&Hold>) -> Result<Queued, E> {
        let mut queued = Queued {
            samples: 0,
            calls: 0,
            slow: false,
            let_go: false,
            late: false,
        };
        for sample in 0..samples {
            match self.queue_sample(sample, hold, &mut queued) {
                Ok(()) => queued.samples += 1,
                Err(Stop::LetGo) => queued.let_go = true,
                // Metal's queue is full: nothing more fits while the stream is held.
                Err(Stop::Record(Error::WouldBlock { .. })) if hold.is_some() => {
                    queued.let_go = true;
                }
                Err(Stop::Record(error)) => return Err(error.into()),
                Err(Stop::FailedLate) => (queued.late, queued.let_go) = (true, true),
                Err(Stop::Failed(error)) => return Err(error),
            }
            if queued.slow || queued.let_go {
                break;
            }
        }
        Ok(queued)
    }

    fn queue_sample(
        &mut self,
        sample: usize,
        hold: Option<&Hold>,
        queued: &mut Queued,
    ) -> Result<(), Stop<E>> {
        if self.measure.cold {
            self.overwrite_cache()?;
        }
        self.record(sample, 0)?;
        self.record(sample, 1)?;
        self.call(hold, queued)?;
        self.record(sample, 2)?;
        if !self.measure.cold {
            for _ in 0..=self.more {
                self.call(hold, queued)?;
            }
            self.record(sample, 3)?;
        }
        Ok(())
    }

    fn call(&mut self, hold: Option<&Hold>, queued: &mut Queued) -> Result<(), Stop<E>> {
        let began = Instant::now();
        if let Err(error) = (self.f)() {
            return Err(match hold.is_some() && self.is_late(began) {
                true => Stop::FailedLate,
                false => Stop::Failed(error),
            });
        }
        queued.slow |= began.elapsed().as_secs_f64() > self.pace.host + STALL;
        match hold {
            Some(hold) if hold.is_over() => Err(Stop::LetGo),
            _ => {
                queued.calls += 1;
                Ok(())
            }
        }
    }

    /// Waits for the first `samples` of the batch, and reads them.
    fn read(&mut self, samples: usize) -> Result<(), E> {
        let Some(last) = samples.checked_sub(1) else {
            return Ok(());
        };
        self.wait_for(last, self.last_event())?;
        for sample in 0..samples {
            let empty = self.between(sample, 0, 1)?;
            let single = self.between(sample, 1, 2)?;
            let alone = single - empty;
            self.found.samples.push(match self.measure.cold {
                true => alone,
                false => (self.between(sample, 2, 3)? - single) / self.more as f64,
            });
            self.found.alone.push(alone);
            self.found.empty.push(empty);
        }
        Ok(())
    }

    fn last_event(&self) -> usize {
        match self.measure.cold {
            true => 2,
            false => 3,
        }
    }

    /// Makes the events of so many samples, and records each once: its native event is made then,
    /// which may block on a held stream.
    fn make_events(&mut self, samples: usize) -> Result<(), E> {
        let device = self.stream().device();
        let known = self.events.len();
        for sample in known..samples {
            self.events
                .push([(); 4].map(|()| Event::with_timing(device)));
            for event in 0..4 {
                self.record(sample, event)?;
            }
        }
        match samples > known {
            true => self.drain(),
            false => Ok(()),
        }
    }

    fn overwrite_cache(&self) -> Result<()> {
        self.stream().overwrite_cache()
    }

    fn record(&self, sample: usize, event: usize) -> Result<()> {
        self.events[sample][event].record(self.stream())
    }

    /// The seconds between two events of a sample.
    fn between(&self, sample: usize, start: usize, end: usize) -> Result<f64> {
        let events = &self.events[sample];
        Ok(events[start].elapsed(&events[end])?.as_secs_f64())
    }

    /// Waits for all that is queued.
    fn drain(&mut self) -> Result<(), E> {
        let marker = self.stream().record()?;
        self.wait(|limit| marker.synchronize_timeout(limit))
    }

    fn wait_for(&mut self, sample: usize, event: usize) -> Result<(), E> {
        let marker = self.events[sample][event].marker();
        self.wait(|limit| match &marker {
            Some(marker) => marker.synchronize_timeout(limit),
            None => Ok(()),
        })
    }

    /// Waits in slices, and looks for signals in between.
    fn wait(&mut self, slice: impl Fn(Duration) -> Result<()>) -> Result<(), E> {
        loop {
            match slice(SLICE) {
                Err(Error::Timeout(_)) => (self.look)()?,
                ended => return Ok(ended?),
            }
        }
    }

    fn report(self, ungated: Option<String>, began: Instant) -> Measurement {
        let sorted = Sorted::new(&self.found.samples);
        let (stream, cold) = (self.stream().to_string(), self.measure.cold);
        let divisor = if cold { 1 } else { self.more };
        let notes = Evidence {
            samples: &self.found.samples,
            sorted: &sorted,
            alone: median(&self.found.alone),
            empty: &self.found.empty,
            divisor: divisor as f64,
            resolution: self.stream().device().clock().resolution().as_secs_f64(),
            ungated: ungated.as_deref(),
            stream: &stream,
        }
        .notes();
        Measurement {
            alone: median(&self.found.alone),
            calls: if cold { (0, 1) } else { (1, 1 + self.more) },
            samples: self.found.samples,
            sorted,
            cold,
            ungated,
            notes,
            stream,
            took: began.elapsed().as_secs_f64(),
        }
    }
}

/// Why a sample was not queued to its end.
enum Stop<E> {
    /// The stream was let go.
    LetGo,
    /// An event was not recorded.
    Record(Error),
    /// The function failed late on the held stream. It is called again on one that is not held,
    /// and its error is passed on if it fails there too.
    FailedLate,
    /// The function's own error.
    Failed(E),
}

impl<E> From<Error> for Stop<E> {
    fn from(error: Error) -> Stop<E> {
        Stop::Record(error)
    }
}
