//! What other implementations do, and the driver behind does not.

use crate::calls::Callback;
use crate::table::Handle;
use fencepost_sim::lock;
use std::ffi::{c_int, c_void};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};

/// Whether callbacks run inside of the next call that passes here, on its thread.
static CALLS_BACK_INSIDE: AtomicBool = AtomicBool::new(false);
/// Whether commands have no time but that of their end.
static HAS_END_ALONE: AtomicBool = AtomicBool::new(false);
/// By how many nanoseconds the timers of devices are ahead of their clock; `NO_TIMER` for none.
static TIMER: AtomicU64 = AtomicU64::new(NO_TIMER);
const NO_TIMER: u64 = u64::MAX;

/// What the text of a version begins with.
pub(crate) const VERSION_BEGINS: &str = "OpenCL ";

/// The version that devices say they have, in place of their own.
pub(crate) fn version() -> Option<&'static str> {
    static VERSION: OnceLock<Option<String>> = OnceLock::new();
    let named = VERSION.get_or_init(|| std::env::var("FENCEPOST_SIM_OPENCL_VERSION").ok());
    // As long as any that drivers have, so that it fits.
    named.as_deref().filter(|version| version.len() == 3)
}

pub(crate) fn set_calls_back_inside(on: bool) {
    CALLS_BACK_INSIDE.store(on, Ordering::SeqCst);
}

pub(crate) fn calls_back_inside() -> bool {
    CALLS_BACK_INSIDE.load(Ordering::SeqCst)
}

pub(crate) fn set_has_end_alone(on: bool) {
    HAS_END_ALONE.store(on, Ordering::SeqCst);
}

pub(crate) fn has_end_alone() -> bool {
    HAS_END_ALONE.load(Ordering::SeqCst)
}

pub(crate) fn set_timer(ahead: u64) {
    TIMER.store(ahead, Ordering::SeqCst);
}

/// By how many nanoseconds the timers of devices are ahead, where a test has planned it.
pub(crate) fn timer() -> Option<u64> {
    Some(TIMER.load(Ordering::SeqCst)).filter(|ahead| *ahead != NO_TIMER)
}

/// The clock of PoCL's times.
pub(crate) fn raw_clock() -> u64 {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: a place for a time
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC_RAW, &raw mut now) };
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// A call of a program's callback that is due.
pub(crate) struct Due {
    pub(crate) callback: Callback,
    pub(crate) event: Handle,
    pub(crate) status: c_int,
    pub(crate) data: *mut c_void,
}

// SAFETY: handles and what the program has passed, for the program alone.
unsafe impl Send for Due {}

impl Due {
    /// # Safety
    /// Once only, as the program has registered it.
    pub(crate) unsafe fn run(self) {
        // SAFETY: the caller vouches for it
        unsafe { (self.callback)(self.event, self.status, self.data) };
    }
}

static DUE: Mutex<Vec<Due>> = Mutex::new(Vec::new());

/// Runs it inside of the next call.
pub(crate) fn run_inside(due: Due) {
    lock(&DUE).push(due);
}

/// A call begins.
pub(crate) fn run_due() {
    if !calls_back_inside() {
        return;
    }
    let due = std::mem::take(&mut *lock(&DUE));
    for due in due {
        // SAFETY: taken off the list
        unsafe { due.run() };
    }
}
