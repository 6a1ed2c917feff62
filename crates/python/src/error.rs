//! The library's errors as Python's exceptions: PyTorch's kinds, with texts that name the remedy in
//! Python's words.

use fencepost::Error;
use pyo3::{
    exceptions::{PyNotImplementedError, PyRuntimeError, PyTimeoutError, PyValueError},
    prelude::*,
};

/// What programs written for PyTorch look for in these texts.
const TIMING: &str = "Both events must be created with argument 'enable_timing=True'";
const RECORDED: &str = "Both events must be recorded before calculating elapsed time";
const COMPLETED: &str = "Both events must be completed before calculating elapsed time";

/// The exception for `error`.
pub(crate) fn to_py(error: Error) -> PyErr {
    match error {
        Error::Timeout(_) => PyTimeoutError::new_err(in_python_words(&error)),
        Error::UnknownDevice { .. } => PyValueError::new_err(in_python_words(&error)),
        Error::TimingDisabled { .. } | Error::NotRecorded { .. } => {
            PyValueError::new_err(in_python_words(&error))
        }
        Error::Unsupported { .. } => PyNotImplementedError::new_err(in_python_words(&error)),
        _ => PyRuntimeError::new_err(in_python_words(&error)),
    }
}

/// An exception in one word: the calls that are made most pass their results on, and so pass on a
/// word.
pub(crate) struct Raised(Box<PyErr>);

pub(crate) type Done<T = ()> = Result<T, Raised>;

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

/// As [`to_py`], of the one kind that `torch.mps` knows.
pub(crate) fn to_py_mps(error: Error) -> PyErr {
    match error {
        Error::TimingDisabled { .. } | Error::NotRecorded { .. } => {
            PyRuntimeError::new_err(in_python_words(&error))
        }
        error => to_py(error),
    }
}

pub(crate) fn timing_disabled(which: &'static str) -> Error {
    Error::TimingDisabled { which }
}

fn in_python_words(error: &Error) -> String {
    match error {
        Error::TimingDisabled { which } => format!("{TIMING}: the {which} event was not"),
        Error::NotRecorded { which } => {
            format!("{RECORDED}: call record() on the {which} event first")
        }
        Error::NotReady { which, marker } => format!(
            "{COMPLETED}: the {which} event is pending ({marker}); call synchronize() on it first"
        ),
        error => without_rust_lines(&error.to_string()).replace("::", "."),
    }
}

/// Drops where in the Rust code a marker was recorded: in Python that is always the same line.
fn without_rust_lines(text: &str) -> String {
    let mut rest = text;
    let mut kept = String::with_capacity(text.len());
    while let Some((before, after)) = rest.split_once(", recorded at ") {
        kept += before;
        let end = after.find([',', ';', ' ']).unwrap_or(after.len());
        rest = &after[end..];
        // The sentence went on behind it: "…, recorded at FILE:1:2, is pending".
        rest = rest.strip_prefix(", is").map_or(rest, |_| &rest[1..]);
    }
    kept + rest
}

/// A Python exception in one line, for those who cannot be given the exception itself.
pub(crate) fn in_one_line(py: Python<'_>, error: &PyErr) -> String {
    let mut line = error.to_string();
    if let Some(place) = raised_at(py, error) {
        line += &format!(" (raised at {place})");
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
