//! What each call of `fencepost.mps` means, made through the class or through the functions.
//!
//! Without a stream a call means PyTorch's current stream where PyTorch uses MPS, otherwise the
//! thread's current stream. A number means one of PyTorch's streams where PyTorch has several, and
//! otherwise one of the pool, so that PyTorch's own classes work on these functions.

use fencepost::{Error, Stream};
use pyo3::{exceptions::PyRuntimeError, prelude::*};

use super::{
    pool,
    torch_streams::{TorchStream, in_use, numbered},
};
use crate::{
    core::Core,
    elapsed::elapsed_after,
    error::{in_python_terms, to_py},
    raw::Flags,
    wait::Limit,
};

/// The stream of a call.
pub(crate) enum Target {
    Ours(&'static Stream),
    Torch(&'static TorchStream),
}

impl Target {
    /// The stream of a call without one.
    pub(crate) fn current(py: Python<'_>) -> PyResult<Target> {
        match in_use(py)? {
            Some(torch) => Ok(Target::Torch(torch)),
            None => Target::of_pool(py, pool::current()),
        }
    }

    /// A stream of `fencepost.mps`.
    pub(crate) fn of_pool(py: Python<'_>, number: usize) -> PyResult<Target> {
        pool::stream(py, number).map(Target::Ours)
    }

    /// What a number means to the native functions.
    pub(crate) fn numbered(py: Python<'_>, number: usize) -> PyResult<Target> {
        match numbered(py, number)? {
            Some(torch) => Ok(Target::Torch(torch)),
            None => Target::of_pool(py, number),
        }
    }

    /// Blocks until everything submitted to it so far is done.
    pub(crate) fn synchronize(&self, py: Python<'_>, limit: Limit) -> PyResult<()> {
        let event = Core::new(Flags::default());
        record(py, &event, self)?;
        event.synchronize(py, limit)
    }
}

pub(crate) fn record(py: Python<'_>, event: &Core, target: &Target) -> PyResult<()> {
    match target {
        Target::Ours(stream) => event.record(py, stream).map_err(|error| to_py(*error)),
        Target::Torch(torch) => torch.record(py, event),
    }
}

pub(crate) fn wait(py: Python<'_>, event: &Core, target: &Target) -> PyResult<()> {
    match target {
        Target::Ours(stream) => event.wait(py, stream).map_err(|error| to_py(*error)),
        Target::Torch(torch) => torch.wait(py, event),
    }
}

/// As in `torch.mps`, `false` before the first record.
pub(crate) fn query(py: Python<'_>, event: &Core) -> PyResult<bool> {
    Ok(event.query(py).map_err(|error| to_py(*error))? && event.is_recorded())
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
