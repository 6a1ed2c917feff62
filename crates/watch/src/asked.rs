//! What the driver is being asked about: handles that must not be destroyed meanwhile.
//!
//! The program destroys what it likes on its own threads, and a query of a destroyed handle is
//! undefined. Nobody may hold a lock while the driver is called, so the two sides look at each
//! other:
//!
//! | side | first | then |
//! |---|---|---|
//! | who asks | writes the handles | looks whether what they name is still there; if so, asks |
//! | who destroys | takes away what names it | looks at the handles; waits while its own is there |
//!
//! *Invariant: the driver is not asked about a handle after its destruction has begun.* Each side
//! writes before it reads, with a sequentially consistent fence in between, so at least one sees
//! the other's write: either nothing is asked, or the destruction waits for the answer.

use crate::sync::{AtomicUsize, Ordering, fence};

#[derive(Debug)]
pub(crate) struct Asked([AtomicUsize; 2]);

impl Asked {
    #[cfg(not(loom))]
    pub(crate) const fn new() -> Asked {
        Asked([const { AtomicUsize::new(0) }; 2])
    }

    #[cfg(loom)]
    fn new() -> Asked {
        Asked([AtomicUsize::new(0), AtomicUsize::new(0)])
    }

    /// Asks `call` about the handles if `is_there` still says so, and nothing destroys them
    /// meanwhile. Only one thread asks.
    pub(crate) fn while_there<R>(
        &self,
        handles: [usize; 2],
        is_there: impl FnOnce() -> bool,
        call: impl FnOnce() -> R,
    ) -> Option<R> {
        for (asked, handle) in self.0.iter().zip(handles) {
            asked.store(handle, Ordering::Release);
        }
        fence(Ordering::SeqCst);
        let answer = is_there().then(call);
        for asked in &self.0 {
            asked.store(0, Ordering::Release);
        }
        answer
    }

    /// Returns once the driver is not being asked about `handle`, or about anything. What names it
    /// was taken away before.
    pub(crate) fn wait(&self, handle: Option<usize>) {
        fence(Ordering::SeqCst);
        let is_asked = |asked: &AtomicUsize| match asked.load(Ordering::Acquire) {
            0 => false,
            asked => handle.is_none_or(|handle| handle == asked),
        };
        for _ in 0..PATIENCE {
            if !self.0.iter().any(is_asked) {
                return;
            }
            pause();
        }
    }
}

/// A driver that does not answer for a second must not hold the program too.
#[cfg(not(loom))]
const PATIENCE: usize = 1000;
#[cfg(loom)]
const PATIENCE: usize = usize::MAX;

#[cfg(not(loom))]
fn pause() {
    std::thread::sleep(std::time::Duration::from_millis(1));
}

#[cfg(loom)]
fn pause() {
    loom::thread::yield_now();
}

#[cfg(all(test, loom))]
mod loom_tests {
    use loom::{
        sync::{Arc, atomic::AtomicBool},
        thread,
    };

    use super::*;

    #[test]
    fn nothing_is_asked_about_what_is_destroyed() {
        loom::model(|| {
            let asked = Arc::new(Asked::new());
            let named = Arc::new(AtomicBool::new(true));
            let alive = Arc::new(AtomicBool::new(true));
            let destroys = {
                let (asked, named, alive) = (asked.clone(), named.clone(), alive.clone());
                thread::spawn(move || {
                    named.store(false, Ordering::Relaxed);
                    asked.wait(Some(7));
                    alive.store(false, Ordering::Relaxed);
                })
            };
            let is_there = || named.load(Ordering::Relaxed);
            let call = || alive.load(Ordering::Relaxed);
            if let Some(was_alive) = asked.while_there([7, 0], is_there, call) {
                assert!(was_alive);
            }
            destroys.join().unwrap();
        });
    }
}
