//! The end of the process.

#![allow(unsafe_code)]

use std::sync::atomic::{AtomicBool, Ordering};

/// Has `handler` called when the process ends normally: once, and before the exit handlers of
/// drivers that are in use by now, since exit handlers run in the reverse order of their
/// registration. `registered` remembers that it was done. A forked child has the handlers of its
/// parent.
///
/// `handler` must not unwind.
pub(crate) fn at_exit(registered: &AtomicBool, handler: extern "C" fn()) {
    unsafe extern "C" {
        fn atexit(handler: extern "C" fn()) -> std::ffi::c_int;
    }
    if !registered.swap(true, Ordering::AcqRel) {
        // SAFETY: C's atexit, with a function that never unwinds.
        // https://en.cppreference.com/w/c/program/atexit
        // If the call fails, the process ends without this handler.
        let _ = unsafe { atexit(handler) };
    }
}
