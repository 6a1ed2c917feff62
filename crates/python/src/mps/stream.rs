//! `fencepost.mps.Stream`, and the functions for the current stream.

use std::sync::atomic::{AtomicUsize, Ordering};

use fencepost::bindings;
use pyo3::{exceptions::PyRuntimeError, prelude::*};

use super::pool::{self, POOL, unknown_stream};
use crate::{
    arguments::{Parameter, check_event},
    error::to_py,
    objects::{MpsEvent, PyDevice, PyStream},
    place,
    wait::{limit, synchronize},
};

/// A stream of the MPS pool. ``Stream()`` is the next of the 32, in turn; ``Stream(stream_id=n)``
/// is number ``n``.
///
/// They live as long as the process, as PyTorch's do, so the thirty-third is the first again.
#[pyclass(frozen, name = "Stream", module = "fencepost.mps")]
pub(crate) struct MpsStream {
    number: usize,
}

/// The number of a stream that an argument names.
pub(crate) fn number_of(
    stream: Option<&Bound<'_, PyAny>>,
    parameter: Parameter,
) -> PyResult<Option<usize>> {
    let Some(stream) = stream else {
        return Ok(None);
    };
    match stream.cast::<MpsStream>() {
        Ok(stream) => Ok(Some(stream.get().number)),
        // The type that PyTorch raises.
        Err(_) => Err(PyRuntimeError::new_err(format!(
            "{parameter}: expected an MPS stream (fencepost.mps.Stream), but got {}",
            stream.get_type().fully_qualified_name()?
        ))),
    }
}

/// The same, where PyTorch looks at no type.
fn number_in(stream: &Bound<'_, PyAny>, parameter: Parameter) -> PyResult<usize> {
    match stream.cast::<MpsStream>() {
        Ok(stream) => Ok(stream.get().number),
        Err(_) => Err(parameter.expected("an MPS stream (fencepost.mps.Stream)", stream)),
    }
}

#[pymethods]
impl MpsStream {
    #[new]
    #[pyo3(signature = (*, stream_id = None))]
    fn new(stream_id: Option<i64>) -> PyResult<MpsStream> {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = match stream_id {
            None => 1 + NEXT.fetch_add(1, Ordering::Relaxed) % POOL,
            Some(id) => usize::try_from(id)
                .ok()
                .filter(|number| *number <= POOL)
                .ok_or_else(|| unknown_stream(id))?,
        };
        Ok(MpsStream { number })
    }

    /// Its number: 0 for the default stream.
    #[getter]
    fn stream_id(&self) -> usize {
        self.number
    }

    /// The same stream as a ``fencepost.Stream``, for submitting work to it.
    #[getter]
    fn stream(&self, py: Python<'_>) -> PyResult<PyStream> {
        let stream = pool::stream(py, self.number)?;
        Ok(PyStream::of(stream.clone()))
    }

    /// Block until everything submitted to it so far is done. Raises TimeoutError after ``timeout``
    /// seconds.
    #[pyo3(signature = (timeout = None))]
    fn synchronize(&self, py: Python<'_>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        let limit = limit(timeout)?;
        synchronize(py, pool::stream(py, self.number)?, limit)
    }

    /// Return whether everything submitted to it so far is done. Never blocks.
    fn query(&self, py: Python<'_>) -> PyResult<bool> {
        let stream = pool::stream(py, self.number)?;
        py.detach(|| stream.query()).map_err(to_py)
    }

    /// Record ``event``, or a new one without timing, and return it.
    #[pyo3(signature = (event = None))]
    fn record_event(slf: &Bound<'_, Self>, event: Option<Bound<'_, PyAny>>) -> PyResult<Py<PyAny>> {
        let event = match event {
            Some(event) => event,
            None => Bound::new(slf.py(), MpsEvent::with_timing(false))?.into_any(),
        };
        check_event(&event, Parameter::new("record_event", "event"))?;
        event.call_method1("record", (slf,))?;
        Ok(event.unbind())
    }

    /// Make later work of this stream run after what ``event`` holds now.
    fn wait_event(slf: &Bound<'_, Self>, event: &Bound<'_, PyAny>) -> PyResult<()> {
        check_event(event, Parameter::new("wait_event", "event"))?;
        event.call_method1("wait", (slf,)).map(drop)
    }

    /// Make later work of this stream run after everything submitted to ``stream`` so far.
    fn wait_stream(&self, py: Python<'_>, stream: &Bound<'_, PyAny>) -> PyResult<()> {
        let number = number_in(stream, Parameter::new("wait_stream", "stream"))?;
        let ours = pool::stream(py, self.number)?;
        let other = pool::stream(py, number)?;
        let at = place::of_record(py);
        py.detach(|| ours.wait(&bindings::mark_at(other, at)?))
            .map_err(to_py)
    }

    fn __eq__(&self, other: &Bound<'_, PyAny>) -> bool {
        other
            .cast::<MpsStream>()
            .is_ok_and(|other| other.get().number == self.number)
    }

    fn __hash__(&self) -> usize {
        self.number
    }

    fn __repr__(&self) -> String {
        format!("<fencepost.mps.Stream {}>", self.number)
    }
}

/// Return this thread's current stream.
#[pyfunction]
pub(crate) fn _mps_current_stream() -> MpsStream {
    MpsStream {
        number: pool::current(),
    }
}

/// Make ``stream`` this thread's current one.
#[pyfunction]
pub(crate) fn _mps_set_stream(stream: &Bound<'_, PyAny>) -> PyResult<()> {
    let number = number_in(stream, Parameter::new("set_stream", "stream"))?;
    pool::set_current(number);
    Ok(())
}

/// Return the device of ``fencepost.mps``.
#[pyfunction]
pub(crate) fn _mps_device(py: Python<'_>) -> PyResult<PyDevice> {
    Ok(PyDevice::of(pool::device(py)?.clone()))
}
