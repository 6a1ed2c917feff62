//! Queues of pyopencl.

use std::ffi::c_void;

use fencepost::opencl;
use pyo3::{intern, prelude::*};

use crate::{cuda_streams::StreamRef, error::to_py, torch::loaded};

/// The stream of a `pyopencl.CommandQueue`; `None` for any other object. Nothing here loads
/// pyopencl.
pub(crate) fn stream_of_queue(object: &Bound<'_, PyAny>) -> PyResult<Option<StreamRef>> {
    let py = object.py();
    let Some(pyopencl) = loaded(py, "pyopencl")? else {
        return Ok(None);
    };
    // While the module is being imported it has no such class yet.
    let Ok(class) = pyopencl.getattr(intern!(py, "CommandQueue")) else {
        return Ok(None);
    };
    if !object.is_instance(&class)? {
        return Ok(None);
    }
    let handle: usize = object.getattr(intern!(py, "int_ptr"))?.extract()?;
    let wrap = || {
        // SAFETY: the object, which lives through the call, has the queue. pyopencl may have a
        // loader of its own: each finds the functions of an object by its driver's table.
        unsafe { opencl::stream_from_raw(handle as *mut c_void) }
    };
    let stream = py.detach(wrap).map_err(to_py)?;
    Ok(Some(StreamRef::from(stream)))
}
