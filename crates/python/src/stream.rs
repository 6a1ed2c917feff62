//! The methods of `fencepost.Stream`, and `wrap_stream`.

use fencepost::{bindings, cuda, opencl};
use pyo3::{exceptions::PyAttributeError, prelude::*};

use crate::{
    arguments::{Name, Parameter, check_event, device_of, stream_of},
    cuda_streams::current,
    error::to_py,
    exit::with_python,
    objects::{PyDevice, PyEvent, PyMarker, PyStream},
    place,
    raised::Raised,
    raw::Flags,
    wait::{in_work, limit, synchronize},
};

impl PyStream {
    fn handle(&self) -> PyResult<usize> {
        match cuda::stream_as_raw(&self.stream) {
            Some(handle) => Ok(handle as usize),
            None => Err(PyAttributeError::new_err(format!(
                "{} is no CUDA stream and has no CUDA handle",
                self.stream
            ))),
        }
    }
}

#[pymethods]
impl PyStream {
    #[new]
    #[pyo3(signature = (device = None, *, name = None))]
    fn new(
        py: Python<'_>,
        device: Option<&Bound<'_, PyAny>>,
        name: Option<Name>,
    ) -> PyResult<PyStream> {
        let device = device_of(py, device, Parameter::new("Stream", "device"))?;
        let stream = py.detach(|| device.new_stream()).map_err(to_py)?;
        stream.set_name(&name.map_or_else(String::new, |name| name.0));
        Ok(PyStream::of(stream))
    }

    /// Its name, which errors and its ``repr`` show; None while it has none. May be set.
    #[getter]
    fn name(&self) -> Option<String> {
        self.stream.name()
    }

    #[setter]
    fn set_name(&self, name: Option<Name>) {
        let name = name.map_or_else(String::new, |name| name.0);
        self.stream.set_name(&name);
    }

    /// The device it belongs to.
    #[getter]
    fn device(&self) -> PyDevice {
        PyDevice::of(self.stream.device().clone())
    }

    /// A number that names it while the process lives, and is never used again.
    #[getter]
    fn id(&self) -> u64 {
        self.stream.id()
    }

    /// Its CUDA handle as an integer, for submitting work to it. AttributeError on streams of other
    /// APIs.
    #[getter]
    fn cuda_stream(&self) -> PyResult<usize> {
        self.handle()
    }

    /// Its OpenCL queue as an integer, for ``pyopencl.CommandQueue.from_int_ptr``. AttributeError
    /// on streams of other APIs.
    #[getter]
    fn opencl_queue(&self) -> PyResult<usize> {
        match opencl::stream_as_raw(&self.stream) {
            Some(handle) => Ok(handle as usize),
            None => Err(PyAttributeError::new_err(format!(
                "{} is no OpenCL stream and has no OpenCL handle",
                self.stream
            ))),
        }
    }

    /// Return the version of CUDA's stream protocol and the handle, for libraries that know it.
    fn __cuda_stream__(&self) -> PyResult<(u32, usize)> {
        Ok((0, self.handle()?))
    }

    /// Run ``work()`` on this stream, after everything submitted before. Host streams only.
    ///
    /// Returns at once. ``work`` runs on a thread of the library, with the GIL, and its result is
    /// dropped. An exception in it, SystemExit and KeyboardInterrupt too, fails the stream: later
    /// records fail, and every error has that exception as its ``__cause__``, until
    /// ``clear_error()``. The frames in its traceback hold no variables any more. If nobody ever
    /// asks for the failure, ``sys.unraisablehook`` gets the exception when the last stream and
    /// event that could tell it is gone, or at exit. A ``fencepost.cuda.Event`` that is gone may be
    /// kept for the next ones: then it gets it later.
    ///
    /// Raises NotImplementedError on a GPU's stream, RuntimeError if the stream has failed.
    fn launch(&self, py: Python<'_>, work: Py<PyAny>) -> PyResult<()> {
        if !work.bind(py).is_callable() {
            return Err(Parameter::new("launch", "work").expected("a callable", work.bind(py)));
        }
        let work = move || {
            let ran = in_work(|| {
                with_python(|py| {
                    // Moved in here, so that it is dropped with the GIL.
                    let work = work;
                    let result = work.call0(py).map(drop);
                    // The exception's frames may be the last to hold what the work holds.
                    drop(work);
                    result.map_err(|error| Raised::new(py, error))
                })
            });
            match ran {
                Some(Ok(())) => {}
                Some(Err(raised)) => raised.raise(),
                None => Raised::at_exit().raise(),
            }
        };
        let at = place::of_caller(py);
        py.detach(|| bindings::launch_at(&self.stream, work, at))
            .map_err(to_py)
    }

    /// Record ``event``, or a new one without timing, and return it.
    #[pyo3(signature = (event = None))]
    fn record_event(slf: &Bound<'_, Self>, event: Option<Bound<'_, PyAny>>) -> PyResult<Py<PyAny>> {
        let event = match event {
            Some(event) => event,
            None => {
                let device = slf.get().stream.device().clone();
                let event = PyEvent::on(device, Flags::default());
                Bound::new(slf.py(), event)?.into_any()
            }
        };
        check_event(&event, Parameter::new("record_event", "event"))?;
        event.call_method1("record", (slf,))?;
        Ok(event.unbind())
    }

    /// Mark the point behind everything submitted so far, and return the marker. Never waits for
    /// the device. With ``enable_timing`` it has a time.
    #[pyo3(signature = (*, enable_timing = false))]
    fn record(&self, py: Python<'_>, enable_timing: bool) -> PyResult<PyMarker> {
        let at = place::of_record(py);
        let marker = py.detach(|| bindings::mark_with_at(&self.stream, enable_timing, at));
        marker.map(PyMarker).map_err(to_py)
    }

    /// How many markers were recorded on it, and how many of them are complete. Never blocks, and
    /// asks no driver, so the second number may lag behind the device.
    #[getter]
    fn progress(&self, py: Python<'_>) -> (u64, u64) {
        let progress = py.detach(|| self.stream.progress());
        (progress.recorded, progress.completed)
    }

    /// Make later work of this stream run after what ``event`` holds now, which may be a marker
    /// itself. Never blocks the calling thread.
    fn wait_event(slf: &Bound<'_, Self>, event: &Bound<'_, PyAny>) -> PyResult<()> {
        if let Ok(marker) = event.cast::<PyMarker>() {
            let (stream, marker) = (&slf.get().stream, &marker.get().0);
            return slf.py().detach(|| stream.wait(marker)).map_err(to_py);
        }
        check_event(event, Parameter::new("wait_event", "event"))?;
        event.call_method1("wait", (slf,)).map(drop)
    }

    /// Make later work of this stream run after everything submitted to ``stream`` so far.
    fn wait_stream(&self, py: Python<'_>, stream: &Bound<'_, PyAny>) -> PyResult<()> {
        let other = stream_of(py, stream, Parameter::new("wait_stream", "stream"))?;
        let at = place::of_record(py);
        py.detach(|| self.stream.wait(&bindings::mark_at(&other, at)?))
            .map_err(to_py)
    }

    /// Return whether everything submitted so far is done. Never blocks.
    fn query(&self, py: Python<'_>) -> PyResult<bool> {
        py.detach(|| self.stream.query()).map_err(to_py)
    }

    /// Block until everything submitted so far is done.
    ///
    /// After ``timeout`` seconds it raises TimeoutError, which says what it waited for. Other
    /// threads keep running meanwhile, and Ctrl-C ends the wait. Raises RuntimeError if the stream
    /// failed.
    #[pyo3(signature = (timeout = None))]
    fn synchronize(&self, py: Python<'_>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        synchronize(py, &self.stream, limit(timeout)?)
    }

    /// The failure that sticks to the stream, in words; None while there is none.
    #[getter]
    fn error(&self, py: Python<'_>) -> Option<String> {
        py.detach(|| self.stream.error())
            .map(|error| error.to_string())
    }

    /// Forget a failure: what is submitted from now on runs, and does not fail by waits from
    /// before. Events that failed stay failed.
    fn clear_error(&self, py: Python<'_>) -> PyResult<()> {
        py.detach(|| self.stream.clear_error()).map_err(to_py)
    }

    fn __eq__(&self, other: &Bound<'_, PyAny>) -> bool {
        other
            .cast::<PyStream>()
            .is_ok_and(|other| other.get().stream == self.stream)
    }

    fn __hash__(&self) -> u64 {
        self.stream.id()
    }

    fn __repr__(&self) -> String {
        format!("<fencepost.Stream: {}>", self.stream)
    }
}

/// Return a stream of another library as a ``fencepost.Stream``.
///
/// ``stream`` is a stream of PyTorch, CuPy, cuda.core or Numba, a queue of pyopencl, any object
/// with ``__cuda_stream__``, or an integer CUDA handle; by default the stream that is current for
/// events. The object is kept alive with the result. Whoever passes an integer keeps its stream
/// alive themselves.
#[pyfunction]
#[pyo3(signature = (stream = None))]
pub(crate) fn wrap_stream(py: Python<'_>, stream: Option<&Bound<'_, PyAny>>) -> PyResult<PyStream> {
    match stream {
        Some(object) => {
            let wrapped = stream_of(py, object, Parameter::new("wrap_stream", "stream"))?;
            Ok(PyStream::owned(wrapped, object.clone().unbind()))
        }
        None => current(py, None).map(|stream| PyStream::of((*stream).clone())),
    }
}
