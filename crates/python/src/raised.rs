//! Python exceptions in launched work, and failures that nobody asked for.
//!
//! An exception that ends work fails the stream. Every error that tells of that failure has the
//! exception as its `__cause__`, with its traceback.
//!
//! **No cycle.** The failure belongs to the stream, so the exception does too, and its traceback
//! has the frames of the work, whose variables and functions may hold the stream. Python's garbage
//! collector cannot see through the library, and clearing a frame leaves its function's closure. So
//! the traceback is replaced by one with the same lines, whose frames hold nothing.

use std::{
    any::Any,
    panic::resume_unwind,
    sync::Arc,
    time::{Duration, Instant},
};

use fencepost::{Error, bindings};
use pyo3::{
    exceptions::{PyException, PyTypeError},
    intern,
    prelude::*,
    types::{PyDict, PyString},
};

use crate::{
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
        if release_frames(value.bind(py).as_any()).is_err() {
            // Better without a traceback than with a cycle.
            let _ = value
                .bind(py)
                .setattr(intern!(py, "__traceback__"), py.None());
        }
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

/// Replaces the traceback of `exception`, and of those that led to it, by one with the same lines
/// whose frames hold nothing.
fn release_frames(exception: &Bound<'_, PyAny>) -> PyResult<()> {
    /// The chain may be a circle.
    const LONGEST: usize = 64;

    let py = exception.py();
    let mut left = vec![exception.clone()];
    for _ in 0..LONGEST {
        let Some(exception) = left.pop() else {
            break;
        };
        let traceback = exception.getattr(intern!(py, "__traceback__"))?;
        exception.setattr(intern!(py, "__traceback__"), bare(&traceback)?)?;
        for before in [intern!(py, "__context__"), intern!(py, "__cause__")] {
            left.extend(Some(exception.getattr(before)?).filter(|before| !before.is_none()));
        }
    }
    Ok(())
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
        return Err(PyTypeError::new_err(format!(
            "on_complete() takes something to call; got {}",
            callback.bind(py).get_type().name()?
        )));
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
    fencepost::set_unobserved_hook(|error| {
        with_python(|py| report(py, error));
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
#[pyfunction]
#[pyo3(name = "_close")]
pub(crate) fn close(py: Python<'_>) {
    exit::close(py);
    // Work whose exception has left Python is about to fail its stream.
    let start = Instant::now();
    while bindings::is_raising() && start.elapsed() < exit::PATIENCE {
        py.detach(|| std::thread::sleep(Duration::from_millis(1)));
    }
    for error in py.detach(bindings::take_unobserved) {
        report(py, &error);
    }
}
