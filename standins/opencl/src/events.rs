//! Events that end with an error by a test's plan, though the driver has completed them.

use fencepost_sim::{CallLog, lock};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ffi::c_int;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, Ordering};

use crate::table::Handle;

/// How an event ends with an error: implementations differ in what tells of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Failure {
    pub(crate) code: c_int,
    /// [`IN_STATUS`], [`IN_CALLBACK`] and [`IN_WAIT`].
    pub(crate) told: u32,
}

/// `clGetEventInfo` gives the code. Without it the event is complete there.
pub(crate) const IN_STATUS: u32 = 1;
/// The callback gets the code. Without it no callback comes.
pub(crate) const IN_CALLBACK: u32 = 2;
/// `clWaitForEvents` fails. Without it the wait succeeds.
pub(crate) const IN_WAIT: u32 = 4;

/// Plans failures by the call that makes the event.
pub(crate) static PLANNED: CallLog<Failure> = CallLog::new("OpenCL");

/// An event that fails.
struct Failing {
    failure: Failure,
    /// References to it that the program owns.
    references: u64,
}

/// The events that fail and that the program owns, by their handles. The driver uses the memory of
/// released events again.
static FAILING: Mutex<BTreeMap<usize, Failing>> = Mutex::new(BTreeMap::new());

/// References to events that the program owns.
static OWNED: AtomicI64 = AtomicI64::new(0);

/// The call `name` has made `event`.
pub(crate) fn made(name: &'static str, event: Handle) {
    OWNED.fetch_add(1, Ordering::Relaxed);
    if let Some(failure) = PLANNED.count(name) {
        let references = 1;
        let failing = Failing {
            failure,
            references,
        };
        lock(&FAILING).insert(event as usize, failing);
    }
}

pub(crate) fn retained(event: Handle) {
    OWNED.fetch_add(1, Ordering::Relaxed);
    if let Some(failing) = lock(&FAILING).get_mut(&(event as usize)) {
        failing.references += 1;
    }
}

/// The program gives up a reference. Call it in front of the driver's release: behind it, the
/// handle may be another event's.
pub(crate) fn released(event: Handle) {
    OWNED.fetch_sub(1, Ordering::Relaxed);
    let mut failing = lock(&FAILING);
    if let Entry::Occupied(mut known) = failing.entry(event as usize) {
        known.get_mut().references -= 1;
        if known.get().references == 0 {
            known.remove();
        }
    }
}

pub(crate) fn owned() -> i64 {
    OWNED.load(Ordering::Relaxed)
}

pub(crate) fn failure_of(event: Handle) -> Option<Failure> {
    let failing = lock(&FAILING);
    Some(failing.get(&(event as usize))?.failure)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_fails_until_the_last_reference_is_released() {
        let (name, told) = ("clEnqueueMarkerWithWaitList", IN_STATUS);
        PLANNED.fail(name, 1, Failure { code: -5, told }, false);
        let event = std::ptr::without_provenance_mut(0x1000);
        made(name, event);
        retained(event);
        released(event);
        assert_eq!(failure_of(event).map(|failure| failure.code), Some(-5));
        released(event);
        assert!(failure_of(event).is_none());
        // The driver gives the same handle to the next event.
        made("clCreateUserEvent", event);
        assert!(failure_of(event).is_none());
        released(event);
    }
}
