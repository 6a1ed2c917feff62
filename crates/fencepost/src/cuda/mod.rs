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
//!   threads that make an event or a stream in that context block too. Queries, waits, drops, and
//!   records of existing events do not.
//! - A dropped [`Stream`] leaves its `CUstream` to a pool, where a later new stream finds it once
//!   its work is done. The `CUstream` is never destroyed.
//! - [`synchronize`](crate::Marker::synchronize) spins in the driver, for the shortest delay; on
//!   streams made with [`StreamOptions::blocking_sync`] it sleeps. Waits with a limit spin for a
//!   moment and then sleep, and are woken by a thread of the library.
//! - The time between two events is an `f32` of milliseconds, which loses microseconds from a
//!   minute on: [`Elapsed::uncertainty`](crate::Elapsed::uncertainty) tells how many.
//!   [`Device::keep_time`] keeps long times exact.
//! - A fault of a kernel ends its whole context: all streams and markers of the device then report
//!   that first fault as [`Error::DeviceLost`], until the process ends. On an H200, driver 580 also
//!   ends the contexts of the process's other GPUs.
//! - For a marker recorded while its stream is captured into a graph, all calls but waits inside
//!   that capture return [`Error::Captured`]. Nothing in this crate breaks a capture.
#![allow(unsafe_code)]

mod anchors;
mod cache;
mod calls;
pub(crate) mod context;
pub(crate) mod device;
pub(crate) mod driver;
pub(crate) mod fault;
pub(crate) mod host_gates;
mod keeper;
mod marker;
mod native_stream;
mod nvml;
mod pools;
mod raw_event;
mod raw_marker;
#[cfg(feature = "trace")]
mod raw_origin;
pub(crate) mod stream;
mod ticker;
mod upstreams;
mod values;
mod waits;
mod watched;

use std::{any::Any, ffi::c_void, sync::Arc};

use self::{device::of_device, marker::CudaMarker, stream::of_stream};
#[cfg(doc)]
use crate::error::Error;
use crate::{device::Device, error::Result, marker::Marker, stream::Stream};

pub use self::raw_event::{RawEvent, RawEventFuture, RawEventOptions};

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
    /// Whether threads that synchronize with the stream's markers sleep instead of spinning. A wait
    /// then uses less processor time and takes some 10 µs longer.
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
/// [`Error::Unsupported`] for a device of another backend; [`Error::Backend`] where the driver
/// makes no more streams.
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
    device.core().check_fork()?;
    let stream = of_device(device.imp())?.make_stream(options.blocking_sync)?;
    Ok(Stream::new(stream, device.clone()))
}

/// The device of a `CUcontext` that the caller made: of cudarc, or by `cuCtxCreate`.
///
/// A device's primary context is that of [`Device::open`], and gives an equal [`Device`]. Any other
/// context gets a [`Device`] of its own, the same one each time. Never blocks on the device's work.
///
/// # Safety
/// - `context` is a context of this process's CUDA driver and is alive. `keep_alive` keeps it alive
///   until it is dropped. For a context that is not primary it is never dropped: the library keeps
///   events and streams of a context for as long as the process lives.
/// - The context is not destroyed or reset while a stream of the device, or a marker recorded on
///   one, is in use: the driver does not check for that on every call.
///
/// # Errors
/// [`Error::Unsupported`] for a null handle; [`Error::Unavailable`] without a driver;
/// [`Error::Backend`] where the driver refuses.
///
/// # References
/// - [`cuCtxCreate`](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__CTX.html)
///
/// ```no_run
/// use std::sync::Arc;
/// # let (raw, owner) = (std::ptr::null_mut(), Arc::new(()));
/// // SAFETY: `owner` is what destroys the context when it is dropped.
/// let device = unsafe { fencepost::cuda::device_from_raw(raw, owner) }?;
/// device.new_stream()?.record()?.synchronize()?;
/// # Ok::<(), fencepost::Error>(())
/// ```
pub unsafe fn device_from_raw(
    context: *mut c_void,
    keep_alive: Arc<dyn Any + Send + Sync>,
) -> Result<Device> {
    // SAFETY: passed on to the caller.
    let device = unsafe { device::device_from_raw(context, keep_alive) }?;
    Ok(Device::new(device))
}

/// The stream behind a `CUstream` (or `cudaStream_t`, which is the same): of the CUDA runtime,
/// cudarc, candle, PyTorch or anybody else.
///
/// Handle 0 and `CU_STREAM_LEGACY` mean the legacy default stream of the context that is current in
/// the calling thread, and `CU_STREAM_PER_THREAD` means the thread's own default stream in that
/// context. Such a handle does not tell its device: where another library names the device beside
/// it, take [`Device::default_stream`] or [`per_thread_stream`] of that device instead.
///
/// The same stream wrapped twice gives equal [`Stream`]s, where the driver numbers its streams
/// (`cuStreamGetId`, CUDA 12). A per-thread default stream is another stream in every thread, so
/// only the thread that wrapped it may use the wrapper. The [`Device`] of a stream is that of its
/// context, as with [`device_from_raw`]. Never blocks. The library never destroys the stream.
///
/// A stream may be wrapped while it is captured. Such a wrapper does not equal one that was made at
/// another time: the driver's number of a stream cannot be read during a capture without breaking
/// it.
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
/// [`Error::Backend`] for a handle that the driver knows to be invalid; [`Error::Unsupported`] for
/// the handle of a default stream in a thread without a current context; [`Error::Unavailable`]
/// without a driver.
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
    let (stream, device) = unsafe { device::stream_from_raw(handle, keep_alive) }?;
    Ok(Stream::new(stream, Device::new(device)))
}

/// The per-thread default stream of the calling thread on `device`, whichever context is current.
///
/// Every thread has another one, so only the thread that called this may use the result. The same
/// thread gets an equal [`Stream`] each time, where the driver numbers its streams. Never blocks on
/// the device's work. The context that is current in the thread stays current.
///
/// # Errors
/// [`Error::Unsupported`] for a device of another backend; [`Error::DeviceLost`] for a lost one.
///
/// # References
/// - [Stream synchronization behavior](https://docs.nvidia.com/cuda/cuda-driver-api/stream-sync-behavior.html)
///
/// ```no_run
/// use fencepost::{Device, cuda};
/// let stream = cuda::per_thread_stream(&Device::open("cuda:1")?)?;
/// stream.record()?.synchronize()?;
/// # Ok::<(), fencepost::Error>(())
/// ```
pub fn per_thread_stream(device: &Device) -> Result<Stream> {
    let stream = device::per_thread_stream(of_device(device.imp())?)?;
    Ok(Stream::new(stream, device.clone()))
}

/// The `CUstream` of a CUDA stream, for submitting work to it; `None` for streams of other
/// backends. It is valid while the [`Stream`] or a clone of it is alive. The caller must not
/// destroy it. That of a default stream means the stream of this device only where the device's
/// context is current.
///
/// ```no_run
/// let stream = fencepost::Device::open("cuda:0")?.new_stream()?;
/// let raw = fencepost::cuda::stream_as_raw(&stream).unwrap();
/// # Ok::<(), fencepost::Error>(())
/// ```
pub fn stream_as_raw(stream: &Stream) -> Option<*mut c_void> {
    Some(of_stream(stream.imp()).ok()?.native.export())
}

/// Calls `f` with the `CUevent` of a CUDA marker, for waits inside the caller's own submits.
/// Returns `None`, without a call, for markers of other backends and of streams that have failed.
///
/// It takes a closure because `CUevent`s are pooled: inside `f` the event is this marker's, and
/// after the marker is dropped it may be recorded for another one. So `f` must not keep it, and the
/// caller must never record or destroy it.
///
/// # References
/// - [`cuStreamWaitEvent`](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__STREAM.html)
///
/// ```no_run
/// # let marker = fencepost::Device::open("cuda:0")?.default_stream().record()?;
/// fencepost::cuda::marker_as_raw(&marker, |event| {
///     // cuStreamWaitEvent(my_stream, event, 0)
/// # let _ = event;
/// });
/// # Ok::<(), fencepost::Error>(())
/// ```
pub fn marker_as_raw<R>(marker: &Marker, f: impl FnOnce(*mut c_void) -> R) -> Option<R> {
    let event = CudaMarker::of(&**marker.imp())?.native_event()?;
    Some(f(event.0))
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
    device::model(of_device(device.imp())?)
}
