//! What each call of `fencepost.mps` means, made through the class or through the functions.
//!
//! A call names a stream by its number. Without a number it means PyTorch's own stream where
//! PyTorch uses MPS, otherwise the thread's current stream.

use fencepost::{Error, Stream};
use pyo3::{exceptions::PyRuntimeError, prelude::*};

use super::{
    pool,
    torch_stream::{self, TorchStream},
};
use crate::{
    core::Core,
    elapsed::elapsed_after,
    error::{in_python_terms, to_py},
    wait::Limit,
};

enum Target {
    Ours(&'static Stream),
    Torch(&'static TorchStream),
}

fn target(py: Python<'_>, number: Option<usize>) -> PyResult<Target> {
    let number = match number {
        Some(number) => number,
        None => match torch_stream::in_use(py)? {
            Some(torch) => return Ok(Target::Torch(torch)),
            None => pool::current(),
        },
    };
    pool::stream(py, number).map(Target::Ours)
}

pub(crate) fn record(py: Python<'_>, event: &Core, number: Option<usize>) -> PyResult<()> {
    match target(py, number)? {
        Target::Ours(stream) => event.record(py, stream).map_err(|error| to_py(*error)),
        Target::Torch(torch) => torch.record(py, event),
    }
}

pub(crate) fn wait(py: Python<'_>, event: &Core, number: Option<usize>) -> PyResult<()> {
    match target(py, number)? {
        Target::Ours(stream) => event.wait(py, stream).map_err(|error| to_py(*error)),
        Target::Torch(torch) => torch.wait(py, event),
    }
}

/// As in `torch.mps`, `false` before the first record.
pub(crate) fn query(py: Python<'_>, event: &Core) -> PyResult<bool> {
    Ok(event.query(py).map_err(|error| to_py(*error))? && event.is_recorded(py))
}

/// As in `torch.mps`, an error for events in reverse order.
pub(crate) fn elapsed(py: Python<'_>, start: &Core, end: &Core) -> PyResult<f64> {
    let millis = elapsed_after(py, start, end, Limit::never(), runtime_error)?;
    match millis < 0.0 {
        true => Err(PyRuntimeError::new_err(format!(
            "the end event was not recorded after the start event, but {:.6} ms before it; swap \
             the two, or use fencepost.Event, whose times are signed",
            -millis
        ))),
        false => Ok(millis),
    }
}

/// As [`to_py`], with `RuntimeError` for what `torch.mps` knows no other type for.
fn runtime_error(error: Error) -> PyErr {
    match error {
        Error::TimingDisabled { .. } | Error::NotRecorded { .. } => {
            PyRuntimeError::new_err(in_python_terms(&error))
        }
        error => to_py(error),
    }
}
