//! What wakes the thread of a trace.

use std::{sync::OnceLock, time::Duration};

use crate::sync::{AtomicBool, Ordering, park, thread};

/// Wakes a thread that sleeps.
///
/// # The protocol
///
/// `awake` says that the thread is about to look for what there is to do. Whoever has made it due
/// sets `awake`, and unparks the thread if it was not set. The thread clears it, looks whether
/// anything is due, and parks only if not. So either it sees what is due, or who made it due sees
/// that the thread is not awake, and unparks it. A thread that was unparked does not park the next
/// time, so nothing is lost between its look and its park.
pub(super) struct Alarm {
    awake: AtomicBool,
    thread: OnceLock<Option<thread::Thread>>,
}

impl Alarm {
    pub(super) fn new() -> Alarm {
        Alarm {
            awake: AtomicBool::new(false),
            thread: OnceLock::new(),
        }
    }

    /// Wakes the thread, unless it is awake. What is due was made so before.
    #[inline]
    pub(super) fn ring(&self) {
        if !self.awake.swap(true, Ordering::SeqCst)
            && let Some(Some(thread)) = self.thread.get()
        {
            thread.unpark();
        }
    }

    /// Wakes the thread, so that it sees that it is to stop.
    pub(super) fn stop(&self) {
        if let Some(Some(thread)) = self.thread.get() {
            thread.unpark();
        }
    }

    /// Has `start` start the thread, the first time. `None` from it is for good.
    pub(super) fn start(&self, start: impl FnOnce() -> Option<thread::Thread>) {
        self.thread.get_or_init(start);
    }

    /// Sleeps until somebody rings, unless something is due already.
    pub(super) fn sleep(&self, longest: Option<Duration>, is_due: impl Fn() -> bool) {
        self.awake.store(false, Ordering::SeqCst);
        if !is_due() {
            park(longest);
        }
        self.awake.store(true, Ordering::SeqCst);
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use std::sync::Arc;

    use super::*;
    use crate::sync::AtomicUsize;

    #[test]
    fn a_thread_that_sleeps_is_woken_by_what_comes() {
        loom::model(|| {
            let shared = Arc::new((Alarm::new(), AtomicUsize::new(0)));
            let of = shared.clone();
            let sleeper = thread::spawn(move || {
                let (alarm, count) = &*of;
                // Without a limit: a lost wake-up is a deadlock, which loom finds.
                while count.load(Ordering::SeqCst) < 2 {
                    alarm.sleep(None, || count.load(Ordering::SeqCst) == 2);
                }
            });
            let _ = shared.0.thread.set(Some(sleeper.thread().clone()));
            let other = shared.clone();
            let adds = thread::spawn(move || {
                other.1.fetch_add(1, Ordering::SeqCst);
                other.0.ring();
            });
            shared.1.fetch_add(1, Ordering::SeqCst);
            shared.0.ring();
            adds.join().unwrap();
            sleeper.join().unwrap();
        });
    }
}
