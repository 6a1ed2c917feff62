//! What the watcher of a context watches: a marker's native event, and a stream's failure point.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use super::{
    context::Context, driver::EventHandle, fault::Meaning, host_gates::HostGate, pools::Kind,
};
use crate::{
    error::{Cause, Result},
    sync::{Mutex, lock},
    timeline::{Reached, Timeline},
    watcher::Watched,
};

/// What the watcher watches.
pub(super) enum Watch {
    Event {
        lease: Arc<Lease>,
        timeline: Arc<Timeline>,
        value: u64,
    },
    FailurePoint(Arc<FailurePoint>),
}

/// An event that the watcher may be asking, or the caller recording.
pub(super) struct Lease {
    context: &'static Context,
    kind: Kind,
    event: EventHandle,
    /// Whether the caller has it, for good: then it is destroyed in the end, and never used again.
    handed_out: AtomicBool,
}

impl Lease {
    pub(super) fn new(context: &'static Context, kind: Kind, event: EventHandle) -> Lease {
        Lease {
            context,
            kind,
            event,
            handed_out: AtomicBool::new(false),
        }
    }

    /// The caller has the event from now on.
    pub(super) fn hand_out(&self) {
        self.handed_out.store(true, Ordering::Relaxed);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        match *self.handed_out.get_mut() {
            true => self.context.calls.destroy_event(self.event),
            false => self.context.pools.give_event(self.kind, self.event),
        }
    }
}

/// Where a stream ends: once `event` is complete, so are the markers up to `before`, and those
/// above have failed.
pub(super) struct FailurePoint {
    lease: Lease,
    pub(super) timeline: Arc<Timeline>,
    before: u64,
    pub(super) cause: Cause,
    /// A gate to open once the stream counts as failed.
    held: Mutex<Option<HostGate>>,
}

impl FailurePoint {
    /// A failure point at `event`, which is recorded and which the failure point owns from now on.
    pub(super) fn new(
        context: &'static Context,
        kind: Kind,
        event: EventHandle,
        timeline: Arc<Timeline>,
        before: u64,
        cause: Cause,
        held: Option<HostGate>,
    ) -> FailurePoint {
        FailurePoint {
            lease: Lease::new(context, kind, event),
            timeline,
            before,
            cause,
            held: Mutex::new(held),
        }
    }

    /// The same failure point, with a cause, and a gate to open once the stream has failed by it.
    pub(super) fn with(self, cause: Cause, gate: HostGate) -> FailurePoint {
        FailurePoint {
            cause,
            held: Mutex::new(Some(gate)),
            ..self
        }
    }

    /// Fails the stream now, where nobody can watch for the failure point.
    pub(super) fn give_up(&self) {
        self.timeline.fail(&self.cause, false).fire();
        self.release();
    }

    pub(super) fn event(&self) -> EventHandle {
        self.lease.event
    }

    /// Fails the stream if this point has been reached; `true` when it has.
    pub(super) fn ask(&self) -> Result<bool> {
        if self.timeline.has_failed() {
            self.release();
            return Ok(true);
        }
        let context = self.lease.context;
        match context.calls.query(self.lease.event) {
            Ok(false) => Ok(false),
            Ok(true) => {
                context.complete(&self.timeline, self.before);
                self.timeline.fail(&self.cause, false).fire();
                self.release();
                Ok(true)
            }
            Err(fault) => {
                let error = context.failed(fault, Some(&self.timeline));
                self.release();
                Err(error)
            }
        }
    }

    /// Only once the stream counts as failed: nothing behind the gate may count as complete.
    fn release(&self) {
        let held = lock(&self.held).take();
        if let Some(gate) = held {
            self.lease.context.gates.open(gate);
        }
    }
}

impl Watched for Watch {
    fn key(&self) -> (usize, u64) {
        match self {
            Watch::Event {
                timeline, value, ..
            } => (Arc::as_ptr(timeline) as usize, *value),
            // A lane of its own: the marker at `before` may be watched too, and of two things with
            // one key the second is not watched. No timeline lies at the odd address.
            Watch::FailurePoint(failure_point) => (
                Arc::as_ptr(&failure_point.timeline) as usize + 1,
                failure_point.before,
            ),
        }
    }

    fn look(&self) -> bool {
        match self {
            Watch::Event {
                lease,
                timeline,
                value,
            } => {
                if timeline.reached(*value) != Reached::NotYet {
                    return true;
                }
                match lease.context.calls.query(lease.event) {
                    Ok(false) => false,
                    Ok(true) => {
                        lease.context.complete(timeline, *value);
                        true
                    }
                    // The process is ending: nobody is woken any more.
                    Err(fault) if fault.meaning() == Meaning::Gone => true,
                    Err(fault) => {
                        let error = lease.context.failed(fault, Some(timeline));
                        if !timeline.has_failed() {
                            // Nobody can watch it any more, so those who wait must not wait for
                            // ever.
                            timeline.fail(&Cause::new(error.to_string()), false).fire();
                        }
                        true
                    }
                }
            }
            Watch::FailurePoint(failure_point) => !matches!(failure_point.ask(), Ok(false)),
        }
    }
}
