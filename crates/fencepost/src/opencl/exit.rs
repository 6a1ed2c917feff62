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
