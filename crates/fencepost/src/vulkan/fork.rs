//! Whether this process was forked since a device was opened, by one atomic load: asking the system
//! for the process ID takes too long for a query or a record.
//!
//! A driver and its threads stay with the parent, so a child must not call the driver.

#[cfg(unix)]
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

/// How many forks led from the first process to this one.
static FORKS: AtomicU32 = AtomicU32::new(0);

/// The number of this process, to compare with [`current`] later. A child that is forked after the
/// first call has another number.
pub(super) fn number() -> u32 {
    #[cfg(unix)]
    {
        static ONCE: Once = Once::new();
        type Handler = Option<extern "C" fn()>;
        unsafe extern "C" {
            fn pthread_atfork(prepare: Handler, parent: Handler, child: Handler)
            -> std::ffi::c_int;
        }
        extern "C" fn count() {
            FORKS.fetch_add(1, Ordering::Relaxed);
        }
        ONCE.call_once(|| {
            // SAFETY: POSIX's pthread_atfork, with a function that does one atomic addition, which
            // a child may do.
            // https://pubs.opengroup.org/onlinepubs/9799919799/functions/pthread_atfork.html It may
            // fail for lack of memory. Then only checks that ask the system notice a fork.
            let _ = unsafe { pthread_atfork(None, None, Some(count)) };
        });
    }
    current()
}

/// The number of the process that calls.
#[inline]
pub(super) fn current() -> u32 {
    FORKS.load(Ordering::Relaxed)
}
