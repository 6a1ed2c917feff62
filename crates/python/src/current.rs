//! Which stream a call means: the one that it was given, in whatever form the caller's library has
//! streams, or the current one, which is PyTorch's where PyTorch is at work.
//!
//! Wrapping a CUDA stream costs microseconds, so what was wrapped is remembered:
//! - **By object**, for the last few `torch.cuda.Stream`s that a thread used, by that thread, which
//!   so takes no lock: such an object never changes its stream, and it is kept alive meanwhile, so
//!   the same address is the same object. Objects of other kinds may be closed and are asked for
//!   their handle each time.
//! - **By handle**, for the last few streams, and only while the driver's own number for the handle
//!   is the one it was: a driver gives the handle of a destroyed stream out again, but never its
//!   number. Drivers without such numbers (before CUDA 12) have everything wrapped anew.
//!
//! Default streams are wrapped once and kept for ever.

use std::{
    cell::RefCell,
    ffi::c_void,
    ops::Deref,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use fencepost::{Device, Error, Stream, bindings, cuda};
use pyo3::{
    exceptions::{PyTypeError, PyValueError},
    ffi, intern,
    prelude::*,
    sync::PyOnceLock,
    types::{PyBool, PyDict, PyInt, PyTuple},
};

use crate::{
    device::cuda_index,
    error::{Raised, to_py},
    stream::PyStream,
};

/// A `torch.cuda.Stream` and what it is.
struct Known {
    object: Py<PyAny>,
    stream: Stream,
}

thread_local! {
    /// The last ones that this thread used.
    static KNOWN: RefCell<Vec<Known>> = const { RefCell::new(Vec::new()) };
}

/// How many streams a thread remembers by object: looked through on each call.
const KNOWN_AT_MOST: usize = 4;

type Wrapped = Vec<(usize, u64, Arc<Stream>)>;

/// Streams by handle, with the driver's number.
static WRAPPED: Mutex<Wrapped> = Mutex::new(Vec::new());

/// How many streams are remembered by handle, and so kept alive where an object owns them.
const REMEMBERED: usize = 16;

/// Held for a few instructions, never while Python code or a driver runs: so it may be taken by a
/// thread that has the interpreter's lock.
fn wrapped() -> MutexGuard<'static, Wrapped> {
    WRAPPED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The default streams of the first devices, by index; those of more devices are wrapped each time.
static DEFAULTS: [OnceLock<Stream>; 64] = [const { OnceLock::new() }; 64];

/// A stream to use in one call.
pub(crate) enum Found {
    Default(&'static Stream),
    Shared(Arc<Stream>),
}

impl Deref for Found {
    type Target = Stream;

    #[inline]
    fn deref(&self) -> &Stream {
        match self {
            Found::Default(stream) => stream,
            Found::Shared(stream) => stream,
        }
    }
}

/// Forgets the streams that may end before the process does.
pub(crate) fn forget_wrapped() {
    let forgotten = std::mem::take(&mut *wrapped());
    // Owners of streams may run Python code when they are dropped.
    drop(forgotten);
}

/// Calls `f` with the stream that `object` is or has.
#[inline]
pub(crate) fn with_given<R>(
    py: Python<'_>,
    object: &Bound<'_, PyAny>,
    f: impl Fn(&Stream) -> Result<R, Raised>,
) -> Result<R, Raised> {
    // The most frequent first; none of these asks by a cast, since one that fails makes an error.
    let result = KNOWN.try_with(|known| {
        // Nobody changes them meanwhile: `f` may let go of the interpreter's lock, and Python code
        // that then runs on this thread may come here again.
        let known = known.try_borrow().ok()?;
        let found = known.iter().find(|known| known.object.is(object))?;
        Some(f(&found.stream))
    });
    if let Ok(Some(result)) = result {
        return result;
    }
    if object.is_exact_instance_of::<PyStream>()
        && let Ok(ours) = object.cast_exact::<PyStream>()
    {
        return f(&ours.get().stream);
    }
    f(&*theirs(py, object)?)
}

/// The stream that `object` is or has.
pub(crate) fn given(py: Python<'_>, object: &Bound<'_, PyAny>) -> PyResult<Stream> {
    Ok(with_given(py, object, |stream| Ok(stream.clone()))?)
}

fn remember(object: &Bound<'_, PyAny>, stream: &Stream) {
    // Left out on a thread that is ending, and inside a call that uses them.
    let old = KNOWN.try_with(|known| {
        let mut known = known.try_borrow_mut().ok()?;
        let old = (known.len() >= KNOWN_AT_MOST).then(|| known.remove(0));
        known.push(Known {
            object: object.clone().unbind(),
            stream: stream.clone(),
        });
        old
    });
    // The object's end may run Python code.
    drop(old);
}

/// A stream of another library.
#[cold]
fn theirs(py: Python<'_>, object: &Bound<'_, PyAny>) -> PyResult<Found> {
    let Some((handle, device)) = handle_of(object)? else {
        return Err(PyTypeError::new_err(format!(
            "expected a stream: a fencepost.Stream, a stream of PyTorch, CuPy, cuda.core or Numba, any object \
             with __cuda_stream__, or an integer CUDA handle; got {}",
            object.get_type().name()?
        )));
    };
    let stream = match device {
        Some(index) if handle == 0 => default_stream(py, index)?,
        _ => by_handle(py, handle, Some(object))?,
    };
    if is_torch_stream(object) && lives_as_long_as_the_process(object) {
        remember(object, &stream);
    }
    Ok(stream)
}

/// The handle of a stream of another library, and the index of its device where it says so.
fn handle_of(object: &Bound<'_, PyAny>) -> PyResult<Option<(usize, Option<usize>)>> {
    let py = object.py();
    let ask = |name| match object.getattr(name) {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is_instance_of::<pyo3::exceptions::PyAttributeError>(py) => Ok(None),
        Err(error) => Err(error),
    };
    // PyTorch; first, since it is the most frequent.
    if let Some(handle) = ask(intern!(py, "cuda_stream"))? {
        let index = ask(intern!(py, "device_index"))?.and_then(|index| index.extract().ok());
        return Ok(Some((integer(&handle)?, index)));
    }
    // https://nvidia.github.io/cuda-python/cuda-core/latest/interoperability.html
    if let Some(protocol) = ask(intern!(py, "__cuda_stream__"))? {
        let told = match protocol.is_callable() {
            true => protocol.call0()?,
            false => protocol,
        };
        let (version, handle): (u32, Bound<'_, PyAny>) =
            told.cast_into::<PyTuple>()?.as_any().extract()?;
        if version != 0 {
            return Err(PyTypeError::new_err(format!(
                "{}.__cuda_stream__ speaks version {version} of the protocol, of which only version 0 is known",
                object.get_type().name()?
            )));
        }
        return Ok(Some((integer(&handle)?, None)));
    }
    // CuPy has `ptr`, Numba `handle`.
    for name in [intern!(py, "ptr"), intern!(py, "handle")] {
        if let Some(handle) = ask(name)? {
            return Ok(Some((integer(&handle)?, None)));
        }
    }
    if object.cast::<PyInt>().is_ok() {
        return Ok(Some((integer(object)?, None)));
    }
    Ok(None)
}

/// A handle as a number: an int, or an object that holds one (`ctypes.c_void_p`, `CUstream`).
fn integer(handle: &Bound<'_, PyAny>) -> PyResult<usize> {
    let py = handle.py();
    if handle.cast::<PyBool>().is_err() {
        if let Ok(number) = handle.extract::<usize>() {
            return Ok(number);
        }
        if let Ok(value) = handle.getattr(intern!(py, "value")) {
            // A null pointer's value is None.
            return value
                .extract::<Option<usize>>()
                .map(Option::unwrap_or_default);
        }
        if let Ok(number) = handle.call_method0(intern!(py, "__int__"))
            && let Ok(number) = number.extract()
        {
            return Ok(number);
        }
    }
    Err(PyValueError::new_err(format!(
        "not a handle of a CUDA stream: {}",
        handle.repr()?
    )))
}

/// Handles that name default streams, of the current context and of the calling thread.
const LEGACY: usize = 1;
const PER_THREAD: usize = 2;

/// The stream behind a CUDA handle that somebody else owns.
fn by_handle(py: Python<'_>, handle: usize, owner: Option<&Bound<'_, PyAny>>) -> PyResult<Found> {
    let raw = handle as *mut c_void;
    if handle <= PER_THREAD {
        // SAFETY: the default streams live as long as their context, which is current or refused.
        let wrapped = unsafe { cuda::stream_from_raw(raw, Arc::new(())) };
        return match wrapped {
            // The thread has no context yet; what the CUDA runtime would take then.
            Err(Error::Unsupported { .. }) if handle <= LEGACY => default_stream(py, 0),
            Ok(wrapped) => Ok(Found::Shared(Arc::new(wrapped))),
            Err(error) => Err(to_py(error)),
        };
    }
    // SAFETY: the caller's word: a handle that they pass is of a stream that is alive.
    let number = unsafe { bindings::stream_number(raw) };
    if let Some(number) = number {
        let known = wrapped()
            .iter()
            .find(|known| (known.0, known.1) == (handle, number))
            .map(|known| known.2.clone());
        if let Some(known) = known {
            return Ok(Found::Shared(known));
        }
    }
    let keep_alive: Arc<dyn std::any::Any + Send + Sync> = match owner {
        Some(owner) => Arc::new(owner.clone().unbind()),
        None => Arc::new(()),
    };
    // SAFETY: alive by the caller's word, and as long as its owner, which we keep. An owner may
    // close it all the same, and an integer has none: so what is remembered is used again only once
    // the driver's number for the handle proved that the stream is there, and forgotten before all
    // streams of a device are recorded on; beyond those calls nothing touches the handle of a
    // wrapped stream.
    let stream = unsafe { cuda::stream_from_raw(raw, keep_alive) };
    let stream = Arc::new(stream.map_err(to_py)?);
    if let Some(number) = number {
        let mut known = wrapped();
        let old = (known.len() >= REMEMBERED).then(|| known.remove(0));
        known.push((handle, number, stream.clone()));
        drop(known);
        drop(old);
    }
    Ok(Found::Shared(stream))
}

/// The default stream of a CUDA device.
#[inline]
fn default_stream(py: Python<'_>, index: usize) -> PyResult<Found> {
    match DEFAULTS.get(index).and_then(OnceLock::get) {
        Some(known) => Ok(Found::Default(known)),
        None => open_default(py, index),
    }
}

#[cold]
fn open_default(py: Python<'_>, index: usize) -> PyResult<Found> {
    let device = py
        .detach(|| Device::open(&format!("cuda:{index}")))
        .map_err(to_py)?;
    let stream = device.default_stream();
    Ok(match DEFAULTS.get(index) {
        Some(kept) => Found::Default(kept.get_or_init(|| stream)),
        None => Found::Shared(Arc::new(stream)),
    })
}

/// What PyTorch tells of its current streams, once it uses CUDA.
struct Torch {
    /// The index of the current device.
    device: Py<PyAny>,
    /// The handle of the current stream of a device.
    stream: Py<PyAny>,
    /// What that takes for the current device: as its `c10::cuda::getCurrentCUDAStream`, -1
    /// ([c10/cuda/CUDAStream.h](https://github.com/pytorch/pytorch/blob/main/c10/cuda/CUDAStream.h)).
    current_device: Py<PyTuple>,
}

static TORCH: PyOnceLock<Torch> = PyOnceLock::new();

/// A module, if somebody has loaded it: loading it is not for us to do.
pub(crate) fn loaded<'py>(py: Python<'py>, name: &str) -> PyResult<Option<Bound<'py, PyAny>>> {
    let modules = py.import(intern!(py, "sys"))?.getattr("modules")?;
    Ok(modules
        .cast_into::<PyDict>()?
        .get_item(name)?
        .filter(|module| !module.is_none()))
}

/// PyTorch, if it is loaded and uses CUDA. Once it does, it does so until the process ends.
fn torch(py: Python<'_>) -> PyResult<Option<&'static Torch>> {
    if let Some(torch) = TORCH.get(py) {
        return Ok(Some(torch));
    }
    let Some(torch) = loaded(py, "torch")? else {
        return Ok(None);
    };
    // A module that is just being imported has no `cuda` yet, and uses nothing.
    let Ok(is_initialized) = torch
        .getattr("cuda")
        .and_then(|cuda| cuda.getattr("is_initialized"))
    else {
        return Ok(None);
    };
    if !is_initialized.call0()?.is_truthy()? {
        return Ok(None);
    }
    let native = torch.getattr("_C")?;
    let found = Torch {
        device: native.getattr("_cuda_getDevice")?.unbind(),
        stream: native.getattr("_cuda_getCurrentRawStream")?.unbind(),
        current_device: PyTuple::new(py, [-1])?.unbind(),
    };
    Ok(Some(TORCH.get_or_init(py, || found)))
}

/// The type that owns no stream of its own: PyTorch's streams come from pools that live as long as
/// the process. Not its subclasses, such as `ExternalStream`.
fn is_torch_stream(object: &Bound<'_, PyAny>) -> bool {
    static TYPE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let py = object.py();
    if let Some(known) = TYPE.get(py) {
        return object.get_type().is(known);
    }
    let of_torch = loaded(py, "torch")
        .ok()
        .flatten()
        .and_then(|torch| torch.getattr("cuda").ok()?.getattr("Stream").ok());
    match of_torch {
        Some(of_torch) => {
            let same = object.get_type().is(&of_torch);
            TYPE.get_or_init(py, || of_torch.unbind());
            same
        }
        None => false,
    }
}

/// Whether a `torch.cuda.Stream` is one of PyTorch's own: what was a stream of somebody else's
/// comes back from `torch.cuda.current_stream()` as an object of this very type, with its handle,
/// an even number, for an id; ids of streams of the pools are odd, and that of the default stream
/// is 0
/// ([c10/cuda/CUDAStream.cpp](https://github.com/pytorch/pytorch/blob/main/c10/cuda/CUDAStream.cpp)).
fn lives_as_long_as_the_process(stream: &Bound<'_, PyAny>) -> bool {
    match stream.getattr(intern!(stream.py(), "stream_id")) {
        Ok(id) => id.extract().is_ok_and(|id: i64| id == 0 || id % 2 != 0),
        Err(_) => false,
    }
}

/// The current CUDA stream: PyTorch's where PyTorch uses CUDA, else the default stream. Of `device`
/// where that is given, else of the device that is current.
pub(crate) fn current(py: Python<'_>, device: Option<&Device>) -> PyResult<Found> {
    let index = device.map(|device| {
        cuda_index(device).ok_or_else(|| {
            PyValueError::new_err(format!(
                "{device} has no current stream: pass the stream to use"
            ))
        })
    });
    let index = index.transpose()?;
    let Some(torch) = torch(py)? else {
        return match index {
            Some(index) => default_stream(py, index),
            None => by_handle(py, 0, None),
        };
    };
    let stream = torch.stream.bind(py);
    let handle = match index {
        Some(index) => call_with_one(stream, index.into_pyobject(py)?.as_any())?,
        None => stream.call1(torch.current_device.bind(py))?,
    };
    // SAFETY: `handle` is an object; anything but an int in range is an error.
    let handle = unsafe { ffi::PyLong_AsSize_t(handle.as_ptr()) };
    if handle == usize::MAX
        && let Some(error) = PyErr::take(py)
    {
        return Err(error);
    }
    match (handle, index) {
        (0, Some(index)) => default_stream(py, index),
        (0, None) => default_stream(py, torch.device.bind(py).call0()?.extract()?),
        _ => by_handle(py, handle, None),
    }
}

/// `function(argument)`, without the tuple that PyO3 makes for it where it keeps to what CPython
/// 3.9 has.
fn call_with_one<'py>(
    function: &Bound<'py, PyAny>,
    argument: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    let end = std::ptr::null_mut::<ffi::PyObject>();
    // SAFETY: both are objects, and a null pointer ends the arguments; the result is an object of
    // our own, or null with an exception set
    // (https://docs.python.org/3/c-api/call.html#c.PyObject_CallFunctionObjArgs).
    unsafe {
        let result = ffi::PyObject_CallFunctionObjArgs(function.as_ptr(), argument.as_ptr(), end);
        Bound::from_owned_ptr_or_err(function.py(), result)
    }
}

/// The current stream of a device of any backend.
pub(crate) fn current_of(py: Python<'_>, device: &Device) -> PyResult<Found> {
    match device.backend() {
        fencepost::Backend::Cuda if cuda_index(device).is_some() => current(py, Some(device)),
        _ => Ok(Found::Shared(Arc::new(device.default_stream()))),
    }
}

/// A stream of another library as a `fencepost.Stream`.
///
/// ``stream`` is a stream of PyTorch, CuPy, cuda.core or Numba, any object with
/// ``__cuda_stream__``, or an integer CUDA handle; without it, the current stream as events take
/// it. The object is kept alive with the result; who passes an integer keeps its stream alive
/// themselves.
#[pyfunction]
#[pyo3(signature = (stream = None))]
pub(crate) fn wrap_stream(py: Python<'_>, stream: Option<&Bound<'_, PyAny>>) -> PyResult<PyStream> {
    match stream {
        Some(object) => {
            let wrapped = given(py, object)?;
            Ok(PyStream::owned(wrapped, object.clone().unbind()))
        }
        None => current(py, None).map(|stream| PyStream::of((*stream).clone())),
    }
}
