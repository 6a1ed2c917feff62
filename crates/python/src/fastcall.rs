//! Faster entries to the most frequent calls: `record`, `wait`, `query` and `elapsed_time` of an
//! event.
//!
//! In a wheel for the stable ABI of CPython 3.9, PyO3's methods have the calling convention
//! `METH_VARARGS | METH_KEYWORDS`: each call makes a tuple of its arguments and takes it apart
//! again, which is a third of the cost of `record(stream)`. The entries in this file have the
//! convention `METH_FASTCALL | METH_KEYWORDS`. They handle the usual arguments, and pass every
//! other call on to PyO3's method.
//!
//! **Each of these CPythons has that convention.** From 3.10 on it is part of the stable ABI
//! ([methods](https://docs.python.org/3/c-api/structures.html#c.METH_FASTCALL)). In 3.9 it is the
//! same convention with the same number, outside of the stable ABI
//! ([methods in 3.9](https://docs.python.org/3.9/c-api/structures.html#METH_FASTCALL)), and the
//! releases of one minor version are compatible with each other
//! ([stability](https://docs.python.org/3/c-api/stable.html)).
//!
//! The methods are attributes of the class that users make events of, because CPython calls the
//! methods of a base class in a slower way
//! ([specialized calls](https://peps.python.org/pep-0659/)). That is why `query`, which takes no
//! argument, is among them.

use std::{
    ffi::{CStr, c_int},
    panic::{AssertUnwindSafe, catch_unwind},
};

use pyo3::{
    Borrowed, PyClass,
    exceptions::PyRuntimeError,
    ffi,
    panic::PanicException,
    prelude::*,
    pyclass::boolean_struct::True,
    sync::PyOnceLock,
    types::{PyBool, PyDict, PyFloat, PyTuple, PyType},
};

use crate::{
    cuda_class::{self, documentation_of},
    error::CallResult,
    objects::{CudaEvent, PyEvent},
};

/// `METH_FASTCALL | METH_KEYWORDS`. PyO3 lacks the first for the stable ABI of 3.9.
const FASTCALL_KEYWORDS: c_int = 0x80 | ffi::METH_KEYWORDS;

pub(crate) type Entry = unsafe extern "C" fn(
    *mut ffi::PyObject,
    *const *mut ffi::PyObject,
    ffi::Py_ssize_t,
    *mut ffi::PyObject,
) -> *mut ffi::PyObject;

/// A method that takes a stream or nothing, and returns nothing.
trait Method {
    type Class: PyClass<Frozen = True> + Sync;
    const NAME: &CStr;

    /// The class that users see.
    fn class(py: Python<'_>) -> PyResult<Bound<'_, PyType>>;

    fn call(event: &Self::Class, py: Python<'_>, stream: Option<&Bound<'_, PyAny>>) -> CallResult;

    /// PyO3's method.
    fn pyo3_method() -> &'static PyOnceLock<Py<PyAny>>;
}

macro_rules! methods {
    ($($name:ident = $class:ident . $method:ident $text:literal of $seen:expr;)*) => {
        $(struct $name;

        impl Method for $name {
            type Class = $class;
            const NAME: &CStr = $text;

            fn class(py: Python<'_>) -> PyResult<Bound<'_, PyType>> {
                $seen(py)
            }

            #[inline]
            fn call(
                event: &$class,
                py: Python<'_>,
                stream: Option<&Bound<'_, PyAny>>,
            ) -> CallResult {
                event.$method(py, stream)
            }

            fn pyo3_method() -> &'static PyOnceLock<Py<PyAny>> {
                static METHOD: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
                &METHOD
            }
        })*

        /// Replaces PyO3's methods by these entries.
        pub(crate) fn install(py: Python<'_>) -> PyResult<()> {
            $(put::<$name>(py)?;)*
            put_query(py)?;
            put_elapsed(py)
        }
    };
}

methods! {
    CudaRecord = CudaEvent.record_now c"record" of cuda_event;
    CudaWait = CudaEvent.wait_now c"wait" of cuda_event;
    Record = PyEvent.record_now c"record" of event;
    Wait = PyEvent.wait_now c"wait" of event;
}

fn cuda_event(py: Python<'_>) -> PyResult<Bound<'_, PyType>> {
    cuda_class::cuda_event(py).cloned()
}

fn event(py: Python<'_>) -> PyResult<Bound<'_, PyType>> {
    Ok(py.get_type::<PyEvent>())
}

fn put<M: Method>(py: Python<'_>) -> PyResult<()> {
    // SAFETY: instances of the class are instances of PyO3's class.
    unsafe { replace(&M::class(py)?, M::NAME, M::pyo3_method(), enter::<M>) }
}

/// Replaces a method of PyO3's by `entry`, once, and keeps PyO3's in `pyo3_method`.
///
/// # Safety
/// `entry` works on every instance of the class.
pub(crate) unsafe fn replace(
    class: &Bound<'_, PyType>,
    name: &CStr,
    pyo3_method: &PyOnceLock<Py<PyAny>>,
    entry: Entry,
) -> PyResult<()> {
    let method = class.getattr(&*name.to_string_lossy())?;
    if pyo3_method
        .set(class.py(), method.clone().unbind())
        .is_err()
    {
        return Ok(());
    }
    // SAFETY: the field for the function takes those of all conventions, and the flags say which
    // one it is (https://docs.python.org/3/c-api/structures.html#c.PyMethodDef).
    let function = unsafe { std::mem::transmute::<Entry, ffi::PyCFunction>(entry) };
    // SAFETY: it has the convention of these flags; the rest is the caller's promise.
    unsafe { replace_with(class, name, &method, function, FASTCALL_KEYWORDS) }
}

/// Replaces a method of PyO3's by a function of any convention.
///
/// # Safety
/// `function` has the calling convention that `flags` say, and works on every instance of the
/// class.
unsafe fn replace_with(
    class: &Bound<'_, PyType>,
    name: &CStr,
    pyo3_method: &Bound<'_, PyAny>,
    function: ffi::PyCFunction,
    flags: c_int,
) -> PyResult<()> {
    let shown = name.to_string_lossy();
    let documentation = documentation_of(pyo3_method, &shown)?;
    // Leaked, because the method points to it.
    let definition = Box::leak(Box::new(ffi::PyMethodDef {
        ml_name: name.to_owned().into_raw(),
        ml_meth: ffi::PyMethodDefPointer {
            PyCFunction: function,
        },
        ml_flags: flags,
        ml_doc: documentation.into_raw(),
    }));
    // SAFETY: a class, and a definition that is never freed. The result is a new reference, or null
    // with an exception set.
    let method = unsafe {
        let method = ffi::PyDescr_NewMethod(class.as_type_ptr(), definition);
        Bound::from_owned_ptr_or_err(class.py(), method)?
    };
    class.setattr(&*shown, method)
}

fn put_query(py: Python<'_>) -> PyResult<()> {
    let class = cuda_class::cuda_event(py)?;
    let pyo3_method = class.getattr("query")?;
    // SAFETY: METH_NOARGS calls a function with the object and a null pointer, and instances of the
    // class are instances of PyO3's class.
    unsafe { replace_with(class, c"query", &pyo3_method, query, ffi::METH_NOARGS) }
}

/// # Safety
/// Only CPython may call it, as the method that [`put_query`] makes.
unsafe extern "C" fn query(
    event: *mut ffi::PyObject,
    _nothing: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: CPython calls methods on attached threads only, and whatever detaches this thread in
    // here attaches it again.
    let py = unsafe { Python::assume_attached() };
    // SAFETY: as in `enter`.
    let event = unsafe { Borrowed::from_ptr(py, event).cast_unchecked::<CudaEvent>() };
    match catch_unwind(AssertUnwindSafe(|| event.get().query(py))) {
        Ok(Ok(complete)) => PyBool::new(py, complete).to_owned().into_ptr(),
        Ok(Err(error)) => raise(error.into()),
        Err(_) => raise(panicked()),
    }
}

/// PyO3's `elapsed_time`.
static PYO3_ELAPSED: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

fn put_elapsed(py: Python<'_>) -> PyResult<()> {
    let class = cuda_class::cuda_event(py)?;
    // SAFETY: as in `put`.
    unsafe { replace(class, c"elapsed_time", &PYO3_ELAPSED, elapsed) }
}

/// # Safety
/// Only CPython may call it, as the method that [`put_elapsed`] makes.
unsafe extern "C" fn elapsed(
    event: *mut ffi::PyObject,
    arguments: *const *mut ffi::PyObject,
    count: ffi::Py_ssize_t,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: as in `query`.
    let py = unsafe { Python::assume_attached() };
    // SAFETY: as in `enter`.
    let event = unsafe { Borrowed::from_ptr(py, event).cast_unchecked::<CudaEvent>() };
    if count != 1 || !names.is_null() {
        // SAFETY: the caller's promise.
        return unsafe { pass_on(&PYO3_ELAPSED, event.as_any(), arguments, count, names) };
    }
    // SAFETY: an array of one object, which lives until this returns.
    let end = unsafe { Borrowed::from_ptr(py, *arguments) };
    match catch_unwind(AssertUnwindSafe(|| event.get().elapsed_time(py, &end))) {
        Ok(Ok(millis)) => PyFloat::new(py, millis).into_ptr(),
        Ok(Err(error)) => raise(error),
        Err(_) => raise(panicked()),
    }
}

#[cold]
pub(crate) fn panicked() -> PyErr {
    PanicException::new_err("this call panicked, which is a bug of fencepost")
}

/// # Safety
/// Only CPython may call it, as the method that [`put`] makes.
unsafe extern "C" fn enter<M: Method>(
    event: *mut ffi::PyObject,
    arguments: *const *mut ffi::PyObject,
    count: ffi::Py_ssize_t,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: CPython calls methods on attached threads only, and whatever detaches this thread in
    // here attaches it again.
    let py = unsafe { Python::assume_attached() };
    // SAFETY: the object that the method is called on lives until this returns. It is an instance
    // of the class: CPython checks the type before it calls a method made in C, and PyO3's methods
    // rely on that too. A call without the check was a bug of CPython's
    // (https://github.com/python/cpython/issues/92063).
    let event = unsafe { Borrowed::from_ptr(py, event).cast_unchecked::<M::Class>() };
    let stream = match (count, names.is_null()) {
        (0, true) => None,
        // SAFETY: an array of `count` objects, which live until this returns.
        (1, true) => Some(unsafe { Borrowed::from_ptr(py, *arguments) }),
        // SAFETY: the caller's promise.
        _ => return unsafe { pass_on(M::pyo3_method(), event.as_any(), arguments, count, names) },
    };
    let stream = stream.filter(|stream| !stream.is_none());
    let call = || M::call(event.get(), py, stream.as_deref());
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(())) => py.None().into_ptr(),
        Ok(Err(error)) => raise(error.into()),
        Err(_) => raise(panicked()),
    }
}

#[cold]
pub(crate) fn raise(error: PyErr) -> *mut ffi::PyObject {
    Python::attach(|py| error.restore(py));
    std::ptr::null_mut()
}

/// Calls PyO3's method of `object` with the same arguments.
///
/// # Safety
/// As [`enter`].
#[cold]
pub(crate) unsafe fn pass_on(
    pyo3_method: &PyOnceLock<Py<PyAny>>,
    object: &Bound<'_, PyAny>,
    arguments: *const *mut ffi::PyObject,
    count: ffi::Py_ssize_t,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // No `catch_unwind`: PyO3's own entry catches panics.
    let called = Python::attach(|py| {
        // SAFETY: null, or a tuple that lives until this returns.
        let names = unsafe { Borrowed::from_ptr_or_opt(py, names) };
        let names = names.map(|names| names.cast::<PyTuple>()).transpose()?;
        // SAFETY: an array of `count` objects and one more for each name, which live until this
        // returns.
        let argument = |index| unsafe { Borrowed::from_ptr(py, *arguments.add(index)) };
        let count = count.unsigned_abs();
        let mut positional = vec![object.as_borrowed()];
        positional.extend((0..count).map(argument));
        let keywords = PyDict::new(py);
        for (index, name) in names.iter().flat_map(|names| names.iter()).enumerate() {
            keywords.set_item(name, argument(count + index))?;
        }
        let Some(pyo3_method) = pyo3_method.get(py) else {
            return Err(PyRuntimeError::new_err(
                "fencepost is not imported; import it first",
            ));
        };
        pyo3_method.call(py, PyTuple::new(py, positional)?, Some(&keywords))
    });
    match called {
        Ok(result) => result.into_ptr(),
        Err(error) => raise(error),
    }
}
