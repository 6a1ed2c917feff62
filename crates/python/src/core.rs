//! What all three event classes are made of.
//!
//! Such an event is an [`Event`] of the library until its raw event is exposed
//! ([`raw`](crate::raw)). From then on it is that raw event, for good.
//!
//! | `exposure` | what the event is |
//! |---|---|
//! | holds no raw event | `elsewhere`, if there is one; else `event`, unless `is_blank`; else not bound to a device yet |
//! | holds a raw event | that raw event |
//!
//! A blank `event` is that of a dead object that became this one
//! ([`cuda_class`](crate::cuda_class)). The first record, also one that is refused, makes it this
//! object's, if it is on the same device. If not, `elsewhere` is made, since a library's event is
//! of one device for life. The GIL orders what decides that: there are blank events only in builds
//! that have one.

use std::{
    any::Any,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU16, Ordering},
    },
};

use fencepost::{
    Backend, Device, Error, Event, Marker, Result, Status, Stream,
    bindings::{self, Cancel},
};
use pyo3::{exceptions::PyTimeoutError, ffi, prelude::*};
use spin::once::Once;

use crate::{
    error::to_py,
    place,
    raw::{Exposure, Flags, RawEvent},
    wait::{Limit, WaitMode, poll, wait_for},
};

/// What an event holds that is not complete.
pub(crate) enum Pending<'a> {
    Marker(Marker),
    Raw(&'a RawEvent),
}

impl Pending<'_> {
    /// Calls `callback` on a thread of the library, once it is complete or has failed.
    pub(crate) fn on_complete(
        &self,
        callback: impl FnOnce(Result<()>) + Send + 'static,
    ) -> Result<Cancel> {
        match self {
            Pending::Marker(marker) => bindings::on_complete(marker, callback),
            Pending::Raw(raw) => bindings::on_complete_raw(&raw.event, callback),
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Core {
    pub(crate) flags: Flags,
    /// Most events live for one record, and std's `OnceLock` takes 100 instructions to make one.
    event: Once<Event>,
    /// Whether `event` is that of a dead object, and no record of this one was tried yet.
    is_blank: AtomicBool,
    /// The event, where `event` was blank and of another device.
    elsewhere: OnceLock<Box<Event>>,
    exposure: Exposure,
    name: Mutex<Option<String>>,
    /// Whether `name` was ever set.
    was_named: AtomicBool,
    /// Part of the address of the stream that the library's event was last recorded on: a hint that
    /// the next record can be made in place. 0 is no hint.
    recorded_on: AtomicU16,
}

impl Core {
    /// An event that the first record binds to a device.
    pub(crate) fn new(flags: Flags) -> Core {
        Core {
            flags,
            ..Core::default()
        }
    }

    /// An event of `device`.
    pub(crate) fn on(device: &Device, flags: Flags) -> Core {
        Core {
            flags,
            event: Once::initialized(new_event(device, flags)),
            ..Core::default()
        }
    }

    /// The event that another process exported.
    pub(crate) fn open(device: &Device, handle: &[u8; 64]) -> Result<Core> {
        Ok(Core {
            flags: Flags {
                interprocess: true,
                ..Flags::default()
            },
            exposure: Exposure::open(device, handle)?,
            ..Core::default()
        })
    }

    /// The CUDA event that somebody else has made, and `owner` keeps alive.
    ///
    /// # Safety
    /// Those of `fencepost::cuda::RawEvent::from_raw`.
    pub(crate) unsafe fn of_handle(
        device: &Device,
        handle: usize,
        flags: Flags,
        owner: Arc<dyn Any + Send + Sync>,
    ) -> Result<Core> {
        Ok(Core {
            flags,
            // SAFETY: passed on to the caller.
            exposure: unsafe { Exposure::of_handle(device, handle, flags, owner) }?,
            ..Core::default()
        })
    }

    /// The name that the program gave it.
    pub(crate) fn name(&self) -> Option<String> {
        let name = self.name.lock().unwrap_or_else(PoisonError::into_inner);
        name.clone()
    }

    /// Sets the name; the empty one is none.
    pub(crate) fn set_name(&self, name: Option<String>) {
        self.was_named.store(true, Ordering::Relaxed);
        let mut mine = self.name.lock().unwrap_or_else(PoisonError::into_inner);
        *mine = name.filter(|name| !name.is_empty());
        self.tell_name(mine.as_deref());
    }

    /// Gives the name to the library's event, if there is one. The caller holds the lock of the
    /// name, so that the last name is the one that lasts.
    fn tell_name(&self, name: Option<&str>) {
        if let Some(event) = self.held() {
            event.set_name(name.unwrap_or_default());
        }
    }

    /// The library's event, blank or not.
    #[inline]
    fn held(&self) -> Option<&Event> {
        match self.elsewhere.get() {
            Some(event) => Some(event),
            None => self.event.get(),
        }
    }

    /// The library's event, once this one is bound to a device.
    fn bound(&self) -> Option<&Event> {
        match self.is_blank.load(Ordering::Relaxed) {
            true => None,
            false => self.held(),
        }
    }

    /// Makes it the core of a new object with or without timing, as this one was, with a blank
    /// event. Returns whether that could be; if not, nothing has changed. Nobody uses it any more.
    #[inline]
    pub(crate) fn become_blank(&mut self) -> bool {
        let is_blank = !*self.was_named.get_mut()
            && self.elsewhere.get().is_none()
            && self.event.get_mut().is_some_and(bindings::forget);
        if is_blank {
            self.flags = Flags::with_timing(self.flags.timing);
            *self.is_blank.get_mut() = true;
        }
        is_blank
    }

    /// The name in a `repr`: in quotes, behind a space.
    pub(crate) fn shown_name(&self) -> String {
        self.name()
            .map_or_else(String::new, |name| format!(" {name:?}"))
    }

    /// The library's event, made on `device` if there is none yet. A blank one may be of another
    /// device.
    fn event_on(&self, device: &Device) -> &Event {
        let event = match self.held() {
            Some(event) => event,
            None => self.event.call_once(|| new_event(device, self.flags)),
        };
        // Read after the event is there: a name that is set meanwhile reaches it here or there.
        let name = self.name.lock().unwrap_or_else(PoisonError::into_inner);
        if name.is_some() {
            self.tell_name(name.as_deref());
        }
        event
    }

    /// As [`event_on`](Core::event_on), without the lock of the name where none was ever set:
    /// whoever sets one has the GIL, too. A build without a GIL takes the lock.
    #[inline]
    fn event_with_gil(&self, _py: Python<'_>, device: &Device) -> &Event {
        match cfg!(Py_GIL_DISABLED) || self.was_named.load(Ordering::Relaxed) {
            true => self.event_on(device),
            false => self.event.call_once(|| new_event(device, self.flags)),
        }
    }

    /// Takes over the raw event of `opened`. Nobody else may know this event yet.
    pub(crate) fn adopt(&self, opened: Core) {
        self.exposure.adopt(opened.exposure);
    }

    /// The device, once it has one.
    pub(crate) fn device(&self) -> Option<&Device> {
        match self.exposure.get() {
            Some(raw) => Some(&raw.device),
            None => self.bound().map(Event::device),
        }
    }

    /// The library's event, while no raw event is exposed.
    pub(crate) fn event(&self) -> Option<&Event> {
        match self.exposure.get() {
            Some(_) => None,
            None => self.bound(),
        }
    }

    /// The raw event, once one is exposed.
    pub(crate) fn raw(&self) -> Option<&RawEvent> {
        self.exposure.get()
    }

    /// Whether it is a raw event, whose state only the driver knows.
    pub(crate) fn is_raw(&self) -> bool {
        self.exposure.get().is_some()
    }

    fn is_raw_from_the_start(&self) -> bool {
        self.flags.interprocess || self.flags.external
    }

    /// Marks the point behind everything submitted to `stream`. Releases the GIL, because the
    /// driver may block while its queue is full.
    #[inline]
    pub(crate) fn record(&self, py: Python<'_>, stream: &Stream) -> Result<(), Box<Error>> {
        if self.is_raw() || self.is_raw_from_the_start() {
            return py.detach(|| self.record_raw(stream).map_err(Box::new));
        }
        let (mut event, is_new) = match self.held() {
            Some(event) => (event, false),
            None => (self.event_with_gil(py, stream.device()), true),
        };
        if self.is_blank.load(Ordering::Relaxed) {
            event = self.bind_blank(event, stream.device());
        }
        let line = place::of_record(py);
        // A wrong hint, from another stream with the same part of the address, costs time only.
        let at = (std::ptr::from_ref(stream).addr() >> 4) as u16;
        let before = self.recorded_on.load(Ordering::Relaxed);
        if before == at && at != 0 {
            // SAFETY: recording in place runs only the library's and the driver's code and drops
            // nothing.
            let recorded =
                unsafe { detach_bare(py, || bindings::record_in_place(event, stream, line)) };
            if recorded {
                return match self.exposure.is_under_way() {
                    false => Ok(()),
                    true => py.detach(|| self.record_exposed(stream)),
                };
            }
            self.recorded_on.store(0, Ordering::Relaxed);
        } else if let Backend::Cuda | Backend::Vulkan = stream.device().backend() {
            self.recorded_on.store(at, Ordering::Relaxed);
        }
        // Where nothing can be recorded in place, that is not tried.
        let elsewhere = is_new || (before != 0 && before != at);
        py.detach(|| {
            let recorded = match elsewhere {
                true => bindings::record_elsewhere_at(event, stream, line),
                false => bindings::record_at(event, stream, line),
            };
            recorded.map_err(Box::new)?;
            match self.exposure.is_under_way() {
                false => Ok(()),
                true => self.record_exposed(stream),
            }
        })
    }

    /// Binds an object with a blank event to a device: the library's event from now on.
    #[inline]
    fn bind_blank<'a>(&'a self, blank: &'a Event, device: &Device) -> &'a Event {
        self.is_blank.store(false, Ordering::Relaxed);
        match blank.device() == device {
            true => blank,
            false => self.event_elsewhere(device),
        }
    }

    #[cold]
    fn event_elsewhere(&self, device: &Device) -> &Event {
        let make = || Box::new(new_event(device, self.flags));
        let event = self.elsewhere.get_or_init(make);
        let name = self.name.lock().unwrap_or_else(PoisonError::into_inner);
        self.tell_name(name.as_deref());
        event
    }

    /// Records the raw event too, if it was exposed meanwhile.
    #[cold]
    fn record_exposed(&self, stream: &Stream) -> Result<(), Box<Error>> {
        match self.exposure.settled() {
            Some(raw) => raw.record(stream).map_err(Box::new),
            None => Ok(()),
        }
    }

    #[cold]
    fn record_raw(&self, stream: &Stream) -> Result<()> {
        self.raw_on(stream.device())?.record(stream)
    }

    /// The raw event, which is made on `device` if there is none yet. An event that is bound to a
    /// device already has it made there.
    fn raw_on(&self, device: &Device) -> Result<&RawEvent> {
        let device = self.bound().map_or(device, Event::device);
        self.exposure.get_or_create(device, self.flags)
    }

    /// Exposes the raw event of what this event holds now; `None` before the first record.
    pub(crate) fn expose(&self) -> Result<Option<&RawEvent>> {
        self.exposure.expose(|| {
            let event = self.held()?;
            Some((event.device().clone(), event.marker()?))
        })
    }

    /// Holds a marker of `device` that was made in command buffers of another owner.
    #[cfg(any(target_vendor = "apple", metal_sim))]
    pub(crate) fn set_marker(&self, device: &Device, marker: Marker) -> Result<()> {
        if let Some(raw) = self.exposure.get() {
            return Err(raw.mismatch(&marker));
        }
        self.event_on(device).set_marker(marker)
    }

    /// The `CUevent` as an integer; 0 before the first record. Exposes the raw event.
    pub(crate) fn handle(&self, py: Python<'_>) -> PyResult<usize> {
        let raw = py.detach(|| self.expose()).map_err(to_py)?;
        Ok(raw.map_or(0, RawEvent::handle))
    }

    /// The bytes by which another process opens it.
    pub(crate) fn export(&self, py: Python<'_>, device: &Device) -> PyResult<[u8; 64]> {
        py.detach(|| self.raw_on(device)?.event.export())
            .map_err(to_py)
    }

    /// Makes later work of `stream` run after what this event holds now.
    #[inline]
    pub(crate) fn wait(&self, py: Python<'_>, stream: &Stream) -> Result<(), Box<Error>> {
        if let Some(raw) = self.exposure.get() {
            return py.detach(|| raw.event.wait(stream).map_err(Box::new));
        }
        match self.held() {
            None => Ok(()),
            // Nothing is submitted, so nothing can block.
            Some(event) if bindings::peek(event) == Some(true) => Ok(()),
            Some(event) => py.detach(|| event.wait(stream).map_err(Box::new)),
        }
    }

    /// Whether it was ever recorded.
    pub(crate) fn is_recorded(&self) -> bool {
        match (self.exposure.get(), self.held()) {
            (Some(raw), _) => raw.is_recorded(),
            (None, Some(event)) => bindings::is_recorded(event),
            (None, None) => false,
        }
    }

    /// Whether what it holds is complete; `true` before the first record.
    #[inline]
    pub(crate) fn query(&self, py: Python<'_>) -> Result<bool, Box<Error>> {
        if let Some(raw) = self.exposure.get() {
            return py.detach(|| raw.event.query().map_err(Box::new));
        }
        match self.held() {
            None => Ok(true),
            // A query that may wait for a lock of the library must not hold the GIL: the holder of
            // that lock may be blocked in the driver, whose progress may need Python.
            Some(event) => match bindings::peek(event) {
                Some(known) => Ok(known),
                None => py.detach(|| event.query().map_err(Box::new)),
            },
        }
    }

    pub(crate) fn wait_mode(&self) -> WaitMode {
        match self.flags.blocking {
            true => WaitMode::Sleep,
            false => WaitMode::Spin,
        }
    }

    /// Blocks until what it holds is complete, for at most `limit`.
    pub(crate) fn synchronize(&self, py: Python<'_>, limit: Limit) -> PyResult<()> {
        if let Some(raw) = self.exposure.get() {
            let done = poll(py, limit, self.wait_mode(), || raw.event.query())?;
            return match done {
                true => Ok(()),
                false => Err(PyTimeoutError::new_err(format!(
                    "gave up after {}: what was recorded last on event{} of {} is pending; \
                     wait longer, or look at the work submitted before it",
                    bindings::duration_in_words(limit.given.unwrap_or_default()),
                    self.shown_name(),
                    raw.device
                ))),
            };
        }
        let Some(event) = self.bound() else {
            return Ok(());
        };
        match py.detach(|| event.marker()) {
            None => Ok(()),
            Some(marker) => {
                let backend = event.device().backend();
                let name = || self.name();
                Ok(wait_for(
                    py,
                    &marker,
                    backend,
                    limit,
                    self.wait_mode(),
                    name,
                )?)
            }
        }
    }

    /// The marker it holds; `None` before the first record, and for a raw event, which has none.
    pub(crate) fn marker(&self, py: Python<'_>) -> Option<Marker> {
        let event = self.event()?;
        py.detach(|| event.marker())
    }

    /// `unrecorded`, `pending` or `complete`.
    pub(crate) fn status(&self, py: Python<'_>) -> Result<&'static str> {
        let status = match (self.exposure.get(), self.bound()) {
            (Some(raw), _) => match raw.is_recorded() {
                false => Status::Unrecorded,
                true if py.detach(|| raw.event.query())? => Status::Complete,
                true => Status::Pending,
            },
            (None, Some(event)) => py.detach(|| event.status())?,
            (None, None) => Status::Unrecorded,
        };
        Ok(match status {
            Status::Unrecorded => "unrecorded",
            Status::Pending => "pending",
            Status::Complete => "complete",
        })
    }

    /// As [`wait`](Core::wait), also for what is pending on another backend.
    pub(crate) fn wait_foreign(&self, py: Python<'_>, stream: &Stream) -> Result<(), Box<Error>> {
        if let Some(raw) = self.exposure.get() {
            return py.detach(|| raw.event.wait_foreign(stream).map_err(Box::new));
        }
        match self.marker(py) {
            Some(marker) => py.detach(|| stream.wait_foreign(&marker).map_err(Box::new)),
            None => self.wait(py, stream),
        }
    }

    /// Calls `callback` on a thread of the library, once what it holds is complete or has failed.
    pub(crate) fn on_complete(
        &self,
        py: Python<'_>,
        callback: impl FnOnce(Result<()>) + Send + 'static,
    ) -> Result<()> {
        // The marker first: whether the event is raw may change at any time.
        if let Some(marker) = self.marker(py) {
            return py.detach(|| marker.on_complete(callback));
        }
        py.detach(|| match (self.exposure.get(), self.bound()) {
            (Some(raw), _) => raw.event.on_complete(callback),
            (None, Some(event)) => event.on_complete(callback),
            // It counts as complete, and has no device yet.
            (None, None) => Event::new(&Device::open("host")?).on_complete(callback),
        })
    }

    /// What is to be waited for; `None` where nothing is pending.
    pub(crate) fn pending(&self, py: Python<'_>) -> Result<Option<Pending<'_>>> {
        // The marker first: whether the event is raw may change at any time.
        if let Some(marker) = self.marker(py) {
            let complete = py.detach(|| marker.query())?;
            return Ok((!complete).then_some(Pending::Marker(marker)));
        }
        match self.exposure.get() {
            Some(raw) if !py.detach(|| raw.event.query())? => Ok(Some(Pending::Raw(raw))),
            _ => Ok(None),
        }
    }

    /// The state in a `repr`, as far as it is known without asking a driver.
    pub(crate) fn state(&self, py: Python<'_>) -> &'static str {
        match (self.exposure.get(), self.bound()) {
            (Some(raw), _) if raw.is_recorded() => "recorded",
            (Some(_), _) | (None, None) => "never recorded",
            (None, Some(event)) => match bindings::peek(event) {
                // An event that was never recorded counts as complete.
                Some(true) => match py.detach(|| event.marker()) {
                    Some(_) => "complete",
                    None => "never recorded",
                },
                Some(false) => "pending",
                None => "recorded",
            },
        }
    }
}

/// `py.detach(call)`, without the cost of PyO3's count of attached threads.
///
/// # Safety
/// `call` touches nothing of Python, and drops no Python object, which would look at that count.
#[inline]
pub(crate) unsafe fn detach_bare<R>(_py: Python<'_>, call: impl FnOnce() -> R) -> R {
    /// Takes the GIL again when it is dropped, also while a panic unwinds.
    struct Attach(*mut ffi::PyThreadState);

    impl Drop for Attach {
        fn drop(&mut self) {
            // SAFETY: the value that `PyEval_SaveThread` returned to this thread, which has not
            // taken the GIL since
            // (https://docs.python.org/3/c-api/init.html#c.PyEval_RestoreThread).
            unsafe { ffi::PyEval_RestoreThread(self.0) }
        }
    }

    // SAFETY: this thread is attached, as `_py` proves. Until it is attached again it touches
    // nothing of Python, by the caller's promise.
    let _attach = Attach(unsafe { ffi::PyEval_SaveThread() });
    call()
}

fn new_event(device: &Device, flags: Flags) -> Event {
    match flags.timing {
        true => Event::with_timing(device),
        false => Event::new(device),
    }
}
