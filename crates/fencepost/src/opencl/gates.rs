//! The host gates of one context: user events, which hold streams until the host completes them.
//!
//! **A gate always ends complete**, also where what lies behind it has failed. A user event that is
//! set to an error makes drivers disagree on what becomes of the commands that wait for it, and of
//! those behind them: PoCL does not run them, Intel's runtime for CPUs calls them complete though
//! they never ran. So the account of the stream fails what lies behind the gate, and the driver is
//! only released.

use std::{collections::BTreeSet, sync::atomic::AtomicU64, time::Duration};

use super::{
    account::gates_are_open,
    context::Context,
    event::ClEvent,
    fault::Fault,
    loader::{EventHandle, QueueHandle},
};
use crate::{
    exit::at_exit_of_use,
    sync::{Mutex, lock, sleep},
};

pub(crate) struct Gates {
    /// Those that are closed. Whoever takes one out opens it.
    closed: Mutex<BTreeSet<usize>>,
}

/// What holds a stream until the host opens it.
#[derive(Clone, Copy)]
pub(crate) struct HostGate(EventHandle);

impl Gates {
    pub(super) fn new() -> Gates {
        Gates {
            closed: Mutex::new(BTreeSet::new()),
        }
    }
}

impl Context {
    /// Holds `queue` until the gate that it gives is opened. The event is that of a
    /// marker in front.
    pub(super) fn close_gate(
        &'static self,
        queue: QueueHandle,
    ) -> Result<(HostGate, ClEvent), Fault> {
        static USES: AtomicU64 = AtomicU64::new(0);
        let gate = HostGate(self.new_user_event()?);
        let waits = self.wait_event(queue, gate.0);
        let in_front = waits.inspect_err(|_| {
            self.complete_user_event(gate.0);
            self.release_event(gate.0);
        })?;
        lock(&self.gates.closed).insert(gate.0.0 as usize);
        at_exit_of_use(&USES, leave);
        // A command in front of it need not wait for the next record.
        let _ = self.flush(queue);
        Ok((gate, in_front))
    }

    /// Lets the stream go on. Call it without any lock: the driver may run work and callbacks in
    /// it.
    pub(crate) fn open_gate(&self, gate: HostGate) {
        if self.is_forked() {
            return;
        }
        let was_closed = lock(&self.gates.closed).remove(&(gate.0.0 as usize));
        if was_closed {
            self.complete_user_event(gate.0);
            self.release_event(gate.0);
        }
    }

    /// Opens those that are closed now.
    fn open_gates(&self) {
        if self.is_forked() {
            return;
        }
        let closed = match self.gates.closed.try_lock() {
            Ok(mut closed) => std::mem::take(&mut *closed),
            Err(_) => return,
        };
        for gate in closed {
            // Not released: the process ends, or nearly so, and whoever closed it may look.
            self.complete_user_event(EventHandle(gate as *mut _));
        }
    }
}

static ALL: Mutex<Vec<&'static Context>> = Mutex::new(Vec::new());

/// Has the host gates of the context opened when the process ends, before drivers are taken apart:
/// one may wait there for its queues. Exit handlers run in the reverse order of their registration.
pub(super) fn open_at_exit(context: &'static Context) {
    lock(&ALL).push(context);
}

/// Opens all host gates, for the end of the process. A gate that is used later may be open.
pub(crate) fn open_all() {
    gates_are_open();
    for context in all() {
        context.open_gates();
    }
}

fn all() -> Vec<&'static Context> {
    ALL.try_lock().map(|all| all.clone()).unwrap_or_default()
}

/// Takes the watchers out of the drivers, so that nobody is woken any more, then opens all gates.
extern "C" fn leave() {
    for context in all() {
        // For a moment only: a driver that does not return must not keep the process alive.
        for _ in 0..200 {
            if context.is_forked() || context.watcher.leave() {
                break;
            }
            sleep(Duration::from_millis(1));
        }
    }
    open_all();
}
