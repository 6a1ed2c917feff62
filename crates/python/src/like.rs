//! The current stream of the framework that a tensor belongs to: what `like=tensor` means.
//!
//! The first of these that tells is asked:
//!
//! 1. the type of the tensor, by [DLPack's exchange API](crate::dlpack);
//! 2. the framework that the type belongs to, if that has a call for it;
//! 3. PyTorch, if it uses CUDA;
//! 4. the only framework with such a call that is loaded.
//!
//! Otherwise the call raises an error that lists what is loaded. It never guesses.

use fencepost::Device;
use pyo3::{
    exceptions::{PyNotImplementedError, PyRuntimeError, PyTypeError},
    intern,
    prelude::*,
};

use crate::{
    arguments::{Parameter, attribute, stream_of_library},
    cuda_streams::{StreamRef, by_handle, current},
    dlpack::{self, CurrentStream, Place},
    error::to_py,
    mps::torch_streams::{TorchStream, in_use},
    torch::{cuda_in_use, loaded},
};

/// The stream that a tensor stands for.
pub(crate) enum Like {
    Stream(StreamRef),
    Torch(&'static TorchStream),
}

/// Frameworks that have a current stream.
const FRAMEWORKS: [&str; 3] = ["torch", "cupy", "warp"];

/// Frameworks that run work on streams and tell nobody which.
const SILENT: [&str; 4] = ["jax", "tensorflow", "paddle", "mlx"];

impl Like {
    /// The stream, for an event of CUDA.
    pub(crate) fn cuda(self) -> PyResult<StreamRef> {
        match self {
            Like::Stream(stream) => Ok(stream),
            Like::Torch(_) => Err(PyTypeError::new_err(
                "a tensor on MPS: use fencepost.mps.Event, or fencepost.Event(\"metal\")",
            )),
        }
    }
}

/// What the argument `like` of `call` means; `None` without one.
pub(crate) fn like_of(
    call: &'static str,
    stream: Option<&Bound<'_, PyAny>>,
    like: Option<&Bound<'_, PyAny>>,
) -> PyResult<Option<Like>> {
    match (stream, like) {
        (_, None) => Ok(None),
        (None, Some(tensor)) => stream_like(tensor, Parameter::new(call, "like")).map(Some),
        (Some(_), Some(_)) => Err(PyTypeError::new_err(format!(
            "{call}() takes a stream or like=, not both"
        ))),
    }
}

/// The stream that `tensor` stands for.
fn stream_like(tensor: &Bound<'_, PyAny>, parameter: Parameter) -> PyResult<Like> {
    let py = tensor.py();
    let Some(place) = attribute(tensor, intern!(py, "__dlpack_device__"))? else {
        return Err(parameter.expected("a tensor (an object with __dlpack_device__)", tensor));
    };
    let place: Place = place.call0()?.extract()?;
    match place.0 {
        dlpack::CPU => {
            if let Some(current) = CurrentStream::of(&tensor.get_type())? {
                // Asked for its errors. The host has no handles.
                current.at(py, place)?;
            }
            let host = py.detach(|| Device::open("host")).map_err(to_py)?;
            Ok(Like::Stream(StreamRef::from(host.default_stream())))
        }
        dlpack::CUDA | dlpack::CUDA_MANAGED => {
            cuda_stream(tensor, place, parameter).map(Like::Stream)
        }
        dlpack::METAL => match in_use(py)? {
            Some(stream) => Ok(Like::Torch(stream)),
            None => Err(PyNotImplementedError::new_err(format!(
                "{parameter}: a tensor on Metal that is not PyTorch's; pass the stream itself"
            ))),
        },
        kind => Err(PyNotImplementedError::new_err(format!(
            "{parameter}: a tensor on a device of DLPack's kind {kind}; streams of CUDA and \
             PyTorch's of MPS can be marked"
        ))),
    }
}

/// The current stream of the tensor's framework, on CUDA.
fn cuda_stream(
    tensor: &Bound<'_, PyAny>,
    place: Place,
    parameter: Parameter,
) -> PyResult<StreamRef> {
    let py = tensor.py();
    let index = usize::try_from(place.1)?;
    if let Some(current) = CurrentStream::of(&tensor.get_type())? {
        // Managed memory has no streams of its own: PyTorch answers null for that kind.
        let handle = current.at(py, (dlpack::CUDA, place.1))?;
        return by_handle(py, handle, Some(index), None);
    }
    let module: String = tensor.get_type().module()?.extract()?;
    let root = module.split('.').next().unwrap_or_default();
    if let Some(stream) = current_in(py, root, index, parameter)? {
        return Ok(stream);
    }
    if let Some(stream) = current_in(py, "torch", index, parameter)? {
        return Ok(stream);
    }
    let mut others = Vec::new();
    for name in &FRAMEWORKS[1..] {
        if loaded(py, name)?.is_some() {
            others.push(*name);
        }
    }
    if let [only] = others[..]
        && let Some(stream) = current_in(py, only, index, parameter)?
    {
        return Ok(stream);
    }
    for name in SILENT {
        if loaded(py, name)?.is_some() {
            others.push(name);
        }
    }
    Err(PyRuntimeError::new_err(format!(
        "{parameter}: {} does not tell its current stream, and neither does any other framework \
         alone (loaded: {}); pass the stream itself",
        tensor.get_type().fully_qualified_name()?,
        match others.is_empty() {
            true => "none".to_owned(),
            false => others.join(", "),
        }
    )))
}

/// The current stream of a framework on a CUDA device; `None` where the framework is not loaded, or
/// has none.
fn current_in(
    py: Python<'_>,
    framework: &str,
    index: usize,
    parameter: Parameter,
) -> PyResult<Option<StreamRef>> {
    if framework == "torch" {
        return match cuda_in_use(py)? {
            Some(_) => current(py, Some(index)).map(Some),
            None => Ok(None),
        };
    }
    if !FRAMEWORKS.contains(&framework) {
        return Ok(None);
    }
    let Some(module) = loaded(py, framework)? else {
        return Ok(None);
    };
    let stream = match framework {
        "cupy" => module
            .getattr("cuda")?
            .call_method1("get_current_stream", (index,))?,
        _ => module.call_method1("get_stream", (format!("cuda:{index}"),))?,
    };
    stream_of_library(py, &stream, parameter).map(Some)
}
