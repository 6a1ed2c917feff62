//! Errors, each with its remedy.

use std::{fmt, sync::Arc, time::Duration};

use crate::{
    place::Place,
    root::{Payload, Root},
};

/// The result of this crate's functions.
///
/// ```
/// fn ready(device: &fencepost::Device) -> fencepost::Result<bool> {
///     device.default_stream().query()
/// }
/// assert!(ready(&fencepost::Device::open("host")?)?);
/// # Ok::<(), fencepost::Error>(())
/// ```
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that a call of this crate can fail with. Each message names the remedy.
///
/// Clones share their causes: the failure of a stream is returned to everyone who asks.
///
/// ```
/// use fencepost::{Device, Error};
///
/// match Device::open("cuda:zero") {
///     Err(Error::UnknownDevice { name, .. }) => assert_eq!(name, "cuda:zero"),
///     other => panic!("{other:?}"),
/// }
/// ```
///
/// Its `Debug` form is its text too: so `unwrap`, and a `main` that returns an error, say what to
/// do.
#[derive(Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No device has this name.
    #[error("unknown device \"{name}\": {known}")]
    #[non_exhaustive]
    UnknownDevice {
        /// The name as it was given.
        name: String,
        /// The names that would have worked.
        known: String,
    },

    /// The device or its backend cannot be used here.
    #[error("{device} is not available: {why}")]
    #[non_exhaustive]
    Unavailable {
        /// The device's name.
        device: String,
        /// What is missing, and what would bring it.
        why: String,
    },

    /// A call got two things of different devices, or of different clocks.
    #[error(
        "{call} takes two of the same device, but got {left} and {right}; \
         make both on one device"
    )]
    #[non_exhaustive]
    DeviceMismatch {
        /// The call that was made.
        call: &'static str,
        /// The receiver's side.
        left: String,
        /// The argument's side.
        right: String,
    },

    /// The call needs a recorded event, and this one never was.
    #[error(
        "the {which} event{} {}",
        Quoted(event),
        match in_graph {
            false => "was never recorded; call record() on it first",
            true => "was recorded into a graph only, and no run of that graph has recorded it yet; \
                     launch the graph first",
        }
    )]
    #[non_exhaustive]
    NotRecorded {
        /// Which event: `start` or `end`.
        which: &'static str,
        /// The event's name, if it has one.
        event: Option<String>,
        /// Whether it was recorded in a capture, as an external event of a CUDA graph.
        in_graph: bool,
    },

    /// The call never waits, and the marker is pending, or the driver does not show its time yet.
    #[error(
        "the {which} marker is {} ({marker}{}); {}{}",
        match complete {
            true => "complete, but its time is not readable yet",
            false => "not complete yet",
        },
        OfEvent(event),
        match complete {
            true => "ask again",
            false => "call synchronize() on it first",
        },
        match *which {
            "held" => "",
            _ => ", or call elapsed_time(), which waits",
        }
    )]
    #[non_exhaustive]
    NotReady {
        /// Which marker: `start`, `end`, or `held`.
        which: &'static str,
        /// The marker in words.
        marker: String,
        /// The name of the event that holds it, if there is one and it has a name.
        event: Option<String>,
        /// Whether the marker is complete, and only its time is not readable yet: a Vulkan driver
        /// may make it so a moment later.
        complete: bool,
    },

    /// The event or marker was made without timing.
    #[error(
        "the {which} event{} has no timing; make it with Event::with_timing() \
         (or record the marker with record_timed())",
        Quoted(event)
    )]
    #[non_exhaustive]
    TimingDisabled {
        /// Which: `start`, `end`, or `held`.
        which: &'static str,
        /// The event's name, if it has one.
        event: Option<String>,
    },

    /// The clock of the two wraps, and nobody can tell how often it did between them.
    #[error(
        "the time between the two cannot be told: {clock} starts over every {}, and {}; query() or \
         synchronize() each event soon after its work is done, record events in between and add up \
         their times, or record on a queue whose timestamps have more bits",
        InWords(*period),
        match known_to {
            Some(known_to) => format!(
                "the host knows the time between them to within {} only", InWords(*known_to)
            ),
            None => "the host did not note when they completed".into(),
        }
    )]
    #[non_exhaustive]
    Ambiguous {
        /// The clock's name.
        clock: String,
        /// How long the clock runs before it starts over.
        period: Duration,
        /// How well the host knows the time between the two: from before each was submitted until
        /// it was seen to be complete, and what its clock and the device's may drift apart in
        /// between. `None` where the host did not note that.
        known_to: Option<Duration>,
    },

    /// A wait ended at its limit before the marker was complete.
    #[error(transparent)]
    Timeout(Box<Timeout>),

    /// The wait would never end: the awaited marker lies behind the host work that is to wait.
    #[error(
        "this wait would never end: {cycle}; \
         let a stream wait (Event::wait) instead of blocking inside host work"
    )]
    #[non_exhaustive]
    WouldDeadlock {
        /// The circle of waits in words.
        cycle: String,
    },

    /// The stream has failed. Its first failure stays until
    /// [`clear_error`](crate::Stream::clear_error).
    #[error("{stream} failed: {cause}; call clear_error() on that stream to use it again")]
    #[non_exhaustive]
    StreamFailed {
        /// The stream in words.
        stream: String,
        /// The first cause.
        #[source]
        cause: Cause,
    },

    /// The device is lost, for good.
    #[error("{device} is lost: {cause}; open the device anew and rebuild what lived on it")]
    #[non_exhaustive]
    DeviceLost {
        /// The device's name.
        device: String,
        /// The first cause.
        #[source]
        cause: Cause,
    },

    /// A GPU's stream was to wait for a pending marker of another backend, which its device cannot
    /// see.
    #[error(
        "{stream} cannot safely wait for {marker} of another backend; \
         synchronize() on the marker first{}",
        match may_hold {
            true => {
                ", let a host stream wait for it, or accept a stalled hardware queue with \
                 wait_foreign()"
            }
            false => ", or let a host stream wait for it and submit what is to run behind it then",
        }
    )]
    #[non_exhaustive]
    ForeignWait {
        /// The stream in words.
        stream: String,
        /// The marker in words.
        marker: String,
        /// Whether [`wait_foreign`](crate::Stream::wait_foreign) is a choice on this stream.
        may_hold: bool,
    },

    /// The driver's queue is full, and the driver would block the caller until there is room.
    #[error(
        "{stream} has {pending} command buffers that are not complete, and making another one \
         would block until one is; synchronize() on an earlier marker first, or put more work \
         into each command buffer"
    )]
    #[non_exhaustive]
    WouldBlock {
        /// The stream in words.
        stream: String,
        /// How many of its command buffers are uncompleted.
        pending: usize,
    },

    /// The marker was recorded while its stream was captured into a CUDA graph.
    #[error(
        "{marker} was recorded while its stream was captured into a graph, {}",
        match ended {
            false => "so it has no status of its own: let streams of that capture wait for it, and \
                      record another one outside",
            true => "and that capture has ended, so nothing can wait for it any more: launch the \
                     graph, and wait for an event that is recorded behind the launch",
        }
    )]
    #[non_exhaustive]
    Captured {
        /// The marker in words.
        marker: String,
        /// Whether a wait was refused because the capture has ended. Elsewhere `false`: then it may
        /// have ended or not.
        ended: bool,
    },

    /// The marker is reserved, and [`submitted`](crate::Reservation::submitted) was not called yet.
    #[error(
        "{marker} is reserved, and nobody has said that its work is submitted; \
         submit it and call submitted() on its reservation first"
    )]
    #[non_exhaustive]
    NotSubmitted {
        /// The marker in words.
        marker: String,
    },

    /// The marker's reservation was dropped without
    /// [`submitted`](crate::Reservation::submitted).
    #[error(
        "{marker} was reserved, and its reservation dropped without submitted(); \
         reserve another one for work that is to be submitted"
    )]
    #[non_exhaustive]
    Abandoned {
        /// The marker in words.
        marker: String,
    },

    /// A wait for the first of many was given none.
    #[error("{call}() was given nothing to wait for; pass one event or marker at least")]
    #[non_exhaustive]
    NothingToWaitFor {
        /// The call that was made.
        call: &'static str,
    },

    /// The device, stream or driver does not offer this.
    #[error("{device} does not support {what}; {remedy}")]
    #[non_exhaustive]
    Unsupported {
        /// What was asked for.
        what: String,
        /// The device's name.
        device: String,
        /// What to do instead.
        remedy: String,
    },

    /// The process was forked from one that had the device open, or its driver in use: it has
    /// neither the threads nor the driver of that one.
    #[error(
        "{device} was in use before fork(), and neither its threads nor its driver came along; \
         use it in the parent, or exec() and open it anew (the host can be opened anew at once)"
    )]
    #[non_exhaustive]
    Forked {
        /// The device's name.
        device: String,
    },

    /// A native call failed.
    #[error("{call} failed with {code}: {text}")]
    #[non_exhaustive]
    Backend {
        /// The native call.
        call: &'static str,
        /// The code that it returned, or 0 where it has none.
        code: i64,
        /// What the code means, and what to do about it.
        text: String,
    },
}

impl Error {
    /// This error, which a call is about to return to its caller.
    pub(crate) fn seen(self) -> Error {
        if let Some(cause) = self.cause() {
            cause.first_cause().see();
        }
        self
    }

    /// Why the stream or device failed, where this error reports such a failure.
    ///
    /// ```
    /// let stream = fencepost::Device::open("host")?.new_stream()?;
    /// stream.launch(|| std::panic::resume_unwind(Box::new("no more paper")))?;
    /// let error = stream.synchronize().unwrap_err();
    /// assert!(error.cause().unwrap().to_string().contains("no more paper"));
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn cause(&self) -> Option<&Cause> {
        match self {
            Error::StreamFailed { cause, .. } | Error::DeviceLost { cause, .. } => Some(cause),
            _ => None,
        }
    }
}

impl Error {
    /// A thread of the library could not be started.
    pub(crate) fn no_thread(error: &std::io::Error) -> Error {
        Error::Backend {
            call: "std::thread::Builder::spawn",
            code: error.raw_os_error().unwrap_or(-1).into(),
            text: format!("{error}; end some threads, or raise the process's limit"),
        }
    }

    /// A timeout that names the event that was waited for.
    pub(crate) fn of_event(mut self, name: Option<String>) -> Error {
        if let Error::Timeout(timeout) = &mut self {
            timeout.event = name;
        }
        self
    }

    /// This error of a time between two events of these names: it names the one that it is about.
    pub(crate) fn of_events(mut self, start: Option<String>, end: Option<String>) -> Error {
        if let Error::NotRecorded { which, event, .. }
        | Error::NotReady { which, event, .. }
        | Error::TimingDisabled { which, event } = &mut self
        {
            *event = match *which {
                "start" => start,
                "end" => end,
                _ => None,
            };
        }
        self
    }

    pub(crate) fn not_recorded(which: &'static str) -> Error {
        Error::NotRecorded {
            which,
            event: None,
            in_graph: false,
        }
    }

    pub(crate) fn not_ready(which: &'static str, marker: String) -> Error {
        Error::NotReady {
            which,
            marker,
            event: None,
            complete: false,
        }
    }

    /// The marker is complete, but the driver does not show its time yet.
    #[cfg_attr(not(any(feature = "vulkan", feature = "wgpu30")), allow(dead_code))]
    pub(crate) fn time_not_ready(which: &'static str, marker: String) -> Error {
        Error::NotReady {
            which,
            marker,
            event: None,
            complete: true,
        }
    }

    pub(crate) fn timing_disabled(which: &'static str) -> Error {
        Error::TimingDisabled { which, event: None }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// A name behind what it is the name of: ` "load"`.
struct Quoted<'a>(&'a Option<String>);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(name) => write!(f, " {name:?}"),
            None => Ok(()),
        }
    }
}

/// The event of a marker, behind the marker: `, event "load"`.
struct OfEvent<'a>(&'a Option<String>);

impl fmt::Display for OfEvent<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(name) => write!(f, ", event {name:?}"),
            None => Ok(()),
        }
    }
}

/// Why a stream or device failed: the first cause, and the last wait that passed it on.
///
/// A stream that waits for a failed marker fails too, so a failure travels along waits. However
/// long that chain is, a cause keeps its two ends only.
///
/// ```
/// let device = fencepost::Device::open("host")?;
/// let (a, b) = (device.new_stream()?, device.new_stream()?);
/// a.launch(|| std::panic::resume_unwind(Box::new("boom")))?;
/// b.wait(&a.record()?)?;
/// let error = b.synchronize().unwrap_err();
/// let cause = error.cause().unwrap();
/// assert_eq!(cause.hops(), 1);
/// assert!(cause.root().contains("boom"));
/// # Ok::<(), fencepost::Error>(())
/// ```
#[derive(Clone)]
pub struct Cause(Arc<CauseInner>);

struct CauseInner {
    root: Arc<Root>,
    /// The last wait that the failure came by, and the first cause; `None` in the first cause.
    via: Option<(String, Cause)>,
    hops: usize,
}

impl Cause {
    pub(crate) fn new(root: impl Into<Arc<str>>) -> Cause {
        Cause::of_root(Arc::new(Root::new(root.into(), None, false)))
    }

    /// The cause of host work that panicked, which the panic hook has told of.
    pub(crate) fn of_panic(root: String) -> Cause {
        Cause::of_root(Arc::new(Root::new(root.into(), None, true)))
    }

    /// The cause of host work that raised something in another language.
    pub(crate) fn of_raised(root: String, payload: Payload) -> Cause {
        Cause::of_root(Arc::new(Root::new(root.into(), Some(payload), false)))
    }

    /// The cause of host work launched at `at` that returned an error. Where that tells of a failed
    /// stream or device, its cause is passed on as by a wait.
    pub(crate) fn of_returned(returned: Returned, at: Place) -> Cause {
        match returned.error.downcast_ref() {
            Some(Error::StreamFailed { stream, cause }) => return cause.through(stream.clone()),
            Some(Error::DeviceLost { device, cause }) => return cause.through(device.clone()),
            _ => {}
        }
        let root = format!(
            "host work launched at {at} returned an error: {}",
            returned.text
        );
        Cause::of_raised(root, Arc::new(returned))
    }

    pub(crate) fn of_root(root: Arc<Root>) -> Cause {
        Cause(Arc::new(CauseInner {
            root,
            via: None,
            hops: 0,
        }))
    }

    /// The cause of `error`, or the error itself as a first cause.
    pub(crate) fn of(error: &Error) -> Cause {
        match error.cause() {
            Some(cause) => cause.clone(),
            None => Cause::new(error.to_string()),
        }
    }

    /// The cause of a stream that waited for `marker`, which failed with `self`.
    pub(crate) fn through(&self, marker: String) -> Cause {
        Cause(Arc::new(CauseInner {
            root: self.0.root.clone(),
            via: Some((marker, self.first().clone())),
            hops: self.0.hops + 1,
        }))
    }

    pub(crate) fn first_cause(&self) -> &Arc<Root> {
        &self.0.root
    }

    fn first(&self) -> &Cause {
        self.0.via.as_ref().map_or(self, |(_, first)| first)
    }

    /// The first cause in words.
    ///
    /// ```
    /// # let stream = fencepost::Device::open("host")?.new_stream()?;
    /// # stream.launch(|| std::panic::resume_unwind(Box::new("boom")))?;
    /// # let error = stream.synchronize().unwrap_err();
    /// assert!(error.cause().unwrap().root().contains("boom"));
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn root(&self) -> &str {
        &self.0.root.text
    }

    /// The number of waits that passed the failure on; 0 where it happened.
    ///
    /// ```
    /// # let stream = fencepost::Device::open("host")?.new_stream()?;
    /// # stream.launch(|| std::panic::resume_unwind(Box::new("boom")))?;
    /// # let error = stream.synchronize().unwrap_err();
    /// assert_eq!(error.cause().unwrap().hops(), 0);
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn hops(&self) -> usize {
        self.0.hops
    }
}

/// The error that host work returned, and its text.
pub(crate) struct Returned {
    text: String,
    error: Box<dyn std::error::Error + Send + Sync>,
}

impl Returned {
    /// Calls the error's `Display`, which is code of the user's.
    pub(crate) fn new(error: Box<dyn std::error::Error + Send + Sync>) -> Box<Returned> {
        Box::new(Returned {
            text: error.to_string(),
            error,
        })
    }
}

/// The source of a cause that came by a wait is the first cause. That of a first cause is the error
/// that a closure of [`try_launch`](crate::Stream::try_launch) returned, if one did.
///
/// ```
/// use std::error::Error;
/// let device = fencepost::Device::open("host")?;
/// let (a, b) = (device.new_stream()?, device.new_stream()?);
/// a.launch(|| std::panic::resume_unwind(Box::new("boom")))?;
/// b.wait(&a.record()?)?;
/// let error = b.synchronize().unwrap_err();
/// let cause = error.source().unwrap();
/// assert!(cause.to_string().starts_with("it waited for"));
/// assert!(cause.source().unwrap().to_string().ends_with("boom"));
/// # Ok::<(), fencepost::Error>(())
/// ```
impl std::error::Error for Cause {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        if let Some((_, first)) = &self.0.via {
            return Some(first);
        }
        let returned: &Returned = self.0.root.payload.as_ref()?.downcast_ref()?;
        Some(&*returned.error)
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((via, _)) = &self.0.via {
            write!(f, "it waited for {via}, which failed")?;
            match self.0.hops {
                1 => f.write_str(": ")?,
                hops => write!(f, ", {hops} waits behind the first failure: ")?,
            }
        }
        f.write_str(self.root())
    }
}

impl fmt::Debug for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cause({self})")
    }
}

/// A wait that ended at its limit: what it waited for, and how far that had come.
///
/// ```
/// use std::time::Duration;
/// use fencepost::{Device, Error};
///
/// let stream = Device::open("host")?.new_stream()?;
/// let (go, wait) = std::sync::mpsc::channel::<()>();
/// stream.launch(move || { let _ = wait.recv(); })?;
/// let marker = stream.record()?;
/// let Err(Error::Timeout(timeout)) = marker.synchronize_timeout(Duration::from_millis(1)) else {
///     panic!("the work is held back");
/// };
/// println!("{timeout}");
/// assert_eq!((timeout.completed, timeout.recorded), (0, 1));
/// drop(go);
/// # Ok::<(), fencepost::Error>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Timeout {
    /// The limit that the caller gave.
    pub limit: Duration,
    /// The marker's number on its stream, counted from 1.
    pub marker: u64,
    /// The stream in words.
    pub stream: String,
    /// The line of source code that recorded the marker.
    pub recorded_at: Place,
    /// How many of the stream's markers are complete.
    pub completed: u64,
    /// How many markers were recorded on the stream.
    pub recorded: u64,
    /// The name of the event that was waited for, if it has one.
    pub event: Option<String>,
    /// What is stuck: the end of the chain of waits that begins at this marker, where it is known,
    /// and the waits that lead there.
    pub held_up_by: Option<String>,
    /// Of a wait for many: what else it waited for at its end, the first and last few of that. This
    /// timeout itself is about the first. For each stream it is one marker, behind which the others
    /// of that stream complete or have completed.
    pub others: Vec<Timeout>,
    /// How many more there are, which lie between the first and the last of `others`.
    pub left_out: usize,
    pub(crate) lacks_places: bool,
}

impl std::error::Error for Timeout {}

impl Timeout {
    /// Whether its text leaves out a line that nobody looked for.
    pub(crate) fn lacks_places(&self) -> bool {
        self.lacks_places
            || !self.recorded_at.is_known()
            || self.others.iter().any(Timeout::lacks_places)
    }

    /// It names the event that was waited for.
    pub(crate) fn with_event(mut self, name: Option<String>) -> Timeout {
        self.event = name;
        self
    }

    /// One of a wait for many, with those that were left beside it.
    pub(crate) fn with_others(mut self, others: Vec<Timeout>, left_out: usize) -> Timeout {
        self.others = others;
        self.left_out = left_out;
        self
    }
}

impl fmt::Display for Timeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "gave up after {}: ", InWords(self.limit))?;
        self.tell(f)?;
        for (number, other) in self.others.iter().enumerate() {
            f.write_str("; also: ")?;
            if self.left_out != 0 && number == self.others.len() / 2 {
                write!(f, "… {} more …; also: ", self.left_out)?;
            }
            other.tell(f)?;
        }
        Ok(())
    }
}

impl Timeout {
    /// Tells of what was waited for.
    fn tell(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "marker {} of {}", self.marker, self.stream)?;
        if let Some(event) = &self.event {
            write!(f, " (event {event:?})")?;
        }
        if self.recorded_at.is_known() {
            write!(f, ", recorded at {},", self.recorded_at)?;
        }
        write!(
            f,
            " is pending; that stream has completed {} of {} markers",
            self.completed, self.recorded
        )?;
        match &self.held_up_by {
            Some(why) => write!(f, "; {why}"),
            None => f.write_str("; wait longer, or look at the work submitted before it"),
        }
    }
}

/// A duration as a person says it: `50 ms`, `1.5 s`. It keeps three digits, and all whole seconds.
pub(crate) struct InWords(pub(crate) Duration);

impl fmt::Display for InWords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.0.as_nanos();
        // The power of ten to round to.
        let digits = nanos.checked_ilog10().unwrap_or(0).saturating_sub(2).min(9);
        let step = 10_u128.pow(digits);
        let nanos = (nanos + step / 2) / step * step;
        let (unit, name) = match nanos {
            0 => (1_000_000_000, "s"),
            1..1_000 => (1, "ns"),
            1_000..1_000_000 => (1_000, "µs"),
            1_000_000..1_000_000_000 => (1_000_000, "ms"),
            _ => (1_000_000_000, "s"),
        };
        write!(f, "{}", nanos / unit)?;
        let rest = nanos % unit * 1_000 / unit;
        if rest != 0 {
            write!(f, ".{}", format!("{rest:03}").trim_end_matches('0'))?;
        }
        write!(f, " {name}")
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn what_unwrap_shows_is_the_text() {
        let error = crate::Device::open("gpu").unwrap_err();
        assert_eq!(format!("{error:?}"), error.to_string());
        let pending = Error::not_ready("held", "marker 1 of stream 2 of host".into());
        assert!(
            pending
                .to_string()
                .ends_with("call synchronize() on it first")
        );
    }

    #[test]
    fn a_limit_is_told_as_a_person_says_it() {
        for (nanos, words) in [
            (0, "0 s"),
            (7, "7 ns"),
            (12_345, "12.3 µs"),
            (50_000_000, "50 ms"),
            (298_140_723, "298 ms"),
            (999_999_999, "1 s"),
            (1_000_000_000, "1 s"),
            (1_500_000_000, "1.5 s"),
            (2_005_000_000, "2.01 s"),
            (90_000_000_000, "90 s"),
            (3_661_400_000_000, "3661 s"),
            (u64::MAX, "18446744074 s"),
        ] {
            let limit = Duration::from_nanos(nanos);
            assert_eq!(InWords(limit).to_string(), words, "{nanos} ns");
        }
        assert!(InWords(Duration::MAX).to_string().ends_with(" s"));
    }
}
