//! What a case runs with: a device, limits for waits, and checks.

use std::time::{Duration, Instant};

#[cfg(feature = "mutants")]
use super::mutants::{Mutant, defect_of};
use super::work::{self, Gate, Log};
#[cfg(all(feature = "trace", not(loom)))]
use crate::trace::{Trace, picture::Picture};
use crate::{
    contract::Backend,
    device::Device,
    error::{Error, Result},
    event::Event,
    marker::Marker,
    stream::Stream,
    wait::{WaitSet, Waitable, synchronize_all_timeout, synchronize_any_timeout},
};

/// How long a case waits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Options {
    /// The limit for what must happen. The case fails after it.
    pub(super) patience: Duration,
    /// How long the case watches that something does not happen.
    pub(super) moment: Duration,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            // Only a hang takes longer, whatever else the machine does.
            patience: Duration::from_secs(120),
            moment: Duration::from_millis(20),
        }
    }
}

/// Why a case ended early.
pub(super) enum Stop {
    Broken(String),
    Skip(String),
}

/// A call that must succeed failed.
impl From<Error> for Stop {
    fn from(error: Error) -> Stop {
        Stop::Broken(format!("unexpected error: {error}"))
    }
}

pub(super) type Verdict = Result<(), Stop>;

/// Fails the case unless the condition holds.
macro_rules! check {
    ($condition:expr, $($text:tt)+) => {
        // A match: negating a comparison of floats is a lint.
        match $condition {
            true => {}
            false => {
                return Err($crate::testing::context::Stop::Broken(format!($($text)+)));
            }
        }
    };
}
/// Fails the case unless the result is an error that matches the pattern.
macro_rules! check_error {
    ($result:expr, $pattern:pat, $what:expr) => {
        match $result {
            Err($pattern) => {}
            Err(other) => {
                return Err($crate::testing::context::Stop::Broken(format!(
                    "{}: got another error: {other}",
                    $what
                )));
            }
            Ok(value) => {
                return Err($crate::testing::context::Stop::Broken(format!(
                    "{}: got {value:?} and no error",
                    $what
                )));
            }
        }
    };
}
pub(super) use {check, check_error};

/// Runs a case with untimed markers, and again with timed ones, which a backend may submit in
/// another way.
pub(super) fn for_both_kinds(
    case: impl Fn(&dyn Fn(&Stream) -> Result<Marker>) -> Verdict,
) -> Verdict {
    case(&|stream| stream.record())?;
    case(&|stream| stream.record_timed())
}

/// What comes out of a set: a key, and how its marker ended.
pub(super) type Next = Result<Option<(u32, Result<()>)>>;

pub(super) struct Context {
    pub(super) device: Device,
    pub(super) options: Options,
}

impl Context {
    pub(super) fn new(device: Device, options: Options) -> Context {
        Context { device, options }
    }

    pub(super) fn stream(&self) -> Result<Stream> {
        self.device.new_stream()
    }

    pub(super) fn event(&self) -> Event {
        Event::new(&self.device)
    }

    pub(super) fn timed(&self) -> Event {
        Event::with_timing(&self.device)
    }

    pub(super) fn log(&self) -> Result<Log> {
        work::new_log(&self.device)
    }

    /// Holds back what is submitted to `stream` from now on.
    #[track_caller]
    pub(super) fn gate(&self, stream: &Stream) -> Result<Gate, Stop> {
        work::gate(stream).map_err(|error| match error {
            // Nothing holds a stream there, so nothing shows what is promised of pending work.
            Error::Unsupported { what, .. } => Stop::Skip(what),
            other => other.into(),
        })
    }

    /// Work that appends `token` to the log when it runs.
    pub(super) fn append(&self, stream: &Stream, log: &Log, token: u32) -> Result<()> {
        work::append(stream, log, token)
    }

    /// Work that fails.
    pub(super) fn fail(&self, stream: &Stream, text: &str) -> Result<()> {
        work::fail(stream, text)
    }

    /// A host stream's marker that is pending until its gate is opened; with a text it fails then.
    pub(super) fn host_marker(&self, fails: Option<&str>) -> Result<(Gate, Marker)> {
        let host = self.stranger().new_stream()?;
        let gate = work::gate(&host)?;
        if let Some(text) = fails {
            self.fail(&host, text)?;
        }
        Ok((gate, host.record()?))
    }

    /// The marker must complete.
    pub(super) fn done(&self, marker: &Marker) -> Result<()> {
        marker.synchronize_timeout(self.options.patience)
    }

    /// The event must complete.
    pub(super) fn event_done(&self, event: &Event) -> Result<()> {
        event.synchronize_timeout(self.options.patience)
    }

    /// The milliseconds between two events, both of which must complete.
    pub(super) fn took(&self, start: &Event, end: &Event) -> Result<f64> {
        self.event_done(start)?;
        self.event_done(end)?;
        start.elapsed_time(end)
    }

    /// Waits for the first of many.
    pub(super) fn first(&self, of: &[&dyn Waitable]) -> Result<(usize, Result<()>)> {
        let first = synchronize_any_timeout(of, self.options.patience);
        #[cfg(feature = "mutants")]
        let first = match defect_of(self.device.imp()) {
            Some(Mutant::FirstOfManyIsAnother) => {
                first.map(|(index, ended)| ((index + 1) % of.len(), ended))
            }
            Some(Mutant::FailureOfManySwallowed) => first.map(|(index, _)| (index, Ok(()))),
            _ => first,
        };
        first
    }

    /// Waits for all of many, for `limit` at most.
    pub(super) fn all_within(&self, of: &[&dyn Waitable], limit: Duration) -> Result<()> {
        #[cfg(feature = "mutants")]
        match defect_of(self.device.imp()) {
            Some(Mutant::LastOfManyForgotten) => {
                let forgets = &of[..of.len().saturating_sub(1)];
                return synchronize_all_timeout(forgets, limit);
            }
            Some(Mutant::FailureOfManySwallowed) => {
                let all = synchronize_all_timeout(of, limit);
                return all.or_else(|error| error.cause().map_or(Err(error.clone()), |_| Ok(())));
            }
            _ => {}
        }
        synchronize_all_timeout(of, limit)
    }

    /// Waits for all of many.
    pub(super) fn all(&self, of: &[&dyn Waitable]) -> Result<()> {
        self.all_within(of, self.options.patience)
    }

    /// Takes the next out of a set; `first` is what came out first.
    pub(super) fn next(&self, set: &mut WaitSet<u32>, first: Option<u32>) -> Next {
        let next = set.synchronize_next_timeout(self.options.patience);
        #[cfg(feature = "mutants")]
        if let (Some(Mutant::SetTellsTheFirstAgain), Some(first)) =
            (defect_of(self.device.imp()), first)
        {
            return next.map(|next| next.map(|(_, ended)| (first, ended)));
        }
        let _ = first;
        next
    }

    /// A span around what `work` submits to the stream.
    #[cfg(all(feature = "trace", not(loom)))]
    pub(super) fn scope<T>(
        &self,
        trace: &Trace,
        name: &str,
        stream: &Stream,
        work: impl FnOnce() -> T,
    ) -> T {
        let span = trace.span(name, stream);
        #[cfg(feature = "mutants")]
        if defect_of(self.device.imp()) == Some(Mutant::SpanEndsEarly) {
            span.end();
            return work();
        }
        let done = work();
        span.end();
        done
    }

    /// What a trace has.
    #[cfg(all(feature = "trace", not(loom)))]
    pub(super) fn picture(&self, trace: &Trace) -> Picture {
        let picture = trace.picture();
        #[cfg(feature = "mutants")]
        if defect_of(self.device.imp()) == Some(Mutant::ArrowOfAnotherWait) {
            let mut wrong = picture;
            let from: Vec<_> = wrong.arrows.iter().map(|arrow| arrow.from).collect();
            for (arrow, from) in wrong.arrows.iter_mut().zip(from.iter().cycle().skip(1)) {
                arrow.from = *from;
            }
            return wrong;
        }
        picture
    }

    /// Everything submitted to the stream must complete.
    pub(super) fn stream_done(&self, stream: &Stream) -> Result<()> {
        stream.synchronize_timeout(self.options.patience)
    }

    /// The marker must stay pending for a moment.
    pub(super) fn still_pending(&self, marker: &Marker, why: &str) -> Verdict {
        match marker.synchronize_timeout(self.options.moment) {
            Err(Error::Timeout(_)) => Ok(()),
            Err(error) => Err(Stop::Broken(format!("{why}, but {marker} failed: {error}"))),
            Ok(()) => Err(Stop::Broken(format!("{why}, but {marker} is complete"))),
        }
    }

    /// The marker must fail, with this text in its first cause.
    pub(super) fn failed(&self, marker: &Marker, text: &str) -> Verdict {
        self.is_failure(self.done(marker), text)
    }

    /// The result must be a failure with this text in its first cause.
    pub(super) fn is_failure<T: std::fmt::Debug>(&self, result: Result<T>, text: &str) -> Verdict {
        match result {
            Ok(value) => Err(Stop::Broken(format!(
                "expected the failure \"{text}\", got {value:?}"
            ))),
            Err(error) => {
                let found = error
                    .cause()
                    .is_some_and(|cause| cause.root().contains(text));
                check!(found, "expected the failure \"{text}\", got: {error}");
                Ok(())
            }
        }
    }

    /// A device whose events do not belong on this one.
    pub(super) fn stranger(&self) -> Device {
        Device::new_host(1)
    }

    /// Another device of the same API.
    pub(super) fn sibling(&self) -> Result<Device, Stop> {
        let backend = self.device.backend();
        if backend == Backend::Host {
            return Ok(Device::new_host(1));
        }
        let found = Device::list().into_iter().find(|f| f.backend == backend);
        let names = found.map(|found| found.devices).unwrap_or_default();
        match names.iter().find(|name| *name != self.device.name()) {
            Some(name) => Ok(Device::open(name)?),
            None => Err(Stop::Skip(format!("there is one {backend} device only"))),
        }
    }

    /// Skips a case in which one stream must run while another is held, if they share a queue.
    pub(super) fn apart(&self, streams: &[&Stream]) -> Verdict {
        for (i, one) in streams.iter().enumerate() {
            for two in &streams[..i] {
                if work::share_order(one, two) {
                    return Err(Stop::Skip(
                        "its streams share a hardware queue, whose order holds up all of them"
                            .into(),
                    ));
                }
            }
        }
        Ok(())
    }

    /// Skips a case in which the host holds a stream, where it cannot.
    pub(super) fn can_hold(&self) -> Verdict {
        match self.device.imp().check_can_hold() {
            Err(Error::Unsupported { what, .. }) => Err(Stop::Skip(what)),
            can => Ok(can?),
        }
    }

    /// Skips a case about closures, if streams run none.
    pub(super) fn needs_host_work(&self) -> Verdict {
        match self.device.backend() {
            Backend::Host => Ok(()),
            other => Err(Stop::Skip(format!("{other} streams run no host closures"))),
        }
    }

    /// Waits for a moment, in which something wrong could happen.
    pub(super) fn moment(&self) {
        std::thread::sleep(self.options.moment);
    }

    /// Calls `markers` again until that took much less than a `SPAN`. On a busy machine, markers
    /// that follow each other may be so far apart that a wrong time looks right.
    pub(super) fn close_together(&self, mut markers: impl FnMut() -> Result<()>) -> Result<()> {
        for _ in 0..200 {
            let start = Instant::now();
            markers()?;
            if start.elapsed() < Self::SPAN / 2 {
                break;
            }
        }
        Ok(())
    }

    /// A time that every device can tell from 0.
    pub(super) const SPAN: Duration = Duration::from_millis(5);
}
