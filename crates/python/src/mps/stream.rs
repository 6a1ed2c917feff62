//! `fencepost.mps.Stream`, and the functions for the current stream.

use pyo3::{exceptions::PyRuntimeError, prelude::*};

use super::{
    calls::{self, Target},
    pool,
    stream_base::MpsStreamBase,
    torch_streams::given,
};
use crate::{
    arguments::{Parameter, check_event},
    core::Core,
    error::to_py,
    objects::{MpsEvent, PyDevice, PyStream},
    raw::Flags,
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

/// The stream of a call: the one that an argument names, or the current one.
pub(crate) fn target_of(
    py: Python<'_>,
    stream: Option<&Bound<'_, PyAny>>,
    parameter: Parameter,
) -> PyResult<Target> {
    let Some(stream) = stream else {
        return Target::current(py);
    };
    match named(py, stream)? {
        Some(target) => Ok(target),
        // The type that PyTorch raises.
        None => Err(PyRuntimeError::new_err(format!(
            "{parameter}: expected an MPS stream (fencepost.mps.Stream, torch.mps.Stream), but got \
             {}",
            stream.get_type().fully_qualified_name()?
        ))),
    }
}

/// The stream that an object stands for.
fn named(py: Python<'_>, object: &Bound<'_, PyAny>) -> PyResult<Option<Target>> {
    if let Ok(stream) = object.cast::<MpsStream>() {
        return Target::of_pool(py, stream.get().number).map(Some);
    }
    if let Ok(stream) = object.cast::<MpsStreamBase>() {
        return Target::numbered(py, stream.get().number).map(Some);
    }
    Ok(given(py, object)?.map(Target::Torch))
}

#[pymethods]
impl MpsStream {
    #[new]
    #[pyo3(signature = (*, stream_id = None))]
    fn new(stream_id: Option<i64>) -> PyResult<MpsStream> {
        let number = pool::number(stream_id)?;
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
        let parameter = Parameter::new("wait_stream", "stream");
        let Some(other) = named(py, stream)? else {
            return Err(parameter.expected(MPS_STREAM, stream));
        };
        let event = Core::new(Flags::default());
        calls::record(py, &event, &other)?;
        calls::wait(py, &event, &Target::of_pool(py, self.number)?)
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

const MPS_STREAM: &str = "an MPS stream (fencepost.mps.Stream)";

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
    match stream.cast::<MpsStream>() {
        Ok(stream) => pool::set_current(stream.get().number),
        Err(_) => return Err(Parameter::new("set_stream", "stream").expected(MPS_STREAM, stream)),
    }
    Ok(())
}

/// Return the device of ``fencepost.mps``.
#[pyfunction]
pub(crate) fn _mps_device(py: Python<'_>) -> PyResult<PyDevice> {
    Ok(PyDevice::of(pool::device(py)?.clone()))
}
