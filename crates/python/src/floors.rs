//! The bare calls of CUDA's driver, made from Python: what `bench/torch_floors.py` shows beside the
//! calls of this package. For tests only.

use std::{
    ffi::{c_int, c_uint, c_void},
    hint::black_box,
    ptr::null_mut,
    time::Instant,
};

use pyo3::{
    exceptions::{PyRuntimeError, PyValueError},
    ffi,
    prelude::*,
    sync::PyOnceLock,
};

use crate::{
    fastcall::replace,
    torch::{TorchCuda, cuda_in_use},
};

type Handle = *mut c_void;

/// The functions that are measured, of
/// [events](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__EVENT.html),
/// [streams](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__STREAM.html) and
/// [contexts](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__CTX.html).
struct Driver {
    create: unsafe extern "C" fn(*mut Handle, c_uint) -> c_int,
    record: unsafe extern "C" fn(Handle, Handle) -> c_int,
    query: unsafe extern "C" fn(Handle) -> c_int,
    synchronize: unsafe extern "C" fn(Handle) -> c_int,
    elapsed: unsafe extern "C" fn(*mut f32, Handle, Handle) -> c_int,
    destroy: unsafe extern "C" fn(Handle) -> c_int,
    exchange_mode: unsafe extern "C" fn(*mut c_int) -> c_int,
    is_capturing: unsafe extern "C" fn(Handle, *mut c_int) -> c_int,
    context: unsafe extern "C" fn(*mut Handle) -> c_int,
    context_number: unsafe extern "C" fn(Handle, *mut u64) -> c_int,
}

const DISABLE_TIMING: c_uint = 2;
const NOT_READY: c_int = 600;
/// `CU_STREAM_CAPTURE_MODE_RELAXED`.
const RELAXED: c_int = 2;

impl Driver {
    fn load() -> Result<Driver, libloading::Error> {
        let named = std::env::var("FENCEPOST_CUDA_LIBRARY").ok();
        let named = named.filter(|name| !name.is_empty());
        let name = named.unwrap_or_else(|| "libcuda.so.1".into());
        // SAFETY: NVIDIA's driver, or the stand-in for it, which the package has loaded before.
        // Both have these functions, with these types. The library is never closed.
        unsafe {
            let library = Box::leak(Box::new(libloading::Library::new(name)?));
            Ok(Driver {
                create: *library.get(b"cuEventCreate")?,
                record: *library.get(b"cuEventRecord")?,
                query: *library.get(b"cuEventQuery")?,
                synchronize: *library.get(b"cuEventSynchronize")?,
                // Since CUDA 12.8, C's header means the newer function by this name.
                elapsed: *library
                    .get(b"cuEventElapsedTime_v2")
                    .or_else(|_| library.get(b"cuEventElapsedTime"))?,
                destroy: *library.get(b"cuEventDestroy_v2")?,
                exchange_mode: *library.get(b"cuThreadExchangeStreamCaptureMode")?,
                is_capturing: *library.get(b"cuStreamIsCapturing")?,
                context: *library.get(b"cuCtxGetCurrent")?,
                context_number: *library.get(b"cuCtxGetId")?,
            })
        }
    }

    fn event(&self, flags: c_uint) -> PyResult<Handle> {
        let mut event = null_mut();
        // SAFETY: writes a handle, if a context is current.
        check("cuEventCreate", unsafe {
            (self.create)(&raw mut event, flags)
        })?;
        Ok(event)
    }
}

fn check(call: &str, status: c_int) -> PyResult<()> {
    match status {
        0 => Ok(()),
        _ => Err(PyRuntimeError::new_err(format!("{call} returned {status}"))),
    }
}

/// Two events and two streams to call the driver on.
struct Bench<'py> {
    py: Python<'py>,
    driver: Driver,
    events: [Handle; 2],
    streams: [Handle; 2],
    context: Handle,
    calls: u32,
}

// SAFETY of the driver's calls below: the events are those of this object, and alive; the streams
// are the caller's; every other pointer is one to a local variable.
impl Bench<'_> {
    fn record(&self, stream: usize) -> c_int {
        // SAFETY: above.
        unsafe { (self.driver.record)(self.events[0], self.streams[stream]) }
    }

    fn query(&self) -> c_int {
        // SAFETY: above.
        unsafe { (self.driver.query)(self.events[0]) }
    }

    /// What a record asks first: whether the context is still there, and the stream captured.
    fn ask(&self) -> c_int {
        let (mut number, mut captured) = (0, 0);
        // SAFETY: above.
        unsafe {
            (self.driver.context_number)(self.context, &raw mut number)
                | (self.driver.is_capturing)(self.streams[0], &raw mut captured)
        }
    }

    /// A query as this package makes it: it breaks no capture, and other threads run meanwhile.
    fn query_released(&self) -> c_int {
        self.released(|| {
            let mut mode = RELAXED;
            // SAFETY: above.
            unsafe { (self.driver.exchange_mode)(&raw mut mode) };
            let status = self.query();
            // SAFETY: above.
            unsafe { (self.driver.exchange_mode)(&raw mut mode) };
            status
        })
    }

    fn elapsed(&self) -> c_int {
        let mut millis = 0.0;
        // SAFETY: above.
        let status =
            unsafe { (self.driver.elapsed)(&raw mut millis, self.events[0], self.events[1]) };
        black_box(millis);
        status
    }

    /// Calls `call` without the interpreter's lock, by the bare functions of CPython.
    fn released(&self, call: impl FnOnce() -> c_int) -> c_int {
        // SAFETY: `py` proves that this thread is attached. It runs nothing of Python until it is
        // attached again (https://docs.python.org/3/c-api/init.html#c.PyEval_SaveThread).
        unsafe {
            let thread = ffi::PyEval_SaveThread();
            let status = call();
            ffi::PyEval_RestoreThread(thread);
            status
        }
    }

    /// A record, released, in the life of the smallest object that a call of a class makes.
    fn life(&self) -> c_int {
        // SAFETY: the class `object`, called without arguments. The reference is given back.
        unsafe {
            let class = &raw mut ffi::PyBaseObject_Type;
            let object = ffi::PyObject_CallObject(class.cast(), null_mut());
            let status = self.released(|| self.record(0));
            ffi::Py_XDECREF(object);
            status
        }
    }

    /// A record, released, on the stream that PyTorch is asked for.
    fn record_current(&self, torch: &TorchCuda) -> c_int {
        let current = torch.current_stream(self.py, None);
        black_box(current.is_ok());
        self.released(|| self.record(0))
    }

    /// The nanoseconds of a call of `body`, which gets the number of the call.
    fn repeat(&self, body: impl Fn(usize) -> c_int) -> (f64, c_int) {
        let mut status = 0;
        let start = Instant::now();
        for index in 0..self.calls as usize {
            status |= body(index);
        }
        let taken = start.elapsed().as_nanos() as f64;
        (taken / f64::from(self.calls), status)
    }

    fn measure(&self, call: &str) -> PyResult<(f64, c_int)> {
        Ok(match call {
            "release" => self.repeat(|_| self.released(|| 0)),
            "record" | "record timed" => self.repeat(|_| self.released(|| self.record(0))),
            "record asked" => self.repeat(|_| self.released(|| self.ask() | self.record(0))),
            "record in turn" => self.repeat(|index| self.released(|| self.record(index % 2))),
            "record current" | "record current timed" => {
                let torch = cuda_in_use(self.py)?;
                let torch = torch.ok_or_else(no_torch)?;
                self.repeat(|_| self.record_current(torch))
            }
            "life" | "life timed" => self.repeat(|_| self.life()),
            "query" => self.repeat(|_| self.query()),
            "query released" => self.repeat(|_| self.query_released()),
            "elapsed" => self.repeat(|_| self.elapsed()),
            _ => return Err(PyValueError::new_err(format!("no call is named {call:?}"))),
        })
    }
}

impl Drop for Bench<'_> {
    fn drop(&mut self) {
        for event in self.events {
            // SAFETY: above; nobody uses it any more.
            unsafe { (self.driver.destroy)(event) };
        }
    }
}

fn no_torch() -> PyErr {
    PyRuntimeError::new_err("PyTorch does not use CUDA in this process; call torch.cuda.init()")
}

/// A method that takes a stream and does nothing: what a call costs the interpreter.
#[pyclass(frozen)]
pub(crate) struct _Nothing;

#[pymethods]
impl _Nothing {
    #[new]
    fn new() -> _Nothing {
        _Nothing
    }

    /// Do nothing.
    #[allow(clippy::unused_self)]
    fn record(&self, _stream: &Bound<'_, PyAny>) {}
}

/// # Safety
/// Only CPython may call it, as a method.
unsafe extern "C" fn nothing(
    _object: *mut ffi::PyObject,
    _arguments: *const *mut ffi::PyObject,
    _count: ffi::Py_ssize_t,
    _keywords: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: CPython calls methods on attached threads only; a new reference to `None`.
    unsafe {
        ffi::Py_INCREF(ffi::Py_None());
        ffi::Py_None()
    }
}

/// Gives the method the entry that those of events have.
pub(crate) fn install(py: Python<'_>) -> PyResult<()> {
    let class = py.get_type::<_Nothing>();
    static PYO3_METHOD: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    // SAFETY: it looks at no object.
    unsafe { replace(&class, c"record", &PYO3_METHOD, nothing) }
}

/// Return the nanoseconds that one bare call of CUDA's driver takes, of ``calls`` in a row.
///
/// ``call`` is one of these, each with a release of the interpreter's lock, if not said otherwise:
/// ``record``; ``record asked``, behind the two questions that this package asks the driver;
/// ``record in turn``, on ``stream`` and ``other``; ``record current``, behind asking PyTorch for
/// its current stream; ``life``, in the life of an ``object()``; ``query`` of an event that is
/// pending on ``stream``, without the release; ``query released``, with it and in relaxed capture
/// mode; ``elapsed`` of complete events, without the release; and ``release``, which is the release
/// alone. ``timed`` behind the name of a record or life means an event with timing. The context of
/// the streams has to be current.
#[pyfunction]
#[pyo3(signature = (call, stream, calls, other = None))]
pub(crate) fn _bare_call(
    py: Python<'_>,
    call: &str,
    stream: usize,
    calls: u32,
    other: Option<usize>,
) -> PyResult<f64> {
    let driver = Driver::load().map_err(|error| PyRuntimeError::new_err(error.to_string()))?;
    let flags = match call.ends_with("timed") || call == "elapsed" {
        true => 0,
        false => DISABLE_TIMING,
    };
    let mut context = null_mut();
    // SAFETY: writes a handle.
    check("cuCtxGetCurrent", unsafe {
        (driver.context)(&raw mut context)
    })?;
    let bench = Bench {
        py,
        events: [driver.event(flags)?, driver.event(flags)?],
        streams: [stream, other.unwrap_or(stream)].map(|stream| stream as Handle),
        driver,
        context,
        calls,
    };
    for event in bench.events {
        // SAFETY: the caller's stream, and an event that lives until the end.
        check("cuEventRecord", unsafe {
            (bench.driver.record)(event, bench.streams[0])
        })?;
    }
    if call == "elapsed" {
        // SAFETY: as above.
        check("cuEventSynchronize", unsafe {
            (bench.driver.synchronize)(bench.events[1])
        })?;
    }
    match bench.measure(call)? {
        (nanos, NOT_READY) if call.starts_with("query") => Ok(nanos),
        (nanos, status) => check(call, status).map(|()| nanos),
    }
}
