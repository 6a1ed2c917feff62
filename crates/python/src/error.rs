//! The library's errors as Python exceptions: of the types that PyTorch raises, with texts that
//! name the remedy in Python's terms.

use fencepost::{Device, Error, bindings};
use pyo3::{
    exceptions::{
        PyBaseException, PyNotImplementedError, PyRuntimeError, PyTimeoutError, PyValueError,
    },
    prelude::*,
};

/// Phrases that programs written for PyTorch look for.
const TIMING: &str = "Both events must be created with argument 'enable_timing=True'";
const RECORDED: &str = "Both events must be recorded before calculating elapsed time";
/// What texts of the library say to programs in Rust, and what they say here.
const TERMS: [(&str, &str); 7] = [
    ("Event::wait", "Event.wait"),
    ("call elapsed()", "call elapsed_time()"),
    (
        "a process forked from one that uses CUDA must exec() before it does",
        "a process forked from one that uses CUDA cannot use it: start processes by \"spawn\", as \
         multiprocessing can",
    ),
    (
        "make the device with a higher HostOptions::max_threads",
        "make the device by Device.new_host(workers, max_threads=...) with more threads",
    ),
    (
        "exec() and open it anew",
        "open it anew in a process that is not forked, as multiprocessing starts them by \"spawn\"",
    ),
    (
        "this build has no wgpu; build with the cargo feature wgpu30",
        "its devices are those of programs in Rust",
    ),
    (
        "std::thread::Builder::spawn failed",
        "starting a thread failed",
    ),
];

/// Which marker it is where there is one alone, in the library's words.
const HELD: &str = "held";
const COMPLETED: &str = "Both events must be completed before calculating elapsed time";

/// The exception that ended work, which the failure of its stream carries.
pub(crate) struct Original(pub(crate) Py<PyBaseException>);

impl Original {
    pub(crate) fn of(error: &Error) -> Option<&Original> {
        Original::slot_of(error)?.as_ref()
    }

    /// Whether the failure is of work that never ran, because the interpreter had ended.
    pub(crate) fn is_missing(error: &Error) -> bool {
        Original::slot_of(error).is_some_and(Option::is_none)
    }

    fn slot_of(error: &Error) -> Option<&Option<Original>> {
        bindings::payload(error)?.downcast_ref()
    }
}

/// The exception for `error`. Called with the GIL.
pub(crate) fn to_py(error: Error) -> PyErr {
    let exception = without_cause(&error);
    if let Some(original) = Original::of(&error) {
        Python::try_attach(|py| {
            let cause = original.0.bind(py).clone().into_any();
            exception.set_cause(py, Some(PyErr::from_value(cause)));
        });
    }
    exception
}

fn without_cause(error: &Error) -> PyErr {
    match error {
        Error::Timeout(_) => PyTimeoutError::new_err(in_python_terms(error)),
        Error::UnknownDevice { .. } => PyValueError::new_err(in_python_terms(error)),
        Error::TimingDisabled { .. } | Error::NotRecorded { .. } => {
            PyValueError::new_err(in_python_terms(error))
        }
        Error::Unsupported { .. } => PyNotImplementedError::new_err(in_python_terms(error)),
        _ => PyRuntimeError::new_err(in_python_terms(error)),
    }
}

/// An exception in the size of a pointer, so that the most frequent calls return small results.
pub(crate) struct Raised(Box<PyErr>);

pub(crate) type CallResult<T = ()> = Result<T, Raised>;

impl From<PyErr> for Raised {
    #[cold]
    fn from(error: PyErr) -> Raised {
        Raised(Box::new(error))
    }
}

impl From<Box<Error>> for Raised {
    #[cold]
    fn from(error: Box<Error>) -> Raised {
        to_py(*error).into()
    }
}

impl From<Raised> for PyErr {
    #[cold]
    fn from(raised: Raised) -> PyErr {
        *raised.0
    }
}

/// The error for what only CUDA devices have.
pub(crate) fn cuda_only(what: &str, device: &Device) -> Error {
    bindings::unsupported(
        what,
        device.name(),
        "use it with a device whose name begins with cuda",
    )
}

/// The text of `error`, in Python's terms.
pub(crate) fn in_python_terms(error: &Error) -> String {
    match error {
        Error::TimingDisabled {
            which: HELD, event, ..
        } => format!(
            "the event{} has no timing; make it with enable_timing=True",
            quoted(event)
        ),
        Error::NotReady {
            which: HELD,
            marker,
            complete: false,
            ..
        } => format!("{marker} is not complete yet; call synchronize() first"),
        Error::TimingDisabled { which, event, .. } => {
            format!("{TIMING}: the {which} event{} was not", quoted(event))
        }
        Error::NotRecorded {
            which,
            event,
            in_graph: true,
            ..
        } => format!(
            "{RECORDED}: the {which} event{} was recorded into a graph only; \
             launch the graph first",
            quoted(event)
        ),
        Error::NotRecorded { which, event, .. } => {
            let event = quoted(event);
            format!("{RECORDED}: call record() on the {which} event{event} first")
        }
        Error::NotReady {
            which,
            marker,
            event,
            complete: true,
            ..
        } => format!(
            "{COMPLETED}: the time of the {which} event{} is not readable yet ({marker}); \
             ask again",
            quoted(event)
        ),
        Error::NotReady {
            which,
            marker,
            event,
            ..
        } => format!(
            "{COMPLETED}: the {which} event{} is pending ({marker}); \
             call synchronize() on it first",
            quoted(event)
        ),
        Error::Timeout(timeout) if bindings::lacks_places(timeout) => {
            let text = in_terms(timeout.to_string());
            format!("{text}; call fencepost.locations(True) to see where it was recorded")
        }
        Error::Backend {
            call, code, text, ..
        } if call.starts_with("std::") => format!("no thread could be started: {text} ({code})"),
        error => in_terms(error.to_string()),
    }
}

/// A name behind what it is the name of.
fn quoted(name: &Option<String>) -> String {
    name.as_ref()
        .map_or_else(String::new, |name| format!(" {name:?}"))
}

fn in_terms(text: String) -> String {
    let replaced = |text: String, (rust, here): &(&str, &str)| text.replace(rust, here);
    TERMS.iter().fold(text, replaced)
}

/// A Python exception in one line, for texts that cannot carry the exception itself.
pub(crate) fn in_one_line(py: Python<'_>, error: &PyErr) -> String {
    let mut line = error.to_string();
    // Without a text, as Python's own tracebacks tell it: that of a bare `assert`, for example.
    line.truncate(line.trim_end_matches(": ").len());
    if let Some(place) = raised_at(py, error) {
        line += &format!(" (at {place})");
    }
    line
}

fn raised_at(py: Python<'_>, error: &PyErr) -> Option<String> {
    let mut traceback = error.traceback(py)?.into_any();
    while let Ok(next) = traceback.getattr("tb_next")
        && !next.is_none()
    {
        traceback = next;
    }
    let file = traceback
        .getattr("tb_frame")
        .and_then(|frame| frame.getattr("f_code")?.getattr("co_filename"));
    let line = traceback.getattr("tb_lineno");
    Some(format!("{}:{}", file.ok()?, line.ok()?))
}
