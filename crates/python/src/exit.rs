//! The end of the interpreter. Threads of the library call Python, for host work and callbacks, and
//! must not do so while the interpreter shuts down: CPython before 3.14 ends such a thread by
//! unwinding it, and Rust then aborts the process.
//!
//! So each of these calls goes through [`with_python`]. At exit, while Python still works,
//! [`close`] admits no further call and waits for those that are running. Later calls are dropped
//! silently.

use std::{
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use pyo3::prelude::*;

struct Calls {
    closed: bool,
    /// How many calls are running.
    running: usize,
    /// The process that the count belongs to. In a forked child none of these threads exist.
    process: u32,
}

static CALLS: Mutex<Calls> = Mutex::new(Calls {
    closed: false,
    running: 0,
    process: 0,
});
static RETURNED: Condvar = Condvar::new();

/// How long the end of the process waits for Python code on the library's threads. A call that
/// takes longer is left behind, as a daemon thread is.
pub(crate) const PATIENCE: Duration = Duration::from_secs(2);

fn calls() -> MutexGuard<'static, Calls> {
    let mut calls = CALLS.lock().unwrap_or_else(PoisonError::into_inner);
    let process = std::process::id();
    if calls.process != process {
        calls.process = process;
        calls.running = 0;
    }
    calls
}

/// Calls `f` with the GIL, on a thread of the library; `None` when the interpreter is shutting
/// down.
pub(crate) fn with_python<R>(f: impl FnOnce(Python<'_>) -> R) -> Option<R> {
    struct Returned;
    impl Drop for Returned {
        fn drop(&mut self) {
            let mut calls = calls();
            calls.running = calls.running.saturating_sub(1);
            drop(calls);
            RETURNED.notify_all();
        }
    }
    {
        let mut calls = calls();
        if calls.closed {
            return None;
        }
        calls.running += 1;
    }
    let _returned = Returned;
    Python::try_attach(f)
}

/// No call of Python from the library's threads begins after this one.
pub(crate) fn close(py: Python<'_>) {
    py.detach(|| {
        let mut calls = calls();
        calls.closed = true;
        drop(RETURNED.wait_timeout_while(calls, PATIENCE, |calls| calls.running > 0));
    });
}
