//! Raw events: one `CUevent` for life, which others may record again at any time: another process,
//! a graph, or the caller's own calls of the driver.
//!
//! So nothing about a raw event is remembered, each query asks the driver, and its `CUevent` never
//! goes to a pool.

use std::{ffi::c_void, fmt, sync::Arc};

use super::{
    context::Context,
    device::of_device,
    driver::{EventHandle, IpcHandle},
    fault::{Fault, INVALID_HANDLE},
    marker::CudaMarker,
    stream::{CudaStream, of_stream},
};
use crate::{
    clock::Elapsed,
    contract::MarkerImpl,
    device::Device,
    error::{Error, Result},
    marker::Marker,
    stream::Stream,
    sync::{Mutex, lock},
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
    #[must_use]
    pub fn timing(mut self, on: bool) -> RawEventOptions {
        self.timing = on;
        self
    }

    /// Whether threads that wait for it sleep instead of spinning.
    #[must_use]
    pub fn blocking_sync(mut self, on: bool) -> RawEventOptions {
        self.blocking_sync = on;
        self
    }

    /// Whether other processes can open it, by the handle that [`export`](RawEvent::export) gives.
    #[must_use]
    pub fn interprocess(mut self, on: bool) -> RawEventOptions {
        self.interprocess = on;
        self
    }

    /// Whether its records and waits on a stream that is being captured become nodes of the graph.
    /// CUDA calls such an event *external*.
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
/// # References
/// - [`cuEventCreate`,
///   `cuEventRecordWithFlags`](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__EVENT.html)
/// - [`cuStreamWaitEvent`](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__STREAM.html)
/// - [`cuIpcGetEventHandle`,
///   `cuIpcOpenEventHandle`](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__MEM.html)
pub struct RawEvent {
    context: &'static Context,
    event: EventHandle,
    /// Whether records and waits on a stream that is being captured become nodes of the graph.
    external: bool,
    timing: bool,
    /// The marker that owns the `CUevent`; `None` where this value does.
    owner: Option<Arc<dyn MarkerImpl>>,
}

/// `CU_EVENT_RECORD_EXTERNAL` and `CU_EVENT_WAIT_EXTERNAL`.
const EXTERNAL: u32 = 1;

/// The handles that this process has exported. The driver's error for opening one of them here does
/// not say what is wrong.
static EXPORTED: Mutex<Vec<[u8; 64]>> = Mutex::new(Vec::new());

impl RawEvent {
    /// A new event, unrecorded, which counts as complete.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a device of another backend; [`Error::Backend`] where the driver
    /// refuses.
    pub fn new(device: &Device, options: RawEventOptions) -> Result<RawEvent> {
        let context = of_device(device.imp())?.context;
        let event = context
            .calls
            .create_event(options.flags())
            .map_err(|fault| context.failed(fault, None))?;
        Ok(RawEvent {
            context,
            event,
            external: options.external,
            timing: options.timing,
            owner: None,
        })
    }

    /// See [`crate::bindings::raw_event_of`].
    pub(crate) fn of_marker(marker: &Marker) -> Option<RawEvent> {
        let imp = CudaMarker::of(&**marker.imp())?;
        Some(RawEvent {
            context: imp.context,
            event: imp.hand_out()?,
            external: false,
            timing: marker.has_timing(),
            owner: Some(marker.imp().clone()),
        })
    }

    /// The event that another process exported as `handle`. Valid while that process keeps its own.
    ///
    /// # Errors
    /// [`Error::Unsupported`] in the process that exported it, which must use the event itself, and
    /// for a device of another backend; [`Error::Backend`] for bytes that are no such handle.
    pub fn open(device: &Device, handle: &[u8; 64]) -> Result<RawEvent> {
        let context = of_device(device.imp())?.context;
        if lock(&EXPORTED).contains(handle) {
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
        Ok(RawEvent {
            context,
            event,
            external: false,
            timing: false,
            owner: None,
        })
    }

    /// The bytes by which another process opens it. Any thread may ask, with or without a current
    /// context.
    ///
    /// # Errors
    /// [`Error::Backend`] for an event that was not made with
    /// [`interprocess`](RawEventOptions::interprocess), or that was itself opened.
    pub fn export(&self) -> Result<[u8; 64]> {
        let mut handle = IpcHandle([0; 64]);
        self.context
            .calls
            .current(|| {
                // SAFETY: one handle of the size that the driver fills; the event is alive.
                unsafe {
                    self.context
                        .driver
                        .ipc_get_event((&raw mut handle, self.event))
                }
            })
            .map_err(|fault| self.failed(fault))?;
        let mut exported = lock(&EXPORTED);
        if !exported.contains(&handle.0) {
            exported.push(handle.0);
        }
        Ok(handle.0)
    }

    /// Marks the point behind everything submitted to `stream` so far; in a capture, the point in
    /// the graph. Never waits for the device.
    ///
    /// # Errors
    /// [`Error::DeviceMismatch`] for a stream of another device; [`Error::Unsupported`] for one of
    /// another backend; [`Error::Backend`] where the driver refuses.
    pub fn record(&self, stream: &Stream) -> Result<()> {
        let stream = of_stream(stream.imp())?;
        if !std::ptr::eq(stream.context, self.context) {
            return Err(Error::DeviceMismatch {
                call: "record",
                left: format!("an event of {}", self.context.name),
                right: format!("a stream of {}", stream.context.name),
            });
        }
        let recorded = self.in_graph(stream).and_then(|in_graph| {
            stream.native.call(|raw| match in_graph {
                // SAFETY: the event and the stream are alive and of this context.
                true => unsafe {
                    let call = (self.event, raw, EXTERNAL);
                    self.context.driver.event_record_with_flags(call)
                },
                false => self.context.calls.record(self.event, raw),
            })
        });
        recorded.map_err(|fault| self.failed(fault))
    }

    /// Makes later work of `stream` run after what was recorded last, whoever recorded it; in a
    /// capture, after what was recorded last at the time when the graph runs.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a stream of another backend; [`Error::Backend`] where the driver
    /// refuses.
    pub fn wait(&self, stream: &Stream) -> Result<()> {
        let stream = of_stream(stream.imp())?;
        let waited = self.in_graph(stream).and_then(|in_graph| {
            stream.native.call(|raw| {
                let flags = if in_graph { EXTERNAL } else { 0 };
                stream.context.calls.wait_event(raw, self.event, flags)
            })
        });
        waited.map_err(|fault| self.failed(fault))
    }

    /// Whether a call on `stream` becomes a node of a graph. The driver refuses the flag for that on
    /// a stream that is not being captured.
    fn in_graph(&self, stream: &CudaStream) -> Result<bool, Fault> {
        match self.external {
            true => stream.native.is_capturing(),
            false => Ok(false),
        }
    }

    /// Whether what was recorded last is complete. Asks the driver; never blocks.
    ///
    /// # Errors
    /// A failure of the device.
    pub fn query(&self) -> Result<bool> {
        self.context
            .calls
            .query(self.event)
            .map_err(|fault| self.failed(fault))
    }

    /// Blocks until what was recorded last is complete: spins, unless the event was made with
    /// [`blocking_sync`](RawEventOptions::blocking_sync).
    ///
    /// # Errors
    /// A failure of the device.
    pub fn synchronize(&self) -> Result<()> {
        self.context
            .calls
            .synchronize(self.event)
            .map_err(|fault| self.failed(fault))
    }

    /// The time from this event's last record to `end`'s, on the device's clock. Never waits.
    ///
    /// # Errors
    /// [`Error::TimingDisabled`], then [`Error::DeviceMismatch`], then [`Error::NotRecorded`] or
    /// [`Error::NotReady`]; a failure of the device.
    pub fn elapsed(&self, end: &RawEvent) -> Result<Elapsed> {
        let name = &self.context.name;
        for (which, event) in [("start", self), ("end", end)] {
            if !event.timing {
                return Err(Error::TimingDisabled { which });
            }
        }
        if !std::ptr::eq(self.context, end.context) {
            return Err(Error::DeviceMismatch {
                call: "elapsed",
                left: format!("an event of {name}"),
                right: format!("an event of {}", end.context.name),
            });
        }
        match self.context.calls.elapsed(self.event, end.event) {
            Ok(Some(millis)) => Ok(Elapsed::new(
                f64::from(millis) * 1e6,
                self.context.clock.clone(),
            )),
            Ok(None) => Err(Error::NotReady {
                which: if self.query()? { "end" } else { "start" },
                marker: format!("the last record of a raw event of {name}"),
            }),
            // Both events are alive, so the driver means that one was never recorded.
            Err(fault) if fault.code() == Some(INVALID_HANDLE) => Err(Error::NotRecorded {
                which: "start or end",
            }),
            Err(fault) => Err(self.failed(fault)),
        }
    }

    /// The `CUevent`, for the caller's own calls of the driver, which may record it too. Valid while
    /// this value lives. The caller must not destroy it.
    pub fn raw(&self) -> *mut c_void {
        self.event.0
    }

    fn failed(&self, fault: Fault) -> Error {
        self.context.failed(fault, None)
    }
}

impl Drop for RawEvent {
    fn drop(&mut self) {
        if self.owner.is_none() {
            self.context.calls.destroy_event(self.event);
        }
    }
}

impl fmt::Debug for RawEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RawEvent({:p})", self.raw())
    }
}
