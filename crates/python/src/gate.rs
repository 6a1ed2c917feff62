//! `fencepost._C._Gate`, which holds a stream back: for this package's own tests.

use std::sync::{Mutex, PoisonError};

use fencepost::testing::work::{self, Gate};
use pyo3::prelude::*;

use crate::{
    arguments::{Parameter, stream_of},
    error::to_py,
};

/// Hold back what is submitted to ``stream`` from now on, until ``open()`` is called or the gate
/// is dropped: for tests.
#[pyclass(frozen, name = "_Gate", module = "fencepost")]
pub(crate) struct PyGate(Mutex<Option<Gate>>);

#[pymethods]
impl PyGate {
    #[new]
    fn new(py: Python<'_>, stream: &Bound<'_, PyAny>) -> PyResult<PyGate> {
        let stream = stream_of(py, stream, Parameter::new("_Gate", "stream"))?;
        let gate = py.detach(|| work::gate(&stream)).map_err(to_py)?;
        Ok(PyGate(Mutex::new(Some(gate))))
    }

    /// Open the gate: the stream continues.
    fn open(&self, py: Python<'_>) {
        let gate = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        py.detach(|| drop(gate));
    }
}
