//! The part that all calls share: counts, planned faults and the driver's lock.

use crate::driver::{Driver, with_driver};
use crate::external_sync::Using;
use crate::usage::{LOG, VkResult, set_current_call};
use ash::vk::{self, Handle};
use fencepost_sim::lock;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

static CALLS: AtomicU64 = AtomicU64::new(0);

/// The functions whose next call stalls, and the number of stalled calls. No other lock is taken
/// while its lock is held.
static STALLS: Mutex<(Vec<String>, usize)> = Mutex::new((Vec::new(), 0));
static STALLS_CHANGED: Condvar = Condvar::new();

fn stalls() -> MutexGuard<'static, (Vec<String>, usize)> {
    lock(&STALLS)
}

/// Makes the next call of the function stop at its beginning, with its objects in use.
pub(crate) fn stall_next(name: String) {
    stalls().0.push(name);
}

/// How many calls are stalled.
pub(crate) fn stalled() -> usize {
    stalls().1
}

pub(crate) fn release_stalled() {
    *stalls() = (Vec::new(), 0);
    STALLS_CHANGED.notify_all();
}

fn stall(name: &'static str) {
    let mut stalls = stalls();
    let Some(place) = stalls.0.iter().position(|planned| planned == name) else {
        return;
    };
    stalls.0.remove(place);
    stalls.1 += 1;
    while stalls.1 > 0 {
        stalls = STALLS_CHANGED
            .wait(stalls)
            .unwrap_or_else(PoisonError::into_inner);
    }
}

/// A call that does not lock the driver, or locks it itself. `target` is the handle that the
/// function is called on. `exclusive` are the handles that no other thread may use during the call.
pub(crate) fn call_unlocked(
    name: &'static str,
    target: u64,
    exclusive: &[u64],
    body: impl FnOnce() -> VkResult,
) -> vk::Result {
    set_current_call(name);
    let checked = || {
        let _exclusive = Using::new(name, exclusive, true);
        if !exclusive.is_empty() && CALLS.fetch_add(1, Ordering::Relaxed).is_multiple_of(16) {
            // on few cores, two calls almost never overlap without this
            std::thread::yield_now();
        }
        stall(name);
        if let Some(code) = LOG.count(name) {
            if code == vk::Result::ERROR_DEVICE_LOST {
                with_driver(|driver| driver.lose_device_of(target))?;
            }
            return Err(code);
        }
        body()
    };
    match catch_unwind(AssertUnwindSafe(checked)) {
        Ok(Ok(())) => vk::Result::SUCCESS,
        Ok(Err(code)) => code,
        Err(_) => {
            LOG.violation(&format!("the stand-in panicked in {name}"));
            vk::Result::ERROR_UNKNOWN
        }
    }
}

/// A call that locks the driver.
pub(crate) fn call(
    name: &'static str,
    target: impl Handle,
    exclusive: &[u64],
    body: impl FnOnce(&mut Driver) -> VkResult,
) -> vk::Result {
    call_then(name, target, exclusive, body, Ok)
}

/// A call that locks the driver for `body`, then runs `then`, such as a wait, without the lock.
pub(crate) fn call_then<T>(
    name: &'static str,
    target: impl Handle,
    exclusive: &[u64],
    body: impl FnOnce(&mut Driver) -> VkResult<T>,
    then: impl FnOnce(T) -> VkResult,
) -> vk::Result {
    let target = target.as_raw();
    call_unlocked(name, target, exclusive, || {
        let locked = with_driver(|driver| {
            driver.check_enabled(name, target)?;
            body(driver)
        })?;
        then(locked?)
    })
}

/// A call that returns nothing.
pub(crate) fn call_void(
    name: &'static str,
    target: impl Handle,
    exclusive: &[u64],
    body: impl FnOnce(&mut Driver) -> VkResult,
) {
    // an error of such a call is a violation, which is recorded
    let _ = call(name, target, exclusive, body);
}
