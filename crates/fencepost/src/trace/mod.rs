//! What ran when, on every device and on the host's threads, on one axis.
//!
//! A [`Trace`] collects named spans: of streams, timed by the device, and of threads. Spans of all
//! devices are placed on one axis, by correlations that the trace takes itself. Waits that streams
//! make through the library become arrows between them.
//!
//! ```
//! use fencepost::{Device, Event, trace::Trace};
//!
//! let device = Device::open("host")?;
//! let (load, compute) = (device.new_stream()?, device.new_stream()?);
//! let (trace, loaded) = (Trace::new(), Event::new(&device));
//!
//! let step = trace.host_span("step").with("number", 1);
//! trace.scope("load", &load, || load.launch(|| println!("load")))?;
//! loaded.record(&load)?;
//! compute.wait_event(&loaded)?;
//! trace.scope("compute", &compute, || compute.launch(|| println!("compute")))?;
//! step.end();
//!
//! compute.synchronize()?;
//! println!("{}", trace.collect());
//! # let folder = std::env::temp_dir().join(format!("fencepost-trace-{}", std::process::id()));
//! # std::fs::create_dir_all(&folder)?;
//! trace.save(folder.join("steps.pftrace"))?; // for https://ui.perfetto.dev
//! # std::fs::remove_dir_all(folder)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What it costs
//! - **A stream's span is a pair of timed events** of a pool, recorded again in place. It took 1.1
//!   to 1.2 times as long as two bare timed records on an H200. No record waits for the device, and
//!   nothing is read from the device on the thread that records: a thread of the trace does that.
//! - **A finished span takes at most 60 bytes**, with its share of names, which are kept once for
//!   each few thousand spans, and the first 4,096 short ones of threads' spans once for the trace.
//!   Attributes take 24 bytes each, and their texts.
//! - **Memory is bounded**: see [`Options`].
//!
//! # What it never does
//! Tracing never makes a program fail, and never makes it wait. A span that cannot be recorded is
//! dropped and counted, and the first reason is kept: see [`Summary`]. A failure of a stream that
//! the trace comes across counts as one that nobody has asked for, as before.
//!
//! In a forked child nothing is traced: the guards of the parent's spans do nothing there. Make a
//! new trace.
//!
//! # Spans of streams
//! A span begins behind everything submitted to its stream so far, and ends likewise. So it covers
//! the work that is submitted while it is open, and the time in which the device waits for the
//! host in between. A span that is ended on another thread is a span like any other. A span whose
//! stream fails is shown as failed, with the cause; one that is not over when the picture is taken,
//! as unfinished.
//!
//! On a stream that is captured into a graph a span cannot be timed. It is dropped and counted; the
//! graph gets its two records all the same.
//!
//! # Arrows
//! An arrow goes from what was awaited to what waited: for [`Stream::wait`], `wait_foreign`,
//! [`Event::wait`](crate::Event::wait), `wait_event` and [`Gate::wait`](crate::Gate::wait), also
//! where the marker was complete by then. It needs no timed marker, since it is drawn between
//! spans, by their order on their streams:
//! - It begins at the end of the span that ended last before the awaited marker; or at the start of
//!   the span that was open there, if that was begun later.
//! - It ends in the span that the wait is in, or at the first span that begins behind the wait,
//!   also within that one.
//! - A stream that has no such span gets a mark.
//!
//! Of a gate it begins on the thread that opened it, at that moment. Of a `cuda::RawEvent` it
//! begins where that was last recorded by `RawEvent::record`, if a trace was there then: nobody
//! tells of what others record.
//! Where neither stream has a span, and for a gate that was not opened, there is no arrow.
//!
//! # The axis
//! Times are on the system's clock that runs on while the system sleeps (`CLOCK_BOOTTIME`), on
//! Linux and Android. Elsewhere it is the clock of [`Instant`](std::time::Instant), counted from
//! 1970. A device's time is brought there along a line between two correlations, which are taken
//! when a device comes first, each second while spans come in, and at [`Trace::collect`]. What is
//! uncertain about a time is written beside it. On one stream, what comes later is never shown
//! earlier. A trace holds a [`TimeKeeper`](crate::TimeKeeper) of each device, so that a span of an
//! hour is known within a microsecond on CUDA too.

mod alarm;
mod arrows;
mod axis;
mod clocks;
mod collector;
mod draw;
pub(crate) mod entries;
mod flows;
mod identifiers;
mod instants;
mod intake;
mod json;
mod known;
mod lanes;
#[cfg(feature = "tracing-layer")]
mod layer;
mod messages;
mod names;
mod pending;
mod perfetto;
// Public for `bindings` alone.
#[allow(missing_docs)]
pub(crate) mod picture;
mod recorder;
#[cfg(all(test, not(loom)))]
mod samples;
mod save;
mod shared;
mod span;
mod store;
mod svg;
#[cfg(all(test, not(loom)))]
mod tests;
mod text;
mod threads;
mod value;

use std::{
    cell::RefCell,
    fmt,
    sync::{Arc, Weak},
};

#[cfg(feature = "tracing-layer")]
pub use self::layer::TraceLayer;
pub(crate) use self::save::{can_save, save as save_picture};
use self::{
    pending::Begun,
    recorder::{Pair, Recorder},
    shared::Shared,
    threads::{HostRecord, Opened},
};
pub use self::{
    span::{HostSpan, Moment, Span},
    value::Value,
};
use crate::{
    error::{Error, Result},
    observe::{self, Observer},
    place::Place,
    stream::Stream,
    sync::{Ordering, lock},
};

/// How much a trace keeps.
///
/// ```
/// use fencepost::trace::{Options, Trace};
/// let trace = Trace::with_options(Options::default().capacity(10_000).pending(100));
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Options {
    capacity: usize,
    pending: Option<usize>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            capacity: 1_000_000,
            pending: None,
        }
    }
}

impl Options {
    /// How many finished spans are kept: a million, unless this is called, which take 60 MB once
    /// they are there. Beyond that the oldest is dropped for each new one, and counted. So a trace
    /// may be left on, and shows the last that happened before somebody looked. As many arrows are
    /// kept.
    ///
    /// ```
    /// let options = fencepost::trace::Options::default().capacity(10_000);
    /// ```
    #[must_use]
    pub fn capacity(mut self, spans: usize) -> Options {
        self.capacity = spans.max(1);
        self
    }

    /// How many spans of a stream are pending at most: begun, and not yet known to be complete.
    /// Beyond that spans are dropped and counted, since a driver's queue has an end, and a full one
    /// makes the program wait. Each pending span is two records there. 256 on CUDA, whose queue
    /// takes some 1,020 timed records; 8 on Metal, where a record is one of 64 command buffers;
    /// 1,024 on Vulkan, OpenCL and wgpu, and 4,096 on the host.
    ///
    /// ```
    /// let options = fencepost::trace::Options::default().pending(100);
    /// ```
    #[must_use]
    pub fn pending(mut self, spans: usize) -> Options {
        self.pending = Some(spans.max(1));
        self
    }
}

/// Collects spans of streams and of threads. See the [module](self).
///
/// Cheap to clone. All clones are the same trace, and any thread may use them. Dropping the last
/// one never blocks; what it has collected is gone.
///
/// ```
/// use fencepost::{Device, trace::Trace};
///
/// let (trace, stream) = (Trace::new(), Device::open("host")?.new_stream()?);
/// trace.scope("greet", &stream, || stream.launch(|| println!("hello")))?;
/// stream.synchronize()?;
/// assert_eq!(trace.collect().finished, 1);
/// # Ok::<(), fencepost::Error>(())
/// ```
#[derive(Clone)]
pub struct Trace {
    handle: Arc<Handle>,
}

/// What ends the trace when the last clone goes.
struct Handle {
    shared: Arc<Shared>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        match self.shared.is_ours() {
            true => {
                observe::remove(&observer(&self.shared));
                self.shared.stop();
            }
            // A thread of the parent may hold any lock: it is leaked.
            false => std::mem::forget(self.shared.clone()),
        }
    }
}

fn observer(shared: &Arc<Shared>) -> Weak<dyn Observer> {
    Arc::downgrade(shared) as _
}

/// What a trace holds, as [`Trace::summary`] tells.
///
/// ```
/// use fencepost::trace::Trace;
/// let trace = Trace::new();
/// trace.host_span("load").end();
/// assert_eq!(trace.summary().to_string(), "1 finished, 0 failed, 0 unfinished, 0 dropped");
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Summary {
    /// Spans and marks that are complete, without those marks that show where a gate was opened.
    pub finished: usize,
    /// Those whose stream failed before they were complete.
    pub failed: usize,
    /// Spans of streams that are not over, or not known to be.
    pub unfinished: usize,
    /// Those that are missing: that were not recorded, or are not kept any more. See [`Options`].
    pub dropped: u64,
    /// Those of the dropped ones that were not recorded: the driver refused, or too much was
    /// pending.
    pub lost: u64,
    /// Why the first span was dropped that could not be recorded, or the first clock not be read.
    pub first_error: Option<String>,
}

/// As in `12 finished, 0 failed, 1 unfinished, 0 dropped`.
impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (finished, failed, unfinished) = (self.finished, self.failed, self.unfinished);
        let dropped = self.dropped;
        write!(
            f,
            "{finished} finished, {failed} failed, {unfinished} unfinished, {dropped} dropped"
        )?;
        match &self.first_error {
            Some(error) => write!(f, "; the first error: {error}"),
            None => Ok(()),
        }
    }
}

thread_local! {
    /// The recorders that this thread used last.
    static RECORDERS: RefCell<Vec<Arc<Recorder>>> = const { RefCell::new(Vec::new()) };
}

/// So many recorders are within reach of a thread.
const NEAR: usize = 8;

impl Default for Trace {
    fn default() -> Trace {
        Trace::new()
    }
}

impl Trace {
    /// A trace that keeps the last million spans. Never blocks, and starts no thread before there
    /// is a span of a stream.
    ///
    /// ```
    /// let trace = fencepost::trace::Trace::new();
    /// ```
    #[must_use]
    pub fn new() -> Trace {
        Trace::with_options(Options::default())
    }

    /// A trace that keeps as much as `options` say.
    ///
    /// ```
    /// use fencepost::trace::{Options, Trace};
    /// let trace = Trace::with_options(Options::default().capacity(10_000));
    /// ```
    #[must_use]
    pub fn with_options(options: Options) -> Trace {
        let shared = Shared::new(options);
        observe::add(observer(&shared));
        Trace {
            handle: Arc::new(Handle { shared }),
        }
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.handle.shared
    }

    #[inline]
    fn is_ours(&self) -> bool {
        self.shared().is_ours()
    }

    /// Begins a span of a stream, behind everything submitted to it so far. It ends when the guard
    /// is dropped. Never waits for the device; where the driver's queue is full, the driver may
    /// block the call, as [`Stream::record`] says.
    ///
    /// # References
    /// - those of [`Event::record`](crate::Event::record), of a timed event, twice
    ///
    /// ```
    /// # use fencepost::{Device, trace::Trace};
    /// # let (trace, stream) = (Trace::new(), Device::open("host")?.new_stream()?);
    /// let span = trace.span("forward", &stream).with("batch", 32);
    /// stream.launch(|| println!("work"))?;
    /// drop(span);
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    #[inline]
    #[track_caller]
    pub fn span<'a>(&'a self, name: &str, stream: &'a Stream) -> Span<'a> {
        self.span_at(name, stream, Place::caller())
    }

    #[inline]
    pub(crate) fn span_at<'a>(&'a self, name: &str, stream: &'a Stream, at: Place) -> Span<'a> {
        match self.begin(name, stream, false, at) {
            Some(begun) => Span::new(self, stream, begun, at),
            None => Span::NONE,
        }
    }

    /// Begins a span of a stream, calls `f`, and ends the span: also where `f` panics. The span
    /// covers what `f` submits to the stream.
    ///
    /// ```
    /// # use fencepost::{Device, trace::Trace};
    /// # let (trace, stream) = (Trace::new(), Device::open("host")?.new_stream()?);
    /// trace.scope("forward", &stream, || stream.launch(|| println!("work")))?;
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    #[track_caller]
    pub fn scope<R>(&self, name: &str, stream: &Stream, f: impl FnOnce() -> R) -> R {
        let _span = self.span(name, stream);
        f()
    }

    /// Marks a moment on a stream, behind everything submitted to it so far. Never waits for the
    /// device.
    ///
    /// # References
    /// - those of [`Event::record`](crate::Event::record), of a timed event
    ///
    /// ```
    /// # use fencepost::{Device, trace::Trace};
    /// # let (trace, stream) = (Trace::new(), Device::open("host")?.new_stream()?);
    /// trace.instant("checkpoint", &stream).with("step", 3);
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    #[track_caller]
    #[allow(clippy::must_use_candidate)]
    pub fn instant(&self, name: &str, stream: &Stream) -> Moment {
        self.instant_at(name, stream, Place::caller())
    }

    pub(crate) fn instant_at(&self, name: &str, stream: &Stream, at: Place) -> Moment {
        let begun = self.begin(name, stream, true, at);
        Moment::new(begun.map(|begun| (self.clone(), begun)))
    }

    /// Begins a span of the calling thread. It ends when the guard is dropped. Never blocks.
    ///
    /// ```
    /// let trace = fencepost::trace::Trace::new();
    /// let step = trace.host_span("step");
    /// trace.host_span("load").with("bytes", 4096).end();
    /// drop(step);
    /// ```
    #[inline]
    pub fn host_span(&self, name: &str) -> HostSpan<'_> {
        self.host_span_with(name, || None)
    }

    /// `thread` tells the name of the calling thread, where that is new here.
    #[inline]
    pub(crate) fn host_span_with(
        &self,
        name: &str,
        thread: impl FnOnce() -> Option<String>,
    ) -> HostSpan<'_> {
        let begun = match self.is_ours() {
            true => self.shared().begin_here(name, thread),
            false => None,
        };
        HostSpan::new(self, begun)
    }

    /// Begins a span of the calling thread, calls `f`, and ends the span: also where `f` panics.
    ///
    /// ```
    /// let trace = fencepost::trace::Trace::new();
    /// let sum: u64 = trace.host_scope("sum", || (0..1000).sum());
    /// ```
    pub fn host_scope<R>(&self, name: &str, f: impl FnOnce() -> R) -> R {
        let _span = self.host_span(name);
        f()
    }

    /// Marks a moment of the calling thread. Never blocks.
    ///
    /// ```
    /// let trace = fencepost::trace::Trace::new();
    /// trace.host_instant("signal");
    /// ```
    pub fn host_instant(&self, name: &str) {
        self.host_instant_with(name, Vec::new(), || None);
    }

    /// With attributes. `thread` tells the name of the calling thread, where that is new here.
    pub(crate) fn host_instant_with(
        &self,
        name: &str,
        attributes: Vec<(String, Value)>,
        thread: impl FnOnce() -> Option<String>,
    ) {
        let at = std::time::Instant::now();
        if !self.is_ours() {
            return;
        }
        let Some((track, name)) = self.shared().begin_here(name, thread) else {
            return;
        };
        let mut noted = None;
        for (name, value) in attributes {
            value::note(&mut noted, &name, value);
        }
        self.shared().host(HostRecord {
            track,
            start: self.shared().since_origin(at),
            length: 0,
            name,
            attributes: noted,
            mark: Some(Opened(0)),
        });
    }

    /// Takes in what is complete, reads the clocks of devices again, and tells what there is. It
    /// never waits for work of yours: what is not complete stays unfinished. It waits some 10 µs
    /// for a stamp of each GPU, and 0.15 s at most where other work holds that up.
    ///
    /// # References
    /// - those of [`Marker::query`](crate::Marker::query),
    ///   [`Marker::elapsed`](crate::Marker::elapsed) and
    ///   [`Device::correlate`](crate::Device::correlate)
    ///
    /// ```
    /// # use fencepost::{Device, trace::Trace};
    /// # let (trace, stream) = (Trace::new(), Device::open("host")?.new_stream()?);
    /// trace.span("work", &stream).end();
    /// stream.synchronize()?;
    /// println!("{}", trace.collect());
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    #[allow(clippy::must_use_candidate)]
    pub fn collect(&self) -> Summary {
        if self.is_ours() {
            self.shared().collect();
        }
        self.summary()
    }

    /// What there is, without taking in what is complete by now on devices. In a forked child
    /// nothing.
    ///
    /// ```
    /// let trace = fencepost::trace::Trace::new();
    /// assert_eq!(trace.summary().finished, 0);
    /// ```
    #[must_use]
    pub fn summary(&self) -> Summary {
        if !self.is_ours() {
            return Summary::default();
        }
        let shared = self.shared();
        shared.take_in_threads();
        let recorders = shared.recorders().into_iter();
        let pending = recorders.map(|recorder| recorder.pending.count());
        let unfinished = pending.map(|(open, ended)| open + ended).sum();
        let lost = shared.dropped.load(Ordering::Relaxed);
        let stored = lock(&shared.store);
        Summary {
            finished: stored.store.len() - stored.store.failed - stored.store.of_gates,
            failed: stored.store.failed,
            unfinished,
            dropped: stored.store.dropped + lost,
            lost,
            first_error: shared.first_error(),
        }
    }

    /// Everything that there is.
    pub(crate) fn picture(&self) -> picture::Picture {
        match self.is_ours() {
            true => {
                self.shared().collect();
                self.shared().picture()
            }
            false => picture::Picture::default(),
        }
    }

    /// The moment `at` on the axis of pictures.
    #[cfg(feature = "conformance")]
    pub(crate) fn on_axis(at: std::time::Instant) -> i64 {
        clocks::Reading::now().on_axis(at)
    }

    /// Records the start of a span, or a mark. `None` where it is dropped.
    #[inline]
    fn begin(&self, name: &str, stream: &Stream, is_mark: bool, at: Place) -> Option<Begun<Pair>> {
        if !self.is_ours() {
            return None;
        }
        let known = self.with_near(stream, |known| {
            Some(known.pending.begin(name, is_mark, || known.pair()))
        });
        let begun = known.unwrap_or_else(|| {
            let recorder = self.come_near(stream);
            recorder.pending.begin(name, is_mark, || recorder.pair())
        });
        let Some(begun) = begun else {
            self.shared().lost(None);
            return None;
        };
        match begun.pair.start.record_at(stream, at) {
            Ok(()) => Some(begun),
            Err(error) => {
                self.give_up(&begun, &error);
                None
            }
        }
    }

    /// Calls `f` with the recorder of a stream, where that is within reach of this thread.
    #[inline]
    fn with_near<R>(
        &self,
        stream: &Stream,
        f: impl FnOnce(&Arc<Recorder>) -> Option<R>,
    ) -> Option<R> {
        let (trace, stream) = (self.shared().id, stream.id());
        let found = RECORDERS.try_with(|near| {
            let near = near.try_borrow().ok()?;
            let mut near = near.iter();
            f(near.find(|known| known.core.id == stream && known.trace == trace)?)
        });
        found.ok().flatten()
    }

    /// The recorder of a stream, which is within reach of this thread from now on.
    #[cold]
    fn come_near(&self, stream: &Stream) -> Arc<Recorder> {
        let recorder = self.shared().recorder(stream);
        // The thread reads the clock of the device.
        collector::start(self.shared());
        self.shared().alarm.ring();
        let near = recorder.clone();
        let gone = RECORDERS.try_with(|recorders| {
            let mut recorders = recorders.try_borrow_mut().ok()?;
            recorders.insert(0, near);
            (recorders.len() > NEAR).then(|| recorders.pop()).flatten()
        });
        drop(gone);
        recorder
    }

    #[inline]
    fn ended(&self, stream: &Stream, begun: Begun<Pair>, recorded: Result<()>) {
        if let Err(error) = recorded {
            return self.give_up(&begun, &error);
        }
        let mut begun = Some(begun);
        let is_due = self.with_near(stream, |recorder| {
            Some(recorder.is_due_at(recorder.pending.end(begun.take()?)))
        });
        match (is_due, begun) {
            (_, Some(begun)) => self.ended_far(begun),
            (Some(true), None) => self.shared().alarm.ring(),
            _ => {}
        }
    }

    /// As [`ended`](Trace::ended), for what was recorded, on a thread that need not know the
    /// recorder.
    #[cold]
    fn ended_far(&self, begun: Begun<Pair>) {
        let recorder = begun.pair.recorder.clone();
        if recorder.is_due_at(recorder.pending.end(begun)) {
            self.shared().alarm.ring();
        }
    }

    #[cold]
    fn give_up(&self, begun: &Begun<Pair>, error: &Error) {
        begun.pair.recorder.pending.give_up(begun.slot);
        self.shared().lost(Some(error));
    }
}

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Trace({})", self.summary())
    }
}

#[cfg(all(test, not(loom)))]
mod handle_tests {
    use std::time::Duration;

    use super::{picture::Kind, *};
    use crate::{Device, Gate, sync::AtomicBool};

    /// The name of the track of the thread with this number. Tracks of gates that other tests open
    /// are there, too.
    fn name_of(trace: &Trace, tid: u64) -> Option<String> {
        let tracks = trace.picture().tracks.into_iter();
        let mut its = tracks.filter(|track| track.kind == Kind::Thread { tid });
        its.next().map(|track| track.name)
    }

    /// A gate whose limit no slow interpreter comes to.
    fn lasting(device: &Device) -> Gate {
        Gate::with_limit(device, Duration::from_secs(3600)).unwrap()
    }

    #[test]
    fn a_gate_that_is_opened_counts_as_nothing_that_was_traced() {
        let device = Device::open("host").unwrap();
        let (trace, stream) = (Trace::new(), device.new_stream().unwrap());
        let gate = lasting(&device);
        gate.wait(&stream).unwrap();
        trace.span("behind", &stream).end();
        gate.open();
        stream.synchronize().unwrap();
        assert_eq!(trace.collect().finished, 1);
        let marks = trace.picture().marks;
        assert!(!marks.is_empty(), "the arrow begins at one");
    }

    #[test]
    fn a_capacity_without_end_keeps_all() {
        let trace = Trace::with_options(Options::default().capacity(usize::MAX));
        trace.host_span("work").end();
        assert_eq!(trace.collect().finished, 1);
    }

    #[test]
    #[cfg_attr(miri, ignore = "5,000 streams and gates")]
    fn tracks_of_what_is_gone_are_forgotten_and_those_of_records_are_kept() {
        let device = Device::open("host").unwrap();
        let trace = Trace::with_options(Options::default().capacity(10));
        let kept = device.new_stream().unwrap();
        for _ in 0..5000 {
            let stream = device.new_stream().unwrap();
            trace.span("work", &stream).end();
            let gate = lasting(&device);
            gate.wait(&kept).unwrap();
            gate.open();
            stream.synchronize().unwrap();
            drop(stream);
            trace.collect();
        }
        let count = lock(&trace.shared().tracks).list.len();
        assert!(count < 2100, "{count} tracks");
        let picture = trace.picture();
        let streams = picture.tracks.iter();
        let streams = streams.filter(|track| matches!(track.kind, Kind::Stream { .. }));
        assert!(streams.count() > 0 && !picture.slices.is_empty());
    }

    #[test]
    #[cfg_attr(miri, ignore = "46 s for 500 threads")]
    fn a_thread_that_ends_leaves_no_buffer_behind() {
        let trace = Trace::with_options(Options::default().capacity(10_000));
        for _ in 0..500 {
            let trace = trace.clone();
            let work = move || trace.host_span("work").end();
            std::thread::spawn(work).join().unwrap();
        }
        let buffers = lock(&trace.shared().tracks).buffers();
        assert!(buffers < 200, "{buffers} buffers");
        assert_eq!(trace.collect().finished, 500);
    }

    #[test]
    #[cfg_attr(
        any(miri, not(target_os = "linux")),
        ignore = "a thread has no number of its own to ask for"
    )]
    fn a_thread_that_ends_anothers_span_or_opens_a_gate_is_named_later() {
        let device = Device::open("host").unwrap();
        let (trace, stream) = (Trace::new(), device.new_stream().unwrap());
        let span = trace
            .host_span_with("work", || Some("main".into()))
            .into_owned();
        let gate = lasting(&device);
        gate.wait(&stream).unwrap();
        let clone = trace.clone();
        let other = std::thread::spawn(move || {
            let tid = threads::thread_number();
            span.end();
            assert_eq!(name_of(&clone, tid), None);
            gate.open();
            assert!(name_of(&clone, tid).unwrap().starts_with("thread "));
            drop(clone.host_span_with("more", || Some("other".into())));
            tid
        });
        let (this, other) = (threads::thread_number(), other.join().unwrap());
        assert_eq!(name_of(&trace, this).as_deref(), Some("main"));
        assert_eq!(name_of(&trace, other).as_deref(), Some("other"));
    }

    #[test]
    fn spans_of_streams_that_go_away_while_others_collect_are_all_there() {
        const EACH: usize = if cfg!(miri) { 3 } else { 4000 };
        let device = Device::new_host(2);
        let trace = Trace::new();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let recording = [(); 3].map(|()| {
                scope.spawn(|| {
                    for _ in 0..EACH {
                        let stream = device.new_stream().unwrap();
                        trace.span("first", &stream).end();
                        stream.synchronize().unwrap();
                        trace.collect();
                        trace.span("second", &stream).end();
                    }
                })
            });
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    trace.collect();
                }
            });
            for thread in recording {
                thread.join().unwrap();
            }
            done.store(true, Ordering::Relaxed);
        });
        let summary = trace.collect();
        assert_eq!(trace.picture().slices.len(), 6 * EACH, "{summary}");
        assert_eq!(summary.dropped, 0, "{summary}");
    }

    #[test]
    fn a_thread_keeps_no_device_of_a_trace_that_is_gone() {
        let device = Device::new_host(1);
        let stream = device.new_stream().unwrap();
        let trace = Trace::new();
        trace.span("work", &stream).end();
        let near = RECORDERS.with(|near| near.borrow()[0].clone());
        assert!(near.device().is_some());
        drop(trace);
        assert!(near.device().is_none());
    }

    #[test]
    fn a_trace_that_is_gone_observes_nothing_though_its_thread_may_still_run() {
        let stream = Device::open("host").unwrap().new_stream().unwrap();
        let trace = Trace::new();
        trace.span("work", &stream).end();
        let (shared, observer) = (trace.shared().clone(), observer(trace.shared()));
        let clone = trace.clone();
        drop(trace);
        assert!(observe::is_told(&observer));
        drop(clone);
        assert!(!observe::is_told(&observer));
        assert!(shared.is_stopping());
    }
}
