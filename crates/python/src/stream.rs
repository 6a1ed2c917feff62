//! `fencepost.Stream`.

use std::panic::resume_unwind;

use fencepost::{Stream, cuda};
use pyo3::{
    exceptions::{PyAttributeError, PyTypeError},
    prelude::*,
};

use crate::{
    device::{PyDevice, device_of},
    error::{in_one_line, to_py},
    event::PyEvent,
    exit::with_python,
    wait::{How, in_work, limit, wait},
};

/// An in-order queue of a device. ``Stream(device)`` is a new one; ``Stream()`` is one of the best
/// device.
///
/// What is submitted takes effect in order: work, records and waits. Streams of GPUs run no Python;
/// submit kernels with the library you use, on the handle ``cuda_stream``. Objects of this class go
/// wherever a library takes an object with ``__cuda_stream__``.
#[pyclass(frozen, name = "Stream", module = "fencepost")]
pub(crate) struct PyStream {
    pub(crate) stream: Stream,
    /// Whose stream it is, where it is not ours: kept alive with this.
    #[allow(dead_code)]
    owner: Option<Py<PyAny>>,
}

impl PyStream {
    pub(crate) fn of(stream: Stream) -> PyStream {
        PyStream {
            stream,
            owner: None,
        }
    }

    pub(crate) fn owned(stream: Stream, owner: Py<PyAny>) -> PyStream {
        PyStream {
            stream,
            owner: Some(owner),
        }
    }

    fn raw(&self) -> PyResult<usize> {
        match cuda::raw_stream(&self.stream) {
            Some(handle) => Ok(handle as usize),
            None => Err(PyAttributeError::new_err(format!(
                "{} is no stream of CUDA and has no CUDA handle",
                self.stream
            ))),
        }
    }
}

#[pymethods]
impl PyStream {
    #[new]
    #[pyo3(signature = (device = None))]
    fn new(py: Python<'_>, device: Option<&Bound<'_, PyAny>>) -> PyResult<PyStream> {
        let device = device_of(py, device)?;
        let stream = py.detach(|| device.new_stream()).map_err(to_py)?;
        Ok(PyStream::of(stream))
    }

    /// The device it belongs to.
    #[getter]
    fn device(&self) -> PyDevice {
        PyDevice::of(self.stream.device().clone())
    }

    /// A number that names it while the process lives; never used again.
    #[getter]
    fn id(&self) -> u64 {
        self.stream.id()
    }

    /// Its CUDA handle, as an integer, for submitting work to it; AttributeError on streams of
    /// other APIs.
    #[getter]
    fn cuda_stream(&self) -> PyResult<usize> {
        self.raw()
    }

    /// What libraries that know CUDA's stream protocol ask: its version and the handle.
    fn __cuda_stream__(&self) -> PyResult<(u32, usize)> {
        Ok((0, self.raw()?))
    }

    /// Runs ``work()`` on this stream, behind everything submitted before: host streams only.
    ///
    /// Returns at once; ``work`` runs on a thread of the library, which takes the interpreter's
    /// lock for it. Its result is dropped. An exception in it fails the stream: what is recorded
    /// later has failed too, and every error tells that exception, until ``clear_error()``.
    ///
    /// Raises NotImplementedError on a GPU's stream, RuntimeError when the stream has failed.
    fn launch(&self, py: Python<'_>, work: Py<PyAny>) -> PyResult<()> {
        if !work.bind(py).is_callable() {
            let got = work.bind(py).get_type();
            return Err(PyTypeError::new_err(format!(
                "launch() takes something to call; got {}",
                got.name()?
            )));
        }
        let work = move || {
            let ran = in_work(|| {
                with_python(|py| {
                    // Dropped in here, with the interpreter.
                    let work = work;
                    work.call0(py)
                        .map(drop)
                        .map_err(|error| in_one_line(py, &error))
                })
            });
            let failure = match ran {
                Some(Ok(())) => return,
                Some(Err(text)) => text,
                None => "the interpreter ended before this work could run".into(),
            };
            // How host work fails; without the panic hook's word on stderr.
            resume_unwind(Box::new(failure));
        };
        py.detach(|| self.stream.launch(work)).map_err(to_py)
    }

    /// Records ``event``, or a new one without timing, and returns it.
    #[pyo3(signature = (event = None))]
    fn record_event(slf: &Bound<'_, Self>, event: Option<Bound<'_, PyAny>>) -> PyResult<Py<PyAny>> {
        let py = slf.py();
        let event = match event {
            Some(event) => event,
            None => {
                let device = slf.get().stream.device().clone();
                Bound::new(py, PyEvent::on(device))?.into_any()
            }
        };
        event.call_method1("record", (slf,))?;
        Ok(event.unbind())
    }

    /// Makes later work of this stream run after what ``event`` holds now. The calling thread never
    /// blocks.
    fn wait_event(slf: &Bound<'_, Self>, event: &Bound<'_, PyAny>) -> PyResult<()> {
        event.call_method1("wait", (slf,)).map(drop)
    }

    /// Makes later work of this stream run after everything submitted to ``stream`` so far.
    fn wait_stream(&self, py: Python<'_>, stream: &Bound<'_, PyAny>) -> PyResult<()> {
        let other = crate::current::given(py, stream)?;
        py.detach(|| {
            let marker = other.record()?;
            self.stream.wait(&marker)
        })
        .map_err(to_py)
    }

    /// Whether everything submitted so far is done. Never blocks on the device's work.
    fn query(&self, py: Python<'_>) -> PyResult<bool> {
        py.detach(|| self.stream.query()).map_err(to_py)
    }

    /// Blocks until everything submitted so far is done.
    ///
    /// With a ``timeout`` in seconds it gives up with a TimeoutError that says what it waited for.
    /// Other threads go on meanwhile, and Ctrl-C ends the wait. Raises RuntimeError when the stream
    /// failed.
    #[pyo3(signature = (timeout = None))]
    fn synchronize(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<()> {
        let limit = limit(timeout)?;
        let marker = py.detach(|| self.stream.record()).map_err(to_py)?;
        let backend = self.stream.device().backend();
        wait(py, &marker, backend, limit, How::Spin)
    }

    /// The failure that sticks to the stream, in words; None while there is none.
    #[getter]
    fn error(&self, py: Python<'_>) -> Option<String> {
        py.detach(|| self.stream.error())
            .map(|error| error.to_string())
    }

    /// Forgets a failure: what is submitted from now on runs. Events that failed stay failed.
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
