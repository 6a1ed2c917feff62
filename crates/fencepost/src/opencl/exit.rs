//! What happens to streams and watchers when the process ends.

use std::{sync::atomic::AtomicU64, time::Duration};

use super::{account::gates_are_open, context::Context};
use crate::{
    exit::at_exit_of_use,
    sync::{Mutex, lock, sleep},
};

static ALL: Mutex<Vec<&'static Context>> = Mutex::new(Vec::new());

/// Has the watcher of the context return from the driver, and its gates opened, before the process
/// ends: a driver that is taken apart may wait for its queues. Exit handlers run in the reverse
/// order of their registration.
pub(super) fn leave_at_exit(context: &'static Context) {
    lock(&ALL).push(context);
    used();
}

/// Something was done that the handler has to undo.
pub(super) fn used() {
    static USES: AtomicU64 = AtomicU64::new(0);
    at_exit_of_use(&USES, leave);
}

fn all() -> Vec<&'static Context> {
    let contexts = ALL.try_lock().map(|all| all.clone()).unwrap_or_default();
    contexts
        .into_iter()
        .filter(|context| !context.is_forked())
        .collect()
}

/// Opens all host gates before the process ends. A gate that is used later may be open.
pub(crate) fn open_all_gates() {
    gates_are_open();
    for context in all() {
        context.gates.open_all();
    }
}

/// Waits for the work of tests, but not for long.
///
/// A driver is taken apart when the process ends, and PoCL 3.1 goes on compiling kernels
/// meanwhile: the process then ends by a signal, whatever its exit code was to be. The handler
/// would come too late: it runs after those that the compiler registers as it works.
#[cfg(feature = "conformance")]
pub(crate) fn settle() {
    for context in all() {
        context.events.settle();
    }
}

extern "C" fn leave() {
    for context in all() {
        // For a moment only: a driver that does not return must not keep the process alive.
        for _ in 0..200 {
            if context.watcher.leave() {
                break;
            }
            sleep(Duration::from_millis(1));
        }
    }
    open_all_gates();
}
