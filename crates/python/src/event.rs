//! `fencepost.Event`.

use fencepost::Device;
use pyo3::{exceptions::PyTypeError, prelude::*};

use crate::{
    awaiting,
    core::{Core, Flags},
    cuda::CudaEvent,
    current::{current_of, with_given},
    device::{PyDevice, device_of},
    error::{Done, to_py},
    mps::MpsEvent,
    torch_mps,
    wait::limit,
};

/// A device event: holds the point of a stream that it was last recorded at.
///
/// ``device`` is a name, a ``fencepost.Device`` or a ``torch.device``; without it, the best device
/// there is. ``enable_timing`` lets times be taken between two such events. ``blocking`` lets
/// waiting threads sleep at once where they would else ask the GPU for some milliseconds first.
/// ``interprocess`` (CUDA on Linux) lets other processes share it.
///
/// An event that was never recorded counts as complete. Recording again never disturbs waits
/// already made. Any number of threads may use one event. Dropping it never blocks, pending or not.
#[pyclass(frozen, subclass, name = "Event", module = "fencepost")]
pub(crate) struct PyEvent {
    device: Device,
    core: Core,
}

impl PyEvent {
    /// An event of `device` without timing.
    pub(crate) fn on(device: Device) -> PyEvent {
        PyEvent::with(device, Flags::default())
    }

    fn with(device: Device, flags: Flags) -> PyEvent {
        PyEvent {
            core: Core::on(&device, flags),
            device,
        }
    }
}

/// The parts of any event class of this package.
pub(crate) fn core_of<'a>(object: &'a Bound<'_, PyAny>) -> PyResult<&'a Core> {
    if let Ok(event) = object.cast::<PyEvent>() {
        return Ok(&event.get().core);
    }
    if let Ok(event) = object.cast::<CudaEvent>() {
        return Ok(&event.get().core);
    }
    if let Ok(event) = object.cast::<MpsEvent>() {
        return Ok(&event.get().core);
    }
    Err(PyTypeError::new_err(format!(
        "expected an event of fencepost; got {}",
        object.get_type().name()?
    )))
}

#[pymethods]
impl PyEvent {
    #[new]
    #[pyo3(signature = (device = None, *, enable_timing = false, blocking = false, interprocess = false))]
    fn new(
        py: Python<'_>,
        device: Option<&Bound<'_, PyAny>>,
        enable_timing: bool,
        blocking: bool,
        interprocess: bool,
    ) -> PyResult<PyEvent> {
        let flags = Flags {
            timing: enable_timing,
            blocking,
            interprocess,
            external: false,
        };
        Ok(PyEvent::with(device_of(py, device)?, flags.check()?))
    }

    /// Opens the event that another process exported by ``ipc_handle()``.
    #[staticmethod]
    fn from_ipc_handle(
        py: Python<'_>,
        device: &Bound<'_, PyAny>,
        handle: &Bound<'_, pyo3::types::PyBytes>,
    ) -> PyResult<PyEvent> {
        let core = crate::cuda::open(py, device, handle)?;
        let device = core
            .device()
            .cloned()
            .map_or_else(|| device_of(py, Some(device)), Ok)?;
        Ok(PyEvent { device, core })
    }

    /// The bytes by which another process opens it; only with ``interprocess=True``.
    fn ipc_handle(&self, py: Python<'_>) -> PyResult<std::borrow::Cow<'static, [u8]>> {
        crate::cuda::export(py, &self.core, &self.device)
    }

    /// Marks the point behind everything submitted to ``stream`` so far, and holds it from now on.
    ///
    /// Without a stream it is the default stream of the device; where PyTorch is loaded and uses
    /// the device, PyTorch's current stream, on CUDA, and its MPS stream, on a Mac. Never waits for
    /// the device. Raises RuntimeError for a stream of another device; the event then holds what it
    /// held before.
    #[pyo3(signature = (stream = None))]
    #[inline]
    pub(crate) fn record(&self, py: Python<'_>, stream: Option<&Bound<'_, PyAny>>) -> Done {
        match stream {
            Some(stream) => with_given(py, stream, |stream| Ok(self.core.record(py, stream)?)),
            None => match torch_mps::in_use_on(py, &self.device)? {
                Some(torch) => Ok(torch.record(py, &self.core)?),
                None => {
                    let stream = current_of(py, &self.device)?;
                    Ok(self.core.record(py, &stream)?)
                }
            },
        }
    }

    /// Makes later work of ``stream`` (as in ``record``) run after what this event holds now.
    ///
    /// The calling thread never blocks. Nothing happens when the event was never recorded or is
    /// complete.
    #[pyo3(signature = (stream = None))]
    #[inline]
    pub(crate) fn wait(&self, py: Python<'_>, stream: Option<&Bound<'_, PyAny>>) -> Done {
        match stream {
            Some(stream) => with_given(py, stream, |stream| Ok(self.core.wait(py, stream)?)),
            None => match torch_mps::in_use_on(py, &self.device)? {
                Some(torch) => Ok(torch.wait(py, &self.core)?),
                None => {
                    let stream = current_of(py, &self.device)?;
                    Ok(self.core.wait(py, &stream)?)
                }
            },
        }
    }

    /// Whether what it holds is complete; True before the first record. Never blocks.
    ///
    /// A failure of the stream or device is a RuntimeError, never False.
    fn query(&self, py: Python<'_>) -> Done<bool> {
        Ok(self.core.query(py)?)
    }

    /// Blocks until what it holds is complete; returns at once before the first record.
    ///
    /// With a ``timeout`` in seconds it gives up with a TimeoutError that says what it waited for
    /// and how far that stream has come. Other threads go on meanwhile, and Ctrl-C ends the wait.
    #[pyo3(signature = (timeout = None))]
    fn synchronize(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<()> {
        self.core.synchronize(py, limit(timeout)?)
    }

    /// The milliseconds from this event to ``end_event`` on the device's clock. Waits for both.
    ///
    /// Negative when the end came first. May be called again, and with the events in other pairs.
    /// Raises ValueError without timing or before the first record, RuntimeError for events of two
    /// devices.
    #[pyo3(signature = (end_event, timeout = None))]
    fn elapsed_time(
        &self,
        py: Python<'_>,
        end_event: &Bound<'_, PyAny>,
        timeout: Option<f64>,
    ) -> PyResult<f64> {
        let end = core_of(end_event)?;
        self.core.elapsed_after(py, end, limit(timeout)?, to_py)
    }

    /// ``end - start``: the milliseconds between them, as ``start.elapsed_time(end)``.
    fn __sub__(&self, py: Python<'_>, start: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        match core_of(start) {
            Ok(start) => {
                let millis = start.elapsed_after(py, &self.core, None, to_py)?;
                Ok(millis.into_pyobject(py)?.into_any().unbind())
            }
            Err(_) => Ok(py.NotImplemented()),
        }
    }

    /// Waits for what it holds when ``await`` is written, in a running asyncio loop.
    fn __await__(slf: &Bound<'_, Self>) -> PyResult<Py<PyAny>> {
        awaiting::await_event(slf.as_any(), &slf.get().core)
    }

    /// The device it belongs to.
    #[getter]
    fn device(&self) -> PyDevice {
        PyDevice::of(self.device.clone())
    }

    /// Whether times can be taken between it and another such event.
    #[getter]
    fn enable_timing(&self) -> bool {
        self.core.flags.timing
    }

    fn __repr__(&self) -> String {
        let timing = match self.core.flags.timing {
            true => ", with timing",
            false => "",
        };
        format!(
            "<fencepost.Event of {}{timing}, {}>",
            self.device,
            self.core.state()
        )
    }

    fn __reduce__(slf: &Bound<'_, Self>) -> PyResult<Py<PyAny>> {
        let event = slf.get();
        crate::cuda::reduce(slf.as_any(), &event.core, event.device.name())
    }
}

impl Drop for PyEvent {
    fn drop(&mut self) {
        self.core.release();
    }
}
