//! For the other packages of this repository alone: no promise of stability is made for anything
//! in here, and any release may change it.
//!
//! Bindings hold a lock of their own, Python's GIL, and must know whether a call may block before
//! they make it. And they make errors of the library's types, whose variants only this crate can
//! construct.

use std::{
    any::Any,
    sync::Arc,
    time::{Duration, Instant},
};

#[cfg(all(feature = "cuda", not(loom)))]
use crate::cuda::RawEvent;
#[cfg(all(feature = "cuda", not(loom)))]
pub use crate::cuda::device::stream_number;
pub use crate::measure::report::MeasurementParts;
#[cfg(feature = "trace")]
pub use crate::trace::entries::{Entries, Entry, EntryState, EntryTrack};
#[cfg(feature = "trace")]
use crate::trace::{HostSpan, Span, Summary, Trace, Value};
use crate::{
    Correlation, Device, Elapsed, Error, Event, Gate, Marker, Place, Result, Stream, Timeout,
    WaitSet,
    error::InWords,
    measure::{Measure, Measurement},
    panics::Raised,
    unobserved,
};
#[cfg(has_metal)]
use crate::{
    Reservation,
    metal::{objc2::runtime::ProtocolObject, objc2_metal::MTLCommandBuffer},
};

/// The graph of waits, for `fencepost watch`, which tells of other programs' streams in the same
/// words.
pub mod waits {
    pub use crate::waits::{End, Explanation, Mark, Node, Step, Stop, Waiter, What, tell, walk};
}

/// Files of traces whose content was collected elsewhere: `fencepost watch` draws other programs.
#[cfg(feature = "trace")]
pub mod pictures {
    use std::{io, path::Path};

    pub use crate::trace::picture::{
        Arrow, ArrowEnd, Attribute, ClockReading, Kind, Mark, On, Picture, ProcessFacts, Slice,
        State, Track, Value,
    };

    /// Writes `picture` as [`Trace::save`](crate::trace::Trace::save) writes a trace.
    pub fn save(picture: &Picture, path: &Path) -> io::Result<()> {
        crate::trace::save_picture(picture, path)
    }
}

/// [`Event::record`], where that makes no new marker and drops none: at most when the event was
/// last recorded on the same stream, of CUDA, OpenCL, Vulkan or wgpu, and nobody else holds that
/// marker. Otherwise, and if the driver refuses, it records nothing and returns `false`: `record`
/// tells why.
///
/// It drops no object of the caller's, so on CUDA and Vulkan the caller may have released the GIL
/// by hand. There it runs code of the caller's only where a lock of the caller's guards a Vulkan
/// queue. OpenCL's drivers and wgpu may run callbacks of the caller's in it.
#[inline]
#[must_use = "where it returns false, nothing was recorded"]
pub fn record_in_place(event: &Event, stream: &Stream, at: Place) -> bool {
    event.record_in_place(stream, at)
}

/// Makes an event that nobody uses any more blank: as if it had never been recorded, but it keeps
/// its name, and its marker, so that the next record on the same stream may be made in place.
/// Returns whether it did. If not, nothing has changed: the event is none of CUDA, or was not
/// recorded, or its marker cannot be recorded again in place, or the marker's stream has failed.
///
/// A failure of that stream that nobody asks for is reported only once the event is recorded on
/// another stream or dropped, or at the end of the process.
pub fn forget(event: &mut Event) -> bool {
    event.forget()
}

/// [`Event::elapsed`], where both events are known to be complete and their backend tells the time
/// at once; otherwise `None`, and `elapsed` tells the time or why there is none.
///
/// It runs no code of the caller's and drops no object of the caller's, as
/// [`record_in_place`] does.
#[inline]
#[must_use]
pub fn elapsed_at_once(start: &Event, end: &Event) -> Option<Elapsed> {
    start.elapsed_at_once(end)
}

/// How many CUDA devices there are, without initialising the driver; `None` where only the driver
/// can tell. See [`Device::list`](crate::Device::list).
#[cfg(all(feature = "cuda", not(loom)))]
pub fn cuda_count_uninitialised() -> Option<usize> {
    crate::cuda::device::count_uninitialised()
}

/// [`Device::correlate`], with the line that a timeout names. It calls `look` now and then while it
/// waits for the device, and gives up with [`Error::Timeout`] if that returns `false`.
pub fn correlate_at(
    device: &Device,
    at: Place,
    look: &mut dyn FnMut() -> bool,
) -> Result<Correlation> {
    device.correlate_at(at, look)
}

/// What [`Event::query`] can tell by a few atomic loads; `None` where it would take a lock or ask
/// a driver.
#[inline]
pub fn peek(event: &Event) -> Option<bool> {
    event.peek()
}

/// Whether an event was ever recorded. One atomic load.
#[inline]
pub fn is_recorded(event: &Event) -> bool {
    event.is_recorded()
}

/// A marker behind everything submitted so far on each live stream of `device`, for waits that
/// look for signals now and then. Never waits for the device. Each has the errors of
/// [`Stream::record`].
pub fn record_all(device: &Device, at: Place) -> Vec<Result<Marker>> {
    device.record_all(at)
}

/// [`Gate::with_limit`], with the line that makes it.
pub fn gate_at(device: &Device, limit: Duration, at: Place) -> Result<Gate> {
    Gate::made_at(device, limit, at)
}

/// The name of the threads of [`Device::keep_time`]. `fencepost watch` knows them by it: what they
/// record is no progress of the program.
pub const TIME_KEEPER: &str = "fencepost-time";

/// `Open`, `Closed` or `Failed`, as the gate's `Debug` form says.
pub fn gate_state(gate: &Gate) -> &'static str {
    gate.state()
}

/// Lets every stream go on that a [`Gate`] or a wait for another backend's marker holds on a GPU,
/// as the end of the process does: for an interpreter, whose end comes first and may free memory,
/// which waits for such a stream. Gates that hold a stream later may be open at once. Never blocks.
pub fn open_host_gates() {
    #[cfg(all(feature = "cuda", not(loom)))]
    crate::cuda::host_gates::open_all();
    #[cfg(all(feature = "opencl", not(loom)))]
    crate::opencl::exit::open_all_gates();
    #[cfg(all(feature = "vulkan", not(loom)))]
    crate::vulkan::exit::open_all_gates();
    #[cfg(has_metal)]
    crate::metal::native::open_all_gates();
}

/// The event of a CUDA marker, which holds that marker's recording until it is recorded again;
/// `None` for markers of other backends, and of streams that have failed. From then on it is never
/// used for another marker; recording it again changes what that marker tells while it is pending.
///
/// Keep it for as long as each [`Event`] that holds the marker, also where that is recorded again:
/// a thread may be asking it for a time, as [`elapsed_at_once`] does, when it is destroyed with the
/// marker.
#[cfg(all(feature = "cuda", not(loom)))]
pub fn raw_event_of(marker: &Marker) -> Option<RawEvent> {
    RawEvent::of_marker(marker)
}

/// What a closure of [`launch_at`] passes to [`std::panic::resume_unwind`] to end as failed: `what`
/// it raised in words, and the object itself, which every error of this failure carries: see
/// [`payload`]. [`is_raising`] is true from here on, until the stream has failed.
pub fn raised(what: String, payload: Arc<dyn Any + Send + Sync>) -> Box<dyn Any + Send> {
    Box::new(Raised::new(what, payload))
}

/// Whether there is what [`raised`] made and that has not failed its stream yet.
pub fn is_raising() -> bool {
    Raised::is_under_way()
}

/// What [`raised`] was called with, where `error` tells of such a failure.
pub fn payload(error: &Error) -> Option<&Arc<dyn Any + Send + Sync>> {
    error.cause()?.first_cause().payload.as_ref()
}

/// As [`set_unobserved_hook`](crate::set_unobserved_hook), for a hook that takes the failures
/// itself by [`take_lost`]. What it leaves is there for its next call, and for [`take_unobserved`].
pub fn set_unobserved_taker(taker: impl Fn() + Send + Sync + 'static) {
    unobserved::set_taker(taker);
}

/// The failures that nobody has seen, and that nobody can ask for any more.
pub fn take_lost() -> Vec<Error> {
    unobserved::take_dropped()
}

/// The failures that nobody has seen, for a report at the end of the process. They count as seen
/// from now on. The hook is not called.
pub fn take_unobserved() -> Vec<Error> {
    unobserved::take()
}

/// Takes a callback back: it is not called any more, unless it is on its way already. Never blocks.
pub struct Cancel(Box<dyn Fn() + Send + Sync>);

impl std::fmt::Debug for Cancel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Cancel")
    }
}

impl Cancel {
    /// Idempotent.
    pub fn cancel(&self) {
        (self.0)();
    }
}

/// [`Marker::on_complete`], with a way to take the callback back.
pub fn on_complete(
    marker: &Marker,
    callback: impl FnOnce(Result<()>) + Send + 'static,
) -> Result<Cancel> {
    let cancel = marker.call_back_cancellable(callback)?;
    Ok(Cancel(Box::new(cancel)))
}

/// [`RawEvent::on_complete`], with a way to take the callback back.
#[cfg(all(feature = "cuda", not(loom)))]
pub fn on_complete_raw(
    event: &RawEvent,
    callback: impl FnOnce(Result<()>) + Send + 'static,
) -> Result<Cancel> {
    let cancel = event.call_back_cancellable(callback)?;
    Ok(Cancel(Box::new(cancel)))
}

/// [`Measure::run`](crate::measure::Measure::run), which calls `look` now and then while it waits
/// for the device, and returns the error that this returns. The stream is not held if `ungated`
/// says why not.
pub fn measure<E: From<Error>>(
    measure: &Measure<'_>,
    f: &mut dyn FnMut() -> Result<(), E>,
    look: &mut dyn FnMut() -> Result<(), E>,
    ungated: Option<String>,
) -> Result<Measurement, E> {
    measure.run_and_look(f, look, ungated)
}

/// [`WaitSet::synchronize_next_timeout`], for waits in slices: `None` where the set is empty or the
/// slice is over, without the text that a timeout has. Without a slice it blocks for as long as it
/// takes. A failure that it tells of counts as not seen: the caller tells only that there is one.
pub fn next_ended<K>(
    set: &mut WaitSet<K>,
    slice: Option<Duration>,
) -> Result<Option<(K, Result<()>)>> {
    set.next_until(slice.and_then(|slice| Instant::now().checked_add(slice)))
}

/// As [`next_ended`], but never blocks.
pub fn look_for_ended<K>(set: &mut WaitSet<K>) -> Option<(K, Result<()>)> {
    set.look()
}

/// Puts into the set what is complete already.
pub fn insert_complete<K>(set: &mut WaitSet<K>, key: K) {
    set.insert_complete(key);
}

/// Calls `callback` on a thread for callbacks once one of the set has ended, and returns `true`;
/// `false` where one has ended already or the set is empty. Replaces the callback of the call
/// before.
pub fn on_next_ended<K>(set: &mut WaitSet<K>, callback: impl FnOnce() + Send + 'static) -> bool {
    set.call_back(callback)
}

/// [`Error::Timeout`] of a wait for the next of a set, which is not empty.
pub fn timeout_of_set<K>(set: &WaitSet<K>, limit: Duration) -> Error {
    set.timeout(limit)
}

/// [`Error::DeviceMismatch`].
pub fn device_mismatch(call: &'static str, left: String, right: String) -> Error {
    Error::DeviceMismatch { call, left, right }
}

/// [`Error::NotRecorded`].
pub fn not_recorded(which: &'static str) -> Error {
    Error::not_recorded(which)
}

/// [`Error::TimingDisabled`].
pub fn timing_disabled(which: &'static str) -> Error {
    Error::timing_disabled(which)
}

/// `error` of a time between two events of these names, with the name of the one that it is about.
pub fn of_events(error: Error, start: Option<String>, end: Option<String>) -> Error {
    error.of_events(start, end)
}

/// [`Error::Unsupported`].
pub fn unsupported(what: &str, device: &str, remedy: &str) -> Error {
    Error::Unsupported {
        what: what.into(),
        device: device.into(),
        remedy: remedy.into(),
    }
}

/// A line of another language, for [`record_at`] and [`launch_at`]. Each is kept for good, up to
/// some 65,000 of them; further ones are unknown.
pub fn place(file: &str, line: u32) -> Place {
    Place::of_line(file, line)
}

/// What stands for a line that nobody looked for.
#[inline]
pub fn unknown_place() -> Place {
    Place::unknown()
}

/// [`Event::record`], with the line that the marker is recorded at.
#[inline]
pub fn record_at(event: &Event, stream: &Stream, at: Place) -> Result<()> {
    event.record_at(stream, at)
}

/// As [`record_at`], for an event that was recorded on another stream last: it does not try to
/// record the marker again in place.
#[inline]
pub fn record_elsewhere_at(event: &Event, stream: &Stream, at: Place) -> Result<()> {
    event.record_elsewhere_at(stream, at)
}

/// [`Stream::launch`], with the line that the work is launched at.
pub fn launch_at(stream: &Stream, work: impl FnOnce() + Send + 'static, at: Place) -> Result<()> {
    stream.launch_at(work, at)
}

/// [`Stream::record`], with the line that the marker is recorded at.
pub fn mark_at(stream: &Stream, at: Place) -> Result<Marker> {
    stream.mark(false, at)
}

/// [`Stream::record_timed`], or [`Stream::record`], with the line that the marker is recorded at.
pub fn mark_with_at(stream: &Stream, timing: bool, at: Place) -> Result<Marker> {
    stream.mark(timing, at)
}

/// [`metal::record_end`](crate::metal::record_end), with the line that the marker is recorded at.
#[cfg(has_metal)]
pub fn record_end_at(
    device: &Device,
    buffers: &[&ProtocolObject<dyn MTLCommandBuffer>],
    after: Option<&Marker>,
    at: Place,
) -> Result<Reservation> {
    crate::metal::record_end_at(device, buffers, after, at)
}

/// [`Marker::synchronize_timeout`], for waits in slices: whether the marker is complete, without
/// the text that a timeout has.
pub fn wait_slice(marker: &Marker, slice: Duration) -> Result<bool> {
    marker.wait_until(Instant::now().checked_add(slice))
}

/// [`Error::Timeout`] of a wait for `marker`, which the event of this name holds.
pub fn timeout(marker: &Marker, limit: Duration, event: Option<String>) -> Error {
    marker.timeout(limit).of_event(event)
}

/// Whether the text of `timeout` leaves out a line that nobody looked for.
pub fn lacks_places(timeout: &Timeout) -> bool {
    timeout.lacks_places()
}

/// A duration as errors tell it: `1.5 s`.
pub fn duration_in_words(duration: Duration) -> String {
    InWords(duration).to_string()
}

/// [`Trace::span`], for a guard that is kept, with the line that both of its events are recorded
/// at.
#[cfg(feature = "trace")]
pub fn span_at(trace: &Trace, name: &str, stream: &Stream, at: Place) -> Span<'static> {
    trace.span_at(name, stream, at).into_owned()
}

/// [`Trace::host_span`], for a guard that is kept. `thread` tells the name of the calling thread,
/// where the trace does not know it yet.
#[cfg(feature = "trace")]
pub fn host_span(
    trace: &Trace,
    name: &str,
    thread: impl FnOnce() -> Option<String>,
) -> HostSpan<'static> {
    trace.host_span_with(name, thread).into_owned()
}

/// [`Trace::instant`], with attributes and the line that its event is recorded at.
#[cfg(feature = "trace")]
pub fn instant_at(
    trace: &Trace,
    name: &str,
    stream: &Stream,
    attributes: Vec<(String, Value)>,
    at: Place,
) {
    let mark = trace.instant_at(name, stream, at);
    attributes
        .into_iter()
        .fold(mark, |mark, (name, value)| mark.with(&name, value));
}

/// [`Trace::host_instant`], with attributes; `thread` as in [`host_span`].
#[cfg(feature = "trace")]
pub fn host_instant(
    trace: &Trace,
    name: &str,
    attributes: Vec<(String, Value)>,
    thread: impl FnOnce() -> Option<String>,
) {
    trace.host_instant_with(name, attributes, thread);
}

/// The [`Summary`] of a trace of another process: how many spans it has by their state, how many it
/// dropped and lost, and why.
#[cfg(feature = "trace")]
pub fn summary_of(
    (finished, failed, unfinished): (usize, usize, usize),
    (dropped, lost): (u64, u64),
    first_error: Option<String>,
) -> Summary {
    Summary {
        finished,
        failed,
        unfinished,
        dropped,
        lost,
        first_error,
    }
}

/// Takes in what is complete, as [`Trace::collect`], and lists all that the trace has.
#[cfg(feature = "trace")]
pub fn trace_entries(trace: &Trace) -> Entries {
    trace.entries()
}

/// The error that [`Trace::save`] would return now, without saving anything: for programs that
/// learn it before what they trace.
#[cfg(feature = "trace")]
pub fn can_save_trace(path: &std::path::Path) -> std::io::Result<()> {
    crate::trace::can_save(path)
}
