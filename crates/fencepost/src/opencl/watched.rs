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

use super::account::{Account, Recorded};
use crate::{
    sync::{AtomicBool, Ordering, park},
    timeline::{Reached, Timeline},
    watcher::{Sleep, Watched},
};

/// What the watcher watches: a stream's account, up to a value.
pub(super) struct Watch<M: Recorded> {
    pub(super) account: Arc<Account<M>>,
    pub(super) timeline: Arc<Timeline>,
    /// Above every value where all of the account is to be settled.
    pub(super) value: u64,
}

impl<M: Recorded> Watched for Watch<M> {
    fn key(&self) -> (usize, u64) {
        (Arc::as_ptr(&self.timeline) as usize, self.value)
    }

    fn look(&self) -> bool {
        self.account.settle(self.value);
        self.timeline.reached(self.value) != Reached::NotYet || self.account.is_settled()
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
        if self.called.swap(false, Ordering::AcqRel) || quiet.is_zero() {
            return;
        }
        park(Some(
            (quiet / 100).clamp(Callbacks::SHORTEST, Callbacks::LONGEST),
        ));
    }
}
