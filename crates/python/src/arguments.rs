//! What an argument means: the device, stream or event that a Python object stands for.
//!
//! A `torch.cuda.Stream` never changes its stream, and neither does a `pyopencl.CommandQueue`. So
//! each thread remembers the last few of them with the stream that they mean, and needs no lock to
//! look them up. It keeps the objects alive,
//! so that no other object can get the same address. Objects of other types may be closed; they
//! are asked for their handle on each call.

use std::{
    cell::RefCell,
    fmt::{self, Display},
};

use fencepost::{Backend, Device, Stream, bindings};
use pyo3::{
    exceptions::{PyAttributeError, PyTypeError, PyValueError},
    intern,
    prelude::*,
    types::{PyBool, PyInt, PyString, PyTuple},
};

use crate::{
    core::Core,
    cuda_streams::{StreamRef, by_handle, current_of, is_default},
    error::{CallResult, to_py},
    mps::torch_streams,
    objects::{CudaEvent, MpsEvent, PyDevice, PyEvent, PyStream},
    opencl_queues::stream_of_queue,
    torch,
};

/// A parameter of a function, for the texts of errors.
#[derive(Clone, Copy)]
pub(crate) struct Parameter {
    call: &'static str,
    name: &'static str,
}

impl Parameter {
    pub(crate) const fn new(call: &'static str, name: &'static str) -> Parameter {
        Parameter { call, name }
    }

    /// The error for an argument of a wrong type.
    #[cold]
    pub(crate) fn expected(self, what: &str, got: &Bound<'_, PyAny>) -> PyErr {
        match got.get_type().fully_qualified_name() {
            Ok(got) => PyTypeError::new_err(format!("{self}: expected {what}; got {got}")),
            Err(error) => error,
        }
    }
}

impl Display for Parameter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}() argument '{}'", self.call, self.name)
    }
}

/// A name that the program gives to something.
pub(crate) struct Name(pub(crate) String);

impl FromPyObject<'_, '_> for Name {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, '_, PyAny>) -> PyResult<Name> {
        match object.cast::<PyString>() {
            Ok(name) => Ok(Name(name.to_cow()?.into_owned())),
            Err(_) => Err(PyTypeError::new_err(format!(
                "a name must be a str, or None for no name; got {}",
                object.get_type().fully_qualified_name()?
            ))),
        }
    }
}

/// A switch as PyTorch's events take it: True, False, or an integer.
pub(crate) struct Switch(pub(crate) bool);

impl FromPyObject<'_, '_> for Switch {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, '_, PyAny>) -> PyResult<Switch> {
        if let Ok(on) = object.cast::<PyBool>() {
            return Ok(Switch(on.is_true()));
        }
        match object.extract::<i64>() {
            Ok(number) => Ok(Switch(number != 0)),
            Err(_) => Err(PyTypeError::new_err(format!(
                "expected True or False; got {}",
                object.get_type().fully_qualified_name()?
            ))),
        }
    }
}

/// An error for what has no methods of an event. Events of other libraries are taken too.
pub(crate) fn check_event(event: &Bound<'_, PyAny>, parameter: Parameter) -> PyResult<()> {
    match event.hasattr("record")? && event.hasattr("wait")? {
        true => Ok(()),
        false => Err(parameter.expected("an event", event)),
    }
}

/// The device that an argument means: a `Device`, a name, a `torch.device`; the best one for
/// `None`.
pub(crate) fn device_of(
    py: Python<'_>,
    given: Option<&Bound<'_, PyAny>>,
    parameter: Parameter,
) -> PyResult<Device> {
    let Some(given) = given else {
        return py.detach(Device::open_best).map_err(to_py);
    };
    if let Ok(device) = given.cast::<PyDevice>() {
        return device.get().open(py).cloned();
    }
    let name = device_name(given, parameter)?;
    py.detach(|| Device::open(&name)).map_err(to_py)
}

fn device_name(given: &Bound<'_, PyAny>, parameter: Parameter) -> PyResult<String> {
    // `str` of a torch.device is its name, but the object itself is no `str`.
    let is_name =
        given.cast::<PyString>().is_ok() || (given.hasattr("type")? && given.hasattr("index")?);
    if !is_name {
        return Err(parameter.expected(
            "a device: a fencepost.Device, a name such as \"cuda:0\", or a torch.device",
            given,
        ));
    }
    let name = given.str()?.to_string();
    Ok(match name.as_str() {
        "cpu" => "host".into(),
        "mps" | "mps:0" => "metal".into(),
        _ => name,
    })
}

/// The CUDA device that an argument means: an index, a name, a `Device`, a `torch.device`.
pub(crate) fn cuda_device_of(
    py: Python<'_>,
    given: &Bound<'_, PyAny>,
    parameter: Parameter,
) -> PyResult<Device> {
    if let Ok(index) = given.extract::<i64>() {
        return py
            .detach(|| Device::open(&format!("cuda:{index}")))
            .map_err(to_py);
    }
    let device = device_of(py, Some(given), parameter)?;
    match device.backend() {
        Backend::Cuda => Ok(device),
        _ => Err(PyValueError::new_err(format!(
            "{parameter}: expected a CUDA device such as \"cuda:0\"; got {}",
            device.name()
        ))),
    }
}

/// The parts that an event of any class of this package is made of.
pub(crate) fn core_of<'a>(
    object: &'a Bound<'_, PyAny>,
    parameter: Parameter,
) -> PyResult<&'a Core> {
    if let Ok(event) = object.cast::<CudaEvent>() {
        return Ok(&event.get().core);
    }
    if let Ok(event) = object.cast::<PyEvent>() {
        return Ok(&event.get().core);
    }
    if let Ok(event) = object.cast::<MpsEvent>() {
        return Ok(&event.get().core);
    }
    Err(parameter.expected("an event of fencepost", object))
}

/// A `torch.cuda.Stream` or `pyopencl.CommandQueue`, and the stream that it means.
struct Known {
    object: Py<PyAny>,
    stream: Stream,
}

thread_local! {
    /// The ones that this thread used last.
    static KNOWN: RefCell<Vec<Known>> = const { RefCell::new(Vec::new()) };
}

/// How many of them a thread remembers. Each call searches through all of them.
const KNOWN_AT_MOST: usize = 4;

/// Calls `f` with the stream that `object` is, or stands for.
#[inline]
pub(crate) fn with_stream<R>(
    py: Python<'_>,
    object: &Bound<'_, PyAny>,
    parameter: Parameter,
    f: impl Fn(&Stream) -> CallResult<R>,
) -> CallResult<R> {
    // The most frequent types come first. None of the checks is a cast, since a failed cast makes
    // an exception.
    let result = KNOWN.try_with(|known| {
        // Borrowed while `f` runs: it may release the GIL, and Python code that then runs on this
        // thread may come here again.
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
    f(&*stream_of_library(py, object, parameter)?)
}

/// The stream that `object` is, or stands for.
pub(crate) fn stream_of(
    py: Python<'_>,
    object: &Bound<'_, PyAny>,
    parameter: Parameter,
) -> PyResult<Stream> {
    Ok(with_stream(py, object, parameter, |stream| {
        Ok(stream.clone())
    })?)
}

/// The stream of an object of another library.
#[cold]
pub(crate) fn stream_of_library(
    py: Python<'_>,
    object: &Bound<'_, PyAny>,
    parameter: Parameter,
) -> PyResult<StreamRef> {
    if let Some(stream) = stream_of_queue(object)? {
        remember(object, &stream);
        return Ok(stream);
    }
    let Some(handle) = handle_of(object, parameter)? else {
        return Err(parameter.expected(
            "a stream: a fencepost.Stream, a stream of PyTorch, CuPy, cuda.core, Numba or Warp, \
             a queue of pyopencl, any object with __cuda_stream__, or an integer CUDA handle",
            object,
        ));
    };
    let device = match is_default(handle) {
        true => device_beside(object)?,
        false => None,
    };
    let stream = by_handle(py, handle, device, Some(object))?;
    if torch::is_lasting_stream(object) {
        remember(object, &stream);
    }
    Ok(stream)
}

fn remember(object: &Bound<'_, PyAny>, stream: &Stream) {
    // Skipped on a thread that is ending, and inside a call that has borrowed the list.
    let oldest = KNOWN.try_with(|known| {
        let mut known = known.try_borrow_mut().ok()?;
        let oldest = (known.len() >= KNOWN_AT_MOST).then(|| known.remove(0));
        known.push(Known {
            object: object.clone().unbind(),
            stream: stream.clone(),
        });
        oldest
    });
    // Dropped after the borrow: dropping the object may run Python code.
    drop(oldest);
}

/// The index of the device that the object of a default stream names, if it names one.
fn device_beside(object: &Bound<'_, PyAny>) -> PyResult<Option<usize>> {
    let py = object.py();
    // PyTorch and CuPy. CuPy's own default streams, which are of no device, have the index -1.
    for name in [intern!(py, "device_index"), intern!(py, "device_id")] {
        if let Some(index) = attribute(object, name)? {
            return Ok(index.extract().ok());
        }
    }
    // Warp. The `device` of cuda.core, which has no `ordinal`, is not asked: that of a default
    // stream is the device that was current when it was first asked.
    if let Some(device) = attribute(object, intern!(py, "device"))?
        && let Some(ordinal) = attribute(&device, intern!(py, "ordinal"))?
    {
        return Ok(ordinal.extract().ok());
    }
    // Numba.
    let Some(context) = attribute(object, intern!(py, "context"))? else {
        return Ok(None);
    };
    match attribute(&context, intern!(py, "device"))? {
        Some(device) => Ok(attribute(&device, intern!(py, "id"))?.and_then(|id| id.extract().ok())),
        None => Ok(None),
    }
}

/// An attribute; `None` where there is none.
pub(crate) fn attribute<'py>(
    object: &Bound<'py, PyAny>,
    name: &Bound<'py, PyString>,
) -> PyResult<Option<Bound<'py, PyAny>>> {
    match object.getattr(name) {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is_instance_of::<PyAttributeError>(object.py()) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The handle of a stream of another library; `None` for an object that is no stream.
fn handle_of(object: &Bound<'_, PyAny>, parameter: Parameter) -> PyResult<Option<usize>> {
    let py = object.py();
    // PyTorch, the most frequent one, comes first. Warp has None for the default stream.
    if let Some(handle) = attribute(object, intern!(py, "cuda_stream"))? {
        return match handle.is_none() {
            true => Ok(Some(0)),
            false => integer(&handle, parameter).map(Some),
        };
    }
    // https://nvidia.github.io/cuda-python/cuda-core/latest/interoperability.html
    if let Some(protocol) = attribute(object, intern!(py, "__cuda_stream__"))? {
        let answer = match protocol.is_callable() {
            true => protocol.call0()?,
            false => protocol,
        };
        let (version, handle): (u32, Bound<'_, PyAny>) =
            answer.cast_into::<PyTuple>()?.as_any().extract()?;
        if version != 0 {
            return Err(PyTypeError::new_err(format!(
                "{parameter}: {}.__cuda_stream__ has version {version} of the protocol; \
                 only version 0 is supported",
                object.get_type().name()?
            )));
        }
        return integer(&handle, parameter).map(Some);
    }
    // CuPy has `ptr`, Numba `handle`.
    for name in [intern!(py, "ptr"), intern!(py, "handle")] {
        if let Some(handle) = attribute(object, name)? {
            return integer(&handle, parameter).map(Some);
        }
    }
    if object.cast::<PyInt>().is_ok() {
        return integer(object, parameter).map(Some);
    }
    match torch::handle_of_generic(object)? {
        Some(handle) => integer(&handle, parameter).map(Some),
        None => Ok(None),
    }
}

/// The handle of a CUDA stream as a number.
fn integer(handle: &Bound<'_, PyAny>, parameter: Parameter) -> PyResult<usize> {
    let number = number_of(handle)?;
    number.ok_or_else(|| no_handle("stream", handle, parameter))
}

/// The handle of a CUDA event as a number. It is an address, so no small one.
pub(crate) fn event_handle(handle: &Bound<'_, PyAny>, parameter: Parameter) -> PyResult<usize> {
    let number = number_of(handle)?.filter(|&number| number >= 4096);
    number.ok_or_else(|| no_handle("event", handle, parameter))
}

/// A handle as a number: an int, or an object that holds one (`ctypes.c_void_p`, `CUstream`);
/// `None` for what is neither.
fn number_of(handle: &Bound<'_, PyAny>) -> PyResult<Option<usize>> {
    let py = handle.py();
    if handle.cast::<PyBool>().is_ok() {
        return Ok(None);
    }
    if let Ok(number) = handle.extract() {
        return Ok(Some(number));
    }
    if let Ok(value) = handle.getattr(intern!(py, "value")) {
        // The value of a null pointer is None.
        let number = value.extract::<Option<usize>>()?;
        return Ok(Some(number.unwrap_or_default()));
    }
    let number = handle.call_method0(intern!(py, "__int__"));
    Ok(number.and_then(|number| number.extract()).ok())
}

/// The error for what is no handle of a CUDA `object`.
#[cold]
fn no_handle(object: &str, got: &Bound<'_, PyAny>, parameter: Parameter) -> PyErr {
    match got.repr() {
        Ok(got) => PyValueError::new_err(format!(
            "{parameter}: not a handle of a CUDA {object}: {got}"
        )),
        Err(error) => error,
    }
}

/// The current stream of a device, for what holds it: `doing` says what that is. PyTorch's MPS
/// stream cannot be held, and no other stream takes its place.
pub(crate) fn current_to_hold(py: Python<'_>, device: &Device, doing: &str) -> PyResult<StreamRef> {
    match torch_streams::in_use_on(py, device)? {
        Some(_) => Err(to_py(bindings::unsupported(
            &format!("{doing} PyTorch's MPS stream"),
            device.name(),
            "pass a stream of fencepost, and queue the work there",
        ))),
        None => current_of(py, device),
    }
}
