//! Whether this process was forked, by one atomic load: for calls that cannot afford to ask the
//! system.
//!
//! Drivers and their threads stay with the parent, so in the child nothing of them is to be called.

#[cfg(unix)]
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

/// How many forks lie between this process and the first.
static FORKS: AtomicU32 = AtomicU32::new(0);

/// The number that a process has for good. Ask once before comparing.
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
            // SAFETY: POSIX's pthread_atfork, with a function that does one atomic addition, as a
            // child may.
            // https://pubs.opengroup.org/onlinepubs/9799919799/functions/pthread_atfork.html Where
            // it is refused, for lack of memory, those who ask the system still know.
            let _ = unsafe { pthread_atfork(None, None, Some(count)) };
        });
    }
    current()
}

#[inline]
pub(super) fn current() -> u32 {
    FORKS.load(Ordering::Relaxed)
}
