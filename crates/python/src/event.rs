//! The methods of `fencepost.Event`.

use std::borrow::Cow;

use fencepost::{Backend, Error, Stream};
use pyo3::{prelude::*, types::PyBytes};

use crate::{
    arguments::{Name, Parameter, core_of, device_of, with_stream},
    awaiting,
    cuda_streams::current_of,
    elapsed::{elapsed_after, uncertainty_now},
    error::{CallResult, cuda_only, to_py},
    interprocess,
    like::{Like, like_of},
    mps::torch_streams::{self, TorchStream},
    objects::{PyDevice, PyEvent, PyMarker},
    raised::call_back,
    raw::Flags,
    wait::{Limit, limit},
};

impl PyEvent {
    /// Calls `ours` with the stream that a call means, or `torch` if that is PyTorch's MPS stream.
    #[inline]
    fn on_stream(
        &self,
        py: Python<'_>,
        stream: Option<&Bound<'_, PyAny>>,
        call: &'static str,
        ours: impl Fn(&Stream) -> Result<(), Box<Error>>,
        torch: impl FnOnce(&TorchStream) -> PyResult<()>,
    ) -> CallResult {
        match stream {
            Some(stream) => {
                if let Some(stream) = torch_streams::given_on(py, &self.device, stream)? {
                    return Ok(torch(stream)?);
                }
                let parameter = Parameter::new(call, "stream");
                with_stream(py, stream, parameter, |stream| Ok(ours(stream)?))
            }
            None => match torch_streams::in_use_on(py, &self.device)? {
                Some(stream) => Ok(torch(stream)?),
                None => Ok(ours(&*current_of(py, &self.device)?)?),
            },
        }
    }

    #[inline]
    pub(crate) fn record_now(
        &self,
        py: Python<'_>,
        stream: Option<&Bound<'_, PyAny>>,
    ) -> CallResult {
        self.on_stream(
            py,
            stream,
            "record",
            |stream| self.core.record(py, stream),
            |torch| torch.record(py, &self.core),
        )
    }

    #[inline]
    pub(crate) fn wait_now(&self, py: Python<'_>, stream: Option<&Bound<'_, PyAny>>) -> CallResult {
        self.on_stream(
            py,
            stream,
            "wait",
            |stream| self.core.wait(py, stream),
            |torch| torch.wait(py, &self.core),
        )
    }
}

#[pymethods]
impl PyEvent {
    #[new]
    #[pyo3(signature = (
        device = None, *, enable_timing = false, blocking = false, interprocess = false, name = None
    ))]
    fn new(
        py: Python<'_>,
        device: Option<&Bound<'_, PyAny>>,
        enable_timing: bool,
        blocking: bool,
        interprocess: bool,
        name: Option<Name>,
    ) -> PyResult<PyEvent> {
        let flags = Flags {
            timing: enable_timing,
            blocking,
            interprocess,
            external: false,
        };
        let device = device_of(py, device, Parameter::new("Event", "device"))?;
        if interprocess && device.backend() != Backend::Cuda {
            let what = "an event for other processes";
            return Err(to_py(cuda_only(what, &device)));
        }
        let event = PyEvent::on(device, flags.check()?);
        event.core.set_name(name.map(|name| name.0));
        Ok(event)
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

    /// Open the event that another process exported by ``ipc_handle()``.
    #[staticmethod]
    fn from_ipc_handle(
        py: Python<'_>,
        device: &Bound<'_, PyAny>,
        handle: &Bound<'_, PyBytes>,
    ) -> PyResult<PyEvent> {
        let (device, core) = interprocess::open(py, device, handle)?;
        Ok(PyEvent { device, core })
    }

    /// Return the bytes by which another process opens it. Only with ``interprocess=True``.
    fn ipc_handle(&self, py: Python<'_>) -> PyResult<Cow<'static, [u8]>> {
        interprocess::export(py, &self.core, &self.device)
    }

    /// Mark the point behind everything submitted to ``stream`` so far, and hold it from now on.
    ///
    /// The default is the device's default stream. Where PyTorch is loaded and uses the device, it
    /// is PyTorch's current stream. Never waits for the device. Raises RuntimeError for a stream of
    /// another device; the event then holds what it held before.
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
            Some(Like::Stream(stream)) => Ok(self.core.record(py, &stream)?),
            Some(Like::Torch(torch)) => Ok(torch.record(py, &self.core)?),
        }
    }

    /// Make later work of ``stream`` run after what this event holds now. The default, and
    /// ``like``, are as in ``record``.
    ///
    /// Never blocks the calling thread. Does nothing if the event was never recorded or is
    /// complete.
    #[pyo3(signature = (stream = None, *, like = None))]
    fn wait(
        &self,
        py: Python<'_>,
        stream: Option<&Bound<'_, PyAny>>,
        like: Option<&Bound<'_, PyAny>>,
    ) -> CallResult {
        match like_of("wait", stream, like)? {
            None => self.wait_now(py, stream),
            Some(Like::Stream(stream)) => Ok(self.core.wait(py, &stream)?),
            Some(Like::Torch(torch)) => Ok(torch.wait(py, &self.core)?),
        }
    }

    /// Return whether what it holds is complete; True before the first record. Never blocks.
    ///
    /// Raises RuntimeError, never returns False, if the stream or the device has failed.
    fn query(&self, py: Python<'_>) -> CallResult<bool> {
        Ok(self.core.query(py)?)
    }

    /// Block until what it holds is complete. Returns at once before the first record.
    ///
    /// After ``timeout`` seconds it raises TimeoutError, which says what it waited for and how far
    /// that stream has come. Other threads keep running meanwhile, and Ctrl-C ends the wait.
    #[pyo3(signature = (timeout = None))]
    fn synchronize(&self, py: Python<'_>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        self.core.synchronize(py, limit(timeout)?)
    }

    /// Return the milliseconds from this event to ``end_event`` on the device's clock. Waits for
    /// both.
    ///
    /// Negative if the end came first. It may be called again, and with the events in other pairs.
    /// Raises ValueError without timing or before the first record, RuntimeError for events of two
    /// devices.
    #[pyo3(signature = (end_event, timeout = None))]
    fn elapsed_time(
        &self,
        py: Python<'_>,
        end_event: &Bound<'_, PyAny>,
        timeout: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<f64> {
        let end = core_of(end_event, Parameter::new("elapsed_time", "end_event"))?;
        elapsed_after(py, &self.core, end, limit(timeout)?, to_py)
    }

    /// Return by how many milliseconds ``elapsed_time(end_event)`` may be off: the clock's
    /// resolution, and what the driver's rounding lost. ``Device.keep_time()`` keeps it small.
    ///
    /// Never waits: raises RuntimeError while either event is pending, and else what
    /// ``elapsed_time`` raises.
    fn uncertainty(&self, py: Python<'_>, end_event: &Bound<'_, PyAny>) -> PyResult<f64> {
        let end = core_of(end_event, Parameter::new("uncertainty", "end_event"))?;
        uncertainty_now(py, &self.core, end).map_err(to_py)
    }

    /// Return ``start.elapsed_time(end)`` for ``end - start``: the milliseconds between them.
    fn __sub__(&self, py: Python<'_>, start: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        match core_of(start, Parameter::new("__sub__", "start")) {
            Ok(start) => {
                let millis = elapsed_after(py, start, &self.core, Limit::never(), to_py)?;
                Ok(millis.into_pyobject(py)?.into_any().unbind())
            }
            Err(_) => Ok(py.NotImplemented()),
        }
    }

    /// Return ``self.elapsed_time(end)`` for ``end - self``, where ``end`` is of another class.
    fn __rsub__(&self, py: Python<'_>, end: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        match core_of(end, Parameter::new("__rsub__", "end")) {
            Ok(end) => {
                let millis = elapsed_after(py, &self.core, end, Limit::never(), to_py)?;
                Ok(millis.into_pyobject(py)?.into_any().unbind())
            }
            Err(_) => Ok(py.NotImplemented()),
        }
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
    /// Futures of asyncio call this ``add_done_callback``, and pass the future.
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
    /// Trio.
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

    fn __repr__(&self, py: Python<'_>) -> String {
        let timing = match self.core.flags.timing {
            true => ", with timing",
            false => "",
        };
        format!(
            "<fencepost.Event{} of {}{timing}, {}>",
            self.core.shown_name(),
            self.device,
            self.core.state(py)
        )
    }

    fn __reduce__(slf: &Bound<'_, Self>) -> PyResult<Py<PyAny>> {
        let event = slf.get();
        interprocess::reduce(slf.as_any(), &event.core, event.device.name())
    }
}
