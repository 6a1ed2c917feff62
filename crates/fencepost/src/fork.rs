//! Forks: whether this is the process that something was made in, by one atomic load.
//!
//! Threads and drivers stay with the parent of a fork. In the child nothing may wait for them, no
//! driver that the parent uses may be called, and a lock that a thread of the parent held is held
//! for ever. So each call looks here before it takes a lock.
//!
//! *The count of forks only grows, and it changes before any code of the child runs:* the system
//! calls the handler inside `fork()`. So the number of a process never comes again among its
//! descendants, which are the only ones that have its memory.

#![allow(unsafe_code)]

use std::{
    ptr::null_mut,
    sync::atomic::{AtomicPtr, AtomicU32, Ordering},
};

/// How many forks lie between this process and the first that used the library.
static FORKS: AtomicU32 = AtomicU32::new(0);

/// Marks the number of a process that is its ID: where the system takes no handler.
const BY_ID: u32 = 1 << 31;

/// A process, as its forked children are told from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Process(u32);

impl Process {
    /// The process that calls.
    pub(crate) fn this() -> Process {
        match counts() {
            true => Process(FORKS.load(Ordering::Relaxed)),
            false => Process::by_id(),
        }
    }

    /// Whether it is the process that calls, and not one of its ancestors.
    #[inline]
    pub(crate) fn is_this(self) -> bool {
        self.0 == FORKS.load(Ordering::Relaxed) || self.has_this_id()
    }

    #[cold]
    fn has_this_id(self) -> bool {
        self == Process::by_id()
    }

    fn by_id() -> Process {
        Process(std::process::id() | BY_ID)
    }
}

/// Whether forks of this process are counted from now on.
#[cfg(all(unix, not(miri)))]
fn counts() -> bool {
    use std::sync::OnceLock;

    static COUNTS: OnceLock<bool> = OnceLock::new();
    type Handler = Option<extern "C" fn()>;
    unsafe extern "C" {
        fn pthread_atfork(prepare: Handler, parent: Handler, child: Handler) -> std::ffi::c_int;
    }
    extern "C" fn count() {
        FORKS.fetch_add(1, Ordering::Relaxed);
    }
    // SAFETY: POSIX's pthread_atfork, with a function that does one atomic addition, as a child
    // may. It is refused for lack of memory only.
    // https://pubs.opengroup.org/onlinepubs/9799919799/functions/pthread_atfork.html
    *COUNTS.get_or_init(|| unsafe { pthread_atfork(None, None, Some(count)) } == 0)
}

/// Nothing here forks.
#[cfg(not(all(unix, not(miri))))]
fn counts() -> bool {
    true
}

/// A value that each process makes for itself, when it first asks.
///
/// *Invariant: `latest` is null or points to a [`Made`] that is never freed.* It takes no lock, so
/// a fork at any moment leaves a child that can ask.
pub(crate) struct PerProcess<T> {
    latest: AtomicPtr<Made<T>>,
}

struct Made<T> {
    process: Process,
    value: T,
}

impl<T: Send + Sync> PerProcess<T> {
    pub(crate) const fn new() -> PerProcess<T> {
        PerProcess {
            latest: AtomicPtr::new(null_mut()),
        }
    }

    /// The value of this process. Of several threads that make one at the same time, the first to
    /// be done gives it to all.
    pub(crate) fn get_or_make(&'static self, make: impl FnOnce() -> T) -> &'static T {
        let before = self.latest.load(Ordering::Acquire);
        if let Some(value) = PerProcess::of_this(before) {
            return value;
        }
        let made = Box::into_raw(Box::new(Made {
            process: Process::this(),
            value: make(),
        }));
        // No other process writes here: its memory is its own.
        let put = self
            .latest
            .compare_exchange(before, made, Ordering::AcqRel, Ordering::Acquire);
        let lasting = match put {
            Ok(_) => made,
            Err(other) => {
                // SAFETY: made above, and known to nobody else.
                drop(unsafe { Box::from_raw(made) });
                other
            }
        };
        // SAFETY: not null, as it was just put there, by this thread or another one of this
        // process; and never freed.
        &unsafe { &*lasting }.value
    }

    fn of_this(made: *const Made<T>) -> Option<&'static T> {
        // SAFETY: null, or never freed.
        let made = unsafe { made.as_ref() }?;
        made.process.is_this().then_some(&made.value)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_itself() {
        let one = Process::this();
        assert!(one.is_this() && one == Process::this());
        assert!(
            Process::by_id().is_this(),
            "also where forks are not counted"
        );
        assert!(!Process(one.0 + 1).is_this());
    }

    #[test]
    fn threads_that_ask_at_the_same_time_get_one_value() {
        static VALUE: PerProcess<String> = PerProcess::new();
        let ask = || std::ptr::from_ref(VALUE.get_or_make(|| "made".into())).addr();
        let asked: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(ask)).collect();
            threads.into_iter().map(|t| t.join().unwrap()).collect()
        });
        assert!(asked.iter().all(|at| *at == asked[0]));
    }
}
