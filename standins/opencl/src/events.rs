//! Events that end with an error by a test's plan, though the driver has completed them.

use fencepost_sim::{CallLog, lock};
use std::collections::BTreeMap;
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

/// The events that are alive and fail, by their handles.
static FAILING: Mutex<BTreeMap<usize, Failure>> = Mutex::new(BTreeMap::new());

/// References to events that the program owns.
static OWNED: AtomicI64 = AtomicI64::new(0);

/// The call `name` has made `event`.
pub(crate) fn made(name: &'static str, event: Handle) {
    OWNED.fetch_add(1, Ordering::Relaxed);
    let mut failing = lock(&FAILING);
    // The driver uses the memory of released events again.
    match PLANNED.count(name) {
        Some(failure) => failing.insert(event as usize, failure),
        None => failing.remove(&(event as usize)),
    };
}

pub(crate) fn retained() {
    OWNED.fetch_add(1, Ordering::Relaxed);
}

pub(crate) fn released() {
    OWNED.fetch_sub(1, Ordering::Relaxed);
}

pub(crate) fn owned() -> i64 {
    OWNED.load(Ordering::Relaxed)
}

pub(crate) fn failure_of(event: Handle) -> Option<Failure> {
    lock(&FAILING).get(&(event as usize)).copied()
}
