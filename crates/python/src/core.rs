//! What all three event classes are made of.
//!
//! An event is a slot of the library's until somebody needs its native event for themselves:
//! another process, a graph, or a caller who was given the handle. From then on it is that one
//! native event ([`NativeEvent`]), which others may record too, so that nothing about it is
//! remembered.
//!
//! | `native` | what the event is |
//! |---|---|
//! | empty | `slot`, or nothing yet while that is empty too |
//! | set, once and for good | the native event |
//!
//! A record that races with the change may be too late for the marker that is handed out. So who
//! hands out says so first (`handing_out`), and takes the marker second; who records puts the
//! marker first, and looks second. The slot's lock orders the two: either the marker handed out is
//! the new one, or the record sees that one is being handed out, waits for it, and records the
//! native event as well. So no record is lost.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicBool, AtomicU16, Ordering},
    },
    time::Duration,
};

use fencepost::{
    Backend, Device, Error, Event, Marker, Result, Stream, bindings,
    cuda::{NativeEvent, NativeOptions},
};
use pyo3::{exceptions::PyValueError, ffi, prelude::*};

use crate::{
    device::cuda_only,
    error::{timing_disabled, to_py},
    wait::{How, poll, wait},
};

/// What the constructors take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Flags {
    pub(crate) timing: bool,
    pub(crate) blocking: bool,
    pub(crate) interprocess: bool,
    pub(crate) external: bool,
}

impl Flags {
    pub(crate) fn check(self) -> PyResult<Flags> {
        match self.interprocess && self.timing {
            true => Err(PyValueError::new_err(
                "an event with interprocess=True has no timing: CUDA shares no time between processes; \
                 leave enable_timing out, and time with another event",
            )),
            false => Ok(self),
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Core {
    pub(crate) flags: Flags,
    slot: OnceLock<Event>,
    native: OnceLock<Native>,
    /// Where the stream lay that `slot` was recorded on last, in part: a hint that the next record
    /// can be made in place. 0 is no hint.
    recorded_on: AtomicU16,
    /// Whether `native` may be set soon.
    handing_out: AtomicBool,
}

#[derive(Debug)]
struct Native {
    event: NativeEvent,
    device: Device,
    recorded: AtomicBool,
}

impl Core {
    pub(crate) fn new(flags: Flags) -> Core {
        Core {
            flags,
            ..Core::default()
        }
    }

    /// An event of `device`, for good.
    pub(crate) fn on(device: &Device, flags: Flags) -> Core {
        let core = Core::new(flags);
        let _ = core.slot.set(slot(device, flags));
        core
    }

    /// The event that another process exported.
    pub(crate) fn open(device: &Device, handle: &[u8; 64], flags: Flags) -> Result<Core> {
        let core = Core::new(flags);
        let _ = core.native.set(Native {
            event: NativeEvent::open(device, handle)?,
            device: device.clone(),
            recorded: AtomicBool::new(true),
        });
        Ok(core)
    }

    /// Becomes the event that `opened` is: of an event that nobody else knows yet.
    pub(crate) fn adopt(&self, opened: Core) {
        if let Some(native) = opened.native.into_inner() {
            let _ = self.native.set(native);
        }
    }

    /// The device, once it has one.
    pub(crate) fn device(&self) -> Option<&Device> {
        match self.native.get() {
            Some(native) => Some(&native.device),
            None => self.slot.get().map(Event::device),
        }
    }

    fn is_native_from_the_start(&self) -> bool {
        self.flags.interprocess || self.flags.external
    }

    /// Marks the point behind everything submitted to `stream`. The interpreter's lock is let go:
    /// the driver may block while its queue is full.
    #[inline]
    pub(crate) fn record(&self, py: Python<'_>, stream: &Stream) -> Result<(), Box<Error>> {
        if self.native.get().is_some() || self.is_native_from_the_start() {
            return py.detach(|| self.record_native(stream).map_err(Box::new));
        }
        let slot = match self.slot.get() {
            Some(slot) => slot,
            None => self.slot.get_or_init(|| slot(stream.device(), self.flags)),
        };
        // Not the same stream, or another at its place: then it is recorded the longer way.
        let at = (std::ptr::from_ref(stream).addr() >> 4) as u16;
        if self.recorded_on.load(Ordering::Relaxed) == at && at != 0 {
            if record_in_place(py, slot, stream) {
                return match self.is_handed_out() {
                    false => Ok(()),
                    true => py.detach(|| self.record_handed_out(stream)),
                };
            }
            self.recorded_on.store(0, Ordering::Relaxed);
        } else if let Backend::Cuda | Backend::Vulkan = stream.device().backend() {
            self.recorded_on.store(at, Ordering::Relaxed);
        }
        py.detach(|| {
            slot.record(stream).map_err(Box::new)?;
            match self.is_handed_out() {
                false => Ok(()),
                true => self.record_handed_out(stream),
            }
        })
    }

    /// Whether the native event is handed out, or may be at this moment.
    #[inline]
    fn is_handed_out(&self) -> bool {
        self.handing_out.load(Ordering::Acquire) || self.native.get().is_some()
    }

    /// Records the native event too, if it comes to be handed out.
    #[cold]
    fn record_handed_out(&self, stream: &Stream) -> Result<(), Box<Error>> {
        while self.handing_out.load(Ordering::Acquire) {
            std::thread::yield_now();
        }
        match self.native.get() {
            Some(_) => self.record_native(stream).map_err(Box::new),
            None => Ok(()),
        }
    }

    /// Holds a marker of `device` that was made in work of others.
    #[cfg(any(target_vendor = "apple", metal_sim))]
    pub(crate) fn hold(&self, device: &Device, marker: Marker) -> Result<()> {
        if let Some(native) = self.native.get() {
            return Err(Error::DeviceMismatch {
                call: "record",
                left: format!("an event of {}", native.device),
                right: marker.to_string(),
            });
        }
        self.slot
            .get_or_init(|| slot(device, self.flags))
            .set_marker(marker)
    }

    #[cold]
    fn record_native(&self, stream: &Stream) -> Result<()> {
        let native = self.native_on(stream.device())?;
        if native.device != *stream.device() {
            return Err(Error::DeviceMismatch {
                call: "record",
                left: format!("an event of {}", native.device),
                right: stream.to_string(),
            });
        }
        native.event.record(stream)?;
        native.recorded.store(true, Ordering::Release);
        Ok(())
    }

    /// The native event, made on `device` where there is none yet.
    fn native_on(&self, device: &Device) -> Result<&Native> {
        if let Some(native) = self.native.get() {
            return Ok(native);
        }
        // A generic event is bound before it is recorded.
        let device = self.slot.get().map_or(device, Event::device);
        let options = NativeOptions::default()
            .timing(self.flags.timing)
            .blocking_sync(self.flags.blocking)
            .interprocess(self.flags.interprocess)
            .external(self.flags.external);
        if device.backend() != Backend::Cuda {
            return Err(cuda_only("an event for other processes or graphs", device));
        }
        let native = Native {
            event: NativeEvent::new(device, options)?,
            device: device.clone(),
            recorded: AtomicBool::new(false),
        };
        Ok(self.native.get_or_init(|| native))
    }

    /// The native event with what this one holds now, from now on for good; `None` while it was
    /// never recorded.
    fn hand_out(&self) -> Result<Option<&Native>> {
        /// It is settled, whether there is a native event now or not.
        struct Settled<'a>(&'a AtomicBool);

        impl Drop for Settled<'_> {
            fn drop(&mut self) {
                self.0.store(false, Ordering::Release);
            }
        }

        // One at a time: who comes second finds the native event of the first, or hands out for
        // itself.
        while self
            .handing_out
            .compare_exchange(false, true, Ordering::AcqRel, Ordering::Relaxed)
            .is_err()
        {
            std::thread::yield_now();
        }
        let _settled = Settled(&self.handing_out);
        if let Some(native) = self.native.get() {
            return Ok(Some(native));
        }
        let Some(marker) = self.slot.get().and_then(Event::marker) else {
            return Ok(None);
        };
        let device = self.slot.get().map(Event::device).cloned();
        let (Some(event), Some(device)) = (bindings::native_event_of(&marker), device) else {
            // It has failed, and says so; or it is none of CUDA.
            marker.query()?;
            let why = "a native event";
            return Err(self
                .device()
                .map_or(Error::NotRecorded { which: "held" }, |device| {
                    cuda_only(why, device)
                }));
        };
        let native = Native {
            event,
            device,
            recorded: AtomicBool::new(true),
        };
        Ok(Some(self.native.get_or_init(|| native)))
    }

    /// The `CUevent`, 0 before the first record.
    pub(crate) fn handle(&self, py: Python<'_>) -> PyResult<usize> {
        let native = py.detach(|| self.hand_out()).map_err(to_py)?;
        Ok(match native {
            Some(native) if native.recorded.load(Ordering::Acquire) => native.event.raw() as usize,
            _ => 0,
        })
    }

    /// The bytes by which another process opens it.
    pub(crate) fn export(&self, py: Python<'_>, device: &Device) -> PyResult<[u8; 64]> {
        py.detach(|| self.native_on(device)?.event.export())
            .map_err(to_py)
    }

    #[inline]
    pub(crate) fn wait(&self, py: Python<'_>, stream: &Stream) -> Result<(), Box<Error>> {
        if let Some(native) = self.native.get() {
            return py.detach(|| native.event.wait(stream).map_err(Box::new));
        }
        match self.slot.get() {
            None => Ok(()),
            // Nothing to submit, so nothing that could block.
            Some(slot) if bindings::peek(slot) == Some(true) => Ok(()),
            Some(slot) => py.detach(|| slot.wait(stream).map_err(Box::new)),
        }
    }

    /// Whether it was ever recorded.
    pub(crate) fn is_recorded(&self, py: Python<'_>) -> bool {
        match self.native.get() {
            Some(native) => native.recorded.load(Ordering::Acquire),
            None => self
                .slot
                .get()
                .is_some_and(|slot| py.detach(|| slot.marker()).is_some()),
        }
    }

    /// `true` when what it holds is complete, or it was never recorded.
    #[inline]
    pub(crate) fn query(&self, py: Python<'_>) -> Result<bool, Box<Error>> {
        if let Some(native) = self.native.get() {
            return py.detach(|| native.event.query().map_err(Box::new));
        }
        match self.slot.get() {
            None => Ok(true),
            // What may wait for a lock of the library must not hold the interpreter's meanwhile:
            // the holder may be blocked in the driver, whose progress may need Python.
            Some(slot) => match bindings::peek(slot) {
                Some(known) => Ok(known),
                None => py.detach(|| slot.query().map_err(Box::new)),
            },
        }
    }

    fn how(&self) -> How {
        match self.flags.blocking {
            true => How::Sleep,
            false => How::Spin,
        }
    }

    pub(crate) fn synchronize(&self, py: Python<'_>, limit: Option<Duration>) -> PyResult<()> {
        if let Some(native) = self.native.get() {
            let done = poll(py, limit, self.how(), || native.event.query())?;
            return match done {
                true => Ok(()),
                false => Err(pyo3::exceptions::PyTimeoutError::new_err(format!(
                    "gave up after {:?}: what was recorded last on this event of {} is pending; wait longer, \
                     or look at the work submitted before it",
                    limit.unwrap_or_default(),
                    native.device
                ))),
            };
        }
        let Some(slot) = self.slot.get() else {
            return Ok(());
        };
        match py.detach(|| slot.marker()) {
            None => Ok(()),
            Some(marker) => wait(py, &marker, slot.device().backend(), limit, self.how()),
        }
    }

    /// What both must be for a time between them.
    fn check_pair(&self, py: Python<'_>, end: &Core) -> Result<()> {
        for (core, which) in [(self, "start"), (end, "end")] {
            if !core.flags.timing {
                return Err(timing_disabled(which));
            }
        }
        for (core, which) in [(self, "start"), (end, "end")] {
            if !core.is_recorded(py) {
                return Err(Error::NotRecorded { which });
            }
        }
        let (left, right) = (self.device(), end.device());
        if left != right {
            let name = |device: Option<&Device>| {
                device.map_or("no device".into(), |device| format!("an event of {device}"))
            };
            return Err(Error::DeviceMismatch {
                call: "elapsed_time",
                left: name(left),
                right: name(right),
            });
        }
        Ok(())
    }

    /// Milliseconds to `end`, signed; an error while either is pending.
    pub(crate) fn elapsed_now(&self, py: Python<'_>, end: &Core) -> Result<f64> {
        self.check_pair(py, end)?;
        if let (None, None, Some(start), Some(end)) = (
            self.native.get(),
            end.native.get(),
            self.slot.get(),
            end.slot.get(),
        ) {
            let elapsed = py.detach(|| start.elapsed(end))?;
            return Ok(elapsed.as_millis_f64());
        }
        py.detach(|| {
            let unrecorded = |which| Error::NotRecorded { which };
            let start = self.hand_out()?.ok_or_else(|| unrecorded("start"))?;
            let end = end.hand_out()?.ok_or_else(|| unrecorded("end"))?;
            Ok(start.event.elapsed(&end.event)?.as_millis_f64())
        })
    }

    /// As [`elapsed_now`](Core::elapsed_now), after waiting for both.
    pub(crate) fn elapsed_after(
        &self,
        py: Python<'_>,
        end: &Core,
        limit: Option<Duration>,
        map: fn(Error) -> PyErr,
    ) -> PyResult<f64> {
        self.check_pair(py, end).map_err(map)?;
        let started = std::time::Instant::now();
        let left = || limit.map(|limit| limit.saturating_sub(started.elapsed()));
        // The markers of now: another thread may record again while this one waits.
        if let (Some(first), Some(last)) = (self.marker(py), end.marker(py)) {
            for (core, marker) in [(self, &first), (end, &last)] {
                let backend = core.device().map_or(Backend::Host, Device::backend);
                wait(py, marker, backend, left(), core.how())?;
            }
            let elapsed = py.detach(|| first.elapsed(&last)).map_err(map)?;
            return Ok(elapsed.as_millis_f64());
        }
        for core in [self, end] {
            core.synchronize(py, left())?;
        }
        self.elapsed_now(py, end).map_err(map)
    }

    /// The marker it holds, where it is one that knows who waits for it.
    pub(crate) fn marker(&self, py: Python<'_>) -> Option<Marker> {
        match self.native.get() {
            Some(_) => None,
            None => {
                let slot = self.slot.get()?;
                py.detach(|| slot.marker())
            }
        }
    }

    /// Whether only the driver knows its state.
    pub(crate) fn is_native(&self) -> bool {
        self.native.get().is_some()
    }

    /// What a repr says of its state; asks no driver.
    pub(crate) fn state(&self) -> &'static str {
        match (self.native.get(), self.slot.get()) {
            (Some(native), _) if native.recorded.load(Ordering::Acquire) => "recorded",
            (Some(_), _) | (None, None) => "never recorded",
            (None, Some(slot)) => match bindings::peek(slot) {
                Some(true) => "complete or never recorded",
                Some(false) => "pending",
                None => "recorded",
            },
        }
    }

    /// Lets go of a native event, whose destruction may block in the driver, without the
    /// interpreter's lock.
    pub(crate) fn release(&mut self) {
        if let Some(native) = self.native.take() {
            drop_detached(native);
        }
    }
}

/// `py.detach(|| event.record_in_place(stream))`, for less: without PyO3's account of who is
/// attached.
#[inline]
fn record_in_place(_py: Python<'_>, event: &Event, stream: &Stream) -> bool {
    /// Takes the interpreter's lock again, whatever happens.
    struct Attach(*mut ffi::PyThreadState);

    impl Drop for Attach {
        fn drop(&mut self) {
            // SAFETY: what `PyEval_SaveThread` gave to this thread, which has taken the lock by no
            // other way since (https://docs.python.org/3/c-api/init.html#c.PyEval_RestoreThread).
            unsafe { ffi::PyEval_RestoreThread(self.0) }
        }
    }

    // SAFETY: this thread is attached, as `_py` says. Until it is so again nothing of Python's is
    // touched: recording in place runs no code but the library's and the driver's, and drops
    // nothing, so no object of Python's either, which would ask PyO3's account.
    let _attach = Attach(unsafe { ffi::PyEval_SaveThread() });
    bindings::record_in_place(event, stream)
}

fn slot(device: &Device, flags: Flags) -> Event {
    match flags.timing {
        true => Event::with_timing(device),
        false => Event::new(device),
    }
}

/// Drops what may block in a driver, without the interpreter's lock, which the caller holds.
fn drop_detached<T: Send>(value: T) {
    // Where there is no interpreter any more, the closure is dropped, and the value with it.
    Python::try_attach(|py| py.detach(move || drop(value)));
}
