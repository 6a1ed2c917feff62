//! CUDA: streams of the caller's own, and the native handles behind ours.
//!
//! With the feature `cuda`, [`Device::open`]`("cuda:0")` gives the first GPU in its primary
//! context, which is the one that the CUDA runtime, PyTorch, cudarc and others use; so their
//! streams, wrapped by [`stream_from_raw`], belong to the same [`Device`].
//!
//! # What to know of CUDA's events
//! - A [`Device`]'s default stream is the *legacy* default stream (stream 0). Streams made by
//!   [`Device::new_stream`] do not wait for it (`CU_STREAM_NON_BLOCKING`).
//! - Recording never waits for the device, with one exception that is the driver's: once some 1,020
//!   *timed* records are pending on one stream, `cuEventRecord` blocks until some complete (seen on
//!   an H200 with driver 580; untimed ones do not block there). While a thread is blocked there,
//!   the driver also holds up whoever makes an event or a stream in that context; queries, waits,
//!   drops and records with events that are there go on.
//! - A [`Stream`] that is dropped goes to a pool and is the next one that is made, once its work is
//!   done; the driver's own is never destroyed.
//! - [`synchronize`](crate::Marker::synchronize) spins in the driver, for the shortest delay; on
//!   streams made with [`StreamOptions::blocking_sync`] it sleeps. Waits with a limit spin for a
//!   moment and then sleep, and are told by a thread of the library.
//! - A fault of a kernel ends its whole context: all streams and markers of the device then tell
//!   that first fault as [`Error::DeviceLost`], and only a new process brings it back. An H200's
//!   driver 580 ends the contexts of the process's other GPUs with it.
//! - A marker recorded while its stream is captured into a graph is [`Error::Captured`] to all but
//!   waits of that capture. Nothing in this crate breaks a capture.
#![allow(unsafe_code)]

#[cfg(feature = "conformance")]
pub mod bare;
pub(crate) mod context;
pub(crate) mod device;
pub(crate) mod driver;
mod marker;
mod raw_event;
pub(crate) mod stream;
mod upstreams;
mod values;

use std::{any::Any, ffi::c_void, fmt, sync::Arc};

use crate::{
    clock::Elapsed,
    device::Device,
    error::{Error, Result},
    marker::Marker,
    stream::Stream,
};

/// How a stream is made.
///
/// ```
/// let options = fencepost::cuda::StreamOptions::default().blocking_sync(true);
/// println!("{options:?}");
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct StreamOptions {
    blocking_sync: bool,
}

impl StreamOptions {
    /// Whether threads that synchronize with the stream's markers sleep instead of spinning: less
    /// work for the processor, some 10 µs more for the wait.
    ///
    /// # References
    /// - [`CU_EVENT_BLOCKING_SYNC`](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__EVENT.html)
    ///
    /// ```
    /// # use fencepost::cuda::StreamOptions;
    /// let patient = StreamOptions::default().blocking_sync(true);
    /// # drop(patient);
    /// ```
    #[must_use]
    pub fn blocking_sync(mut self, on: bool) -> StreamOptions {
        self.blocking_sync = on;
        self
    }
}

/// A new stream of a CUDA device, made as `options` say. Never blocks on the device's work.
///
/// # Errors
/// [`Error::Unsupported`] for a device of another backend; what the driver says when it makes no
/// more.
///
/// # References
/// - [`cuStreamCreate`](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__STREAM.html)
///
/// ```no_run
/// use fencepost::{Device, cuda};
/// let device = Device::open("cuda:0")?;
/// let stream = cuda::new_stream(&device, cuda::StreamOptions::default().blocking_sync(true))?;
/// # Ok::<(), fencepost::Error>(())
/// ```
pub fn new_stream(device: &Device, options: StreamOptions) -> Result<Stream> {
    let stream = of(device)?.make_stream(options.blocking_sync)?;
    Ok(Stream::new(stream, device.clone()))
}

/// The stream behind a `CUstream` (or `cudaStream_t`, which is the same): of the CUDA runtime,
/// cudarc, candle, PyTorch or anybody else. Handle 0 and `CU_STREAM_LEGACY` are the legacy default
/// stream of the current context, `CU_STREAM_PER_THREAD` is the calling thread's.
///
/// The same stream wrapped twice gives equal [`Stream`]s, where the driver numbers its streams
/// (`cuStreamGetId`, CUDA 12). A per-thread default stream is another stream in every thread, so
/// its wrapper is refused in all threads but the one that made it. A stream of a context that is no
/// device's primary one gets a [`Device`] of its own. Never blocks; the stream is not destroyed by
/// us.
///
/// A stream may be wrapped while it is captured; it then has no number, since asking for it would
/// break the capture, and does not equal what wraps it at other times.
///
/// # Safety
/// - `handle` is a stream of this process's CUDA driver and is alive; `keep_alive` keeps it and its
///   context alive until dropped, which happens after the last clone of the [`Stream`] is gone.
/// - Its context is not destroyed or reset while the stream, or a marker recorded on it, is in use:
///   the driver does not check for that on every call.
///
/// Any thread may use the stream at any time: the driver locks its own queues.
///
/// # Errors
/// What the driver says of a handle that it can tell is none; [`Error::Unavailable`] without a
/// driver.
///
/// # References
/// - [`cuStreamGetCtx`](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__STREAM.html)
///
/// ```no_run
/// use std::sync::Arc;
/// # let (raw, owner) = (std::ptr::null_mut(), Arc::new(()));
/// // SAFETY: `owner` is what destroys the stream when it is dropped.
/// let stream = unsafe { fencepost::cuda::stream_from_raw(raw, owner) }?;
/// stream.record()?.synchronize()?;
/// # Ok::<(), fencepost::Error>(())
/// ```
pub unsafe fn stream_from_raw(
    handle: *mut c_void,
    keep_alive: Arc<dyn Any + Send + Sync>,
) -> Result<Stream> {
    // SAFETY: passed on to the caller.
    let (stream, device) = unsafe { device::wrap(handle, keep_alive) }?;
    Ok(Stream::new(stream, Device::new(device)))
}

/// The `CUstream` of a CUDA stream, for submitting work to it; `None` for streams of other
/// backends. It is good while the [`Stream`] or a clone of it is alive. Must not be destroyed.
///
/// ```no_run
/// let stream = fencepost::Device::open("cuda:0")?.new_stream()?;
/// let raw = fencepost::cuda::raw_stream(&stream).unwrap();
/// # Ok::<(), fencepost::Error>(())
/// ```
pub fn raw_stream(stream: &Stream) -> Option<*mut c_void> {
    of_stream(stream).ok().map(device::CudaStream::export)
}

/// Calls `f` with the `CUevent` of a CUDA marker, for waits inside the caller's own submits; `None`
/// where there is none: markers of other backends, and of streams that have failed.
///
/// Inside `f` the event is this marker's. Afterwards it may be recorded again for others, so it
/// must not be kept; it must never be recorded or destroyed by the caller.
///
/// ```no_run
/// # let marker = fencepost::Device::open("cuda:0")?.default_stream().record()?;
/// fencepost::cuda::with_raw_event(&marker, |event| {
///     // cuStreamWaitEvent(my_stream, event, 0)
/// # let _ = event;
/// });
/// # Ok::<(), fencepost::Error>(())
/// ```
pub fn with_raw_event<R>(marker: &Marker, f: impl FnOnce(*mut c_void) -> R) -> Option<R> {
    device::raw_event(&**marker.imp()).map(f)
}

/// The GPU's name, such as `NVIDIA H200`.
///
/// # Errors
/// [`Error::Unsupported`] for a device of another backend.
///
/// ```no_run
/// println!("{}", fencepost::cuda::model(&fencepost::Device::open("cuda:0")?)?);
/// # Ok::<(), fencepost::Error>(())
/// ```
pub fn model(device: &Device) -> Result<String> {
    device::model(of(device)?)
}

/// An event that two processes share: recorded in one, awaited in the other. Linux only; the
/// processes must share their IPC namespace (`/dev/shm`), as containers often do not.
///
/// The other process may record it again at any time, so it is no [`Event`](crate::Event): it holds
/// no marker, has no time, and each query asks the driver. Dropping it never blocks.
///
/// ```no_run
/// use fencepost::{Device, cuda::InterprocessEvent};
///
/// let device = Device::open("cuda:0")?;
/// let event = InterprocessEvent::new(&device)?;
/// event.record(&device.default_stream())?;
/// let handle: [u8; 64] = event.export()?;
/// // In the other process, which got the handle's bytes by whatever way:
/// let theirs = InterprocessEvent::open(&device, &handle)?;
/// theirs.wait(&device.new_stream()?)?;
/// # Ok::<(), fencepost::Error>(())
/// ```
///
/// # References
/// - [`cuIpcGetEventHandle`,
///   `cuIpcOpenEventHandle`](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__MEM.html)
pub struct InterprocessEvent(device::RawEvent);

impl InterprocessEvent {
    /// A new event, unrecorded, which counts as complete.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a device of another backend; what the driver says.
    pub fn new(device: &Device) -> Result<InterprocessEvent> {
        device::RawEvent::interprocess(device.imp()).map(InterprocessEvent)
    }

    /// The event that another process exported as `handle`. Good while the exporter keeps its own.
    ///
    /// # Errors
    /// [`Error::Unsupported`] in the process that exported it, where the event itself is to be
    /// used; what the driver says of a handle that is none.
    pub fn open(device: &Device, handle: &[u8; 64]) -> Result<InterprocessEvent> {
        device::RawEvent::open(device.imp(), handle).map(InterprocessEvent)
    }

    /// The bytes by which another process opens it. Any thread may ask, with or without a context.
    ///
    /// # Errors
    /// What the driver says: an opened event cannot be exported again.
    pub fn export(&self) -> Result<[u8; 64]> {
        self.0.export()
    }

    /// Marks the point behind everything submitted to `stream` so far. Never waits for the device.
    ///
    /// # Errors
    /// [`Error::DeviceMismatch`] for a stream of another device; what the driver says.
    pub fn record(&self, stream: &Stream) -> Result<()> {
        self.0.record(of_stream(stream)?)
    }

    /// Makes later work of `stream` run after what was recorded last, by whichever process.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a stream of another backend; what the driver says.
    pub fn wait(&self, stream: &Stream) -> Result<()> {
        self.0.wait(of_stream(stream)?)
    }

    /// Whether what was recorded last is complete. Asks the driver; never blocks.
    ///
    /// # Errors
    /// A failure of the device.
    pub fn query(&self) -> Result<bool> {
        self.0.query()
    }

    /// Blocks, spinning, until what was recorded last is complete.
    ///
    /// # Errors
    /// A failure of the device.
    pub fn synchronize(&self) -> Result<()> {
        self.0.synchronize()
    }
}

impl fmt::Debug for InterprocessEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("InterprocessEvent")
            .field(&self.query())
            .finish()
    }
}

/// An event that a captured graph records each time it runs, or waits for: what CUDA calls
/// *external*. It times a part of a graph, or orders a graph behind work outside of it.
///
/// On a stream that is being captured, [`record`](ExternalEvent::record) and
/// [`wait`](ExternalEvent::wait) become nodes of the graph; on others they happen at once. Each run
/// of the graph records it again, so it is no [`Event`](crate::Event): it holds no marker, and each
/// query asks the driver. Any thread may use it. Dropping it never blocks, and must come after the
/// last run of a graph that knows it has been submitted.
///
/// ```no_run
/// use fencepost::{Device, cuda::ExternalEvent};
///
/// let device = Device::open("cuda:0")?;
/// let stream = device.new_stream()?;
/// let (start, end) = (ExternalEvent::with_timing(&device)?, ExternalEvent::with_timing(&device)?);
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
/// - [`cuEventRecordWithFlags`](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__EVENT.html)
/// - [`cuStreamWaitEvent`](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__STREAM.html)
pub struct ExternalEvent(device::RawEvent);

impl ExternalEvent {
    /// A new event without timing, unrecorded, which counts as complete.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a device of another backend; what the driver says.
    pub fn new(device: &Device) -> Result<ExternalEvent> {
        device::RawEvent::external(device.imp(), false).map(ExternalEvent)
    }

    /// A new event with timing.
    ///
    /// # Errors
    /// As [`new`](ExternalEvent::new).
    pub fn with_timing(device: &Device) -> Result<ExternalEvent> {
        device::RawEvent::external(device.imp(), true).map(ExternalEvent)
    }

    /// Marks the point behind everything submitted to `stream` so far; in a capture, the point in
    /// the graph. Never waits for the device.
    ///
    /// # Errors
    /// [`Error::DeviceMismatch`] for a stream of another device; what the driver says.
    pub fn record(&self, stream: &Stream) -> Result<()> {
        self.0.record(of_stream(stream)?)
    }

    /// Makes later work of `stream` run after what was recorded last; in a capture, what was
    /// recorded last when the graph runs.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a stream of another backend; what the driver says.
    pub fn wait(&self, stream: &Stream) -> Result<()> {
        self.0.wait(of_stream(stream)?)
    }

    /// Whether what was recorded last is complete. Asks the driver; never blocks.
    ///
    /// # Errors
    /// A failure of the device.
    pub fn query(&self) -> Result<bool> {
        self.0.query()
    }

    /// Blocks, spinning, until what was recorded last is complete.
    ///
    /// # Errors
    /// A failure of the device.
    pub fn synchronize(&self) -> Result<()> {
        self.0.synchronize()
    }

    /// The time from this event's last record to `end`'s, on the device's clock. Never waits.
    ///
    /// # Errors
    /// [`Error::TimingDisabled`], then [`Error::DeviceMismatch`], then [`Error::NotRecorded`] or
    /// [`Error::NotReady`]; a failure of the device.
    pub fn elapsed(&self, end: &ExternalEvent) -> Result<Elapsed> {
        self.0.elapsed(&end.0)
    }

    /// Its `CUevent`, the same for life: for the caller's own calls of the driver, which may record
    /// it too. Good while the event is alive; must not be destroyed.
    pub fn raw(&self) -> *mut c_void {
        self.0.raw()
    }
}

impl fmt::Debug for ExternalEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ExternalEvent").field(&self.query()).finish()
    }
}

/// How a [`NativeEvent`] is made: without anything, it has no timing and threads that wait for it
/// spin.
///
/// ```
/// let options = fencepost::cuda::NativeOptions::default().timing(true).external(true);
/// println!("{options:?}");
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct NativeOptions {
    timing: bool,
    blocking_sync: bool,
    interprocess: bool,
    external: bool,
}

impl NativeOptions {
    /// Whether it carries a time. Not together with [`interprocess`](NativeOptions::interprocess),
    /// which the driver refuses.
    #[must_use]
    pub fn timing(mut self, on: bool) -> NativeOptions {
        self.timing = on;
        self
    }

    /// Whether threads that wait for it sleep instead of spinning.
    #[must_use]
    pub fn blocking_sync(mut self, on: bool) -> NativeOptions {
        self.blocking_sync = on;
        self
    }

    /// Whether it can be exported to other processes.
    #[must_use]
    pub fn interprocess(mut self, on: bool) -> NativeOptions {
        self.interprocess = on;
        self
    }

    /// Whether, in a stream that is being captured, it is the graph that records it and waits for
    /// it each time it runs.
    #[must_use]
    pub fn external(mut self, on: bool) -> NativeOptions {
        self.external = on;
        self
    }
}

/// One `CUevent` for life, whose handle the caller may have, and may record and wait for by calls
/// of their own. It holds no marker, so each query asks the driver. Dropping it never blocks.
///
/// ```no_run
/// use fencepost::{Device, cuda::{NativeEvent, NativeOptions}};
///
/// let device = Device::open("cuda:0")?;
/// let event = NativeEvent::new(&device, NativeOptions::default())?;
/// event.record(&device.default_stream())?;
/// let handle = event.raw(); // for cuStreamWaitEvent and its like
/// # Ok::<(), fencepost::Error>(())
/// ```
///
/// # References
/// - [`cuEventCreate`,
///   `cuEventRecordWithFlags`](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__EVENT.html)
pub struct NativeEvent(device::RawEvent);

impl NativeEvent {
    /// A new event, unrecorded, which counts as complete.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a device of another backend; what the driver says.
    pub fn new(device: &Device, options: NativeOptions) -> Result<NativeEvent> {
        // CU_EVENT_BLOCKING_SYNC, CU_EVENT_DISABLE_TIMING, CU_EVENT_INTERPROCESS.
        let flags = u32::from(options.blocking_sync)
            | u32::from(!options.timing) << 1
            | u32::from(options.interprocess) << 2;
        device::RawEvent::new(device.imp(), flags, options.external).map(NativeEvent)
    }

    /// See [`crate::bindings::native_event_of`].
    pub(crate) fn of_marker(marker: &Marker) -> Option<NativeEvent> {
        device::RawEvent::of(marker.imp()).map(NativeEvent)
    }

    /// The event that another process exported as `handle`; see [`InterprocessEvent::open`].
    ///
    /// # Errors
    /// As [`InterprocessEvent::open`].
    pub fn open(device: &Device, handle: &[u8; 64]) -> Result<NativeEvent> {
        device::RawEvent::open(device.imp(), handle).map(NativeEvent)
    }

    /// The bytes by which another process opens it.
    ///
    /// # Errors
    /// What the driver says, unless it was made with [`interprocess`](NativeOptions::interprocess).
    pub fn export(&self) -> Result<[u8; 64]> {
        self.0.export()
    }

    /// The `CUevent`. Good while this value lives; must not be destroyed.
    pub fn raw(&self) -> *mut c_void {
        self.0.raw()
    }

    /// Marks the point behind everything submitted to `stream` so far. Never waits for the device.
    ///
    /// # Errors
    /// [`Error::DeviceMismatch`] for a stream of another device; what the driver says.
    pub fn record(&self, stream: &Stream) -> Result<()> {
        self.0.record(of_stream(stream)?)
    }

    /// Makes later work of `stream` run after what was recorded last, by whoever.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a stream of another backend; what the driver says.
    pub fn wait(&self, stream: &Stream) -> Result<()> {
        self.0.wait(of_stream(stream)?)
    }

    /// Whether what was recorded last is complete. Asks the driver; never blocks.
    ///
    /// # Errors
    /// A failure of the device.
    pub fn query(&self) -> Result<bool> {
        self.0.query()
    }

    /// Blocks until what was recorded last is complete.
    ///
    /// # Errors
    /// A failure of the device.
    pub fn synchronize(&self) -> Result<()> {
        self.0.synchronize()
    }

    /// The time from this event's last record to `end`'s, on the device's clock. Never waits.
    ///
    /// # Errors
    /// As [`ExternalEvent::elapsed`].
    pub fn elapsed(&self, end: &NativeEvent) -> Result<Elapsed> {
        self.0.elapsed(&end.0)
    }
}

impl fmt::Debug for NativeEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NativeEvent({:p})", self.raw())
    }
}

fn of_stream(stream: &Stream) -> Result<&device::CudaStream> {
    (stream.imp() as &dyn Any)
        .downcast_ref()
        .ok_or_else(|| Error::Unsupported {
            what: "a CUDA event on a stream of another backend".into(),
            device: stream.device().name().into(),
            remedy: "use a stream of a CUDA device".into(),
        })
}

fn of(device: &Device) -> Result<&device::CudaDevice> {
    device::of_device(device.imp()).ok_or_else(|| Error::Unsupported {
        what: "a call of CUDA".into(),
        device: device.name().into(),
        remedy: "open a device whose name begins with cuda".into(),
    })
}
