//! Faster entries to `Trace.span` and `Span.__exit__`, for the same reason as those in
//! [`fastcall`](crate::fastcall).

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    ptr::null_mut,
};

use pyo3::{
    Borrowed,
    exceptions::PyTypeError,
    ffi, intern,
    prelude::*,
    sync::PyOnceLock,
    types::{PyBool, PyTuple},
};

use crate::{
    fastcall::{panicked, pass_on, raise, replace},
    trace::{PySpan, PyTrace, attribute_of},
};

/// PyO3's methods.
static SPAN: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
static EXIT: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

/// Replaces PyO3's methods by these entries.
pub(crate) fn install(py: Python<'_>) -> PyResult<()> {
    let (trace, one) = (py.get_type::<PyTrace>(), py.get_type::<PySpan>());
    // SAFETY: each entry works on the class that it is put into, which is PyO3's own.
    unsafe {
        replace(&trace, c"span", &SPAN, span)?;
        replace(&one, c"__exit__", &EXIT, exit)
    }
}

/// # Safety
/// Only CPython may call it, as the method that [`install`] makes.
unsafe extern "C" fn span(
    trace: *mut ffi::PyObject,
    arguments: *const *mut ffi::PyObject,
    count: ffi::Py_ssize_t,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: CPython calls methods on attached threads only, and whatever detaches this thread in
    // here attaches it again.
    let py = unsafe { Python::assume_attached() };
    // SAFETY: it lives until this returns, and CPython checks its type before it calls a method
    // made in C.
    let trace = unsafe { Borrowed::from_ptr(py, trace).cast_unchecked::<PyTrace>() };
    if !(1..=2).contains(&count) {
        // SAFETY: the caller's promise.
        return unsafe { pass_on(&SPAN, trace.as_any(), arguments, count, names) };
    }
    // SAFETY: an array of `count` objects and one more for each name, which live until this
    // returns.
    let argument = |index| unsafe { Borrowed::from_ptr(py, *arguments.add(index)) };
    let make = || {
        let mut stream = (count == 2).then(|| argument(1));
        let mut attributes = Vec::new();
        // SAFETY: null, or a tuple that lives until this returns.
        if let Some(names) = unsafe { Borrowed::from_ptr_or_opt(py, names) } {
            for (index, name) in names.cast::<PyTuple>()?.iter().enumerate() {
                let value = argument(count.unsigned_abs() + index);
                match name.eq(intern!(py, "stream"))? {
                    true if stream.is_some() => return Err(two_streams()),
                    true => stream = Some(value),
                    false => attributes.push(attribute_of("span", name.cast()?, &value)?),
                }
            }
        }
        let stream = stream.filter(|stream| !stream.is_none());
        let span = PySpan::new(&trace, &argument(0), stream.as_deref(), attributes)?;
        Py::new(py, span)
    };
    match catch_unwind(AssertUnwindSafe(make)) {
        Ok(Ok(span)) => span.into_ptr(),
        Ok(Err(error)) => raise(error),
        Err(_) => raise(panicked()),
    }
}

/// As PyO3 tells it.
#[cold]
fn two_streams() -> PyErr {
    PyTypeError::new_err("Trace.span() got multiple values for argument 'stream'")
}

/// # Safety
/// Only CPython may call it, as the method that [`install`] makes.
unsafe extern "C" fn exit(
    span: *mut ffi::PyObject,
    arguments: *const *mut ffi::PyObject,
    count: ffi::Py_ssize_t,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: as in `span`.
    let py = unsafe { Python::assume_attached() };
    // SAFETY: as in `span`.
    let span = unsafe { Borrowed::from_ptr(py, span).cast_unchecked::<PySpan>() };
    if count != 3 || !names.is_null() {
        // SAFETY: the caller's promise.
        return unsafe { pass_on(&EXIT, span.as_any(), arguments, count, names) };
    }
    // SAFETY: an array of three objects, which live until this returns.
    let kind = unsafe { Borrowed::from_ptr(py, *arguments) };
    match catch_unwind(AssertUnwindSafe(|| span.get().exit(py, &kind))) {
        Ok(()) => PyBool::new(py, false).to_owned().into_ptr(),
        Err(_) => {
            raise(panicked());
            null_mut()
        }
    }
}
