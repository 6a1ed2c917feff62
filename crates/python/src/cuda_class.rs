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
//!
//! # Objects that are used again
//!
//! Making an object and freeing it takes CPython and PyO3 a thousand instructions, most of them for
//! memory, for a dict that few programs ask for, and for PyO3's fields. So the derived class has a
//! `tp_dealloc` of its own too: it keeps a dead object with PyO3's fields as they are, and `tp_new`
//! makes that the next event, as CPython does with floats and tuples.
//!
//! *Invariant: an object in [`SPARE`] is exactly of this class, has no reference, no attribute, no
//! weak reference and no mark of a finalizer that was called, and its [`Core`] is that of a new
//! event. In [`BLANK`] it is so, too, but its core has a blank event of the library's, and the hint
//! that goes with it.* What is of another class, has an attribute, a dict of another class than
//! `dict`, a weak reference or that mark, or is a raw event, is left to PyO3's `tp_dealloc`.
//!
//! **A blank event** keeps the marker that the dead object held, so that a new object's first
//! record on the same stream is made in place, as later ones are. Otherwise it would take a marker
//! and a new event of the library's, which is a tenth of the life of an event that is recorded
//! once. A kept marker holds back the report of a failure of its stream that nobody asks for, and
//! keeps the stream's timeline. So there are two at most of each kind, and the oldest is the next
//! event.
//!
//! The lists belong to whoever has the GIL. A build without a GIL keeps no objects. The garbage
//! collector knows an object while it is an event only.

use std::{
    ffi::{CStr, CString, c_ulong, c_void},
    panic::{AssertUnwindSafe, catch_unwind},
    ptr::null_mut,
    sync::atomic::{AtomicPtr, AtomicUsize, Ordering},
};

use pyo3::{
    Borrowed,
    exceptions::PyRuntimeError,
    ffi, intern,
    prelude::*,
    sync::PyOnceLock,
    types::{PyBool, PyString, PyTuple, PyType},
};

use crate::{core::Core, objects::CudaEvent, raw::Flags};

const NAME: &CStr = c"fencepost.cuda.Event";

struct Made {
    class: Py<PyType>,
    /// PyO3's `tp_new` and `tp_dealloc`.
    pyo3_new: ffi::newfunc,
    pyo3_dealloc: ffi::destructor,
    /// Whether dead objects become new ones.
    keeps_dead: bool,
    /// Whether objects have no dict before an attribute is set. CPython 3.11 and 3.12 make one for
    /// each object at once. 3.11 is quick to find the methods of an object that has one, 3.12 of an
    /// object that has none ([specialized calls](https://peps.python.org/pep-0659/)).
    drops_dicts: bool,
    /// Where an object has its dict and the list of its weak references.
    dict: usize,
    weak_references: usize,
    /// `"enable_timing"`.
    keyword: Py<PyString>,
    /// The positional arguments that mean `enable_timing=True`, and those that mean `False`.
    timing: Py<PyTuple>,
    no_timing: Py<PyTuple>,
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
    let (pyo3_new, pyo3_dealloc) = unsafe {
        let slot = |slot| ffi::PyType_GetSlot(base.as_type_ptr(), slot);
        let pyo3_new = slot(ffi::Py_tp_new);
        let dealloc = slot(ffi::Py_tp_dealloc);
        if pyo3_new.is_null() || dealloc.is_null() {
            return Err(PyRuntimeError::new_err("PyO3's class lacks a slot"));
        }
        (
            std::mem::transmute::<*mut c_void, ffi::newfunc>(pyo3_new),
            std::mem::transmute::<*mut c_void, ffi::destructor>(dealloc),
        )
    };
    let slot = |slot, pfunc| ffi::PyType_Slot { slot, pfunc };
    let mut slots = [
        slot(ffi::Py_tp_doc, documentation.as_ptr().cast_mut().cast()),
        slot(ffi::Py_tp_new, new as ffi::newfunc as *mut c_void),
        slot(
            ffi::Py_tp_dealloc,
            dealloc as ffi::destructor as *mut c_void,
        ),
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
    let offset = |name| -> PyResult<usize> { class.getattr(name)?.extract() };
    // SAFETY: a class.
    let flags = unsafe { ffi::PyType_GetFlags(class.as_type_ptr()) };
    // PyO3 tells the garbage collector of objects with a dict; `keep` and `again` rely on that.
    let is_collected = flags & ffi::Py_TPFLAGS_HAVE_GC as c_ulong != 0;
    Ok(Made {
        keeps_dead: !cfg!(Py_GIL_DISABLED) && is_collected,
        drops_dicts: py.version_info() >= (3, 12),
        dict: offset("__dictoffset__")?,
        weak_references: offset("__weakrefoffset__")?,
        class: class.unbind(),
        pyo3_new,
        pyo3_dealloc,
        keyword: intern!(py, "enable_timing").clone().unbind(),
        timing: PyTuple::new(py, [PyBool::new(py, true)])?.unbind(),
        no_timing: PyTuple::empty(py).unbind(),
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

/// Dead objects for the next events.
struct Dead<const N: usize> {
    count: AtomicUsize,
    objects: [AtomicPtr<ffi::PyObject>; N],
}

/// Programs time with pairs of events, and some keep a pair for each step.
static SPARE: Dead<64> = Dead::new();

/// Those with a blank event, by whether that has timing.
static BLANK: [Dead<2>; 2] = [Dead::new(), Dead::new()];

/// Plain loads and stores: the GIL orders them.
impl<const N: usize> Dead<N> {
    const fn new() -> Dead<N> {
        Dead {
            count: AtomicUsize::new(0),
            objects: [const { AtomicPtr::new(null_mut()) }; N],
        }
    }

    /// The one that was put last.
    #[inline]
    fn take(&self, _py: Python<'_>) -> Option<*mut ffi::PyObject> {
        let last = self.count.load(Ordering::Relaxed).checked_sub(1)?;
        let object = self.objects.get(last)?.load(Ordering::Relaxed);
        self.count.store(last, Ordering::Relaxed);
        Some(object)
    }

    /// The one that was put first, of a list that is short.
    #[inline]
    fn take_oldest(&self, _py: Python<'_>) -> Option<*mut ffi::PyObject> {
        let count = self.count.load(Ordering::Relaxed);
        let oldest = self.objects.first().filter(|_| count > 0)?;
        let oldest = oldest.load(Ordering::Relaxed);
        for pair in self.objects.windows(2) {
            pair[0].store(pair[1].load(Ordering::Relaxed), Ordering::Relaxed);
        }
        self.count.store(count - 1, Ordering::Relaxed);
        Some(oldest)
    }

    #[inline]
    fn is_full(&self, _py: Python<'_>) -> bool {
        self.count.load(Ordering::Relaxed) == N
    }

    /// Whether there was a place for it.
    #[inline]
    fn put(&self, _py: Python<'_>, object: *mut ffi::PyObject) -> bool {
        let count = self.count.load(Ordering::Relaxed);
        let Some(place) = self.objects.get(count) else {
            return false;
        };
        place.store(object, Ordering::Relaxed);
        self.count.store(count + 1, Ordering::Relaxed);
        true
    }
}

impl Made {
    /// An event of `class`, out of a dead one if `class` is this one and one is there.
    ///
    /// # Safety
    /// `class` is this class or one derived from it.
    #[inline]
    unsafe fn again(
        &self,
        py: Python<'_>,
        class: *mut ffi::PyTypeObject,
        timing: bool,
    ) -> Option<*mut ffi::PyObject> {
        if class.cast() != self.class.as_ptr() {
            return None;
        }
        let object = match BLANK[usize::from(timing)].take_oldest(py) {
            Some(blank) => blank,
            None => {
                let spare = SPARE.take(py)?;
                // SAFETY: an object of this class, which nobody else uses.
                unsafe { (*core_of(py, spare)).flags = Flags::with_timing(timing) };
                spare
            }
        };
        // SAFETY: an object of this class whose fields are as PyO3 has made them, and to which
        // nobody refers. CPython gives it its first reference, the class one more
        // (https://docs.python.org/3/c-api/allocation.html#c.PyObject_Init), and tells the garbage
        // collector again (https://docs.python.org/3/c-api/gcsupport.html#c.PyObject_GC_Track).
        unsafe {
            let event = ffi::PyObject_Init(object, class);
            ffi::PyObject_GC_Track(event.cast());
            Some(event)
        }
    }

    /// Whether the usual calls ask for timing; `None` for every other call.
    ///
    /// # Safety
    /// A tuple, and null or a dict.
    #[inline]
    unsafe fn timing_of(
        &self,
        arguments: *mut ffi::PyObject,
        keywords: *mut ffi::PyObject,
    ) -> Option<bool> {
        // SAFETY: the caller's promise. The dict's items are compared only.
        unsafe {
            if ffi::PyTuple_Size(arguments) != 0 {
                return None;
            }
            if keywords.is_null() {
                return Some(false);
            }
            if ffi::PyDict_Size(keywords) != 1 {
                return None;
            }
            let (mut at, mut name, mut value) = (0, null_mut(), null_mut());
            ffi::PyDict_Next(keywords, &mut at, &mut name, &mut value);
            // Names in the source of a program are interned, as `keyword` is. Other strings are
            // left to PyO3.
            match name == self.keyword.as_ptr() {
                true if value == ffi::Py_True() => Some(true),
                true if value == ffi::Py_False() => Some(false),
                _ => None,
            }
        }
    }

    /// Whether an object's dict is as that of a new one, or can be made so.
    ///
    /// # Safety
    /// `object` is an instance of this class or of a derived one.
    #[inline]
    unsafe fn renew_dict(&self, object: *mut ffi::PyObject) -> bool {
        // SAFETY: this field of the object is null, or the object's reference to a dict
        // (https://docs.python.org/3/c-api/typeobj.html#c.PyTypeObject.tp_dictoffset). An empty
        // dict takes nothing with it.
        unsafe {
            let field = object.byte_add(self.dict).cast::<*mut ffi::PyObject>();
            let dict = *field;
            if dict.is_null() {
                return true;
            }
            // One of a derived class has more than its items, and its `__del__` may look for this
            // object, which the garbage collector still knows.
            if ffi::PyDict_CheckExact(dict) == 0 || ffi::PyDict_Size(dict) != 0 {
                return false;
            }
            if self.drops_dicts {
                *field = null_mut();
                ffi::Py_DECREF(dict);
                return true;
            }
            ffi::Py_REFCNT(dict) == 1
        }
    }

    /// Makes an object by PyO3's `tp_new`.
    ///
    /// # Safety
    /// As [`new`].
    unsafe fn make(
        &self,
        class: *mut ffi::PyTypeObject,
        arguments: *mut ffi::PyObject,
        keywords: *mut ffi::PyObject,
    ) -> *mut ffi::PyObject {
        // SAFETY: the caller's promise. The result is null or a new object of the class.
        unsafe {
            let object = (self.pyo3_new)(class, arguments, keywords);
            if !object.is_null() {
                self.renew_dict(object);
            }
            object
        }
    }

    /// Keeps a dead object for the next event, if that can be; returns whether it did.
    ///
    /// # Safety
    /// As [`dealloc`].
    #[inline]
    unsafe fn keep(&self, py: Python<'_>, object: *mut ffi::PyObject) -> bool {
        // SAFETY: an object of this class or a derived one. This field of it is null, or a pointer
        // to its weak references
        // (https://docs.python.org/3/c-api/typeobj.html#c.PyTypeObject.tp_weaklistoffset).
        let (class, weak_references) = unsafe {
            let weak_references = object.byte_add(self.weak_references);
            (
                ffi::Py_TYPE(object),
                *weak_references.cast::<*mut ffi::PyObject>(),
            )
        };
        if class.cast() != self.class.as_ptr() || !weak_references.is_null() {
            return false;
        }
        // SAFETY: an object of this class, which nobody else uses.
        let core = unsafe { &mut *core_of(py, object) };
        if core.is_raw() {
            return false;
        }
        // CPython calls the `__del__` of an object once, and marks the object. This one may have
        // been of a class that has one, and the next event may become of such a class.
        // SAFETY: any object may be asked
        // (https://docs.python.org/3/c-api/gcsupport.html#c.PyObject_GC_IsFinalized).
        if unsafe { ffi::PyObject_GC_IsFinalized(object) } != 0 {
            return false;
        }
        // SAFETY: the caller's promise.
        if !unsafe { self.renew_dict(object) } {
            return false;
        }
        // SAFETY: an object that the garbage collector knows, as `keeps_dead` says. It must forget
        // the object before other code runs
        // (https://docs.python.org/3/c-api/gcsupport.html#c.PyObject_GC_UnTrack).
        unsafe { ffi::PyObject_GC_UnTrack(object.cast()) };
        let blank = &BLANK[usize::from(core.flags.timing)];
        let put = || {
            // Dropping what it held, in both ways, may run other code, which may make and free
            // events. So there may be no place any more.
            if !blank.is_full(py) && core.become_blank() && blank.put(py, object) {
                return true;
            }
            *core = Core::default();
            SPARE.put(py, object)
        };
        if !catch_unwind(AssertUnwindSafe(put)).unwrap_or(false) {
            return false;
        }
        // SAFETY: an object of a class that was made at run time has one reference to it
        // (https://docs.python.org/3/c-api/typeobj.html#c.PyTypeObject.tp_dealloc).
        unsafe { ffi::Py_DECREF(class.cast()) };
        true
    }
}

/// The core of an event.
///
/// # Safety
/// `object` is an instance of PyO3's class, which may be dead.
unsafe fn core_of(py: Python<'_>, object: *mut ffi::PyObject) -> *mut Core {
    // SAFETY: the caller's promise. No reference is counted.
    let event = unsafe { Borrowed::from_ptr(py, object).cast_unchecked::<CudaEvent>() };
    event.get().core.as_ptr()
}

/// # Safety
/// Only CPython may call it, as the `tp_dealloc` of the class that [`make`] makes.
unsafe extern "C" fn dealloc(object: *mut ffi::PyObject) {
    // SAFETY: CPython frees objects on attached threads only.
    let py = unsafe { Python::assume_attached() };
    // There was no object before the class was made.
    let Some(made) = MADE.get(py) else { return };
    // SAFETY: the caller's promise. What is not kept is as PyO3 has made it.
    unsafe {
        if !made.keeps_dead || !made.keep(py, object) {
            (made.pyo3_dealloc)(object);
        }
    }
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
        let Some(timing) = made.timing_of(arguments, keywords) else {
            return made.make(class, arguments, keywords);
        };
        if let Some(event) = made.again(py, class, timing) {
            return event;
        }
        let arguments = match timing {
            true => &made.timing,
            false => &made.no_timing,
        };
        made.make(class, arguments.as_ptr(), null_mut())
    }
}
