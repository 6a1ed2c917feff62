//! What PyTorch says about itself, where the program has loaded it. Nothing here loads PyTorch.

use pyo3::{
    ffi, intern,
    prelude::*,
    sync::PyOnceLock,
    types::{PyDict, PyTuple, PyType},
};

use crate::dlpack::{CUDA, CurrentStream};

/// PyTorch's functions for its current CUDA streams.
pub(crate) struct TorchCuda {
    /// What its type of tensors tells of the current stream, in versions that have that. It makes
    /// no Python object, as `stream` does.
    current: Option<CurrentStream>,
    /// The index of the current device.
    device: Py<PyAny>,
    /// The handle of the current stream of a device.
    stream: Py<PyAny>,
    /// The argument with which `stream` means the current device: -1, as in
    /// `c10::cuda::getCurrentCUDAStream`
    /// ([c10/cuda/CUDAStream.h](https://github.com/pytorch/pytorch/blob/main/c10/cuda/CUDAStream.h)).
    current_device: Py<PyTuple>,
}

/// A module, if it is loaded already.
pub(crate) fn loaded<'py>(py: Python<'py>, name: &str) -> PyResult<Option<Bound<'py, PyAny>>> {
    let modules = py.import(intern!(py, "sys"))?.getattr("modules")?;
    Ok(modules
        .cast_into::<PyDict>()?
        .get_item(name)?
        .filter(|module| !module.is_none()))
}

/// Whether PyTorch's own profiler is on.
pub(crate) fn is_profiling(py: Python<'_>) -> PyResult<bool> {
    let Some(torch) = loaded(py, "torch")? else {
        return Ok(false);
    };
    // While the module is being imported it has no `autograd` yet.
    let Ok(enabled) = torch
        .getattr("autograd")
        .and_then(|autograd| autograd.getattr("_profiler_enabled"))
    else {
        return Ok(false);
    };
    enabled.call0()?.is_truthy()
}

static TORCH: PyOnceLock<TorchCuda> = PyOnceLock::new();

/// PyTorch's CUDA side, once PyTorch uses CUDA. From then on it uses CUDA until the process ends.
#[inline]
pub(crate) fn cuda_in_use(py: Python<'_>) -> PyResult<Option<&'static TorchCuda>> {
    match TORCH.get(py) {
        Some(torch) => Ok(Some(torch)),
        None => find_cuda(py),
    }
}

#[cold]
fn find_cuda(py: Python<'_>) -> PyResult<Option<&'static TorchCuda>> {
    let Some(torch) = loaded(py, "torch")? else {
        return Ok(None);
    };
    // While the module is being imported it has no `cuda` yet.
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
    let tensor = torch
        .getattr("Tensor")
        .and_then(|tensor| Ok(tensor.cast_into::<PyType>()?));
    let found = TorchCuda {
        current: match tensor {
            Ok(tensor) => CurrentStream::of(&tensor).unwrap_or(None),
            Err(_) => None,
        },
        device: native.getattr("_cuda_getDevice")?.unbind(),
        stream: native.getattr("_cuda_getCurrentRawStream")?.unbind(),
        current_device: PyTuple::new(py, [-1])?.unbind(),
    };
    Ok(Some(TORCH.get_or_init(py, || found)))
}

impl TorchCuda {
    /// The index of the current device.
    pub(crate) fn current_device(&self, py: Python<'_>) -> PyResult<usize> {
        self.device.bind(py).call0()?.extract()
    }

    /// The handle of the current stream of a device, or of the current device.
    #[inline]
    pub(crate) fn current_stream(&self, py: Python<'_>, device: Option<usize>) -> PyResult<usize> {
        if let Some(current) = self.current {
            // -1 is the current device, as for `stream`.
            let index = device.map_or(Ok(-1), i32::try_from);
            if let Ok(Ok(handle)) = index.map(|index| current.at(py, (CUDA, index))) {
                return Ok(handle);
            }
        }
        self.ask_for_stream(py, device)
    }

    /// As [`current_stream`](TorchCuda::current_stream), by PyTorch's function for Python.
    #[cold]
    fn ask_for_stream(&self, py: Python<'_>, device: Option<usize>) -> PyResult<usize> {
        let stream = self.stream.bind(py);
        let handle = match device {
            Some(index) => call_with_one(stream, index.into_pyobject(py)?.as_any())?,
            None => stream.call1(self.current_device.bind(py))?,
        };
        // SAFETY: `handle` is an object; anything but an int in range sets an exception.
        let handle = unsafe { ffi::PyLong_AsSize_t(handle.as_ptr()) };
        match handle {
            usize::MAX => PyErr::take(py).map_or(Ok(handle), Err),
            _ => Ok(handle),
        }
    }
}

/// Whether the current stream of a device, or of the current device, is the one of this handle and
/// lives as long as the process.
pub(crate) fn is_lasting_current(
    py: Python<'_>,
    handle: usize,
    device: Option<usize>,
) -> PyResult<bool> {
    let Some(torch) = loaded(py, "torch")? else {
        return Ok(false);
    };
    let current = torch
        .getattr("cuda")?
        .call_method1("current_stream", (device,))?;
    let its: usize = current.getattr("cuda_stream")?.extract()?;
    Ok(its == handle && is_lasting_stream(&current))
}

/// The handle of a `torch.Stream` of CUDA, which has none itself: PyTorch makes a
/// `torch.cuda.Stream` of it. `None` for any other object.
pub(crate) fn handle_of_generic<'py>(
    object: &Bound<'py, PyAny>,
) -> PyResult<Option<Bound<'py, PyAny>>> {
    let py = object.py();
    let Some(torch) = loaded(py, "torch")? else {
        return Ok(None);
    };
    let class = torch.getattr("Stream");
    if !class.is_ok_and(|class| object.is_instance(&class).unwrap_or(false)) {
        return Ok(None);
    }
    let device: String = object.getattr("device")?.getattr("type")?.extract()?;
    if device != "cuda" {
        return Ok(None);
    }
    let same = PyDict::new(py);
    for name in ["stream_id", "device_index", "device_type"] {
        same.set_item(name, object.getattr(name)?)?;
    }
    let cuda = torch.getattr("cuda")?;
    let stream = cuda.call_method("Stream", (), Some(&same))?;
    stream.getattr("cuda_stream").map(Some)
}

/// `function(argument)`, without the tuple that PyO3 makes for the argument when it keeps to the
/// stable ABI of CPython 3.9.
fn call_with_one<'py>(
    function: &Bound<'py, PyAny>,
    argument: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    let end = std::ptr::null_mut::<ffi::PyObject>();
    // SAFETY: both are objects, and a null pointer ends the arguments. The result is a new
    // reference, or null with an exception set
    // (https://docs.python.org/3/c-api/call.html#c.PyObject_CallFunctionObjArgs).
    unsafe {
        let result = ffi::PyObject_CallFunctionObjArgs(function.as_ptr(), argument.as_ptr(), end);
        Bound::from_owned_ptr_or_err(function.py(), result)
    }
}

/// Whether `object` is a `torch.cuda.Stream` whose stream lives as long as the process.
pub(crate) fn is_lasting_stream(object: &Bound<'_, PyAny>) -> bool {
    is_torch_stream(object) && is_of_torch_pool(object)
}

/// Whether `object` is exactly a `torch.cuda.Stream`, and not of a subclass such as
/// `ExternalStream`.
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

/// Whether a `torch.cuda.Stream` is from PyTorch's pools, which are never destroyed, or is the
/// default stream.
///
/// `torch.cuda.current_stream()` wraps another library's stream in an object of the same type, with
/// the handle, an even number, as its ID. IDs of streams from the pools are odd, and the default
/// stream has the ID 0
/// ([c10/cuda/CUDAStream.cpp](https://github.com/pytorch/pytorch/blob/main/c10/cuda/CUDAStream.cpp)).
fn is_of_torch_pool(stream: &Bound<'_, PyAny>) -> bool {
    match stream.getattr(intern!(stream.py(), "stream_id")) {
        Ok(id) => id.extract().is_ok_and(|id: i64| id == 0 || id % 2 != 0),
        Err(_) => false,
    }
}
