//! What the watcher of a context watches: a marker's native event, a stream's failure point, and
//! raw events that somebody awaits.

use std::{
    any::Any,
    mem::ManuallyDrop,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::Waker,
};

use super::{
    context::Context,
    driver::EventHandle,
    fault::{CAPTURED_EVENT, Fault, INVALID_VALUE, Meaning},
    pools::Kind,
};
use crate::{
    contract::MarkerImpl,
    core::{Callbacks, DeviceCore},
    error::{Cause, Error, Result},
    panics::contain,
    sync::{Mutex, lock},
    timeline::{Reached, Timeline, Waiter},
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
    Raw(Arc<RawWait>),
}

/// The native event of a raw event: alive while the raw event is, or somebody awaits it.
pub(super) struct RawNative {
    pub(super) context: &'static Context,
    pub(super) event: EventHandle,
    pub(super) device: Arc<DeviceCore>,
    pub(super) owner: Owner,
}

/// Who destroys the native event of a raw event.
pub(super) enum Owner {
    /// The raw event.
    Own,
    /// This marker.
    Marker {
        /// Keeps it alive.
        _marker: Arc<dyn MarkerImpl>,
    },
    /// The caller.
    Caller {
        /// Keeps it alive.
        _keep_alive: Arc<dyn Any + Send + Sync>,
    },
}

/// The handles that this process has exported, each while its event is there. The driver's error
/// for opening one of them here does not say what is wrong.
static EXPORTED: Mutex<Vec<(EventHandle, [u8; 64])>> = Mutex::new(Vec::new());

impl RawNative {
    pub(super) fn is_exported(&self, handle: [u8; 64]) {
        let mut exported = lock(&EXPORTED);
        if !exported.iter().any(|(event, _)| *event == self.event) {
            exported.push((self.event, handle));
        }
    }

    /// The error of a question or wait that the driver has refused. Driver 580 returns the first
    /// code for an event of a capture that has ended; the second is documented for those of one
    /// that goes on.
    pub(super) fn refused(&self, fault: Fault, ended: bool) -> Error {
        match fault.code() {
            Some(INVALID_VALUE | CAPTURED_EVENT) => Error::Captured {
                marker: format!("a raw event of {}", self.context.name),
                ended,
            },
            _ => self.context.failed(fault, None),
        }
    }
}

/// Whether this process has exported an event that is there by this handle.
pub(super) fn exported(handle: &[u8; 64]) -> bool {
    lock(&EXPORTED)
        .iter()
        .any(|(_, exported)| exported == handle)
}

impl Drop for RawNative {
    fn drop(&mut self) {
        // In a forked child a thread of the parent may have held the lock.
        if !self.context.calls.is_forked() {
            lock(&EXPORTED).retain(|(event, _)| *event != self.event);
        }
        if let Owner::Own = self.owner {
            self.context.calls.destroy_event(self.event);
        }
    }
}

/// Somebody awaits a raw event: over once a look finds nothing pending on it.
///
/// Others may record the event again right after that look. So the answer is kept here, and the
/// event is not asked a second time.
pub(super) struct RawWait {
    native: ManuallyDrop<Arc<RawNative>>,
    state: Mutex<RawState>,
}

enum RawState {
    Waiting(Waiter),
    Over(Result<()>),
}

impl RawWait {
    /// Has `waiter` fired once `native` is complete, or cannot be asked any more.
    ///
    /// In a forked child, which has no watcher, this is an error before any lock is taken: a thread
    /// of the parent may have held it.
    pub(super) fn begin(native: &Arc<RawNative>, waiter: Waiter) -> Result<Arc<RawWait>> {
        let context = native.context;
        if context.calls.is_forked() {
            return Err(Error::Forked {
                device: context.name.clone(),
            });
        }
        let wait = Arc::new(RawWait {
            native: ManuallyDrop::new(native.clone()),
            state: Mutex::new(RawState::Waiting(waiter)),
        });
        context.watcher.watch(Watch::Raw(wait.clone()))?;
        Ok(wait)
    }

    /// The answer, if it is there. Otherwise `waker` is woken for it, in place of the waiter
    /// before.
    pub(super) fn answer(&self, waker: &Waker) -> Option<Result<()>> {
        match &*lock(&self.state) {
            RawState::Over(result) => return Some(result.clone()),
            RawState::Waiting(Waiter::Waker(known)) if known.will_wake(waker) => return None,
            RawState::Waiting(_) => {}
        }
        // To clone and to drop a waker runs code of the caller's: not under the lock.
        let fresh = Waiter::Waker(waker.clone());
        let mut state = lock(&self.state);
        let (unused, answer) = match &mut *state {
            RawState::Over(result) => (fresh, Some(result.clone())),
            RawState::Waiting(waiter) => (std::mem::replace(waiter, fresh), None),
        };
        drop(state);
        contain(|| drop(unused));
        answer
    }

    /// Nobody awaits it any more.
    pub(super) fn cancel(self: &Arc<Self>) {
        // In a forked child nobody looks, and a thread of the parent may have held the locks.
        if self.native.context.calls.is_forked() {
            return;
        }
        self.native.context.watcher.unwatch(key_of(self));
        let before = std::mem::replace(&mut *lock(&self.state), RawState::Over(Ok(())));
        if let RawState::Waiting(waiter) = before {
            contain(|| drop(waiter));
        }
    }

    /// Returns whether it is over.
    fn look(&self) -> bool {
        let context = self.native.context;
        let result = match context.calls.query(self.native.event) {
            Ok(false) => return false,
            Ok(true) => Ok(()),
            // The process is ending: nobody is woken any more.
            Err(fault) if fault.meaning() == Meaning::Gone => return true,
            Err(fault) => Err(self.native.refused(fault, false)),
        };
        let over = RawState::Over(result.clone());
        let before = std::mem::replace(&mut *lock(&self.state), over);
        if let RawState::Waiting(waiter) = before {
            waiter.fire(&result);
        }
        true
    }
}

/// The last who knows an event of the caller's runs code of the caller's. A wait may end under a
/// lock or on the watcher's thread, so it hands what it knows to the thread for callbacks.
impl Drop for RawWait {
    fn drop(&mut self) {
        // SAFETY: taken once, and never used afterwards.
        let native = unsafe { ManuallyDrop::take(&mut self.native) };
        if let Owner::Caller { .. } = native.owner {
            let callbacks = &native.context.callbacks;
            callbacks.call(Box::new(move || drop(native)));
        }
    }
}

/// A lane of its own for each wait. No timeline lies at the address of another live object.
fn key_of(wait: &Arc<RawWait>) -> (usize, u64) {
    (Arc::as_ptr(wait) as usize, 0)
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
    /// The wait that has failed here, by its number among those for what may fail unseen. It stays
    /// counted until this point is over: what was recorded behind it may be complete for the
    /// driver.
    wait: Option<u64>,
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
        wait: Option<u64>,
    ) -> FailurePoint {
        FailurePoint {
            lease: Lease::new(context, kind, event),
            timeline,
            before,
            cause,
            wait,
        }
    }

    /// Fails the stream now, where nobody can watch for the failure point.
    pub(super) fn give_up(&self) {
        self.timeline.fail(&self.cause, false).fire();
    }

    pub(super) fn event(&self) -> EventHandle {
        self.lease.event
    }

    /// Fails the stream if this point has been reached; `true` when it has.
    pub(super) fn ask(&self) -> Result<bool> {
        if self.timeline.has_failed() {
            return Ok(true);
        }
        let context = self.lease.context;
        match context.calls.query(self.lease.event) {
            Ok(false) => Ok(false),
            Ok(true) => {
                self.reach();
                Ok(true)
            }
            Err(fault) => Err(context.failed(fault, Some(&self.timeline))),
        }
    }

    /// As [`ask`](FailurePoint::ask), for the watcher: whether there is nothing more to watch.
    fn look(&self) -> bool {
        let context = self.lease.context;
        if self.timeline.has_failed() {
            return true;
        }
        match context.calls.query(self.lease.event) {
            Ok(false) => false,
            Ok(true) => {
                self.reach();
                true
            }
            // The process is ending: nobody is woken any more.
            Err(fault) if fault.meaning() == Meaning::Gone => true,
            Err(fault) => {
                // Nobody can watch it any more, so those who wait must not wait for ever.
                drop(context.failed(fault, Some(&self.timeline)));
                self.give_up();
                true
            }
        }
    }

    fn reach(&self) {
        self.lease.context.complete(&self.timeline, self.before);
        self.timeline.fail(&self.cause, false).fire();
    }
}

impl Drop for FailurePoint {
    fn drop(&mut self) {
        let context = self.lease.context;
        // In a forked child a thread of the parent may have held the lock.
        if let (Some(wait), false) = (self.wait, context.calls.is_forked()) {
            context.upstreams.settled(wait);
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
            Watch::Raw(wait) => key_of(wait),
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
            Watch::FailurePoint(failure_point) => failure_point.look(),
            Watch::Raw(wait) => wait.look(),
        }
    }
}
