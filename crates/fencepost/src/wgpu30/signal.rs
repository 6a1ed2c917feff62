//! What tells how far the device has come with a stream's submits.
//!
//! | kind | where | read by |
//! |---|---|---|
//! | a timeline semaphore | Vulkan, with timeline semaphores enabled | a call of the driver |
//! | a shared event | Metal | a load |
//! | a number | elsewhere, and for work that the caller submits | a load, after a poll of wgpu's |

use std::sync::Arc;

#[cfg(target_vendor = "apple")]
use super::metal::{self as native, HalQueue};
#[cfg(not(target_vendor = "apple"))]
use super::vulkan::{self as native, HalQueue};
use crate::sync::{AtomicU64, Ordering};

pub(super) enum Signal {
    #[cfg(not(target_vendor = "apple"))]
    Semaphore(native::Timeline),
    #[cfg(target_vendor = "apple")]
    Event(native::Event),
    Told(Arc<Told>),
}

/// A number that done callbacks raise.
pub(super) struct Told(AtomicU64);

impl Told {
    pub(super) fn new() -> Arc<Told> {
        Arc::new(Told(AtomicU64::new(0)))
    }

    pub(super) fn value(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    /// What a done callback is to hold: it tells `value` when it is dropped, called or not. A panic
    /// in somebody else's callback drops those that are due beside it uncalled.
    pub(super) fn tell(self: &Arc<Self>, value: u64) -> Tell {
        Tell {
            told: self.clone(),
            value,
        }
    }
}

pub(super) struct Tell {
    told: Arc<Told>,
    value: u64,
}

impl Tell {
    /// Tells nothing.
    pub(super) fn forget(mut self) {
        self.value = 0;
    }
}

impl Drop for Tell {
    fn drop(&mut self) {
        self.told.0.fetch_max(self.value, Ordering::AcqRel);
    }
}

impl Signal {
    /// Has the next submit of `queue`, whoever makes it, raise the counter to `value`. Nothing else
    /// of this counter is staged.
    pub(super) fn stage(&self, queue: &HalQueue, value: u64) {
        match self {
            #[cfg(not(target_vendor = "apple"))]
            Signal::Semaphore(semaphore) => semaphore.stage(queue, value),
            #[cfg(target_vendor = "apple")]
            Signal::Event(event) => event.stage(queue, value),
            Signal::Told(_) => {}
        }
    }

    /// Takes back what is staged. `true` where no submit has taken it.
    pub(super) fn withdraw(&self, queue: &HalQueue) -> bool {
        match self {
            #[cfg(not(target_vendor = "apple"))]
            Signal::Semaphore(semaphore) => semaphore.withdraw(queue),
            #[cfg(target_vendor = "apple")]
            Signal::Event(event) => event.withdraw(queue),
            Signal::Told(_) => false,
        }
    }

    /// Destroys it. Called once, when nothing that raises it is pending.
    pub(super) fn destroy(&self) {
        #[cfg(not(target_vendor = "apple"))]
        if let Signal::Semaphore(semaphore) = self {
            semaphore.destroy();
        }
    }
}
