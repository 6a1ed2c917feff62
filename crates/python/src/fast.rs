//! The way into the calls that are made most: `record`, `wait` and `query` of an event.
//!
//! In a wheel for every CPython from 3.9 on, PyO3 has methods called by `METH_VARARGS |
//! METH_KEYWORDS`: each call makes a tuple for its arguments and takes it apart again, for a third
//! of what `record(stream)` costs in all. So these are entered by `METH_FASTCALL | METH_KEYWORDS`
//! where the arguments have the usual form; every other call goes on to the method that PyO3 has
//! made.
//!
//! **That convention is there in each of these CPythons.** From 3.10 on it is part of the stable
//! ABI ([methods](https://docs.python.org/3/c-api/structures.html#c.METH_FASTCALL)). In 3.9 it is
//! the same convention with the same number, outside of the stable ABI ([methods in
//! 3.9](https://docs.python.org/3.9/c-api/structures.html#METH_FASTCALL)), and the releases of one
//! version are compatible with each other
//! ([stability](https://docs.python.org/3/c-api/stable.html)).
//!
//! They are methods of the very class that users make events of: CPython calls those of a base in a
//! slower way ([specialized calls](https://peps.python.org/pep-0659/)). Therefore `query` is among
//! them, too.

use std::{
    ffi::{CStr, CString, c_int},
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
    types::{PyBool, PyDict, PyTuple, PyType},
};

use crate::{class, cuda::CudaEvent, error::Done, event::PyEvent};

/// `METH_FASTCALL | METH_KEYWORDS`; PyO3 has the first only where 3.9 is not asked for.
const FASTCALL_KEYWORDS: c_int = 0x80 | ffi::METH_KEYWORDS;

type Entry = unsafe extern "C" fn(
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

    fn call(event: &Self::Class, py: Python<'_>, stream: Option<&Bound<'_, PyAny>>) -> Done;

    /// The method that PyO3 has made.
    fn ordinary() -> &'static PyOnceLock<Py<PyAny>>;
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
            ) -> Done {
                event.$method(py, stream)
            }

            fn ordinary() -> &'static PyOnceLock<Py<PyAny>> {
                static ORDINARY: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
                &ORDINARY
            }
        })*

        /// Puts these entries in the place of PyO3's.
        pub(crate) fn install(py: Python<'_>) -> PyResult<()> {
            $(put::<$name>(py)?;)*
            put_query(py)
        }
    };
}

methods! {
    CudaRecord = CudaEvent.record c"record" of cuda_event;
    CudaWait = CudaEvent.wait c"wait" of cuda_event;
    Record = PyEvent.record c"record" of event;
    Wait = PyEvent.wait c"wait" of event;
}

fn cuda_event(py: Python<'_>) -> PyResult<Bound<'_, PyType>> {
    class::cuda_event(py).cloned()
}

fn event(py: Python<'_>) -> PyResult<Bound<'_, PyType>> {
    Ok(py.get_type::<PyEvent>())
}

fn put<M: Method>(py: Python<'_>) -> PyResult<()> {
    let class = M::class(py)?;
    let ordinary = class.getattr(&*M::NAME.to_string_lossy())?;
    if M::ordinary().set(py, ordinary.clone().unbind()).is_err() {
        return Ok(());
    }
    // SAFETY: functions of all conventions go through this one field, and the flags tell which it
    // is (https://docs.python.org/3/c-api/structures.html#c.PyMethodDef).
    let function = unsafe { std::mem::transmute::<Entry, ffi::PyCFunction>(enter::<M>) };
    // SAFETY: `enter` is what these flags mean, and instances of the class are of PyO3's.
    unsafe { replace(&class, M::NAME, &ordinary, function, FASTCALL_KEYWORDS) }
}

/// Puts `function` in the place of a method that PyO3 has made.
///
/// # Safety
/// The function may be called as `flags` say, on any instance of the class.
unsafe fn replace(
    class: &Bound<'_, PyType>,
    name: &CStr,
    ordinary: &Bound<'_, PyAny>,
    function: ffi::PyCFunction,
    flags: c_int,
) -> PyResult<()> {
    // What `help` and `inspect.signature` show stays as it was.
    let signature: String = ordinary.getattr("__text_signature__")?.extract()?;
    let text: String = ordinary.getattr("__doc__")?.extract()?;
    let shown = name.to_string_lossy();
    let text = CString::new(format!("{shown}{signature}\n--\n\n{text}"))?;
    // Never freed: the method points to it.
    let definition = Box::leak(Box::new(ffi::PyMethodDef {
        ml_name: name.to_owned().into_raw(),
        ml_meth: ffi::PyMethodDefPointer {
            PyCFunction: function,
        },
        ml_flags: flags,
        ml_doc: text.into_raw(),
    }));
    // SAFETY: a class, and a definition that stays; the result is an object of our own, or null
    // with an exception set.
    let method = unsafe {
        let method = ffi::PyDescr_NewMethod(class.as_type_ptr(), definition);
        Bound::from_owned_ptr_or_err(class.py(), method)?
    };
    class.setattr(&*shown, method)
}

fn put_query(py: Python<'_>) -> PyResult<()> {
    let class = class::cuda_event(py)?;
    let ordinary = class.getattr("query")?;
    // SAFETY: a method without arguments gets its object and nothing, and instances of the class
    // are of PyO3's.
    unsafe { replace(class, c"query", &ordinary, query, ffi::METH_NOARGS) }
}

/// # Safety
/// To be called by CPython alone, as the method that [`put_query`] makes of it.
unsafe extern "C" fn query(
    event: *mut ffi::PyObject,
    _nothing: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: CPython calls methods on a thread that is attached, and it is so again whenever this
    // goes on.
    let py = unsafe { Python::assume_attached() };
    // SAFETY: as in `enter`.
    let event = unsafe { Borrowed::from_ptr(py, event).cast_unchecked::<CudaEvent>() };
    match catch_unwind(AssertUnwindSafe(|| event.get().query(py))) {
        Ok(Ok(complete)) => PyBool::new(py, complete).to_owned().into_ptr(),
        Ok(Err(error)) => raise(error.into()),
        Err(_) => raise(panicked()),
    }
}

#[cold]
fn panicked() -> PyErr {
    PanicException::new_err("this call panicked, which is a bug of fencepost")
}

/// # Safety
/// To be called by CPython alone, as the method that [`put`] makes of it.
unsafe extern "C" fn enter<M: Method>(
    event: *mut ffi::PyObject,
    arguments: *const *mut ffi::PyObject,
    count: ffi::Py_ssize_t,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: CPython calls methods on a thread that is attached, and it is so again whenever this
    // goes on.
    let py = unsafe { Python::assume_attached() };
    // SAFETY: what the method is called on, alive until this returns. It is of the class: CPython
    // looks at the type before it calls a method made in C, PyO3's methods rely on that too, and a
    // call that got past it was a bug of CPython's
    // (https://github.com/python/cpython/issues/92063).
    let event = unsafe { Borrowed::from_ptr(py, event).cast_unchecked::<M::Class>() };
    let stream = match (count, names.is_null()) {
        (0, true) => None,
        // SAFETY: as many objects in a row as `count` says, alive until this returns.
        (1, true) => Some(unsafe { Borrowed::from_ptr(py, *arguments) }),
        // SAFETY: passed on to the caller.
        _ => return unsafe { pass_on::<M>(event.as_any(), arguments, count, names) },
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
fn raise(error: PyErr) -> *mut ffi::PyObject {
    Python::attach(|py| error.restore(py));
    std::ptr::null_mut()
}

/// A call as it came, to PyO3's method.
///
/// # Safety
/// As [`enter`].
#[cold]
unsafe fn pass_on<M: Method>(
    event: &Bound<'_, PyAny>,
    arguments: *const *mut ffi::PyObject,
    count: ffi::Py_ssize_t,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // What may panic in here is behind PyO3's own entry.
    let called = Python::attach(|py| {
        // SAFETY: null, or a tuple that is alive until this returns.
        let names = unsafe { Borrowed::from_ptr_or_opt(py, names) };
        let names = names.map(|names| names.cast::<PyTuple>()).transpose()?;
        // SAFETY: `count` objects in a row and one more for each name, alive until this returns.
        let argument = |index| unsafe { Borrowed::from_ptr(py, *arguments.add(index)) };
        let count = count.unsigned_abs();
        let mut positional = vec![event.as_borrowed()];
        positional.extend((0..count).map(argument));
        let keywords = PyDict::new(py);
        for (index, name) in names.iter().flat_map(|names| names.iter()).enumerate() {
            keywords.set_item(name, argument(count + index))?;
        }
        let Some(ordinary) = M::ordinary().get(py) else {
            return Err(PyRuntimeError::new_err(
                "fencepost is not imported; import it first",
            ));
        };
        ordinary.call(py, PyTuple::new(py, positional)?, Some(&keywords))
    });
    match called {
        Ok(result) => result.into_ptr(),
        Err(error) => raise(error),
    }
}
