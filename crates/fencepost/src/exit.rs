//! The end of the process.

#![allow(unsafe_code)]

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Has `handler` called when the process ends normally: once, and before the exit handlers of
/// drivers that are in use by now, since exit handlers run in the reverse order of their
/// registration. `registered` remembers that it was done. A forked child has the handlers of its
/// parent.
///
/// `handler` must not unwind.
pub(crate) fn at_exit(registered: &AtomicBool, handler: extern "C" fn()) {
    if !registered.swap(true, Ordering::AcqRel) {
        register(handler);
    }
}

/// As [`at_exit`], for a `handler` that has to run before exit handlers of others that may be
/// registered at any time: call it whenever something is done that `handler` undoes. It is
/// registered again as often as doubling `uses`, the number of these calls, allows, since the
/// system keeps every registration. So `handler` may be called several times.
#[cfg_attr(
    not(any(
        feature = "cuda",
        feature = "opencl",
        feature = "vulkan",
        feature = "wgpu30"
    )),
    allow(dead_code)
)]
pub(crate) fn at_exit_of_use(uses: &AtomicU64, handler: extern "C" fn()) {
    let uses = uses.fetch_add(1, Ordering::Relaxed) + 1;
    if uses.is_power_of_two() {
        register(handler);
    }
}

/// Whether an exit handler of this crate has begun. The handlers open gates, so that markers
/// complete which nobody has waited for to the end.
pub(crate) fn has_begun() -> bool {
    HAS_BEGUN.load(Ordering::Acquire)
}

static HAS_BEGUN: AtomicBool = AtomicBool::new(false);

extern "C" fn begin() {
    HAS_BEGUN.store(true, Ordering::Release);
}

fn register(handler: extern "C" fn()) {
    unsafe extern "C" {
        fn atexit(handler: extern "C" fn()) -> std::ffi::c_int;
    }
    // The one that is registered last runs first.
    for handler in [handler, begin] {
        // SAFETY: C's atexit, with a function that never unwinds.
        // https://en.cppreference.com/w/c/program/atexit
        // If the call fails, the process ends without this handler.
        let _ = unsafe { atexit(handler) };
    }
}
