//! The host gates of one context: user events, which hold streams until the host completes them.
//!
//! **A gate always ends complete**, also where what lies behind it has failed. A user event that is
//! set to an error makes drivers disagree on what becomes of the commands that wait for it, and of
//! those behind them: PoCL does not run them, Intel's runtime for CPUs calls them complete though
//! they never ran. So the account of the stream fails what lies behind the gate, and the driver is
//! only released.

use std::collections::BTreeSet;

use super::{
    event::COMPLETE,
    fault::{Fault, check},
    loader::{ContextHandle, EventHandle, Loader},
};
use crate::sync::{Mutex, lock};

pub(super) struct Gates {
    loader: &'static Loader,
    context: ContextHandle,
    /// Those that are closed. Whoever takes one out opens it.
    closed: Mutex<BTreeSet<usize>>,
}

/// What holds a stream until the host opens it.
#[derive(Clone, Copy)]
pub(crate) struct HostGate(pub(super) EventHandle);

impl Gates {
    pub(super) fn new(loader: &'static Loader, context: ContextHandle) -> Gates {
        Gates {
            loader,
            context,
            closed: Mutex::new(BTreeSet::new()),
        }
    }

    /// A closed gate.
    pub(super) fn close(&self) -> Result<HostGate, Fault> {
        let mut code = 0;
        // SAFETY: the context is retained.
        let event = unsafe { self.loader.create_user_event(self.context, &raw mut code) }?;
        check("clCreateUserEvent", code)?;
        lock(&self.closed).insert(event as usize);
        Ok(HostGate(EventHandle(event)))
    }

    /// Lets go whatever waits for the gate. Call it without any lock: the driver may run work and
    /// callbacks in it.
    pub(super) fn open(&self, gate: HostGate) {
        let was_closed = lock(&self.closed).remove(&(gate.0.0 as usize));
        if was_closed {
            self.complete(gate.0);
            // SAFETY: ours; the driver keeps it for the commands that wait for it.
            let _ = unsafe { self.loader.release_event(gate.0) };
        }
    }

    /// Opens those that are closed now, for the end of the process.
    pub(super) fn open_all(&self) {
        let closed = match self.closed.try_lock() {
            Ok(mut closed) => std::mem::take(&mut *closed),
            Err(_) => return,
        };
        for gate in closed {
            // Not released: whoever closed it may be about to use it.
            self.complete(EventHandle(gate as *mut _));
        }
    }

    fn complete(&self, gate: EventHandle) {
        // SAFETY: the event is alive, and was never set before: it was closed.
        let _ = unsafe { self.loader.set_user_event(gate, COMPLETE) };
    }
}
