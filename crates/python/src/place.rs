//! The Python line that makes a call, for the texts of errors.

use std::sync::atomic::{AtomicBool, Ordering};

use fencepost::{Place, bindings};
use pyo3::{ffi, intern, prelude::*, types::PyString};

/// Whether records look for their line, which takes longer than a record in place.
static LOCATIONS: AtomicBool = AtomicBool::new(false);

/// Let errors name the Python line at which an event was recorded.
///
/// Off at first, because looking for the line makes ``record`` slower. The line of ``launch`` is
/// always named. Return whether it was on before.
#[pyfunction]
#[pyo3(signature = (on = true))]
pub(crate) fn locations(on: bool) -> bool {
    LOCATIONS.swap(on, Ordering::Relaxed)
}

/// The line that records, if it is to be looked for.
#[inline]
pub(crate) fn of_record(py: Python<'_>) -> Place {
    match LOCATIONS.load(Ordering::Relaxed) {
        true => of_caller(py),
        false => bindings::unknown_place(),
    }
}

/// The line that makes this call: of the innermost frame outside of this package.
#[cold]
pub(crate) fn of_caller(py: Python<'_>) -> Place {
    find(py).unwrap_or_else(bindings::unknown_place)
}

fn find(py: Python<'_>) -> Option<Place> {
    // SAFETY: a borrowed reference, or null where no Python code is running
    // (https://docs.python.org/3/c-api/reflection.html#c.PyEval_GetFrame).
    let frame = unsafe {
        let frame = ffi::PyEval_GetFrame().cast::<ffi::PyObject>();
        Bound::from_borrowed_ptr_or_opt(py, frame)
    };
    let mut frame = frame?;
    loop {
        let code = frame.getattr(intern!(py, "f_code")).ok()?;
        let file = code.getattr(intern!(py, "co_filename")).ok()?;
        let file = file.cast::<PyString>().ok()?.to_cow().ok()?;
        if !is_ours(&file) {
            let line = frame
                .getattr(intern!(py, "f_lineno"))
                .ok()?
                .extract()
                .ok()?;
            return Some(bindings::place(&file, line));
        }
        frame = frame.getattr(intern!(py, "f_back")).ok()?;
    }
}

/// Whether `file` is a module of this package.
fn is_ours(file: &str) -> bool {
    let mut parts = file.rsplit(['/', '\\']);
    let module = parts.next();
    let modules = ["_tracing.py", "cuda.py", "mps.py"];
    parts.next() == Some("fencepost") && module.is_some_and(|module| modules.contains(&module))
}
