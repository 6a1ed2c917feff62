//! The part that all calls share: counts, planned faults and the driver's lock.

use crate::codes::{
    CUDA_ERROR_DEINITIALIZED, CUDA_ERROR_NOT_INITIALIZED, CUDA_ERROR_NOT_PERMITTED,
    CUDA_ERROR_UNKNOWN, CUDA_SUCCESS, CUresult, CudaResult,
};
use crate::driver::{Driver, in_forked_child, with_driver};
use crate::log::LOG;
use crate::work::in_host_function;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Whether `cuInit` was called.
pub(crate) static INITIALIZED: AtomicBool = AtomicBool::new(false);
/// Whether the driver is shutting down.
pub(crate) static DEINITIALIZED: AtomicBool = AtomicBool::new(false);

thread_local! {
    static THREAD: u64 = {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        NEXT.fetch_add(1, Ordering::Relaxed)
    };
}

/// The number of this thread; 0 once its thread-local storage is destroyed.
pub(crate) fn this_thread() -> u64 {
    THREAD.try_with(|thread| *thread).unwrap_or(0)
}

/// A call that does not lock the driver, and may come before `cuInit`.
pub(crate) fn call_unlocked(name: &'static str, body: impl FnOnce() -> CudaResult) -> CUresult {
    // before any lock is taken: in the child of a fork, it may never be released
    if in_forked_child() {
        return CUDA_ERROR_NOT_INITIALIZED;
    }
    let checked = || {
        if let Some(code) = LOG.count(name) {
            return Err(code);
        }
        if DEINITIALIZED.load(Ordering::SeqCst) {
            return Err(CUDA_ERROR_DEINITIALIZED);
        }
        // cuLaunchHostFunc: a host function must not call the driver
        if in_host_function() {
            LOG.violation(&format!("{name} was called in a host function"));
            return Err(CUDA_ERROR_NOT_PERMITTED);
        }
        body()
    };
    match catch_unwind(AssertUnwindSafe(checked)) {
        Ok(Ok(())) => CUDA_SUCCESS,
        Ok(Err(code)) => code,
        Err(_) => {
            LOG.violation(&format!("the stand-in panicked in {name}"));
            CUDA_ERROR_UNKNOWN
        }
    }
}

/// A call that locks the driver.
pub(crate) fn call(name: &'static str, body: impl FnOnce(&mut Driver) -> CudaResult) -> CUresult {
    call_then(name, body, |()| Ok(()))
}

/// A call that locks the driver for `body`, then runs `then`, such as a wait, without the lock.
pub(crate) fn call_then<T>(
    name: &'static str,
    body: impl FnOnce(&mut Driver) -> CudaResult<T>,
    then: impl FnOnce(T) -> CudaResult,
) -> CUresult {
    call_unlocked(name, || {
        if !INITIALIZED.load(Ordering::SeqCst) {
            return Err(CUDA_ERROR_NOT_INITIALIZED);
        }
        let (result, wait_for_space) = with_driver(|driver| {
            driver.calling = name;
            (body(driver), driver.wait_for_space())
        })?;
        wait_for_space();
        then(result?)
    })
}
