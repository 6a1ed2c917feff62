//! How the watcher's thread sleeps, and what it looks at.
//!
//! # The protocol
//!
//! Drivers call back once an event is over, on any thread, perhaps inside of a call of ours and
//! while they hold locks of their own. So a callback calls no driver, fires no waiter and drops
//! nothing: it sets `called` and wakes the thread, which asks the driver itself.
//!
//! *Invariant: a callback that comes after the thread's last look ends the thread's next sleep.*
//! The callback stores `called` and then takes the watcher's lock, to see whether the thread is
//! asleep. The thread notes under that lock that it is asleep, and then takes `called`. Whichever
//! has the lock first, the thread either finds `called` set or is unparked.
//!
//! Some drivers call nothing back for an event that has failed. So the thread looks without being
//! called, too, after pauses that grow.

use std::{sync::Arc, time::Duration};

use super::account::Unsettled;
use crate::{
    sync::{AtomicBool, Ordering, park},
    timeline::{Reached, Timeline},
    watcher::{Sleep, Watched},
};

/// What the watcher watches: a stream's account, up to a value.
pub(super) struct Watch {
    pub(super) account: Arc<dyn Unsettled>,
    pub(super) timeline: Arc<Timeline>,
    pub(super) value: u64,
}

impl Watch {
    /// The value that stands for all of an account, also for the events that it keeps.
    pub(super) const ALL: u64 = u64::MAX;
}

impl Watched for Watch {
    fn key(&self) -> (usize, u64) {
        (Arc::as_ptr(&self.timeline) as usize, self.value)
    }

    fn look(&self) -> bool {
        self.account.settle(self.value);
        match self.value {
            Watch::ALL => self.account.is_done(),
            value => self.timeline.reached(value) != Reached::NotYet || self.account.is_settled(),
        }
    }
}

/// Sleeps until a driver calls back, or for a hundredth of the time for which nothing has happened,
/// but 50 µs at least and 10 ms at most.
pub(super) struct Callbacks {
    called: AtomicBool,
}

impl Callbacks {
    const SHORTEST: Duration = Duration::from_micros(50);
    const LONGEST: Duration = Duration::from_millis(10);

    pub(super) fn new() -> Callbacks {
        Callbacks {
            called: AtomicBool::new(false),
        }
    }

    /// A driver has called back. The caller then has the watcher look again.
    pub(super) fn called_back(&self) {
        self.called.store(true, Ordering::Release);
    }
}

impl<W> Sleep<W> for Callbacks {
    fn sleep(&self, _: &[Arc<W>], _: u64, quiet: Duration) {
        // What is taken off is an acquire: the look that follows sees what every callback in front
        // of it tells of.
        let called =
            self.called.load(Ordering::Acquire) && self.called.swap(false, Ordering::AcqRel);
        if called || quiet.is_zero() {
            return;
        }
        let pause = (quiet / 100).clamp(Callbacks::SHORTEST, Callbacks::LONGEST);
        // In models a pause has no end: a callback that is lost must show.
        park((!cfg!(loom)).then_some(pause));
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use crate::{
        sync::{AtomicUsize, thread},
        timeline::{Waiter, loom_tests::stream_core},
        watcher::Watcher,
    };

    /// Complete once the driver says so.
    struct Native {
        is_over: Arc<AtomicBool>,
        timeline: Arc<Timeline>,
    }

    impl Watched for Native {
        fn key(&self) -> (usize, u64) {
            (Arc::as_ptr(&self.timeline) as usize, 1)
        }

        fn look(&self) -> bool {
            let is_over = self.is_over.load(Ordering::Acquire);
            if is_over {
                self.timeline.advance(1).fire();
            }
            is_over
        }
    }

    #[test]
    fn a_callback_wakes_whoever_waits() {
        loom::model(|| {
            let watcher = Arc::new(Watcher::new("loom", Callbacks::new()));
            let timeline = Timeline::new(stream_core(), 0);
            let fired = Arc::new(AtomicUsize::new(0));
            let count = fired.clone();
            let call = Waiter::Call(Box::new(move |_| {
                count.fetch_add(1, Ordering::SeqCst);
            }));
            assert!(timeline.register(1, call).is_ok());
            let is_over = Arc::new(AtomicBool::new(false));
            let driver = {
                let (watcher, is_over) = (watcher.clone(), is_over.clone());
                thread::spawn(move || {
                    is_over.store(true, Ordering::Release);
                    watcher.sleeper().called_back();
                    watcher.look_again();
                })
            };
            watcher.watch(Native { is_over, timeline }).unwrap();
            driver.join().unwrap();
            // Were the callback lost, this would never end, which loom reports.
            while fired.load(Ordering::SeqCst) == 0 {
                thread::yield_now();
            }
        });
    }
}
