//! The methods of `fencepost.Marker`.

use fencepost::{Marker, bindings};
use pyo3::prelude::*;

use crate::{
    arguments::Parameter,
    awaiting,
    core::Pending,
    error::to_py,
    objects::{PyCorrelation, PyDevice, PyHostTime, PyMarker},
    raised::call_back,
    wait::{WaitMode, correlate, limit, wait},
};

#[pymethods]
impl PyMarker {
    /// The device that it was recorded on.
    #[getter]
    fn device(&self) -> PyDevice {
        PyDevice::of(self.0.device().clone())
    }

    /// Its number on its stream, counted from 1.
    #[getter]
    fn value(&self) -> u64 {
        self.0.value()
    }

    /// The ``id`` of the stream that it was recorded on.
    #[getter]
    fn stream_id(&self) -> u64 {
        self.0.stream_id()
    }

    /// The line that recorded it, as ``FILE:LINE``. None unless ``fencepost.locations(True)`` was
    /// called before.
    #[getter]
    fn recorded_at(&self) -> Option<String> {
        let place = self.0.recorded_at();
        (place != bindings::unknown_place()).then(|| place.to_string())
    }

    /// Return whether it is complete. Never blocks.
    ///
    /// Raises RuntimeError, never returns False, if the stream or the device has failed.
    fn query(&self, py: Python<'_>) -> PyResult<bool> {
        py.detach(|| self.0.query()).map_err(to_py)
    }

    /// Block until it is complete.
    ///
    /// After ``timeout`` seconds it raises TimeoutError, which says what it waited for. Other
    /// threads keep running meanwhile, and Ctrl-C ends the wait.
    #[pyo3(signature = (timeout = None))]
    fn synchronize(&self, py: Python<'_>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        let backend = self.0.device().backend();
        Ok(wait(py, &self.0, backend, limit(timeout)?, WaitMode::Spin)?)
    }

    /// Return when it completed, in ticks of the device's clock. Never blocks.
    ///
    /// Raises ValueError for a marker without timing, RuntimeError while it is pending, and
    /// NotImplementedError on CUDA, which tells differences only.
    fn timestamp(&self, py: Python<'_>) -> PyResult<u64> {
        let timestamp = py.detach(|| self.0.timestamp()).map_err(to_py)?;
        Ok(timestamp.ticks())
    }

    /// Return the milliseconds from this marker to ``end`` on the device's clock, negative if
    /// ``end`` is earlier. Never blocks.
    ///
    /// Raises ValueError for markers without timing, RuntimeError for markers of two devices and
    /// while either is pending.
    fn elapsed(&self, py: Python<'_>, end: &Bound<'_, PyAny>) -> PyResult<f64> {
        let end = end
            .cast::<PyMarker>()
            .map_err(|_| Parameter::new("elapsed", "end").expected("a fencepost.Marker", end))?;
        let end = &end.get().0;
        let elapsed = py.detach(|| self.0.elapsed(end)).map_err(to_py)?;
        Ok(elapsed.as_millis_f64())
    }

    /// Return by how many milliseconds ``elapsed(end)`` may be off: the clock's resolution, and
    /// what the driver's rounding lost. Never blocks, and raises what ``elapsed`` raises.
    fn uncertainty(&self, py: Python<'_>, end: &Bound<'_, PyMarker>) -> PyResult<f64> {
        let end = &end.get().0;
        let elapsed = py.detach(|| self.0.elapsed(end)).map_err(to_py)?;
        Ok(elapsed.uncertainty().as_secs_f64() * 1e3)
    }

    /// Return when it completed on the clock of ``time.monotonic()``, as a ``HostTime``, which says
    /// how far the truth may be from that. Times of several devices compare.
    ///
    /// The time on the device's clock is brought there by ``correlation``, which
    /// ``device.correlate()`` returned; without one it is taken now, which blocks as that call
    /// does.
    ///
    /// Raises ValueError for a marker without timing, RuntimeError for a correlation of another
    /// device and while it is pending.
    #[pyo3(signature = (correlation = None))]
    fn host_time(
        &self,
        py: Python<'_>,
        correlation: Option<&Bound<'_, PyCorrelation>>,
    ) -> PyResult<PyHostTime> {
        let taken;
        let correlation = match correlation {
            Some(given) => &given.get().0,
            None => {
                taken = correlate(py, self.0.device())?;
                &taken
            }
        };
        let time = py.detach(|| self.0.host_time(correlation));
        PyHostTime::of(py, time.map_err(to_py)?)
    }

    /// Call ``callback(error)`` once it is complete, with None, or has failed, with the exception.
    ///
    /// The callback runs on a thread of the library, with the GIL, one at a time for each device.
    /// An exception in it goes to ``sys.unraisablehook``. One that is pending at exit never runs.
    fn on_complete(&self, py: Python<'_>, callback: Py<PyAny>) -> PyResult<()> {
        let callback = call_back(py, callback)?;
        py.detach(|| self.0.on_complete(callback)).map_err(to_py)
    }

    /// Wait for it when ``await`` is evaluated, in a running loop of asyncio or Trio.
    fn __await__(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let complete = py.detach(|| self.0.query()).map_err(to_py)?;
        let pending = (!complete).then(|| Pending::Marker(self.0.clone()));
        awaiting::await_pending(py, pending)
    }

    fn __eq__(&self, other: &Bound<'_, PyAny>) -> bool {
        other
            .cast::<PyMarker>()
            .is_ok_and(|other| other.get().0 == self.0)
    }

    fn __hash__(&self) -> u64 {
        self.0.value() ^ self.0.stream_id().rotate_left(32)
    }

    fn __repr__(&self) -> String {
        format!("<fencepost.Marker: {}>", Marker::to_string(&self.0))
    }
}
