//! Python exceptions in launched work, and failures that nobody asked for.
//!
//! An exception that ends work fails the stream. Every error that tells of that failure has the
//! exception as its `__cause__`, with its traceback.
//!
//! **No cycle.** The failure belongs to the stream, so the exception does too, and its traceback
//! has the frames of the work, whose variables and functions may hold the stream. Python's garbage
//! collector cannot see through the library, and clearing a frame leaves its function's closure. So
//! the traceback is replaced by one with the same lines, whose frames hold nothing, also in every
//! exception that this one leads to. What the program itself puts into an exception stays there.

use std::{any::Any, collections::HashSet, panic::resume_unwind, sync::Arc};

use fencepost::{Error, bindings};
use pyo3::{
    exceptions::{PyBaseException, PyException},
    intern,
    prelude::*,
    types::{PyDict, PyList, PyString, PyTuple},
};

use crate::{
    arguments::Parameter,
    error::{Original, in_one_line, to_py},
    exit::{self, with_python},
};

/// Why work failed, as what the library takes for it. Made before the call of Python is over, so
/// that the end of the process waits for the stream to fail.
pub(crate) struct Raised(Box<dyn Any + Send>);

impl Raised {
    pub(crate) fn new(py: Python<'_>, error: PyErr) -> Raised {
        let mut what = in_one_line(py, &error);
        if !error.is_instance_of::<PyException>(py) {
            // SystemExit and KeyboardInterrupt, which end a program elsewhere.
            what += ", which ends this work only";
        }
        let value = error.into_value(py);
        release_frames(value.bind(py).as_any());
        Raised::of(what, Some(Original(value)))
    }

    /// The work cannot run any more.
    pub(crate) fn at_exit() -> Raised {
        let what = "nothing: the interpreter ended before it could run";
        Raised::of(what.into(), None)
    }

    fn of(what: String, original: Option<Original>) -> Raised {
        Raised(bindings::raised(what, Arc::new(original)))
    }

    /// Fails the stream whose work is running.
    pub(crate) fn raise(self) -> ! {
        // It calls no panic hook.
        resume_unwind(self.0)
    }
}

/// Replaces the traceback of `exception`, and of those that it leads to, by one with the same lines
/// whose frames hold nothing.
///
/// It reads and changes them as CPython does, whatever attributes their classes define.
fn release_frames(exception: &Bound<'_, PyAny>) {
    let mut left = vec![exception.clone()];
    // They may lead to each other in a circle. All of them live as long as the first.
    let mut seen = HashSet::new();
    while let Some(exception) = left.pop() {
        if !seen.insert(exception.as_ptr()) {
            continue;
        }
        if let Some(traceback) = native::traceback(&exception) {
            // Better without a traceback than with a cycle.
            let bare = bare(&traceback).ok();
            native::set_traceback(&exception, bare.as_ref());
        }
        left.extend(native::context(&exception));
        left.extend(native::cause(&exception));
        // What is missing in this version of Python holds nothing.
        let _ = release_object(&exception);
        for (class, attribute) in [
            ("BaseExceptionGroup", "exceptions"),
            ("BaseException", "args"),
            ("BaseException", "__dict__"),
        ] {
            if let Ok(held) = builtin(&exception, class, attribute, "__get__") {
                left.extend(exceptions_in(held));
            }
        }
    }
}

/// Lets go of the object that lacks an attribute. CPython holds it to find similar names.
fn release_object(exception: &Bound<'_, PyAny>) -> PyResult<()> {
    builtin(exception, "AttributeError", "obj", "__delete__").map(drop)
}

/// Calls a method of the attribute that a built-in class defines for `exception`.
fn builtin<'py>(
    exception: &Bound<'py, PyAny>,
    class: &str,
    attribute: &str,
    method: &str,
) -> PyResult<Bound<'py, PyAny>> {
    let builtins = exception.py().import(intern!(exception.py(), "builtins"))?;
    let attributes = builtins.getattr(class)?.getattr("__dict__")?;
    // It refuses an object that is no instance of the class.
    attributes
        .get_item(attribute)?
        .call_method1(method, (exception,))
}

/// The exceptions in a tuple, a list or a dictionary, and in tuples and lists there.
fn exceptions_in(held: Bound<'_, PyAny>) -> Vec<Bound<'_, PyAny>> {
    let held = match held.cast::<PyDict>() {
        Ok(attributes) => attributes.values().into_any(),
        Err(_) => held,
    };
    let mut all = items(&held);
    all.extend(all.iter().flat_map(items).collect::<Vec<_>>());
    all.retain(|item| item.is_instance_of::<PyBaseException>());
    all
}

/// The items of a tuple or a list.
fn items<'py>(sequence: &Bound<'py, PyAny>) -> Vec<Bound<'py, PyAny>> {
    if let Ok(tuple) = sequence.cast::<PyTuple>() {
        return tuple.iter().collect();
    }
    sequence
        .cast::<PyList>()
        .map_or_else(|_| Vec::new(), |list| list.iter().collect())
}

/// A traceback with the lines of `traceback`, whose frames hold nothing.
fn bare<'py>(traceback: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let py = traceback.py();
    let class = py
        .import(intern!(py, "types"))?
        .getattr(intern!(py, "TracebackType"))?;
    let mut entries = Vec::new();
    let mut next = traceback.clone();
    while !next.is_none() {
        let frame = bare_frame(&next.getattr(intern!(py, "tb_frame"))?)?;
        entries.push((frame, next.getattr(intern!(py, "tb_lineno"))?));
        next = next.getattr(intern!(py, "tb_next"))?;
    }
    entries.into_iter().rev().try_fold(next, |next, entry| {
        // No instruction: that of another function would give wrong columns.
        class.call1((next, entry.0, -1, entry.1))
    })
}

/// A frame of code that has the file and name of the code of `frame`. No Python frame is below it,
/// because this is called on a thread of the library whose Python code has returned.
fn bare_frame<'py>(frame: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let py = frame.py();
    let builtins = py.import(intern!(py, "builtins"))?;
    let code = frame.getattr(intern!(py, "f_code"))?;
    let names = PyDict::new(py);
    for name in [intern!(py, "co_filename"), intern!(py, "co_name")] {
        names.set_item(name, code.getattr(name)?)?;
    }
    let raises = builtins.call_method1(intern!(py, "compile"), ("raise Exception", "", "exec"))?;
    let raises = raises.call_method(intern!(py, "replace"), (), Some(&names))?;
    // Whoever prints the traceback finds the source of a module in an archive by these.
    let (globals, theirs) = (PyDict::new(py), frame.getattr(intern!(py, "f_globals"))?);
    for name in [intern!(py, "__name__"), intern!(py, "__loader__")] {
        if let Ok(value) = theirs.get_item(name) {
            globals.set_item(name, value)?;
        }
    }
    match builtins.call_method1(intern!(py, "exec"), (raises, globals)) {
        Err(raised) => raised.traceback(py).map_or_else(
            || Ok(py.None().into_bound(py)),
            |traceback| traceback.getattr(intern!(py, "tb_frame")),
        ),
        Ok(nothing) => Ok(nothing),
    }
}

/// What calls `callback(error)` on a thread of the library.
pub(crate) fn call_back(
    py: Python<'_>,
    callback: Py<PyAny>,
) -> PyResult<impl FnOnce(Result<(), Error>) + Send + 'static> {
    if !callback.bind(py).is_callable() {
        let parameter = Parameter::new("on_complete", "callback");
        return Err(parameter.expected("a callable", callback.bind(py)));
    }
    Ok(move |result: Result<(), Error>| {
        with_python(move |py| {
            let error = result.err().map(|error| to_py(error).into_value(py));
            if let Err(raised) = callback.call1(py, (error,)) {
                raised.write_unraisable(py, Some(callback.bind(py)));
            }
        });
    })
}

/// Reports failures that nobody asked for by `sys.unraisablehook`.
pub(crate) fn install() {
    // Taken inside the call of Python: what it takes is reported before the end of the interpreter,
    // and what it does not take any more is left for `close`.
    bindings::set_unobserved_taker(|| {
        with_python(|py| {
            for error in bindings::take_lost() {
                report(py, &error);
            }
        });
    });
}

fn report(py: Python<'_>, error: &Error) {
    if Original::is_missing(error) {
        return;
    }
    let exception = match Original::of(error) {
        Some(original) => PyErr::from_value(original.0.bind(py).clone().into_any()),
        None => to_py(error.clone()),
    };
    let (whose, cause) = match error {
        Error::StreamFailed { stream, cause, .. } => (stream, cause),
        Error::DeviceLost { device, cause, .. } => (device, cause),
        _ => return,
    };
    let text = format!("{whose}, whose failure nobody asked for: {}", cause.root());
    exception.write_unraisable(py, Some(PyString::new(py, &text).as_any()));
}

/// Called by `atexit`: no call of Python from the library's threads begins after it, and what has
/// failed until then is reported.
///
/// First it lets go of the streams that are held. The finalizers which the end of the interpreter
/// runs may free a GPU's memory, and `cuMemFree` waits for them.
#[pyfunction]
#[pyo3(name = "_close")]
pub(crate) fn close(py: Python<'_>) {
    py.detach(bindings::open_host_gates);
    exit::close(py);
    // Work whose exception has left Python is about to fail its stream.
    exit::wait_until(py, || !bindings::is_raising());
    for error in py.detach(bindings::take_unobserved) {
        report(py, &error);
    }
}

/// What CPython keeps in an exception, by functions of the stable ABI
/// ([exceptions](https://docs.python.org/3/c-api/exceptions.html#exception-objects)).
mod native {
    use pyo3::{ffi, prelude::*};

    type Get = unsafe extern "C" fn(*mut ffi::PyObject) -> *mut ffi::PyObject;

    fn get<'py>(exception: &Bound<'py, PyAny>, get: Get) -> Option<Bound<'py, PyAny>> {
        // SAFETY: one of the three functions below, which take an exception, as this is, and return
        // a new reference or null.
        unsafe { Bound::from_owned_ptr_or_opt(exception.py(), get(exception.as_ptr())) }
    }

    pub(super) fn traceback<'py>(exception: &Bound<'py, PyAny>) -> Option<Bound<'py, PyAny>> {
        get(exception, ffi::PyException_GetTraceback)
    }

    pub(super) fn context<'py>(exception: &Bound<'py, PyAny>) -> Option<Bound<'py, PyAny>> {
        get(exception, ffi::PyException_GetContext)
    }

    pub(super) fn cause<'py>(exception: &Bound<'py, PyAny>) -> Option<Bound<'py, PyAny>> {
        get(exception, ffi::PyException_GetCause)
    }

    /// Sets the traceback; to none where `traceback` is none.
    pub(super) fn set_traceback(
        exception: &Bound<'_, PyAny>,
        traceback: Option<&Bound<'_, PyAny>>,
    ) {
        let py = exception.py();
        let none = py.None().into_bound(py);
        for traceback in [traceback.unwrap_or(&none), &none] {
            // SAFETY: an exception, and a live object. It refuses what is no traceback nor None.
            let set =
                unsafe { ffi::PyException_SetTraceback(exception.as_ptr(), traceback.as_ptr()) };
            match set {
                0 => return,
                _ => drop(PyErr::take(py)),
            }
        }
    }
}
