//! The interpreter's end. Threads of the library call Python (host work, callbacks), and may not do
//! so once the interpreter is on its way out: CPython before 3.14 would end such a thread by
//! unwinding it, which Rust answers by ending the process.
//!
//! So every such call goes through [`with_python`]. At exit, while Python still works, [`close`]
//! lets no more in and waits for those that are inside; what comes later is dropped in silence.

use std::{
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use pyo3::prelude::*;

struct Gate {
    closed: bool,
    inside: usize,
    /// Whose threads are inside: after a fork they are in the parent.
    process: u32,
}

static GATE: Mutex<Gate> = Mutex::new(Gate {
    closed: false,
    inside: 0,
    process: 0,
});
static LEFT: Condvar = Condvar::new();

/// How long the end of the process waits for Python code on our threads. What blocks for longer is
/// left to its fate, as a daemon thread is.
const PATIENCE: Duration = Duration::from_secs(2);

fn gate() -> MutexGuard<'static, Gate> {
    let mut gate = GATE.lock().unwrap_or_else(PoisonError::into_inner);
    let process = std::process::id();
    if gate.process != process {
        gate.process = process;
        gate.inside = 0;
    }
    gate
}

/// Runs `f` with the interpreter, on a thread of the library; `None` when the interpreter is
/// ending.
pub(crate) fn with_python<R>(f: impl FnOnce(Python<'_>) -> R) -> Option<R> {
    struct Leave;
    impl Drop for Leave {
        fn drop(&mut self) {
            let mut gate = gate();
            gate.inside = gate.inside.saturating_sub(1);
            drop(gate);
            LEFT.notify_all();
        }
    }
    {
        let mut gate = gate();
        if gate.closed {
            return None;
        }
        gate.inside += 1;
    }
    let _leave = Leave;
    Python::try_attach(f)
}

/// Called by `atexit`: no call of Python from our threads begins after it.
#[pyfunction]
#[pyo3(name = "_close")]
pub(crate) fn close(py: Python<'_>) {
    py.detach(|| {
        let mut gate = gate();
        gate.closed = true;
        let inside = |gate: &mut Gate| gate.inside > 0;
        // Whoever is still inside after it is left there.
        drop(LEFT.wait_timeout_while(gate, PATIENCE, inside));
    });
}
