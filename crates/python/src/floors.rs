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
};

type Handle = *mut c_void;

/// The functions that are measured.
/// [Events](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__EVENT.html)
struct Driver {
    create: unsafe extern "C" fn(*mut Handle, c_uint) -> c_int,
    record: unsafe extern "C" fn(Handle, Handle) -> c_int,
    query: unsafe extern "C" fn(Handle) -> c_int,
    synchronize: unsafe extern "C" fn(Handle) -> c_int,
    elapsed: unsafe extern "C" fn(*mut f32, Handle, Handle) -> c_int,
    destroy: unsafe extern "C" fn(Handle) -> c_int,
}

const DISABLE_TIMING: c_uint = 2;
const NOT_READY: c_int = 600;

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

/// Return the nanoseconds that one bare call of CUDA's driver takes, of ``calls`` in a row.
///
/// ``call`` is ``record`` or ``record timed``, each with a release of the interpreter's lock;
/// ``query``, of an event that is pending on ``stream``; ``elapsed``, of complete events; or
/// ``release``, which is the release alone. The context of the stream has to be current.
#[pyfunction]
pub(crate) fn _bare_call(call: &str, stream: usize, calls: u32) -> PyResult<f64> {
    let driver = Driver::load().map_err(|error| PyRuntimeError::new_err(error.to_string()))?;
    let stream = stream as Handle;
    let untimed = match call {
        "record" | "query" | "release" => DISABLE_TIMING,
        "record timed" | "elapsed" => 0,
        _ => return Err(PyValueError::new_err(format!("no call is named {call:?}"))),
    };
    let (first, second) = (driver.event(untimed)?, driver.event(untimed)?);
    // SAFETY: the caller's stream, and events that are destroyed below. A thread that detaches
    // itself runs nothing of Python until it attaches itself again
    // (https://docs.python.org/3/c-api/init.html#c.PyEval_SaveThread).
    unsafe {
        check("cuEventRecord", (driver.record)(first, stream))?;
        check("cuEventRecord", (driver.record)(second, stream))?;
        if call == "elapsed" {
            check("cuEventSynchronize", (driver.synchronize)(second))?;
        }
        let mut status = 0;
        let mut millis = 0.0;
        let start = Instant::now();
        for _ in 0..calls {
            match call {
                "query" => status |= (driver.query)(first),
                "elapsed" => status |= (driver.elapsed)(&raw mut millis, first, second),
                _ => {
                    let thread = ffi::PyEval_SaveThread();
                    if call != "release" {
                        status |= (driver.record)(first, stream);
                    }
                    ffi::PyEval_RestoreThread(thread);
                }
            }
        }
        let taken = start.elapsed();
        black_box(millis);
        (driver.destroy)(first);
        (driver.destroy)(second);
        match (call, status) {
            ("query", NOT_READY) => {}
            _ => check(call, status)?,
        }
        Ok(taken.as_nanos() as f64 / f64::from(calls))
    }
}
