//! Waits for markers that may fail without the driver's knowledge: those of another context, whose
//! faults are not this context's; those behind a wait for another backend's marker; and those
//! behind waits for such.
//!
//! What the driver does with a stream that waits for an event of a context that dies is not
//! documented; where it lets the stream go on, the driver calls the markers behind the wait
//! complete. So before a marker counts as complete by the driver's word, the waits in front of it
//! are asked whether what they waited for has failed. A wait is removed once its marker is known to
//! be complete, which the watcher of that marker's context finds out. Where the marker fails, the
//! wait stays until the failure point that it makes is over, or the error is cleared. So the list
//! holds the pending waits, and the failed ones of streams that are still to fail by them.
//!
//! Waits are queried oldest first: each that is settled shortens the chain of those behind it. So
//! recursion is bounded by the number of contexts, however long the chain of waits between them is.

use std::sync::Arc;

use crate::{
    contract::MarkerImpl,
    error::Error,
    sync::{AtomicUsize, Mutex, Ordering, lock},
};

pub(super) struct Upstreams {
    /// The length of `list`, so that a reader of 0 need not lock. A thread that asks about a marker
    /// got it from one that had submitted the waits in front of it, and so sees them counted.
    count: AtomicUsize,
    list: Mutex<Vec<Upstream>>,
}

#[derive(Clone)]
struct Upstream {
    number: u64,
    /// The stream that waits, by its core's number.
    stream: u64,
    /// The last of its markers in front of the wait.
    after: u64,
    marker: Arc<dyn MarkerImpl>,
}

/// Why what lies behind a wait has failed.
pub(super) struct Failed {
    /// The last marker in front of the wait.
    pub(super) after: u64,
    pub(super) error: Error,
    /// The marker that was waited for.
    pub(super) marker: String,
}

impl Upstreams {
    pub(super) const fn new() -> Upstreams {
        Upstreams {
            count: AtomicUsize::new(0),
            list: Mutex::new(Vec::new()),
        }
    }

    /// Adds a wait that is about to be submitted. `number` identifies it.
    pub(super) fn add(&self, number: u64, stream: u64, after: u64, marker: &Arc<dyn MarkerImpl>) {
        let mut list = lock(&self.list);
        list.push(Upstream {
            number,
            stream,
            after,
            marker: marker.clone(),
        });
        self.count.store(list.len(), Ordering::Release);
    }

    /// Removes a wait that nothing depends on any more.
    pub(super) fn settled(&self, number: u64) {
        self.remove(|upstream| upstream.number == number);
    }

    /// Removes the failed waits of a stream whose error is cleared.
    pub(super) fn forget_failed(&self, stream: u64) {
        self.remove(|upstream| {
            upstream.stream == stream
                && upstream.marker.point().reached() == crate::timeline::Reached::Failed
        });
    }

    /// Whether `stream` depends on something in front of `value` that may yet fail.
    pub(super) fn may_fail(&self, stream: u64, value: u64) -> bool {
        self.count.load(Ordering::Acquire) > 0
            && lock(&self.list)
                .iter()
                .any(|upstream| upstream.stream == stream && upstream.after < value)
    }

    fn remove(&self, which: impl Fn(&Upstream) -> bool) {
        if self.count.load(Ordering::Acquire) == 0 {
            return;
        }
        let mut list = lock(&self.list);
        // A marker's last owner may call for other locks: dropped without this one.
        let gone: Vec<Upstream> = list.extract_if(.., |upstream| which(upstream)).collect();
        self.count.store(list.len(), Ordering::Release);
        drop(list);
        drop(gone);
    }

    /// The first failure among what `stream` waited for in front of `value`.
    #[inline]
    pub(super) fn failed(&self, stream: u64, value: u64) -> Option<Failed> {
        match self.count.load(Ordering::Acquire) {
            0 => None,
            _ => self.find_failed(stream, value),
        }
    }

    #[cold]
    fn find_failed(&self, stream: u64, value: u64) -> Option<Failed> {
        let in_front = |upstream: &&Upstream| upstream.stream == stream && upstream.after < value;
        let waits: Vec<Upstream> = lock(&self.list).iter().filter(in_front).cloned().collect();
        for wait in waits {
            match wait.marker.query() {
                Ok(true) => self.settled(wait.number),
                // The driver let the stream run past this wait, so the marker was complete for it.
                Ok(false) => {}
                Err(error) => {
                    return Some(Failed {
                        after: wait.after,
                        error,
                        marker: wait.marker.to_string(),
                    });
                }
            }
        }
        None
    }
}
