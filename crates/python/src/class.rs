//! How `fencepost.cuda.Event` is made.
//!
//! In a wheel for every CPython from 3.9 on, PyO3 copies the name of each keyword argument to
//! compare it, which is a third of what `Event(enable_timing=True)` costs in all. It lets nobody
//! else make the objects of its classes. So its class is a base, `fencepost._C._CudaEventBase`, as
//! PyTorch's event has one, and the class that users see is derived from it, with a `tp_new` of our
//! own: this knows the usual calls, and hands PyO3's `tp_new` the same without a keyword. Every
//! other call goes on to that as it came.
//!
//! All of this is in the stable ABI since 3.4
//! ([contents](https://docs.python.org/3/c-api/stable.html#contents-of-limited-api)).

use std::{
    ffi::{CStr, CString, c_void},
    ptr::null_mut,
};

use pyo3::{
    exceptions::PyRuntimeError,
    ffi, intern,
    prelude::*,
    sync::PyOnceLock,
    types::{PyBool, PyString, PyTuple, PyType},
};

use crate::cuda::CudaEvent;

const NAME: &CStr = c"fencepost.cuda.Event";

struct Made {
    class: Py<PyType>,
    /// PyO3's `tp_new`.
    ordinary: ffi::newfunc,
    keyword: Py<PyString>,
    /// What says the same as `enable_timing=True`.
    timing: Py<PyTuple>,
}

static MADE: PyOnceLock<Made> = PyOnceLock::new();

/// `fencepost.cuda.Event`.
pub(crate) fn cuda_event(py: Python<'_>) -> PyResult<&Bound<'_, PyType>> {
    Ok(MADE.get_or_try_init(py, || make(py))?.class.bind(py))
}

fn make(py: Python<'_>) -> PyResult<Made> {
    let base = py.get_type::<CudaEvent>();
    // What `help` and `inspect.signature` show is what PyO3 has written.
    let text: String = base.getattr("__doc__")?.extract()?;
    let signature: Option<String> = base.getattr("__text_signature__")?.extract()?;
    let text = match signature {
        Some(signature) => format!("Event{signature}\n--\n\n{text}"),
        None => text,
    };
    let text = CString::new(text)?;
    // SAFETY: a class made at run time, as all of PyO3's, which has both slots; what the slots hold
    // is of these types (https://docs.python.org/3/c-api/type.html#c.PyType_GetSlot).
    let (ordinary, dealloc) = unsafe {
        let slot = |slot| ffi::PyType_GetSlot(base.as_type_ptr(), slot);
        let ordinary = slot(ffi::Py_tp_new);
        let dealloc = slot(ffi::Py_tp_dealloc);
        if ordinary.is_null() || dealloc.is_null() {
            return Err(PyRuntimeError::new_err("PyO3's class lacks a slot"));
        }
        (
            std::mem::transmute::<*mut c_void, ffi::newfunc>(ordinary),
            dealloc,
        )
    };
    let slot = |slot, pfunc| ffi::PyType_Slot { slot, pfunc };
    let mut slots = [
        slot(ffi::Py_tp_doc, text.as_ptr().cast_mut().cast()),
        slot(ffi::Py_tp_new, new as ffi::newfunc as *mut c_void),
        // It ends as PyO3's objects do, having nothing of its own.
        slot(ffi::Py_tp_dealloc, dealloc),
        slot(0, null_mut()),
    ];
    let mut spec = ffi::PyType_Spec {
        name: NAME.as_ptr(),
        // That of the base.
        basicsize: 0,
        itemsize: 0,
        flags: (ffi::Py_TPFLAGS_DEFAULT | ffi::Py_TPFLAGS_BASETYPE) as _,
        slots: slots.as_mut_ptr(),
    };
    let bases = PyTuple::new(py, [&base])?;
    // SAFETY: a spec as documented, whose name lives for ever; the text is copied. What is not in
    // it, the collector's functions with their flag among it, is the base's
    // (https://docs.python.org/3/c-api/type.html#c.PyType_FromSpecWithBases). `tp_dealloc` of PyO3
    // is written for subclasses, those made in Python too, and so is `tp_new`. The result is an
    // object of our own, or null with an exception set.
    let class = unsafe {
        let class = ffi::PyType_FromSpecWithBases(&mut spec, bases.as_ptr());
        Bound::from_owned_ptr_or_err(py, class)?.cast_into::<PyType>()?
    };
    // The base goes by another name: pickle finds classes by theirs.
    base.setattr("__name__", "_CudaEventBase")?;
    base.setattr("__qualname__", "_CudaEventBase")?;
    base.setattr("__module__", "fencepost._C")?;
    Ok(Made {
        class: class.unbind(),
        ordinary,
        keyword: intern!(py, "enable_timing").clone().unbind(),
        timing: PyTuple::new(py, [PyBool::new(py, true)])?.unbind(),
    })
}

/// # Safety
/// To be called by CPython alone, as the `tp_new` that [`make`] makes of it.
unsafe extern "C" fn new(
    class: *mut ffi::PyTypeObject,
    arguments: *mut ffi::PyObject,
    keywords: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: CPython makes objects on a thread that is attached.
    let py = unsafe { Python::assume_attached() };
    let Some(made) = MADE.get(py) else {
        PyRuntimeError::new_err("fencepost is not imported; import it first").restore(py);
        return null_mut();
    };
    // SAFETY: CPython passes a tuple, and null or a dict, all alive until this returns
    // (https://docs.python.org/3/c-api/typeobj.html#c.PyTypeObject.tp_new). The dict is the call's
    // own, and what it gives is compared, no more. The class is passed on to the `tp_new` of its
    // base, with a tuple and no keywords or with what came.
    unsafe {
        if !keywords.is_null()
            && ffi::PyDict_Size(keywords) == 1
            && ffi::PyTuple_Size(arguments) == 0
        {
            let (mut at, mut name, mut value) = (0, null_mut(), null_mut());
            ffi::PyDict_Next(keywords, &mut at, &mut name, &mut value);
            // Names in the source of a program are interned, as this is; other strings go the long
            // way.
            if name == made.keyword.as_ptr() {
                if value == ffi::Py_True() {
                    return (made.ordinary)(class, made.timing.as_ptr(), null_mut());
                }
                if value == ffi::Py_False() {
                    return (made.ordinary)(class, arguments, null_mut());
                }
            }
        }
        (made.ordinary)(class, arguments, keywords)
    }
}
