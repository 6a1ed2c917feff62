//! DLPack's exchange API in C: how a framework tells which stream of a device it works on now.
//!
//! The attribute `__dlpack_c_exchange_api__` of a tensor's type is a capsule around a table of
//! functions ([dlpack.h](https://github.com/dmlc/dlpack/blob/main/include/dlpack/dlpack.h),
//! `DLPackExchangeAPI`). Whoever fills the table may leave functions out.

use std::{
    ffi::{c_int, c_void},
    ptr::{NonNull, null_mut},
};

use pyo3::{
    exceptions::{PyRuntimeError, PyValueError},
    ffi, intern,
    prelude::*,
    types::PyType,
};

/// The kinds of devices that there are streams for here (`DLDeviceType`).
pub(crate) const CPU: i32 = 1;
pub(crate) const CUDA: i32 = 2;
pub(crate) const METAL: i32 = 8;
pub(crate) const CUDA_MANAGED: i32 = 13;

/// Where a tensor is: the kind of its device, and the index among those (`DLDevice`).
pub(crate) type Place = (i32, i32);

/// The major version of the layout of [`Api`].
const MAJOR: u32 = 1;

/// How many older tables are looked through for a known version.
const OLDER_AT_MOST: usize = 16;

/// What the tables of all versions begin with (`DLPackExchangeAPIHeader`).
#[repr(C)]
struct Header {
    major: u32,
    _minor: u32,
    /// The table of an older version; null where there is none.
    older: *const Header,
}

/// Writes the current stream of a device, which its kind and index name. Returns 0, or -1 with a
/// Python exception.
type Function = unsafe extern "C" fn(i32, i32, *mut *mut c_void) -> c_int;

/// The table of version 1 (`DLPackExchangeAPI`).
#[repr(C)]
struct Api {
    _header: Header,
    /// The functions for tensors.
    _tensors: [*const c_void; 4],
    current_work_stream: Option<Function>,
}

/// What a type of tensors tells of its framework's streams.
#[derive(Clone, Copy)]
pub(crate) struct CurrentStream(Function);

impl CurrentStream {
    /// Of this type of tensors; `None` where it does not tell.
    pub(crate) fn of(class: &Bound<'_, PyType>) -> PyResult<Option<CurrentStream>> {
        let name = intern!(class.py(), "__dlpack_c_exchange_api__");
        let Some(capsule) = class.getattr_opt(name)? else {
            return Ok(None);
        };
        let Some(api) = table(&capsule)? else {
            return Ok(None);
        };
        // SAFETY: a table of this version, which lives as long as the process: see `table`.
        let function = unsafe { api.as_ref() }.current_work_stream;
        Ok(function.map(CurrentStream))
    }

    /// The handle of the stream that is current at `place`.
    #[inline]
    pub(crate) fn at(self, py: Python<'_>, place: Place) -> PyResult<usize> {
        let mut stream = null_mut();
        // SAFETY: the function has this type, takes any kind and index, and writes to the last
        // argument. The thread is attached, as for any function that may set an exception.
        match unsafe { (self.0)(place.0, place.1, &raw mut stream) } {
            0 if !PyErr::occurred(py) => Ok(stream as usize),
            _ => Err(untold(py, place)),
        }
    }
}

#[cold]
fn untold(py: Python<'_>, place: Place) -> PyErr {
    PyErr::take(py).unwrap_or_else(|| {
        PyRuntimeError::new_err(format!(
            "the framework does not tell its current stream on DLPack's device {place:?}, and \
             gives no reason; pass the stream itself"
        ))
    })
}

/// The table of a known version, in a capsule; `None` where there is none of that version.
fn table(capsule: &Bound<'_, PyAny>) -> PyResult<Option<NonNull<Api>>> {
    // SAFETY: any object may be asked. Anything but a capsule of that name is null with an
    // exception set (https://docs.python.org/3/c-api/capsule.html#c.PyCapsule_GetPointer).
    let first =
        unsafe { ffi::PyCapsule_GetPointer(capsule.as_ptr(), c"dlpack_exchange_api".as_ptr()) };
    if first.is_null() {
        let cause = PyErr::take(capsule.py());
        let error = PyValueError::new_err(
            "__dlpack_c_exchange_api__ is no capsule named \"dlpack_exchange_api\"; pass the \
             stream itself",
        );
        error.set_cause(capsule.py(), cause);
        return Err(error);
    }
    let mut header = first.cast_const().cast::<Header>();
    for _ in 0..=OLDER_AT_MOST {
        if !header.is_aligned() {
            return Err(PyValueError::new_err(
                "__dlpack_c_exchange_api__ holds a misaligned pointer; pass the stream itself",
            ));
        }
        // SAFETY: a table that a capsule of that name holds begins with this header, and so does
        // the older one that it points to. DLPack wants them to live as long as the process.
        let Some(found) = (unsafe { header.as_ref() }) else {
            break;
        };
        if found.major == MAJOR {
            return Ok(NonNull::new(header.cast_mut().cast()));
        }
        header = found.older;
    }
    Ok(None)
}
