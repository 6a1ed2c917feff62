//! The native side of PyTorch's own `torch.mps.Stream`: the class that it derives from, and the
//! functions for the current stream. They name streams by numbers.
//!
//! Where PyTorch has several MPS streams these are PyTorch's, otherwise those of `fencepost.mps`.

use pyo3::{exceptions::PyRuntimeError, prelude::*};

use super::{
    calls::Target,
    pool,
    torch_streams::{in_use, numbered},
};
use crate::wait::Limit;

/// An MPS stream by its number: 0 is the default stream, and 1 to 32 are those of the pool.
///
/// Without a number it is the next of the pool, in turn.
#[pyclass(frozen, subclass, name = "_MPSStreamBase", module = "fencepost._C")]
pub(crate) struct MpsStreamBase {
    pub(super) number: usize,
}

#[pymethods]
impl MpsStreamBase {
    #[new]
    #[pyo3(signature = (*, stream_id = None))]
    fn new(stream_id: Option<i64>) -> PyResult<MpsStreamBase> {
        let number = pool::number(stream_id)?;
        Ok(MpsStreamBase { number })
    }

    /// Its number.
    #[getter]
    fn stream_id(&self) -> usize {
        self.number
    }

    /// Block until everything submitted to it so far is done.
    fn synchronize(&self, py: Python<'_>) -> PyResult<()> {
        Target::numbered(py, self.number)?.synchronize(py, Limit::never())
    }

    fn __eq__(&self, other: &Bound<'_, PyAny>) -> bool {
        other
            .cast::<MpsStreamBase>()
            .is_ok_and(|other| other.get().number == self.number)
    }

    fn __hash__(&self) -> usize {
        self.number
    }

    fn __repr__(&self) -> String {
        format!("<fencepost._C._MPSStreamBase {}>", self.number)
    }
}

/// Return this thread's current stream.
#[pyfunction]
pub(crate) fn _mps_getCurrentStream(py: Python<'_>) -> PyResult<MpsStreamBase> {
    let number = match in_use(py)? {
        Some(torch) => torch.number(),
        None => pool::current(),
    };
    Ok(MpsStreamBase { number })
}

/// Make ``stream`` this thread's current one.
#[pyfunction]
pub(crate) fn _mps_setStream(stream: &Bound<'_, PyAny>) -> PyResult<()> {
    let Ok(base) = stream.cast::<MpsStreamBase>() else {
        return Err(PyRuntimeError::new_err(format!(
            "_mps_setStream() argument 'stream': expected an MPS stream \
             (fencepost._C._MPSStreamBase), but got {}",
            stream.get_type().fully_qualified_name()?
        )));
    };
    let number = base.get().number;
    match numbered(stream.py(), number)? {
        Some(torch) => torch.set_current(),
        None => pool::set_current(number),
    }
    Ok(())
}
