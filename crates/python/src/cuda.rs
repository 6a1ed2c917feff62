//! `fencepost.cuda.Event`: what `torch.cuda.Event` is, on any library's streams.

use std::borrow::Cow;

use fencepost::Device;
use pyo3::{
    exceptions::{PyRuntimeError, PyTypeError},
    intern,
    prelude::*,
    types::{IntoPyDict, PyBytes, PyTuple},
};

use crate::{
    awaiting, class,
    core::{Core, Flags},
    current::{Found, current, loaded, with_given},
    device::{PyDevice, cuda_device_of, cuda_index},
    error::{Done, to_py},
    event::core_of,
    wait::limit,
};

/// A CUDA event: a drop-in for ``torch.cuda.Event``, on the streams of any library.
///
/// ``enable_timing`` lets times be taken between two such events. ``blocking`` lets waiting threads
/// sleep at once where they would else ask the GPU for some milliseconds first. ``interprocess``
/// (Linux, without timing) lets other processes share it. ``external`` makes it a node of its own
/// in graphs that are captured.
///
/// Streams may be of PyTorch, CuPy, cuda.core, Numba or fencepost, anything with
/// ``__cuda_stream__``, or integer handles. Without a stream it is the current one: PyTorch's where
/// PyTorch is loaded and uses CUDA, else the default stream. Its device is that of the first stream
/// it is recorded on.
///
/// As in PyTorch, ``elapsed_time`` never waits: while either event is incomplete it is a
/// RuntimeError.
// The base of what users see (`class`).
#[pyclass(frozen, subclass, name = "Event", module = "fencepost.cuda")]
pub(crate) struct CudaEvent {
    pub(crate) core: Core,
}

impl CudaEvent {
    fn current(&self, py: Python<'_>) -> PyResult<Found> {
        current(py, None)
    }

    #[inline]
    fn record_on(&self, py: Python<'_>, stream: &fencepost::Stream) -> Done {
        if self.core.device().is_none() {
            only_cuda(stream)?;
        }
        self.core
            .record(py, stream)
            .map_err(|error| record_error(&self.core, stream, *error).into())
    }
}

/// What the drop-in says of a stream of another device, as PyTorch does.
#[cold]
fn record_error(core: &Core, stream: &fencepost::Stream, error: fencepost::Error) -> PyErr {
    if let fencepost::Error::DeviceMismatch { .. } = error
        && let Some(mine) = core.device().and_then(cuda_index)
        && let Some(other) = cuda_index(stream.device())
    {
        return PyRuntimeError::new_err(format!(
            "Event device {mine} does not match recording stream's device {other}; make an event for each \
             device"
        ));
    }
    to_py(error)
}

/// The first record binds the device, so it must not be one of another API.
#[inline]
fn only_cuda(stream: &fencepost::Stream) -> Done {
    match stream.device().backend() {
        fencepost::Backend::Cuda => Ok(()),
        _ => Err(no_cuda(stream).into()),
    }
}

#[cold]
fn no_cuda(stream: &fencepost::Stream) -> PyErr {
    PyTypeError::new_err(format!(
        "expected a CUDA stream; got {stream}: record it with fencepost.Event"
    ))
}

#[pymethods]
impl CudaEvent {
    #[new]
    #[pyo3(signature = (enable_timing = false, blocking = false, interprocess = false, external = false))]
    fn new(
        enable_timing: bool,
        blocking: bool,
        interprocess: bool,
        external: bool,
    ) -> PyResult<CudaEvent> {
        let flags = Flags {
            timing: enable_timing,
            blocking,
            interprocess,
            external,
        };
        Ok(CudaEvent {
            core: Core::new(flags.check()?),
        })
    }

    /// Opens the event that another process exported by ``ipc_handle()``. Good while that one keeps
    /// its own.
    #[staticmethod]
    fn from_ipc_handle(
        py: Python<'_>,
        device: &Bound<'_, PyAny>,
        handle: &Bound<'_, PyBytes>,
    ) -> PyResult<Py<PyAny>> {
        let opened = open(py, device, handle)?;
        let interprocess = [(intern!(py, "interprocess"), true)].into_py_dict(py)?;
        let event = class::cuda_event(py)?.call((), Some(&interprocess))?;
        event.cast::<CudaEvent>()?.get().core.adopt(opened);
        Ok(event.unbind())
    }

    /// The bytes by which another process opens it; only with ``interprocess=True``.
    ///
    /// An event that was never recorded is bound to the current device by this.
    fn ipc_handle(&self, py: Python<'_>) -> PyResult<Cow<'static, [u8]>> {
        match self.core.device() {
            Some(device) => export(py, &self.core, device),
            None => export(py, &self.core, self.current(py)?.device()),
        }
    }

    /// Marks the point behind everything submitted to ``stream`` so far, and holds it from now on.
    ///
    /// Never waits for the device, with the driver's one exception: when some 1,020 timed records
    /// are pending on one stream, CUDA itself blocks until some complete; other Python threads go
    /// on meanwhile.
    #[pyo3(signature = (stream = None))]
    #[inline]
    pub(crate) fn record(&self, py: Python<'_>, stream: Option<&Bound<'_, PyAny>>) -> Done {
        match stream {
            Some(stream) => with_given(py, stream, |stream| self.record_on(py, stream)),
            None => self.record_on(py, &*self.current(py)?),
        }
    }

    /// Makes later work of ``stream`` run after what this event holds now.
    ///
    /// The calling thread never blocks, whatever ``blocking`` says. Nothing happens when the event
    /// was never recorded or is complete.
    #[pyo3(signature = (stream = None))]
    #[inline]
    pub(crate) fn wait(&self, py: Python<'_>, stream: Option<&Bound<'_, PyAny>>) -> Done {
        match stream {
            Some(stream) => with_given(py, stream, |stream| Ok(self.core.wait(py, stream)?)),
            None => Ok(self.core.wait(py, &*self.current(py)?)?),
        }
    }

    /// Whether what it holds is complete; True before the first record. Never blocks.
    #[inline]
    pub(crate) fn query(&self, py: Python<'_>) -> Done<bool> {
        Ok(self.core.query(py)?)
    }

    /// Blocks until what it holds is complete; returns at once before the first record.
    ///
    /// With a ``timeout`` in seconds, which PyTorch's lacks, it gives up with a TimeoutError that
    /// says what it waited for. Other threads go on meanwhile, and Ctrl-C ends the wait.
    #[pyo3(signature = (timeout = None))]
    fn synchronize(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<()> {
        self.core.synchronize(py, limit(timeout)?)
    }

    /// The milliseconds from this event to ``end_event`` on the GPU's clock; negative when the end
    /// came first.
    ///
    /// Raises ValueError when either has no timing or was never recorded, RuntimeError while either
    /// is incomplete and for events of two devices: in this order, as PyTorch.
    fn elapsed_time(&self, py: Python<'_>, end_event: &Bound<'_, PyAny>) -> PyResult<f64> {
        let end = core_of(end_event)?;
        self.core.elapsed_now(py, end).map_err(to_py)
    }

    /// Waits for what it holds when ``await`` is written, in a running asyncio loop. PyTorch's
    /// lacks this.
    fn __await__(slf: &Bound<'_, Self>) -> PyResult<Py<PyAny>> {
        awaiting::await_event(slf.as_any(), &slf.get().core)
    }

    /// The device of the first record, None before it: a torch.device where PyTorch is loaded.
    #[getter]
    fn device(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        let Some(device) = self.core.device() else {
            return Ok(None);
        };
        if let Some(torch) = loaded(py, "torch")?
            && cuda_index(device).is_some()
            && let Ok(class) = torch.getattr("device")
        {
            return Ok(Some(class.call1((device.name(),))?.unbind()));
        }
        let device = Bound::new(py, PyDevice::of(device.clone()))?;
        Ok(Some(device.into_any().unbind()))
    }

    /// The native handle (``CUevent``) as an integer; 0 before the first record.
    ///
    /// Whoever has it may record it, so asking for it binds the object to that one native event for
    /// life, and has the driver asked on every query from then on.
    #[getter]
    fn cuda_event(&self, py: Python<'_>) -> PyResult<usize> {
        self.core.handle(py)
    }

    /// The same as ``cuda_event``.
    #[getter]
    fn event_id(&self, py: Python<'_>) -> PyResult<usize> {
        self.core.handle(py)
    }

    /// The handle for functions called through ctypes.
    #[getter(_as_parameter_)]
    fn as_parameter(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let handle = self.core.handle(py)?;
        let ctypes = py.import(intern!(py, "ctypes"))?;
        Ok(ctypes.call_method1("c_void_p", (handle,))?.unbind())
    }

    fn __repr__(slf: &Bound<'_, Self>) -> String {
        let core = &slf.get().core;
        let device = match core.device() {
            Some(device) => format!(" of {device}"),
            None => String::new(),
        };
        // Programs look for the name of the class that this one stands in for.
        format!(
            "<fencepost.cuda.Event{device} (for torch.cuda.Event), {}>",
            core.state()
        )
    }

    fn __reduce__(slf: &Bound<'_, Self>) -> PyResult<Py<PyAny>> {
        let event = slf.get();
        let device = match event.core.device() {
            Some(device) => device.name().to_owned(),
            None => event.current(slf.py())?.device().name().to_owned(),
        };
        reduce(slf.as_any(), &event.core, &device)
    }
}

impl Drop for CudaEvent {
    fn drop(&mut self) {
        self.core.release();
    }
}

/// The event that another process exported.
pub(crate) fn open(
    py: Python<'_>,
    device: &Bound<'_, PyAny>,
    handle: &Bound<'_, PyBytes>,
) -> PyResult<Core> {
    let device = cuda_device_of(py, device)?;
    let bytes: [u8; 64] = handle.as_bytes().try_into().map_err(|_| {
        pyo3::exceptions::PyValueError::new_err(format!(
            "an IPC handle has 64 bytes; got {}",
            handle.as_bytes().len()
        ))
    })?;
    let flags = Flags {
        interprocess: true,
        ..Flags::default()
    };
    py.detach(|| Core::open(&device, &bytes, flags))
        .map_err(to_py)
}

/// The bytes by which another process opens an event.
pub(crate) fn export(py: Python<'_>, core: &Core, device: &Device) -> PyResult<Cow<'static, [u8]>> {
    if !core.flags.interprocess {
        return Err(PyRuntimeError::new_err(
            "only an event made with interprocess=True has an IPC handle",
        ));
    }
    Ok(core.export(py, device)?.to_vec().into())
}

/// How an event goes to another process: by its handle.
pub(crate) fn reduce(event: &Bound<'_, PyAny>, core: &Core, device: &str) -> PyResult<Py<PyAny>> {
    let py = event.py();
    if !core.flags.interprocess {
        return Err(PyTypeError::new_err(
            "only an event made with interprocess=True can be pickled, and only on CUDA",
        ));
    }
    let handle = event.call_method0(intern!(py, "ipc_handle"))?;
    let rebuild = event.getattr(intern!(py, "from_ipc_handle"))?;
    let arguments = PyTuple::new(
        py,
        [pyo3::types::PyString::new(py, device).into_any(), handle],
    )?;
    Ok((rebuild, arguments).into_pyobject(py)?.into_any().unbind())
}
