//! How `fencepost.cuda.Event` is made.
//!
//! In a wheel for the stable ABI of CPython 3.9, PyO3 copies the name of each keyword argument to
//! compare it, which is a third of the cost of `Event(enable_timing=True)`. PyO3 lets no other code
//! make objects of its classes. So its class is a base, `fencepost._C._CudaEventBase` (PyTorch's
//! event has a base too), and users see a class that is derived from it, with its own `tp_new`.
//! That function knows the usual calls, and passes them to PyO3's `tp_new` without a keyword. It
//! passes every other call on as it is.
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

use crate::objects::CudaEvent;

const NAME: &CStr = c"fencepost.cuda.Event";

struct Made {
    class: Py<PyType>,
    /// PyO3's `tp_new`.
    pyo3_new: ffi::newfunc,
    /// `"enable_timing"`.
    keyword: Py<PyString>,
    /// The positional arguments that mean `enable_timing=True`.
    timing: Py<PyTuple>,
}

static MADE: PyOnceLock<Made> = PyOnceLock::new();

/// `fencepost.cuda.Event`.
pub(crate) fn cuda_event(py: Python<'_>) -> PyResult<&Bound<'_, PyType>> {
    Ok(MADE.get_or_try_init(py, || make(py))?.class.bind(py))
}

fn make(py: Python<'_>) -> PyResult<Made> {
    let base = py.get_type::<CudaEvent>();
    let documentation = documentation_of(&base, "Event")?;
    // SAFETY: PyO3 makes its classes at run time, as this function requires, with both slots. The
    // slots hold functions of these types
    // (https://docs.python.org/3/c-api/type.html#c.PyType_GetSlot).
    let (pyo3_new, dealloc) = unsafe {
        let slot = |slot| ffi::PyType_GetSlot(base.as_type_ptr(), slot);
        let pyo3_new = slot(ffi::Py_tp_new);
        let dealloc = slot(ffi::Py_tp_dealloc);
        if pyo3_new.is_null() || dealloc.is_null() {
            return Err(PyRuntimeError::new_err("PyO3's class lacks a slot"));
        }
        (
            std::mem::transmute::<*mut c_void, ffi::newfunc>(pyo3_new),
            dealloc,
        )
    };
    let slot = |slot, pfunc| ffi::PyType_Slot { slot, pfunc };
    let mut slots = [
        slot(ffi::Py_tp_doc, documentation.as_ptr().cast_mut().cast()),
        slot(ffi::Py_tp_new, new as ffi::newfunc as *mut c_void),
        // The derived class adds nothing to an object, so PyO3's function frees it.
        slot(ffi::Py_tp_dealloc, dealloc),
        slot(0, null_mut()),
    ];
    let mut spec = ffi::PyType_Spec {
        name: NAME.as_ptr(),
        // 0 inherits the base's size.
        basicsize: 0,
        itemsize: 0,
        flags: (ffi::Py_TPFLAGS_DEFAULT | ffi::Py_TPFLAGS_BASETYPE) as _,
        slots: slots.as_mut_ptr(),
    };
    let bases = PyTuple::new(py, [&base])?;
    // SAFETY: the spec is as documented, its name lives for ever, and CPython copies the text of
    // the documentation. All other slots, also those of the garbage collector with their flag, are
    // inherited from the base
    // (https://docs.python.org/3/c-api/type.html#c.PyType_FromSpecWithBases). PyO3 writes its
    // `tp_dealloc` and `tp_new` for subclasses too, since Python code may derive from its classes.
    // The result is a new reference, or null with an exception set.
    let class = unsafe {
        let class = ffi::PyType_FromSpecWithBases(&mut spec, bases.as_ptr());
        Bound::from_owned_ptr_or_err(py, class)?.cast_into::<PyType>()?
    };
    // The base takes another name, because pickle finds classes by name.
    base.setattr("__name__", "_CudaEventBase")?;
    base.setattr("__qualname__", "_CudaEventBase")?;
    base.setattr("__module__", "fencepost._C")?;
    Ok(Made {
        class: class.unbind(),
        pyo3_new,
        keyword: intern!(py, "enable_timing").clone().unbind(),
        timing: PyTuple::new(py, [PyBool::new(py, true)])?.unbind(),
    })
}

/// What `help` and `inspect.signature` show of `object`, in the form in which CPython takes it, for
/// an object of another name.
pub(crate) fn documentation_of(object: &Bound<'_, PyAny>, name: &str) -> PyResult<CString> {
    let text: String = object.getattr("__doc__")?.extract()?;
    // CPython 3.9 has none for classes that were made at run time.
    let signature: Option<String> = object.getattr("__text_signature__")?.extract()?;
    Ok(match signature {
        Some(signature) => CString::new(format!("{name}{signature}\n--\n\n{text}")),
        None => CString::new(text),
    }?)
}

/// # Safety
/// Only CPython may call it, as the `tp_new` of the class that [`make`] makes.
unsafe extern "C" fn new(
    class: *mut ffi::PyTypeObject,
    arguments: *mut ffi::PyObject,
    keywords: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: CPython makes objects on attached threads only.
    let py = unsafe { Python::assume_attached() };
    let Some(made) = MADE.get(py) else {
        PyRuntimeError::new_err("fencepost is not imported; import it first").restore(py);
        return null_mut();
    };
    // SAFETY: CPython passes a tuple, and null or a dict, which live until this returns
    // (https://docs.python.org/3/c-api/typeobj.html#c.PyTypeObject.tp_new). The dict belongs to
    // this call, and its borrowed items are compared only. PyO3's `tp_new` gets the class with a
    // tuple and no keywords, or with the arguments of this call.
    unsafe {
        if !keywords.is_null()
            && ffi::PyDict_Size(keywords) == 1
            && ffi::PyTuple_Size(arguments) == 0
        {
            let (mut at, mut name, mut value) = (0, null_mut(), null_mut());
            ffi::PyDict_Next(keywords, &mut at, &mut name, &mut value);
            // Names in the source of a program are interned, as `keyword` is. Other strings are
            // left to PyO3.
            if name == made.keyword.as_ptr() {
                if value == ffi::Py_True() {
                    return (made.pyo3_new)(class, made.timing.as_ptr(), null_mut());
                }
                if value == ffi::Py_False() {
                    return (made.pyo3_new)(class, arguments, null_mut());
                }
            }
        }
        (made.pyo3_new)(class, arguments, keywords)
    }
}
