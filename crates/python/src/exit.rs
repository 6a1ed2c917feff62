//! The end of the interpreter. Threads of the library call Python, for host work and callbacks, and
//! must not do so while the interpreter shuts down: CPython before 3.14 ends such a thread by
//! unwinding it, and Rust then aborts the process.
//!
//! So each of these calls goes through [`with_python`]. At exit, while Python still works,
//! [`close`] admits no further call and waits for those that are running. Later calls are dropped
//! silently.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use pyo3::{exceptions::PyImportError, ffi, prelude::*};

/// The calls that are running, in one word:
///
/// | bits | hold |
/// |---|---|
/// | 0 to 30 | how many calls are running |
/// | 31 | whether no further call may begin ([`CLOSED`]) |
/// | 32 to 63 | the process that they run in |
///
/// *Invariant: a call runs only while it is counted, and none is counted once the word is closed.*
/// One read-modify-write counts a call and sees that the word is open. So whoever closes the word
/// and then reads 0 knows that no call runs or will run.
///
/// It is no lock: a thread that is missing in a forked child would hold that for ever. The count of
/// another process means nothing, because its threads are not here.
static CALLS: AtomicU64 = AtomicU64::new(0);

const CLOSED: u64 = 1 << 31;
const RUNNING: u64 = CLOSED - 1;

/// How long the end of the process waits for Python code on the library's threads. A call that
/// takes longer is left behind, as a daemon thread is.
pub(crate) const PATIENCE: Duration = Duration::from_secs(2);

/// An error in a subinterpreter: threads of the library enter the main interpreter only, and there
/// is one end to wait for.
pub(crate) fn check_interpreter() -> PyResult<()> {
    // SAFETY: this thread is attached, so there is a current interpreter, whose number is read
    // (https://docs.python.org/3/c-api/init.html#c.PyInterpreterState_GetID).
    match unsafe { ffi::PyInterpreterState_GetID(ffi::PyInterpreterState_Get()) } {
        0 => Ok(()),
        _ => Err(PyImportError::new_err(
            "fencepost runs in the main interpreter only; import it there, or in another process",
        )),
    }
}

/// Changes the word as `change` says, which is given the one of this process; returns whether it
/// did.
fn update(change: impl Fn(u64) -> Option<u64>) -> bool {
    let process = u64::from(std::process::id()) << 32;
    let ours = |calls: u64| match calls & !(CLOSED | RUNNING) == process {
        true => calls,
        false => process | calls & CLOSED,
    };
    let updated = CALLS.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |calls| {
        change(ours(calls))
    });
    updated.is_ok()
}

/// Calls `f` with the GIL, on a thread of the library; `None` when the interpreter is shutting
/// down.
pub(crate) fn with_python<R>(f: impl FnOnce(Python<'_>) -> R) -> Option<R> {
    struct Returned;
    impl Drop for Returned {
        fn drop(&mut self) {
            // In a child forked inside the call, it was counted by the parent.
            update(|calls| (calls & RUNNING > 0).then(|| calls - 1));
        }
    }
    if !update(|calls| (calls & CLOSED == 0).then_some(calls + 1)) {
        return None;
    }
    let _returned = Returned;
    Python::try_attach(f)
}

/// No call of Python from the library's threads begins after this one.
pub(crate) fn close(py: Python<'_>) {
    update(|calls| Some(calls | CLOSED));
    wait_until(py, || CALLS.load(Ordering::SeqCst) & RUNNING == 0);
}

/// Waits until `over` returns `true`, for at most [`PATIENCE`].
pub(crate) fn wait_until(py: Python<'_>, over: impl Fn() -> bool + Sync) {
    py.detach(|| {
        let start = Instant::now();
        while !over() && start.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(1));
        }
    });
}
