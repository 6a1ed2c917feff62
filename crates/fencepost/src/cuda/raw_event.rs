//! Raw events: one `CUevent` for life, which others may record again at any time: another process,
//! a graph, or the caller's own calls of the driver.
//!
//! So nothing about a raw event is remembered, each query asks the driver, and its `CUevent` never
//! goes to a pool.

use std::{
    any::Any,
    ffi::c_void,
    fmt,
    future::{Future, IntoFuture},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{self, Poll},
};

#[cfg(feature = "trace")]
use super::raw_origin::{Origin, StreamPoint};
use super::{
    context::Context,
    device::{of_device, shares_events},
    driver::{EventHandle, IpcHandle},
    fault::{Fault, INVALID_HANDLE},
    marker::CudaMarker,
    raw_marker,
    stream::{CudaStream, of_stream},
    watched::{Owner, RawNative, RawWait, exported},
};
use crate::{
    clock::Elapsed,
    contract::{MarkerImpl, StreamImpl},
    device::Device,
    error::{Error, Result},
    marker::Marker,
    place::Place,
    stream::Stream,
    timeline::Waiter,
};

/// How a [`RawEvent`] is made. By default it has no timing, and threads that wait for it spin.
///
/// ```
/// let options = fencepost::cuda::RawEventOptions::default().timing(true).external(true);
/// println!("{options:?}");
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct RawEventOptions {
    timing: bool,
    blocking_sync: bool,
    interprocess: bool,
    external: bool,
}

impl RawEventOptions {
    /// Whether [`elapsed`](RawEvent::elapsed) can read its time. The driver refuses this together
    /// with [`interprocess`](RawEventOptions::interprocess).
    ///
    /// ```
    /// # use fencepost::cuda::RawEventOptions;
    /// let options = RawEventOptions::default().timing(true);
    /// # drop(options);
    /// ```
    #[must_use]
    pub fn timing(mut self, on: bool) -> RawEventOptions {
        self.timing = on;
        self
    }

    /// Whether threads that wait for it sleep instead of spinning.
    ///
    /// # References
    /// - [`CU_EVENT_BLOCKING_SYNC`](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__EVENT.html)
    ///
    /// ```
    /// # use fencepost::cuda::RawEventOptions;
    /// let options = RawEventOptions::default().blocking_sync(true);
    /// # drop(options);
    /// ```
    #[must_use]
    pub fn blocking_sync(mut self, on: bool) -> RawEventOptions {
        self.blocking_sync = on;
        self
    }

    /// Whether other processes can open it, by the handle that [`export`](RawEvent::export) gives.
    ///
    /// # References
    /// - [`CU_EVENT_INTERPROCESS`](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__EVENT.html)
    ///
    /// ```
    /// # use fencepost::cuda::RawEventOptions;
    /// let options = RawEventOptions::default().interprocess(true);
    /// # drop(options);
    /// ```
    #[must_use]
    pub fn interprocess(mut self, on: bool) -> RawEventOptions {
        self.interprocess = on;
        self
    }

    /// Whether its records and waits on a stream that is being captured become nodes of the graph.
    /// CUDA calls such an event *external*.
    ///
    /// # References
    /// - [`CU_EVENT_RECORD_EXTERNAL`](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__EVENT.html)
    ///
    /// ```
    /// # use fencepost::cuda::RawEventOptions;
    /// let options = RawEventOptions::default().external(true);
    /// # drop(options);
    /// ```
    #[must_use]
    pub fn external(mut self, on: bool) -> RawEventOptions {
        self.external = on;
        self
    }

    /// The flags of `cuEventCreate`: `CU_EVENT_BLOCKING_SYNC`, `CU_EVENT_DISABLE_TIMING` and
    /// `CU_EVENT_INTERPROCESS`.
    fn flags(self) -> u32 {
        u32::from(self.blocking_sync)
            | u32::from(!self.timing) << 1
            | u32::from(self.interprocess) << 2
    }
}

/// One `CUevent` for life, which others may record and wait for too: by calls of their own, in
/// another process, or in a graph.
///
/// It is no [`Event`](crate::Event): it holds no marker, and each query asks the driver. Any thread
/// may use it.
///
/// Dropping it never blocks. A graph may know it: then drop it after the graph's last run has been
/// submitted.
///
/// ```no_run
/// use fencepost::{Device, cuda::{RawEvent, RawEventOptions}};
///
/// let device = Device::open("cuda:0")?;
/// let event = RawEvent::new(&device, RawEventOptions::default())?;
/// event.record(&device.default_stream())?;
/// let handle = event.raw(); // for cuStreamWaitEvent and its like
/// # Ok::<(), fencepost::Error>(())
/// ```
///
/// # Between processes
/// One process exports the event, the other opens it. Linux only. The processes must share their
/// IPC namespace (`/dev/shm`), which containers often do not.
///
/// ```no_run
/// use fencepost::{Device, cuda::{RawEvent, RawEventOptions}};
///
/// let device = Device::open("cuda:0")?;
/// let event = RawEvent::new(&device, RawEventOptions::default().interprocess(true))?;
/// event.record(&device.default_stream())?;
/// let handle: [u8; 64] = event.export()?;
/// // In the other process, which has received the bytes of the handle:
/// let theirs = RawEvent::open(&device, &handle)?;
/// theirs.wait(&device.new_stream()?)?;
/// # Ok::<(), fencepost::Error>(())
/// ```
///
/// # In graphs
/// An external event times a part of a graph, or orders a graph behind work outside of it. On a
/// stream that is being captured, [`record`](RawEvent::record) and [`wait`](RawEvent::wait) become
/// nodes, and each run of the graph records the event again. On other streams they take effect at
/// once.
///
/// ```no_run
/// use fencepost::{Device, cuda::{RawEvent, RawEventOptions}};
///
/// let device = Device::open("cuda:0")?;
/// let stream = device.new_stream()?;
/// let options = RawEventOptions::default().timing(true).external(true);
/// let (start, end) = (RawEvent::new(&device, options)?, RawEvent::new(&device, options)?);
/// // cuStreamBeginCapture(stream, …)
/// start.record(&stream)?;
/// // … kernels …
/// end.record(&stream)?;
/// // cuStreamEndCapture(stream, …), cuGraphLaunch(…)
/// stream.synchronize()?;
/// println!("{:.3} ms", start.elapsed(&end)?.as_millis_f64());
/// # Ok::<(), fencepost::Error>(())
/// ```
///
/// # Of the caller's own
/// [`from_raw`](RawEvent::from_raw) adopts a `CUevent` that another library has made.
///
/// # References
/// - [`cuEventCreate`,
///   `cuEventRecordWithFlags`](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__EVENT.html)
/// - [`cuStreamWaitEvent`](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__STREAM.html)
/// - [`cuIpcGetEventHandle`,
///   `cuIpcOpenEventHandle`](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__MEM.html)
pub struct RawEvent {
    native: Arc<RawNative>,
    /// Whether records and waits on a stream that is being captured become nodes of the graph.
    external: bool,
    timing: bool,
    /// Whether the last record through this value became a node of a graph. Then the driver does
    /// not count the event as recorded before that graph runs. It orders nothing.
    in_graph: AtomicBool,
    #[cfg(feature = "trace")]
    origin: Origin,
}

/// An error for an event that processes cannot share.
fn check_interprocess(context: &Context, options: RawEventOptions) -> Result<()> {
    let (what, remedy) = match options.timing {
        true => (
            "an event with timing that other processes open",
            "make it without timing: CUDA shares no time between processes",
        ),
        false if !shares_events(context) => (
            "events that other processes open",
            "make it without interprocess, and let each process wait for its own events",
        ),
        false => return Ok(()),
    };
    Err(Error::Unsupported {
        what: what.into(),
        device: context.name.clone(),
        remedy: remedy.into(),
    })
}

/// `CU_EVENT_RECORD_EXTERNAL` and `CU_EVENT_WAIT_EXTERNAL`.
const EXTERNAL: u32 = 1;

impl RawEvent {
    /// A new event, unrecorded, which counts as complete. Never blocks on the device's work.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a device of another backend, and for
    /// [`interprocess`](RawEventOptions::interprocess) with timing or on a device without it;
    /// [`Error::Backend`] where the driver refuses; [`Error::Forked`].
    ///
    /// # References
    /// - [`cuDeviceGetAttribute`](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__DEVICE.html)
    ///   (`CU_DEVICE_ATTRIBUTE_IPC_EVENT_SUPPORTED`)
    /// - [`cuEventCreate`](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__EVENT.html)
    ///
    /// ```no_run
    /// use fencepost::{Device, cuda::{RawEvent, RawEventOptions}};
    /// let timed = RawEventOptions::default().timing(true);
    /// let event = RawEvent::new(&Device::open("cuda:0")?, timed)?;
    /// assert!(event.query()?, "nothing was recorded yet");
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn new(device: &Device, options: RawEventOptions) -> Result<RawEvent> {
        let context = of_device(device.imp())?.context;
        context.check_fork()?;
        if options.interprocess {
            check_interprocess(context, options)?;
        }
        let event = context
            .calls
            .create_event(options.flags())
            .map_err(|fault| context.failed(fault, None))?;
        Ok(RawEvent::of(context, device, event, Owner::Own, options))
    }

    fn of(
        context: &'static Context,
        device: &Device,
        event: EventHandle,
        owner: Owner,
        options: RawEventOptions,
    ) -> RawEvent {
        RawEvent {
            native: Arc::new(RawNative {
                context,
                device: device.core().clone(),
                event,
                owner,
            }),
            external: options.external,
            timing: options.timing,
            in_graph: AtomicBool::new(false),
            #[cfg(feature = "trace")]
            origin: Origin::new(None),
        }
    }

    /// A `CUevent` that others have made: of cudarc, cuda.core, CuPy or anybody else. It can do
    /// what other raw events can, and is never destroyed here.
    ///
    /// Of `options`, the event has what it was made with; the library cannot ask. Only
    /// [`timing`](RawEventOptions::timing) and [`external`](RawEventOptions::external) matter. An
    /// event that was made without timing has none: [`elapsed`](RawEvent::elapsed) then takes it
    /// for one that was never recorded.
    ///
    /// # Safety
    /// - `event` is an event of this process's CUDA driver, of the context of `device`, and is
    ///   alive. `keep_alive` keeps it alive until it is dropped: by the thread that drops the last
    ///   [`RawEvent`] or [`RawEventFuture`] of this event, or, where a stream still waits for it
    ///   then, by the thread for callbacks.
    /// - The context is not destroyed or reset while the value is in use: the driver does not check
    ///   for that on every call.
    ///
    /// Others may use the event at any time, also record it: the driver locks it.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a device of another backend, and for a null handle;
    /// [`Error::Forked`].
    ///
    /// # References
    /// - [`cuEventCreate`](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__EVENT.html)
    ///
    /// ```no_run
    /// use std::sync::Arc;
    /// use fencepost::{Device, cuda::{RawEvent, RawEventOptions}};
    /// # let (raw, owner) = (std::ptr::null_mut(), Arc::new(()));
    /// let device = Device::open("cuda:0")?;
    /// let timed = RawEventOptions::default().timing(true);
    /// // SAFETY: `owner` is what destroys the event when it is dropped.
    /// let event = unsafe { RawEvent::from_raw(&device, raw, timed, owner) }?;
    /// event.wait(&Device::open("host")?.new_stream()?)?;
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub unsafe fn from_raw(
        device: &Device,
        event: *mut c_void,
        options: RawEventOptions,
        keep_alive: Arc<dyn Any + Send + Sync>,
    ) -> Result<RawEvent> {
        let context = of_device(device.imp())?.context;
        context.check_fork()?;
        if event.is_null() {
            return Err(Error::Unsupported {
                what: "a null handle in place of an event".into(),
                device: device.name().into(),
                remedy: "pass a CUevent".into(),
            });
        }
        let owner = Owner::Caller {
            _keep_alive: keep_alive,
        };
        let event = EventHandle(event);
        Ok(RawEvent::of(context, device, event, owner, options))
    }

    /// See [`crate::bindings::raw_event_of`].
    pub(crate) fn of_marker(marker: &Marker) -> Option<RawEvent> {
        let imp = CudaMarker::of(&**marker.imp())?;
        let owner = Owner::Marker {
            _marker: marker.imp().clone(),
        };
        let options = RawEventOptions::default().timing(marker.has_timing());
        let event = imp.hand_out()?;
        let raw = RawEvent::of(imp.context, marker.device(), event, owner, options);
        #[cfg(feature = "trace")]
        let raw = raw.recorded_at(marker);
        Some(raw)
    }

    /// The event that another process exported as `handle`. Valid while that process keeps its own.
    /// Never blocks on the device's work.
    ///
    /// # Errors
    /// [`Error::Unsupported`] in the process that exported it, which must use the event itself, and
    /// for a device of another backend; [`Error::Backend`] for bytes that are no such handle;
    /// [`Error::Forked`].
    ///
    /// # References
    /// - [`cuIpcOpenEventHandle`](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__MEM.html)
    ///
    /// ```no_run
    /// use fencepost::{Device, cuda::{RawEvent, RawEventOptions}};
    /// # let handle = [0; 64];
    /// // `handle` has come from the other process, through a pipe for example.
    /// let theirs = RawEvent::open(&Device::open("cuda:0")?, &handle)?;
    /// theirs.synchronize()?;
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn open(device: &Device, handle: &[u8; 64]) -> Result<RawEvent> {
        let context = of_device(device.imp())?.context;
        context.check_fork()?;
        if exported(handle) {
            return Err(Error::Unsupported {
                what: "opening an event in the process that exported it".into(),
                device: context.name.clone(),
                remedy: "use the event itself here, and open the handle in another process".into(),
            });
        }
        let mut event = EventHandle::NULL;
        context
            .calls
            .current(|| {
                let handle = IpcHandle(*handle);
                // SAFETY: `event` is one handle; the driver checks what it is given.
                unsafe { context.driver.ipc_open_event((&raw mut event, handle)) }
            })
            .map_err(|fault| context.failed(fault, None))?;
        let options = RawEventOptions::default();
        Ok(RawEvent::of(context, device, event, Owner::Own, options))
    }

    /// The bytes by which another process opens it. Any thread may ask, with or without a current
    /// context. Never blocks on the device's work.
    ///
    /// # Errors
    /// [`Error::Backend`] for an event that was not made with
    /// [`interprocess`](RawEventOptions::interprocess), or that was itself opened;
    /// [`Error::Forked`].
    ///
    /// # References
    /// - [`cuIpcGetEventHandle`](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__MEM.html)
    ///
    /// ```no_run
    /// use fencepost::{Device, cuda::{RawEvent, RawEventOptions}};
    /// let shared = RawEventOptions::default().interprocess(true);
    /// let event = RawEvent::new(&Device::open("cuda:0")?, shared)?;
    /// let handle: [u8; 64] = event.export()?; // for the other process
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn export(&self) -> Result<[u8; 64]> {
        self.context().check_fork()?;
        let mut handle = IpcHandle([0; 64]);
        self.context()
            .calls
            .current(|| {
                // SAFETY: one handle of the size that the driver fills; the event is alive.
                unsafe {
                    self.context()
                        .driver
                        .ipc_get_event((&raw mut handle, self.native.event))
                }
            })
            .map_err(|fault| self.failed(fault))?;
        self.native.is_exported(handle.0);
        Ok(handle.0)
    }

    /// Marks the point behind everything submitted to `stream` so far; in a capture, the point in
    /// the graph. Never waits for the device.
    ///
    /// # Errors
    /// [`Error::DeviceMismatch`] for a stream of another device; [`Error::Unsupported`] for one of
    /// another backend; [`Error::Backend`] where the driver refuses; [`Error::Forked`].
    ///
    /// # References
    /// - [`cuEventRecord`,
    ///   `cuEventRecordWithFlags`](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__EVENT.html)
    ///
    /// ```no_run
    /// use fencepost::{Device, cuda::{RawEvent, RawEventOptions}};
    /// # let device = Device::open("cuda:0")?;
    /// # let event = RawEvent::new(&device, RawEventOptions::default())?;
    /// event.record(&device.default_stream())?;
    /// event.synchronize()?;
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn record(&self, stream: &Stream) -> Result<()> {
        stream.check_fork()?;
        let stream = of_stream(stream.imp())?;
        if !std::ptr::eq(stream.context, self.context()) {
            return Err(Error::DeviceMismatch {
                call: "record",
                left: format!("an event of {}", self.context().name),
                right: format!("a stream of {}", stream.context.name),
            });
        }
        let recorded = self.in_graph(stream).and_then(|in_graph| {
            stream.native.call(|raw| match in_graph {
                // SAFETY: the event and the stream are alive and of this context.
                true => unsafe {
                    let call = (self.native.event, raw, EXTERNAL);
                    self.context().driver.event_record_with_flags(call)
                },
                false => self.context().calls.record(self.native.event, raw),
            })?;
            if self.external {
                self.in_graph.store(in_graph, Ordering::Relaxed);
            }
            #[cfg(feature = "trace")]
            self.origin.is_recorded((!in_graph).then(|| stream.core()));
            Ok(())
        });
        recorded.map_err(|fault| self.failed(fault))
    }

    /// Makes later work of `stream` run after what was recorded last, whoever recorded it; in a
    /// capture, after what was recorded last at the time when the graph runs. The calling thread
    /// never blocks.
    ///
    /// A host stream waits until a look at the event finds nothing pending on it, as
    /// [`on_complete`](RawEvent::on_complete) does: what others record on it before that look is
    /// waited for too. If the event cannot be asked any more, that stream fails.
    ///
    /// # Errors
    /// [`Error::ForeignWait`] for a GPU's stream of another backend while the event is pending;
    /// [`Error::Captured`] where a capture that has ended recorded it last; [`Error::Backend`]
    /// where the driver refuses, or where no thread can be started to ask; [`Error::Forked`].
    ///
    /// # References
    /// - [`cuStreamWaitEvent`](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__STREAM.html)
    ///
    /// ```no_run
    /// use fencepost::{Device, cuda::{RawEvent, RawEventOptions}};
    /// # let device = Device::open("cuda:0")?;
    /// # let event = RawEvent::new(&device, RawEventOptions::default())?;
    /// event.record(&device.default_stream())?;
    /// event.wait(&device.new_stream()?)?;
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    #[track_caller]
    pub fn wait(&self, stream: &Stream) -> Result<()> {
        self.wait_at(stream, Place::caller(), StreamImpl::wait)
    }

    /// As [`wait`](RawEvent::wait), also for a GPU's stream of another backend. That stalls the
    /// hardware queue of that stream until the host has seen the event complete
    /// ([`Stream::wait_foreign`]).
    ///
    /// # Errors
    /// Those of [`wait`](RawEvent::wait), except [`Error::ForeignWait`].
    ///
    /// ```no_run
    /// use fencepost::{Device, cuda::{RawEvent, RawEventOptions}};
    /// let (cuda, vulkan) = (Device::open("cuda:0")?, Device::open("vulkan:0")?);
    /// let event = RawEvent::new(&cuda, RawEventOptions::default())?;
    /// event.record(&cuda.default_stream())?;
    /// event.wait_foreign(&vulkan.default_stream())?;
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    #[track_caller]
    pub fn wait_foreign(&self, stream: &Stream) -> Result<()> {
        self.wait_at(stream, Place::caller(), StreamImpl::wait_foreign)
    }

    /// `wait` makes a stream of another backend wait for a marker.
    fn wait_at(
        &self,
        stream: &Stream,
        at: Place,
        wait: impl FnOnce(&dyn StreamImpl, &Arc<dyn MarkerImpl>) -> Result<()>,
    ) -> Result<()> {
        stream.check_fork()?;
        match of_stream(stream.imp()) {
            Ok(stream) => self.wait_natively(stream)?,
            Err(_) if self.query()? => {}
            Err(_) => {
                let marker = raw_marker::marker(&self.native, at)?;
                wait(stream.imp(), &marker).map_err(Error::seen)?;
            }
        }
        #[cfg(feature = "trace")]
        self.origin.is_awaited(stream.imp().core());
        Ok(())
    }

    /// With the marker's place as the one where it was recorded last.
    #[cfg(feature = "trace")]
    fn recorded_at(mut self, marker: &Marker) -> RawEvent {
        let point = marker.imp().point();
        self.origin = Origin::new(Some(StreamPoint {
            stream: point.timeline.stream.clone(),
            after: point.value,
        }));
        self
    }

    /// A marker that stands for what was recorded last; none where that is complete.
    #[track_caller]
    pub(crate) fn pending_marker(&self) -> Result<Option<Arc<dyn MarkerImpl>>> {
        match self.query()? {
            true => Ok(None),
            false => raw_marker::marker(&self.native, Place::caller()).map(Some),
        }
    }

    fn wait_natively(&self, stream: &CudaStream) -> Result<()> {
        let waited = self.in_graph(stream).and_then(|in_graph| {
            stream.native.call(|raw| {
                let flags = if in_graph { EXTERNAL } else { 0 };
                stream
                    .context
                    .calls
                    .wait_event(raw, self.native.event, flags)
            })
        });
        waited.map_err(|fault| self.native.refused(fault, true))
    }

    /// Whether a call on `stream` becomes a node of a graph. The driver refuses the flag for that
    /// on a stream that is not being captured. An error where the call would break the capture of
    /// another stream, as only one on the legacy stream does.
    fn in_graph(&self, stream: &CudaStream) -> Result<bool, Fault> {
        match self.external || stream.native.is_legacy() {
            true => Ok(stream.native.is_capturing()? && self.external),
            false => Ok(false),
        }
    }

    /// Whether what was recorded last is complete. Asks the driver; never blocks. An external event
    /// that only graphs record counts as unrecorded, and so as complete, until one of them runs.
    ///
    /// Do not ask while a capture goes on in which an event that is not external was recorded last:
    /// the driver then ends that capture. Other captures are not harmed.
    ///
    /// # Errors
    /// [`Error::Captured`] where a capture recorded it last; a failure of the device;
    /// [`Error::Forked`].
    ///
    /// # References
    /// - [`cuEventQuery`](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__EVENT.html)
    ///
    /// ```no_run
    /// use fencepost::{Device, cuda::{RawEvent, RawEventOptions}};
    /// # let device = Device::open("cuda:0")?;
    /// # let event = RawEvent::new(&device, RawEventOptions::default())?;
    /// event.record(&device.default_stream())?;
    /// while !event.query()? { std::thread::yield_now() }
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn query(&self) -> Result<bool> {
        self.context().check_fork()?;
        self.context()
            .calls
            .query(self.native.event)
            .map_err(|fault| self.native.refused(fault, false))
    }

    /// Blocks until what was recorded last is complete: spins, unless the event was made with
    /// [`blocking_sync`](RawEventOptions::blocking_sync).
    ///
    /// # Errors
    /// Those of [`query`](RawEvent::query).
    ///
    /// # References
    /// - [`cuEventSynchronize`](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__EVENT.html)
    ///
    /// ```no_run
    /// use fencepost::{Device, cuda::{RawEvent, RawEventOptions}};
    /// # let device = Device::open("cuda:0")?;
    /// # let event = RawEvent::new(&device, RawEventOptions::default())?;
    /// event.record(&device.default_stream())?;
    /// event.synchronize()?;
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn synchronize(&self) -> Result<()> {
        self.context().check_fork()?;
        self.context()
            .calls
            .synchronize(self.native.event)
            .map_err(|fault| self.native.refused(fault, false))
    }

    /// The time from this event's last record to `end`'s, on the device's clock. Never waits.
    ///
    /// # Errors
    /// [`Error::TimingDisabled`], then [`Error::DeviceMismatch`], then [`Error::NotRecorded`] or
    /// [`Error::NotReady`]; a failure of the device; [`Error::Forked`].
    ///
    /// # References
    /// - [`cuEventElapsedTime`](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__EVENT.html)
    ///
    /// ```no_run
    /// use fencepost::{Device, cuda::{RawEvent, RawEventOptions}};
    /// # let device = Device::open("cuda:0")?;
    /// # let stream = device.default_stream();
    /// let timed = RawEventOptions::default().timing(true);
    /// let (start, end) = (RawEvent::new(&device, timed)?, RawEvent::new(&device, timed)?);
    /// start.record(&stream)?;
    /// // … kernels …
    /// end.record(&stream)?;
    /// end.synchronize()?;
    /// println!("{}", start.elapsed(&end)?);
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn elapsed(&self, end: &RawEvent) -> Result<Elapsed> {
        let name = &self.context().name;
        for (which, event) in [("start", self), ("end", end)] {
            if !event.timing {
                return Err(Error::timing_disabled(which));
            }
        }
        if !std::ptr::eq(self.context(), end.context()) {
            return Err(Error::DeviceMismatch {
                call: "elapsed",
                left: format!("an event of {name}"),
                right: format!("an event of {}", end.context().name),
            });
        }
        self.context().check_fork()?;
        match self
            .context()
            .calls
            .elapsed(self.native.event, end.native.event)
        {
            Ok(Some(millis)) => {
                let events = (self.native.event, end.native.event);
                Ok(self.context().interval(events, millis))
            }
            Ok(None) => {
                let which = if self.query()? { "end" } else { "start" };
                let marker = format!("the last record of a raw event of {name}");
                Err(Error::not_ready(which, marker))
            }
            // Both events are alive, so the driver means that one was never recorded.
            Err(fault) if fault.code() == Some(INVALID_HANDLE) => Err(self.unrecorded(end)),
            Err(fault) => Err(self.native.refused(fault, false)),
        }
    }

    /// Which of two events of one context has never been recorded, by the driver's account.
    #[cold]
    fn unrecorded(&self, end: &RawEvent) -> Error {
        for (which, event) in [("start", self), ("end", end)] {
            let native = event.native.event;
            let alone = self.context().calls.elapsed(native, native);
            if alone.is_err_and(|fault| fault.code() == Some(INVALID_HANDLE)) {
                return Error::NotRecorded {
                    which,
                    event: None,
                    in_graph: event.in_graph.load(Ordering::Relaxed),
                };
            }
        }
        Error::not_recorded("start or end")
    }

    /// The `CUevent`, for the caller's own calls of the driver, which may record it too. Valid
    /// while this value lives. The caller must not destroy it.
    ///
    /// ```no_run
    /// use fencepost::{Device, cuda::{RawEvent, RawEventOptions}};
    /// let event = RawEvent::new(&Device::open("cuda:0")?, RawEventOptions::default())?;
    /// let handle = event.raw(); // for cuStreamWaitEvent and its like
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn raw(&self) -> *mut c_void {
        self.native.event.0
    }

    /// Calls `callback` once a look at the event finds that what was recorded last is complete, or
    /// that the driver cannot be asked any more. Never blocks, and never calls on the calling
    /// thread.
    ///
    /// The driver tells nobody when such an event completes, so one thread of the library asks, for
    /// all that are awaited. Its pauses are at most 1/100 of the time since one was last awaited or
    /// found complete, but 20 µs at least and 1 ms at most. Callbacks run as those of
    /// [`Marker::on_complete`](crate::Marker::on_complete) do, in the order in which it finds the
    /// events complete.
    ///
    /// # Errors
    /// [`Error::Backend`] where no thread can be started to ask; [`Error::Forked`]. The callback is
    /// dropped then.
    ///
    /// # References
    /// - [`cuEventQuery`](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__EVENT.html)
    ///
    /// ```no_run
    /// use fencepost::{Device, cuda::{RawEvent, RawEventOptions}};
    /// let device = Device::open("cuda:0")?;
    /// let event = RawEvent::new(&device, RawEventOptions::default())?;
    /// event.record(&device.default_stream())?;
    /// event.on_complete(|result| println!("{result:?}"))?;
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn on_complete(&self, callback: impl FnOnce(Result<()>) + Send + 'static) -> Result<()> {
        self.call_back_cancellable(callback).map(drop)
    }

    /// See [`crate::bindings::on_complete_raw`].
    pub(crate) fn call_back_cancellable(
        &self,
        callback: impl FnOnce(Result<()>) + Send + 'static,
    ) -> Result<impl Fn() + Send + Sync + 'static> {
        let callbacks = self.context().callbacks.clone();
        let waiter = Waiter::Callback(callbacks, Box::new(callback));
        let wait = Arc::downgrade(&RawWait::begin(&self.native, waiter)?);
        Ok(move || {
            if let Some(wait) = wait.upgrade() {
                wait.cancel();
            }
        })
    }

    fn context(&self) -> &'static Context {
        self.native.context
    }

    fn failed(&self, fault: Fault) -> Error {
        self.context().failed(fault, None)
    }
}

impl fmt::Debug for RawEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RawEvent({:p})", self.raw())
    }
}

/// Awaits what was recorded last, as [`on_complete`](RawEvent::on_complete) does. Dropping the
/// future ends the wait at once.
///
/// ```no_run
/// # async fn wait() -> fencepost::Result<()> {
/// use fencepost::{Device, cuda::{RawEvent, RawEventOptions}};
/// let device = Device::open("cuda:0")?;
/// let event = RawEvent::new(&device, RawEventOptions::default())?;
/// event.record(&device.default_stream())?;
/// (&event).await?;
/// # Ok(())
/// # }
/// ```
impl IntoFuture for &RawEvent {
    type Output = Result<()>;
    type IntoFuture = RawEventFuture;

    fn into_future(self) -> RawEventFuture {
        RawEventFuture {
            native: self.native.clone(),
            wait: None,
        }
    }
}

/// The future of a [`RawEvent`]: `.await` on one makes it. It works in any async runtime.
///
/// ```no_run
/// # let device = fencepost::Device::open("cuda:0").unwrap();
/// use std::future::IntoFuture;
/// use fencepost::cuda::{RawEvent, RawEventFuture, RawEventOptions};
/// let event = RawEvent::new(&device, RawEventOptions::default())?;
/// let future: RawEventFuture = (&event).into_future();
/// # drop(future);
/// # Ok::<(), fencepost::Error>(())
/// ```
#[must_use = "futures do nothing unless awaited"]
pub struct RawEventFuture {
    native: Arc<RawNative>,
    wait: Option<Arc<RawWait>>,
}

impl Future for RawEventFuture {
    type Output = Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Result<()>> {
        if let Err(forked) = self.native.context.check_fork() {
            return Poll::Ready(Err(forked));
        }
        if let Some(wait) = &self.wait {
            return wait.answer(cx.waker()).map_or(Poll::Pending, Poll::Ready);
        }
        let context = self.native.context;
        match context.calls.query(self.native.event) {
            Ok(true) => return Poll::Ready(Ok(())),
            Ok(false) => {}
            Err(fault) => return Poll::Ready(Err(self.native.refused(fault, false))),
        }
        match RawWait::begin(&self.native, Waiter::Waker(cx.waker().clone())) {
            Ok(wait) => {
                self.wait = Some(wait);
                Poll::Pending
            }
            Err(error) => Poll::Ready(Err(error)),
        }
    }
}

impl Drop for RawEventFuture {
    fn drop(&mut self) {
        if let Some(wait) = self.wait.take() {
            wait.cancel();
        }
    }
}

impl fmt::Debug for RawEventFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RawEventFuture({:p})", self.native.event.0)
    }
}
