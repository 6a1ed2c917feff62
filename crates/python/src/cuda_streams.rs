//! CUDA streams that other libraries own, by their handle, and the stream that is current.
//!
//! Wrapping a CUDA stream takes microseconds, so the last few wrapped streams are kept by handle. A
//! driver may give the handle of a destroyed stream to a new one, but it never reuses the stream's
//! number (`cuStreamGetId`). So a kept stream is used only while the driver's number for its handle
//! is still the same. Drivers without such numbers (before CUDA 12) have every stream wrapped anew.
//!
//! The legacy default streams are wrapped once and kept for ever. Streams of PyTorch's pools live
//! as long as the process, so each thread remembers those that were current, and asks no driver.
//!
//! A handle of a default stream means another stream in each context, so the device that an object
//! names beside such a handle decides. Other handles mean the same stream everywhere.

use std::{
    any::Any,
    cell::RefCell,
    ffi::c_void,
    ops::Deref,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use fencepost::{Backend, Device, Error, Stream, bindings, cuda};
use pyo3::prelude::*;

use crate::{
    error::{CallResult, to_py},
    torch::{self, TorchCuda},
};

struct Wrapped {
    handle: usize,
    /// The driver's number for the stream.
    number: u64,
    stream: Arc<Stream>,
}

static WRAPPED: Mutex<Vec<Wrapped>> = Mutex::new(Vec::new());

/// How many wrapped streams are kept, together with the objects that own them.
const WRAPPED_AT_MOST: usize = 16;

/// The lock is held for a few instructions, never while Python code or a driver runs. So a thread
/// may take it while it holds the GIL.
fn wrapped() -> MutexGuard<'static, Vec<Wrapped>> {
    WRAPPED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The default streams of the first devices, by index. Those of further devices are wrapped on
/// each call.
static DEFAULTS: [OnceLock<Stream>; 64] = [const { OnceLock::new() }; 64];

/// A stream, for the length of one call.
pub(crate) enum StreamRef {
    Default(&'static Stream),
    Shared(Arc<Stream>),
}

impl Deref for StreamRef {
    type Target = Stream;

    #[inline]
    fn deref(&self) -> &Stream {
        match self {
            StreamRef::Default(stream) => stream,
            StreamRef::Shared(stream) => stream,
        }
    }
}

impl From<Stream> for StreamRef {
    fn from(stream: Stream) -> StreamRef {
        StreamRef::Shared(Arc::new(stream))
    }
}

/// Forgets the wrapped streams that may be destroyed before the process ends.
pub(crate) fn forget_wrapped() {
    let forgotten = std::mem::take(&mut *wrapped());
    // Dropped without the lock: dropping the owner of a stream may run Python code.
    drop(forgotten);
}

/// `CU_STREAM_PER_THREAD`: the calling thread's own default stream.
const PER_THREAD: usize = 2;

/// Whether a handle means a default stream: that of a context, by 0 or `CU_STREAM_LEGACY`, or that
/// of a thread in a context.
pub(crate) fn is_default(handle: usize) -> bool {
    handle <= PER_THREAD
}

/// The stream of a CUDA handle that somebody else owns. `device` is the index of the device that is
/// named beside the handle, and `owner` is kept alive with the stream.
pub(crate) fn by_handle(
    py: Python<'_>,
    handle: usize,
    device: Option<usize>,
    owner: Option<&Bound<'_, PyAny>>,
) -> PyResult<StreamRef> {
    let raw = handle as *mut c_void;
    if is_default(handle) {
        if let Some(device) = device {
            return default_of(py, handle, device);
        }
        // SAFETY: a default stream lives as long as its context, which is the current one; without
        // a current context the library refuses.
        let wrapped = unsafe { cuda::stream_from_raw(raw, Arc::new(())) };
        return match wrapped {
            // Without a current context: the device that the CUDA runtime would use.
            Err(Error::Unsupported { .. }) => default_of(py, handle, 0),
            Ok(wrapped) => Ok(StreamRef::Shared(Arc::new(wrapped))),
            Err(error) => Err(to_py(error)),
        };
    }
    // SAFETY: whoever passes a handle promises that its stream is alive.
    let number = unsafe { bindings::stream_number(raw) };
    if let Some(number) = number {
        let known = wrapped()
            .iter()
            .find(|known| known.handle == handle && known.number == number)
            .map(|known| known.stream.clone());
        if let Some(known) = known {
            return Ok(StreamRef::Shared(known));
        }
    }
    let keep_alive: Arc<dyn Any + Send + Sync> = match owner {
        Some(owner) => Arc::new(owner.clone().unbind()),
        None => Arc::new(()),
    };
    // SAFETY: the stream is alive now, by the caller's promise, and while its owner, which is kept,
    // keeps it. An owner may close it nevertheless, and an integer has no owner. So a kept stream
    // is used again only after the driver's number for its handle has shown that it is there, and
    // all of them are forgotten before every stream of a device is recorded on. No other call uses
    // the handle of a wrapped stream.
    let stream = unsafe { cuda::stream_from_raw(raw, keep_alive) };
    let stream = Arc::new(stream.map_err(to_py)?);
    if let Some(number) = number {
        keep(handle, number, &stream);
    }
    Ok(StreamRef::Shared(stream))
}

fn keep(handle: usize, number: u64, stream: &Arc<Stream>) {
    let mut known = wrapped();
    let oldest = (known.len() >= WRAPPED_AT_MOST).then(|| known.remove(0));
    known.push(Wrapped {
        handle,
        number,
        stream: stream.clone(),
    });
    // The oldest is dropped without the lock.
    drop(known);
    drop(oldest);
}

/// The default stream that `handle` means on a device.
fn default_of(py: Python<'_>, handle: usize, device: usize) -> PyResult<StreamRef> {
    let legacy = default_stream(py, device)?;
    if handle != PER_THREAD {
        return Ok(legacy);
    }
    let own = cuda::per_thread_stream(legacy.device()).map_err(to_py)?;
    Ok(StreamRef::Shared(Arc::new(own)))
}

/// The default stream of a CUDA device.
#[inline]
pub(crate) fn default_stream(py: Python<'_>, index: usize) -> PyResult<StreamRef> {
    match DEFAULTS.get(index).and_then(OnceLock::get) {
        Some(known) => Ok(StreamRef::Default(known)),
        None => open_default(py, index),
    }
}

#[cold]
fn open_default(py: Python<'_>, index: usize) -> PyResult<StreamRef> {
    let device = py
        .detach(|| Device::open(&format!("cuda:{index}")))
        .map_err(to_py)?;
    let stream = device.default_stream();
    Ok(match DEFAULTS.get(index) {
        Some(kept) => StreamRef::Default(kept.get_or_init(|| stream)),
        None => StreamRef::Shared(Arc::new(stream)),
    })
}

/// The current CUDA stream of a device, or of the current device: PyTorch's where PyTorch uses
/// CUDA, otherwise the default stream.
pub(crate) fn current(py: Python<'_>, index: Option<usize>) -> PyResult<StreamRef> {
    let Some(torch) = torch::cuda_in_use(py)? else {
        return match index {
            Some(index) => default_stream(py, index),
            None => by_handle(py, 0, None, None),
        };
    };
    let handle = torch.current_stream(py, index)?;
    of_torch(py, torch, handle, index)
}

/// Calls `f` with the current CUDA stream of the current device, as [`current`] finds it.
#[inline]
pub(crate) fn with_current<R>(
    py: Python<'_>,
    f: impl Fn(&Stream) -> CallResult<R>,
) -> CallResult<R> {
    let Some(torch) = torch::cuda_in_use(py)? else {
        return f(&*by_handle(py, 0, None, None)?);
    };
    let handle = torch.current_stream(py, None)?;
    let result = KNOWN.try_with(|known| {
        // Borrowed while `f` runs, so that no reference is counted. Python code that may run on
        // this thread meanwhile, and come here again, finds streams too, but adds none.
        let known = known.try_borrow().ok()?;
        let found = known.iter().find(|known| known.handle == handle)?;
        Some(f(found.lasting.as_ref()?))
    });
    match result {
        Ok(Some(result)) => result,
        _ => f(&*of_torch(py, torch, handle, None)?),
    }
}

/// The stream of a handle that PyTorch says is current, on a device or on the current one.
fn of_torch(
    py: Python<'_>,
    torch: &TorchCuda,
    handle: usize,
    index: Option<usize>,
) -> PyResult<StreamRef> {
    match (handle, index) {
        (handle, None) if is_default(handle) => {
            by_handle(py, handle, Some(torch.current_device(py)?), None)
        }
        (handle, index) if is_default(handle) => by_handle(py, handle, index, None),
        (handle, index) => current_of_torch(py, handle, index),
    }
}

/// A current stream of PyTorch's, and whether it lives as long as the process.
struct Known {
    handle: usize,
    /// The stream, if it does. The driver need not be asked whether it is there.
    lasting: Option<Arc<Stream>>,
}

thread_local! {
    /// The ones that this thread used last.
    static KNOWN: RefCell<Vec<Known>> = const { RefCell::new(Vec::new()) };
}

/// How many of them a thread remembers.
const KNOWN_AT_MOST: usize = 8;

/// The stream of a handle that is not a default stream's, which PyTorch says is current.
fn current_of_torch(py: Python<'_>, handle: usize, index: Option<usize>) -> PyResult<StreamRef> {
    let known = KNOWN.try_with(|known| {
        let known = known.try_borrow().ok()?;
        let found = known.iter().find(|known| known.handle == handle)?;
        Some(found.lasting.clone())
    });
    let known = known.ok().flatten();
    if let Some(Some(lasting)) = known {
        return Ok(StreamRef::Shared(lasting));
    }
    let stream = by_handle(py, handle, index, None)?;
    if let (None, StreamRef::Shared(stream)) = (known, &stream) {
        // A PyTorch that does not tell has streams that may go.
        let lasts = torch::is_lasting_current(py, handle, index).unwrap_or(false);
        remember(handle, lasts.then(|| stream.clone()));
    }
    Ok(stream)
}

fn remember(handle: usize, lasting: Option<Arc<Stream>>) {
    // Skipped on a thread that is ending.
    let oldest = KNOWN.try_with(|known| {
        let mut known = known.try_borrow_mut().ok()?;
        let oldest = (known.len() >= KNOWN_AT_MOST).then(|| known.remove(0));
        known.push(Known { handle, lasting });
        oldest
    });
    // Dropped after the borrow: dropping the owner of a stream may run Python code.
    drop(oldest);
}

/// The current stream of a device of any backend, except where that is PyTorch's MPS stream
/// ([`torch_stream`](crate::mps::torch_stream)).
pub(crate) fn current_of(py: Python<'_>, device: &Device) -> PyResult<StreamRef> {
    if device.backend() == Backend::Cuda
        && let Some(index) = index_of(device)
    {
        return current(py, Some(index));
    }
    Ok(StreamRef::Shared(Arc::new(device.default_stream())))
}

/// The index of a CUDA device, where its name has one.
pub(crate) fn index_of(device: &Device) -> Option<usize> {
    device.name().strip_prefix("cuda:")?.parse().ok()
}
