//! CUDA events that two processes share.

use std::borrow::Cow;

use fencepost::Device;
use pyo3::{
    exceptions::{PyRuntimeError, PyTypeError, PyValueError},
    intern,
    prelude::*,
    types::{PyBytes, PyString, PyTuple},
};

use crate::{
    arguments::{Parameter, cuda_device_of},
    core::Core,
    error::to_py,
};

/// The event that another process exported, and its device.
pub(crate) fn open(
    py: Python<'_>,
    device: &Bound<'_, PyAny>,
    handle: &Bound<'_, PyBytes>,
) -> PyResult<(Device, Core)> {
    let parameter = Parameter::new("from_ipc_handle", "device");
    let device = cuda_device_of(py, device, parameter)?;
    let bytes: [u8; 64] = handle.as_bytes().try_into().map_err(|_| {
        PyValueError::new_err(format!(
            "an IPC handle has 64 bytes; got {}",
            handle.as_bytes().len()
        ))
    })?;
    let core = py.detach(|| Core::open(&device, &bytes)).map_err(to_py)?;
    Ok((device, core))
}

/// The bytes by which another process opens an event.
pub(crate) fn export(py: Python<'_>, core: &Core, device: &Device) -> PyResult<Cow<'static, [u8]>> {
    if !core.flags.interprocess {
        return Err(PyRuntimeError::new_err(
            "only an event made with interprocess=True has an IPC handle",
        ));
    }
    Ok(core.export(py, device)?.to_vec().into())
}

/// The result of `__reduce__`: a pickled event is opened by its handle in the other process.
pub(crate) fn reduce(event: &Bound<'_, PyAny>, core: &Core, device: &str) -> PyResult<Py<PyAny>> {
    let py = event.py();
    if !core.flags.interprocess {
        return Err(PyTypeError::new_err(
            "only an event made with interprocess=True can be pickled, and only on CUDA",
        ));
    }
    let handle = event.call_method0(intern!(py, "ipc_handle"))?;
    let rebuild = event.getattr(intern!(py, "from_ipc_handle"))?;
    let arguments = PyTuple::new(py, [PyString::new(py, device).into_any(), handle])?;
    Ok((rebuild, arguments).into_pyobject(py)?.into_any().unbind())
}
