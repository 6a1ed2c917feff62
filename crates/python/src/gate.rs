//! `fencepost.Gate`; and `fencepost._C._Gate`, which holds a stream back for this package's own
//! tests.

use std::time::Duration;

use fencepost::{Gate, bindings};
use pyo3::prelude::*;

use crate::{
    arguments::{Name, Parameter, current_to_hold, device_of, stream_of},
    error::{in_one_line, to_py},
    objects::PyDevice,
    place,
    wait::duration_of,
};

/// A point that the host opens, and that streams can be made to wait for before it is open.
///
/// ``device`` is a name, a ``fencepost.Device`` or a ``torch.device``; by default the best device
/// there is. ``limit`` is the number of seconds after the first wait at which a gate fails that is
/// not open yet; None is no limit. ``name`` is shown by errors and its ``repr``.
///
/// Any number of streams of the device may wait for it. The first of ``open()``, ``fail()``, the
/// limit and being dropped decides how it ends. If it fails, the streams go on and fail: on a GPU
/// the work queued behind the wait runs, on the host it never does.
///
/// As a context manager it opens at the end of the block, and fails if the block raises:
///
/// >>> import fencepost
/// >>> device = fencepost.Device("host")
/// >>> stream = device.stream()
/// >>> with fencepost.Gate(device) as gate:
/// ...     gate.wait(stream)
/// ...     stream.launch(lambda: print("once the gate is open"))
/// >>> stream.synchronize()
/// once the gate is open
///
/// While a CUDA stream is held, ``cudaFree``, loading a module (which the first launch of a kernel
/// may do), and a call that fills its queue (some 1,020 launches) wait for the gate; so does
/// synchronizing, and at times making a stream. Such a call in the block ends only when the limit
/// does.
#[pyclass(frozen, weakref, name = "Gate", module = "fencepost")]
pub(crate) struct PyGate(Gate);

#[pymethods]
impl PyGate {
    #[new]
    #[pyo3(
        signature = (device = None, *, limit = Some(Seconds(Duration::from_secs(10))), name = None),
        text_signature = "(device=None, *, limit=10.0, name=None)"
    )]
    fn new(
        py: Python<'_>,
        device: Option<&Bound<'_, PyAny>>,
        limit: Option<Seconds>,
        name: Option<Name>,
    ) -> PyResult<PyGate> {
        let limit = limit.map_or(Duration::MAX, |limit| limit.0);
        let device = device_of(py, device, Parameter::new("Gate", "device"))?;
        let at = place::of_caller(py);
        let gate = bindings::gate_at(&device, limit, at).map_err(to_py)?;
        gate.set_name(&name.map_or_else(String::new, |name| name.0));
        Ok(PyGate(gate))
    }

    /// Make later work of ``stream`` (by default as in ``Event.record``) run once the gate is open.
    ///
    /// Never waits for that. Does nothing if the gate is open. If it has failed, the stream fails.
    /// Raises RuntimeError for a stream of another device, and NotImplementedError on a CUDA stream
    /// that is being captured, where the device cannot hold a stream, and without a stream where
    /// PyTorch uses MPS. The stream is not held then.
    #[pyo3(signature = (stream = None))]
    fn wait(&self, py: Python<'_>, stream: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        let stream = match stream {
            Some(stream) => stream_of(py, stream, Parameter::new("wait", "stream"))?,
            None => (*current_to_hold(py, self.0.device(), "holding")?).clone(),
        };
        py.detach(|| self.0.wait(&stream)).map_err(to_py)
    }

    /// Open the gate: the streams that wait for it go on. Never blocks. Does nothing if it has
    /// ended.
    fn open(&self, py: Python<'_>) {
        py.detach(|| self.0.open());
    }

    /// Fail the gate for this reason: the streams that wait for it go on and fail. Never blocks.
    /// Does nothing if it has ended.
    fn fail(&self, py: Python<'_>, cause: &str) {
        py.detach(|| self.0.fail(cause));
    }

    /// Whether it is open. False while it is closed, and if it has failed.
    #[getter]
    fn is_open(&self) -> bool {
        self.0.is_open()
    }

    /// The device whose streams may wait for it.
    #[getter]
    fn device(&self) -> PyDevice {
        PyDevice::of(self.0.device().clone())
    }

    /// Its name, which errors and its ``repr`` show; None while it has none. May be set.
    #[getter]
    fn name(&self) -> Option<String> {
        self.0.name()
    }

    #[setter]
    fn set_name(&self, name: Option<Name>) {
        self.0
            .set_name(&name.map_or_else(String::new, |name| name.0));
    }

    fn __enter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    #[pyo3(signature = (kind, exception, traceback, /))]
    fn __exit__(
        &self,
        py: Python<'_>,
        kind: &Bound<'_, PyAny>,
        exception: &Bound<'_, PyAny>,
        traceback: &Bound<'_, PyAny>,
    ) -> bool {
        let _ = (kind, traceback);
        if exception.is_none() {
            self.open(py);
        } else {
            let raised = PyErr::from_value(exception.clone());
            self.fail(py, &in_one_line(py, &raised));
        }
        false
    }

    fn __repr__(&self) -> String {
        let state = bindings::gate_state(&self.0).to_lowercase();
        format!("<fencepost.Gate: {}, {state}>", self.0)
    }
}

/// What the argument `limit` means.
struct Seconds(Duration);

impl FromPyObject<'_, '_> for Seconds {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, '_, PyAny>) -> PyResult<Seconds> {
        const EXPECTED: &str = "Gate() argument 'limit': expected a number of seconds of at least \
                                0, or None for no limit";
        let given = duration_of(&object, EXPECTED)?;
        Ok(Seconds(given.unwrap_or(Duration::MAX)))
    }
}

/// Holds back what is submitted to a stream, for tests.
#[cfg(feature = "testing")]
mod testing {
    use std::sync::{Mutex, PoisonError};

    use fencepost::testing::work::{self, Gate};
    use pyo3::prelude::*;

    use crate::{
        arguments::{Parameter, stream_of},
        error::to_py,
        place,
    };

    /// Hold back what is submitted to ``stream`` from now on, until ``open()`` is called or the
    /// gate is dropped: for tests.
    #[pyclass(frozen, name = "_Gate", module = "fencepost")]
    pub(crate) struct TestGate(Mutex<Option<Gate>>);

    #[pymethods]
    impl TestGate {
        #[new]
        fn new(py: Python<'_>, stream: &Bound<'_, PyAny>) -> PyResult<TestGate> {
            let stream = stream_of(py, stream, Parameter::new("_Gate", "stream"))?;
            let at = place::of_record(py);
            let gate = py.detach(|| work::gate_at(&stream, at)).map_err(to_py)?;
            Ok(TestGate(Mutex::new(Some(gate))))
        }

        /// Open the gate: the stream continues.
        fn open(&self, py: Python<'_>) {
            let gate = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
            py.detach(|| drop(gate));
        }
    }
}
#[cfg(feature = "testing")]
pub(crate) use testing::TestGate;
