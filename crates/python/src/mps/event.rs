//! The methods of `fencepost.mps.Event`.

use pyo3::prelude::*;

use super::{calls, stream::target_of};
use crate::{
    arguments::{Name, Parameter, core_of},
    objects::MpsEvent,
    wait::limit,
};

#[pymethods]
impl MpsEvent {
    #[new]
    #[pyo3(signature = (enable_timing = false))]
    fn new(enable_timing: bool) -> MpsEvent {
        MpsEvent::with_timing(enable_timing)
    }

    /// Its name, which errors and its ``repr`` show; None while it has none. May be set.
    #[getter]
    fn name(&self) -> Option<String> {
        self.core.name()
    }

    #[setter]
    fn set_name(&self, name: Option<Name>) {
        self.core.set_name(name.map(|name| name.0));
    }

    /// Mark the point behind everything submitted to ``stream`` so far, and hold it from now on.
    ///
    /// ``stream`` is a ``fencepost.mps.Stream`` or a ``torch.mps.Stream``, by default the current
    /// one: PyTorch's where PyTorch uses MPS. Never waits for the device. On a stream of PyTorch it
    /// commits what PyTorch has encoded, as ``torch.mps.Event.record`` does. Raises RuntimeError
    /// for any other object.
    #[pyo3(signature = (stream = None))]
    fn record(&self, py: Python<'_>, stream: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        let target = target_of(py, stream, Parameter::new("record", "stream"))?;
        calls::record(py, &self.core, &target)
    }

    /// Make later work of ``stream`` run after what this event holds now. Never blocks the calling
    /// thread.
    ///
    /// PyTorch's streams cannot be made to fail. If this event has failed, the call raises instead.
    #[pyo3(signature = (stream = None))]
    fn wait(&self, py: Python<'_>, stream: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        let target = target_of(py, stream, Parameter::new("wait", "stream"))?;
        calls::wait(py, &self.core, &target)
    }

    /// Return whether what it holds is complete; False before the first record, as in PyTorch.
    /// Never blocks.
    fn query(&self, py: Python<'_>) -> PyResult<bool> {
        calls::query(py, &self.core)
    }

    /// Block until what it holds is complete. Returns at once before the first record.
    ///
    /// After ``timeout`` seconds, an argument that PyTorch's lacks, it raises TimeoutError, which
    /// says what it waited for. Other threads keep running meanwhile, and Ctrl-C ends the wait.
    #[pyo3(signature = (timeout = None))]
    fn synchronize(&self, py: Python<'_>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        self.core.synchronize(py, limit(timeout)?)
    }

    /// Return the milliseconds from this event to ``end_event``. Waits for both, and for nothing
    /// else.
    ///
    /// It may be called again, before or after ``synchronize()``. Raises RuntimeError without
    /// timing, before the first record, and if the end came before the start.
    fn elapsed_time(&self, py: Python<'_>, end_event: &Bound<'_, PyAny>) -> PyResult<f64> {
        let end = core_of(end_event, Parameter::new("elapsed_time", "end_event"))?;
        calls::elapsed(py, &self.core, end)
    }

    fn __repr__(&self, py: Python<'_>) -> String {
        let name = self.core.shown_name();
        format!("<fencepost.mps.Event{name}, {}>", self.core.state(py))
    }
}
