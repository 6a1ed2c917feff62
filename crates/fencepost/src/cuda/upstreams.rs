//! Waits for markers that may fail without the driver's knowledge: those of another context, whose
//! faults are not this context's; those behind a wait for another backend's marker; and those
//! behind waits for such.
//!
//! What the driver does with a stream that waits for an event of a context that dies is not
//! documented; where it lets the stream go on, the driver calls the markers behind the wait
//! complete. So before a marker counts as complete by the driver's word, the waits in front of it
//! are asked whether what they waited for has failed. A wait is removed once its marker is known to
//! be complete, which the watcher of that marker's context finds out. Where the marker fails, the
//! wait stays until the failure point that it makes is over. So the list holds the pending waits,
//! and the failed ones of timelines that are still to fail by them.
//!
//! A wait concerns the timeline it was made on. What is recorded after the error was cleared is on
//! another one, and does not fail by it, although the device may still be held there.
//!
//! Waits are queried oldest first: each that is settled shortens the chain of those behind it. So
//! recursion is bounded by the number of contexts, however long the chain of waits between them is.

use std::sync::Arc;

use crate::{
    contract::MarkerImpl,
    error::Error,
    sync::{AtomicUsize, Mutex, Ordering, lock},
    timeline::Timeline,
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
    /// What the stream that waits was on.
    timeline: Arc<Timeline>,
    /// The last of its markers in front of the wait.
    after: u64,
    marker: Arc<dyn MarkerImpl>,
}

impl Upstream {
    /// Whether the marker of `timeline` at `value` lies behind this wait.
    fn is_in_front(&self, timeline: &Timeline, value: u64) -> bool {
        std::ptr::eq(&*self.timeline, timeline) && self.after < value
    }
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
    pub(super) fn add(
        &self,
        number: u64,
        timeline: &Arc<Timeline>,
        after: u64,
        marker: &Arc<dyn MarkerImpl>,
    ) {
        let mut list = lock(&self.list);
        list.push(Upstream {
            number,
            timeline: timeline.clone(),
            after,
            marker: marker.clone(),
        });
        self.count.store(list.len(), Ordering::Release);
    }

    /// Removes a wait that nothing depends on any more.
    pub(super) fn settled(&self, number: u64) {
        if self.count.load(Ordering::Acquire) == 0 {
            return;
        }
        let mut list = lock(&self.list);
        // A marker's last owner may call for other locks: dropped without this one.
        let at = list.iter().position(|upstream| upstream.number == number);
        let gone = at.map(|at| list.remove(at));
        self.count.store(list.len(), Ordering::Release);
        drop(list);
        drop(gone);
    }

    /// Whether `timeline` depends on something in front of `value` that may yet fail.
    pub(super) fn may_fail(&self, timeline: &Timeline, value: u64) -> bool {
        let in_front = |upstream: &Upstream| upstream.is_in_front(timeline, value);
        self.count.load(Ordering::Acquire) > 0 && lock(&self.list).iter().any(in_front)
    }

    /// The first failure among what was waited for on `timeline` in front of `value`.
    #[inline]
    pub(super) fn failed(&self, timeline: &Timeline, value: u64) -> Option<Failed> {
        match self.count.load(Ordering::Acquire) {
            0 => None,
            _ => self.find_failed(timeline, value),
        }
    }

    #[cold]
    fn find_failed(&self, timeline: &Timeline, value: u64) -> Option<Failed> {
        let in_front = |upstream: &&Upstream| upstream.is_in_front(timeline, value);
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
