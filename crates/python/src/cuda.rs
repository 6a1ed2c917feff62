//! The methods of `fencepost.cuda.Event`.

use std::{any::Any, borrow::Cow, sync::Arc};

use fencepost::{Backend, Error, Stream};
use pyo3::{
    exceptions::{PyRuntimeError, PyTypeError},
    intern,
    prelude::*,
    types::{IntoPyDict, PyBytes},
};

use crate::{
    arguments::{Name, Parameter, Switch, core_of, cuda_device_of, event_handle, with_stream},
    awaiting,
    core::Core,
    cuda_class::cuda_event,
    cuda_streams::{current, index_of, with_current},
    elapsed::elapsed_now,
    error::{CallResult, to_py},
    interprocess,
    like::like_of,
    objects::{CudaEvent, PyDevice, PyMarker, Reusable},
    raised::call_back,
    raw::Flags,
    torch::loaded,
    wait::limit,
};

impl CudaEvent {
    #[inline]
    fn record_on(&self, py: Python<'_>, stream: &Stream) -> CallResult {
        // The first record binds the event to a device, which must be one of CUDA.
        if self.core.device().is_none() && stream.device().backend() != Backend::Cuda {
            return Err(no_cuda_stream(stream).into());
        }
        self.core
            .record(py, stream)
            .map_err(|error| record_error(&self.core, stream, *error).into())
    }

    #[inline]
    pub(crate) fn record_now(
        &self,
        py: Python<'_>,
        stream: Option<&Bound<'_, PyAny>>,
    ) -> CallResult {
        match stream {
            Some(stream) => {
                let parameter = Parameter::new("record", "stream");
                with_stream(py, stream, parameter, |stream| self.record_on(py, stream))
            }
            None => with_current(py, |stream| self.record_on(py, stream)),
        }
    }

    #[inline]
    pub(crate) fn wait_now(&self, py: Python<'_>, stream: Option<&Bound<'_, PyAny>>) -> CallResult {
        match stream {
            Some(stream) => {
                let parameter = Parameter::new("wait", "stream");
                with_stream(py, stream, parameter, |stream| {
                    Ok(self.core.wait(py, stream)?)
                })
            }
            None => with_current(py, |stream| Ok(self.core.wait(py, stream)?)),
        }
    }
}

/// PyTorch's text for a stream of another device, for what is one.
#[cold]
fn record_error(core: &Core, stream: &Stream, error: Error) -> PyErr {
    if let Error::DeviceMismatch { .. } = error
        && let Some(mine) = core.device().and_then(index_of)
        && let Some(other) = index_of(stream.device())
    {
        return PyRuntimeError::new_err(format!(
            "Event device {mine} does not match recording stream's device {other}; make an event \
             for each device"
        ));
    }
    to_py(error)
}

#[cold]
fn no_cuda_stream(stream: &Stream) -> PyErr {
    PyTypeError::new_err(format!(
        "record(): expected a CUDA stream; got {stream}: record it with fencepost.Event"
    ))
}

#[pymethods]
impl CudaEvent {
    #[new]
    #[pyo3(
        signature = (
            enable_timing = Switch(false), blocking = Switch(false), interprocess = Switch(false),
            external = Switch(false)
        ),
        text_signature =
            "(enable_timing=False, blocking=False, interprocess=False, external=False)"
    )]
    fn new(
        enable_timing: Switch,
        blocking: Switch,
        interprocess: Switch,
        external: Switch,
    ) -> PyResult<CudaEvent> {
        let flags = Flags {
            timing: enable_timing.0,
            blocking: blocking.0,
            interprocess: interprocess.0,
            external: external.0,
        };
        Ok(CudaEvent {
            core: Reusable::new(Core::new(flags.check()?)),
        })
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

    /// Open the event that another process exported by ``ipc_handle()``. It works while that
    /// process keeps its own event.
    #[staticmethod]
    fn from_ipc_handle(
        py: Python<'_>,
        device: &Bound<'_, PyAny>,
        handle: &Bound<'_, PyBytes>,
    ) -> PyResult<Py<PyAny>> {
        let (_, opened) = interprocess::open(py, device, handle)?;
        let flags = [(intern!(py, "interprocess"), true)].into_py_dict(py)?;
        let event = cuda_event(py)?.call((), Some(&flags))?;
        event.cast::<CudaEvent>()?.get().core.adopt(opened);
        Ok(event.unbind())
    }

    /// Take a ``CUevent`` that another library has made: ``handle`` is its address, or an object
    /// that holds one, such as ``cuda_event`` of PyTorch's events, ``ptr`` of CuPy's and ``handle``
    /// of cuda.core's and Numba's.
    ///
    /// It is that one native event for life: whoever records it, each query asks the driver, and
    /// nothing here destroys it. It must be alive, be of ``device``'s primary context, and have
    /// timing if ``enable_timing`` says so; the driver checks none of that. ``owner`` is kept as
    /// long as the event is in use here, so pass the other library's object; without it, keep that
    /// yourself. Before its first record it counts as complete.
    ///
    /// Raises ValueError for what is no handle, and for a device that is none of CUDA.
    #[staticmethod]
    #[pyo3(signature = (device, handle, *, enable_timing = false, owner = None))]
    fn from_handle(
        py: Python<'_>,
        device: &Bound<'_, PyAny>,
        handle: &Bound<'_, PyAny>,
        enable_timing: bool,
        owner: Option<Py<PyAny>>,
    ) -> PyResult<Py<PyAny>> {
        let device = cuda_device_of(py, device, Parameter::new("from_handle", "device"))?;
        let handle = event_handle(handle, Parameter::new("from_handle", "handle"))?;
        let owner: Arc<dyn Any + Send + Sync> = match owner {
            Some(owner) => Arc::new(owner),
            None => Arc::new(()),
        };
        let flags = Flags::with_timing(enable_timing);
        // SAFETY: whoever passes a handle promises what the documentation asks for.
        let taken = unsafe { Core::of_handle(&device, handle, flags, owner) }.map_err(to_py)?;
        let flags = [(intern!(py, "enable_timing"), enable_timing)].into_py_dict(py)?;
        let event = cuda_event(py)?.call((), Some(&flags))?;
        event.cast::<CudaEvent>()?.get().core.adopt(taken);
        Ok(event.unbind())
    }

    /// Return the bytes by which another process opens it. Only with ``interprocess=True``.
    ///
    /// This binds an event that was never recorded to the current device.
    fn ipc_handle(&self, py: Python<'_>) -> PyResult<Cow<'static, [u8]>> {
        match self.core.device() {
            Some(device) => interprocess::export(py, &self.core, device),
            None => interprocess::export(py, &self.core, current(py, None)?.device()),
        }
    }

    /// Mark the point behind everything submitted to ``stream`` so far, and hold it from now on.
    ///
    /// Never waits for the device, with one exception of the driver's: with some 1,020 timed
    /// records pending on one stream, CUDA itself blocks until some complete. Other Python threads
    /// keep running meanwhile.
    ///
    /// ``like`` is a tensor in place of a stream: it means the stream that the tensor's framework
    /// works on now, on the tensor's device. Raises RuntimeError where no framework tells that.
    #[pyo3(signature = (stream = None, *, like = None))]
    fn record(
        &self,
        py: Python<'_>,
        stream: Option<&Bound<'_, PyAny>>,
        like: Option<&Bound<'_, PyAny>>,
    ) -> CallResult {
        match like_of("record", stream, like)? {
            None => self.record_now(py, stream),
            Some(like) => self.record_on(py, &*like.cuda()?),
        }
    }

    /// Make later work of ``stream`` run after what this event holds now.
    ///
    /// Never blocks the calling thread, whatever ``blocking`` says. Does nothing if the event was
    /// never recorded or is complete.
    /// ``like`` is as in ``record``.
    #[pyo3(signature = (stream = None, *, like = None))]
    fn wait(
        &self,
        py: Python<'_>,
        stream: Option<&Bound<'_, PyAny>>,
        like: Option<&Bound<'_, PyAny>>,
    ) -> CallResult {
        match like_of("wait", stream, like)? {
            None => self.wait_now(py, stream),
            Some(like) => Ok(self.core.wait(py, &*like.cuda()?)?),
        }
    }

    /// Return whether what it holds is complete; True before the first record. Never blocks.
    #[inline]
    pub(crate) fn query(&self, py: Python<'_>) -> CallResult<bool> {
        Ok(self.core.query(py)?)
    }

    /// Block until what it holds is complete. Returns at once before the first record.
    ///
    /// After ``timeout`` seconds, an argument that PyTorch's lacks, it raises TimeoutError, which
    /// says what it waited for. Other threads keep running meanwhile, and Ctrl-C ends the wait.
    #[pyo3(signature = (timeout = None))]
    fn synchronize(&self, py: Python<'_>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        self.core.synchronize(py, limit(timeout)?)
    }

    /// Return the milliseconds from this event to ``end_event`` on the GPU's clock; negative if the
    /// end came first.
    ///
    /// Raises, checked in this order as in PyTorch: ValueError if either has no timing or was never
    /// recorded, RuntimeError for events of two devices and while either is incomplete.
    #[inline]
    pub(crate) fn elapsed_time(
        &self,
        py: Python<'_>,
        end_event: &Bound<'_, PyAny>,
    ) -> PyResult<f64> {
        let end = core_of(end_event, Parameter::new("elapsed_time", "end_event"))?;
        elapsed_now(py, &self.core, end).map_err(to_py)
    }

    /// Return ``"unrecorded"``, ``"pending"`` or ``"complete"``. Never blocks.
    ///
    /// Raises RuntimeError if the stream or the device has failed.
    fn status(&self, py: Python<'_>) -> PyResult<&'static str> {
        self.core.status(py).map_err(to_py)
    }

    /// Call ``callback(error)`` once what it holds now is complete, with None, or has failed, with
    /// the exception.
    ///
    /// The callback runs on a thread of the library, with the GIL, one at a time for each device.
    /// An exception in it goes to ``sys.unraisablehook``. One that is pending at exit never runs.
    fn on_complete(&self, py: Python<'_>, callback: Py<PyAny>) -> PyResult<()> {
        let callback = call_back(py, callback)?;
        self.core.on_complete(py, callback).map_err(to_py)
    }

    /// As ``wait``, also where this event is pending on a device of another API.
    ///
    /// On a GPU that stalls the hardware queue, and every stream that shares it, until the host has
    /// seen the event complete.
    fn wait_foreign(&self, py: Python<'_>, stream: &Bound<'_, PyAny>) -> CallResult {
        let parameter = Parameter::new("wait_foreign", "stream");
        with_stream(py, stream, parameter, |stream| {
            Ok(self.core.wait_foreign(py, stream)?)
        })
    }

    /// Return the marker that it holds: that one recording, whatever is recorded later. None before
    /// the first record, and for an event that is bound to a native one.
    fn marker(&self, py: Python<'_>) -> Option<PyMarker> {
        self.core.marker(py).map(PyMarker)
    }

    /// Wait for what it holds when ``await`` is evaluated, in a running loop of asyncio or
    /// Trio. PyTorch's lacks this.
    fn __await__(slf: &Bound<'_, Self>) -> PyResult<Py<PyAny>> {
        awaiting::await_event(slf.as_any(), &slf.get().core)
    }

    /// The device of the first record, None before it. A torch.device where PyTorch is loaded.
    #[getter]
    fn device(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        let Some(device) = self.core.device() else {
            return Ok(None);
        };
        if let Some(torch) = loaded(py, "torch")?
            && index_of(device).is_some()
            && let Ok(class) = torch.getattr("device")
        {
            return Ok(Some(class.call1((device.name(),))?.unbind()));
        }
        let device = Bound::new(py, PyDevice::of(device.clone()))?;
        Ok(Some(device.into_any().unbind()))
    }

    /// The raw event (``CUevent``) as an integer; 0 before the first record.
    ///
    /// Its holder may record it too. So reading this attribute binds the object to that one raw
    /// event for life, and from then on each query asks the driver.
    #[getter]
    fn cuda_event(&self, py: Python<'_>) -> PyResult<usize> {
        self.core.handle(py)
    }

    /// The same as ``cuda_event``.
    #[getter]
    fn event_id(&self, py: Python<'_>) -> PyResult<usize> {
        self.core.handle(py)
    }

    /// The raw event, for functions called through ctypes.
    #[getter(_as_parameter_)]
    fn as_parameter(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let handle = self.core.handle(py)?;
        let ctypes = py.import(intern!(py, "ctypes"))?;
        Ok(ctypes.call_method1("c_void_p", (handle,))?.unbind())
    }

    fn __repr__(&self, py: Python<'_>) -> String {
        let device = match self.core.device() {
            Some(device) => format!(" of {device}"),
            None => String::new(),
        };
        // Programs look for the name of the class that this one stands in for.
        format!(
            "<fencepost.cuda.Event{}{device} (for torch.cuda.Event), {}>",
            self.core.shown_name(),
            self.core.state(py)
        )
    }

    fn __reduce__(slf: &Bound<'_, Self>) -> PyResult<Py<PyAny>> {
        let core = &slf.get().core;
        match core.device() {
            Some(device) => interprocess::reduce(slf.as_any(), core, device.name()),
            None => {
                let stream = current(slf.py(), None)?;
                interprocess::reduce(slf.as_any(), core, stream.device().name())
            }
        }
    }
}
