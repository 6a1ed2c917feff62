//! The order of one CUDA stream's markers, without any CUDA.
//!
//! # The protocol
//!
//! A marker takes its value first and makes its native record second, with no lock held over the
//! two: a native record may block while the driver's queue is full (1,020 timed records on the
//! drivers measured; see docs/measurements/cuda-stalls.md), and then nobody else should block with
//! it.
//!
//! *Invariant: work submitted before a marker with value `v` took its value is covered by every
//! native record whose marker took a value `>= v`.* Values are counted under one lock, the stream's
//! `order`, so whoever has a later value took it later, and records natively later still. So
//! completing a marker completes all markers with lower values, although two threads may make their
//! native records in either order. A refused record leaves a gap in the values, which later ones
//! pass over.
//!
//! | `epoch` | meaning |
//! |---|---|
//! | 0 | `first` is the timeline, without a failure point: takes no lock but the order's |
//! | odd | the current timeline has a failure point: [`Current::failure_point`] |
//! | even, not 0 | a later timeline, without a failure point |
//!
//! **A failure point** is a native record behind which the stream counts as failed: where a test
//! fails it, or at a wait for a marker that failed. It covers every value up to `before`; those
//! complete with it, and those above fail with it.
//!
//! It is recorded natively without a lock, as a marker is, and set afterwards: `before` is the last
//! value from in front of the native record. Values that others take meanwhile are on the timeline
//! without the failure point. What the driver completes of them first is complete; the others fail
//! with the timeline.
//!
//! *Invariant: a marker that was placed without the failure point took its value before
//! `set_failure_point` read the count.* So every later marker is behind the failure point, with a
//! value above `before`. `set_failure_point` moves `epoch` on while it has the lock of the order.
//! `allocate_again` looks at `epoch` and counts while it has it. `allocate` counts, then looks at
//! `epoch` again: if it had the lock first, its value is counted; otherwise it sees the moved
//! `epoch`, and takes another value. `loom_tests` explores each.
//!
//! *Invariant: a failure point is set on its own timeline.* A wait may outlive the timeline it was
//! made on, since `clear_error` starts another one, which does not fail by it. A timeline is
//! replaced only once it has failed, under the lock of `current`. `set_failure_point` has that
//! lock, so a timeline that has not failed is the current one. No driver is called under it.

use std::sync::Arc;

use crate::rerecord::Lock;
use crate::{
    core::StreamCore,
    error::Cause,
    lost::Loses,
    sync::{AtomicU64, Mutex, Ordering, lock},
    timeline::{Timeline, Wake},
};

/// Gives out a stream's values. `E` is what the backend knows of a failure point.
pub(super) struct ValueAllocator<E> {
    core: Arc<StreamCore>,
    first: Arc<Timeline>,
    epoch: AtomicU64,
    current: Mutex<Current<E>>,
}

struct Current<E> {
    timeline: Arc<Timeline>,
    failure_point: Option<Arc<E>>,
}

/// Where a marker goes.
pub(super) struct Allocated<E> {
    pub(super) timeline: Arc<Timeline>,
    pub(super) value: u64,
    /// The failure point in front of it: it fails when that is reached.
    pub(super) failure_point: Option<Arc<E>>,
}

impl<E> ValueAllocator<E> {
    pub(super) fn new(core: Arc<StreamCore>) -> ValueAllocator<E> {
        let first = Timeline::new(core.clone(), 0);
        ValueAllocator {
            core,
            epoch: AtomicU64::new(0),
            current: Mutex::new(Current {
                timeline: first.clone(),
                failure_point: None,
            }),
            first,
        }
    }

    /// Takes the next value. Call it before the native record.
    #[inline]
    pub(super) fn allocate(&self) -> Allocated<E> {
        loop {
            let epoch = self.epoch.load(Ordering::Acquire);
            let (timeline, failure_point) = if epoch == 0 {
                (self.first.clone(), None)
            } else {
                let current = lock(&self.current);
                (current.timeline.clone(), current.failure_point.clone())
            };
            let value = self.core.next_value();
            if self.epoch.load(Ordering::Acquire) == epoch {
                return Allocated {
                    timeline,
                    value,
                    failure_point,
                };
            }
        }
    }

    /// As [`allocate`](ValueAllocator::allocate), for a marker that is on `timeline` already;
    /// `None` where that is not the first timeline without a failure point. `lock` may be that of
    /// the order already.
    #[inline(always)]
    pub(super) fn allocate_again(
        &self,
        timeline: &Arc<Timeline>,
        lock: Option<Lock<'_>>,
    ) -> Option<u64> {
        if !Arc::ptr_eq(timeline, &self.first) || timeline.has_failed() {
            return None;
        }
        let _order = Lock::of(&self.core, lock);
        match self.epoch.load(Ordering::Relaxed) {
            0 => Some(self.core.count()),
            _ => None,
        }
    }

    /// The current timeline, and its failure point if it has one.
    pub(super) fn current(&self) -> (Arc<Timeline>, Option<Arc<E>>) {
        if self.epoch.load(Ordering::Acquire) == 0 {
            return (self.first.clone(), None);
        }
        let current = lock(&self.current);
        (current.timeline.clone(), current.failure_point.clone())
    }

    /// The last value taken.
    pub(super) fn last(&self) -> u64 {
        self.core.last_value()
    }

    /// Sets a failure point of `timeline` that was recorded some time ago, unless there is one, or
    /// the timeline has failed. It was recorded after [`last`](ValueAllocator::last) gave the value
    /// that it covers.
    pub(super) fn set_failure_point(&self, timeline: &Timeline, failure_point: Arc<E>) {
        let mut current = lock(&self.current);
        if current.failure_point.is_none() && !timeline.has_failed() {
            current.failure_point = Some(failure_point);
            let _order = self.core.order.lock();
            self.epoch.fetch_add(1, Ordering::AcqRel);
            return;
        }
        // What it holds is dropped without the lock.
        drop(current);
        drop(failure_point);
    }

    /// Starts a new timeline if the current one has failed.
    pub(super) fn start_new_epoch(&self) {
        let mut current = lock(&self.current);
        if !current.timeline.has_failed() {
            return;
        }
        let epoch = self.epoch.load(Ordering::Acquire);
        self.epoch.store((epoch + 2) & !1, Ordering::Release);
        let last = self.last();
        current.timeline = Timeline::new(self.core.clone(), last);
        let before = current.failure_point.take();
        // What it holds is dropped without the lock.
        drop(current);
        drop(before);
    }
}

impl<E: Send + Sync> Loses for ValueAllocator<E> {
    fn lose(&self, cause: &Cause) -> Wake {
        // Under the lock: of a timeline that was started just now, `epoch` alone may tell late.
        let timeline = lock(&self.current).timeline.clone();
        timeline.fail(cause, true)
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use crate::{
        lost::loom_tests::{Epochs, a_loss_reaches_every_stream},
        sync::thread,
        timeline::loom_tests::stream_core,
    };

    impl Epochs for ValueAllocator<u64> {
        fn timeline(&self) -> Arc<Timeline> {
            self.current().0
        }

        fn start_new_epoch(&self) {
            ValueAllocator::start_new_epoch(self);
        }
    }

    #[test]
    fn a_loss_reaches_a_stream_that_is_made_or_cleared_beside_it() {
        a_loss_reaches_every_stream(|| Arc::new(ValueAllocator::<u64>::new(stream_core())));
    }

    #[test]
    fn a_failure_point_counts_every_marker_placed_in_front_of_it() {
        loom::model(|| {
            let values = Arc::new(ValueAllocator::<u64>::new(stream_core()));
            let allocating = {
                let values = values.clone();
                thread::spawn(move || values.allocate())
            };
            let (timeline, _) = values.current();
            let before = values.last();
            values.set_failure_point(&timeline, before.into());
            let counted = values.last();
            let allocated = allocating.join().unwrap();
            match allocated.failure_point {
                None => assert!(allocated.value <= counted, "in front, and not counted"),
                Some(_) => assert!(allocated.value > before, "behind, and counted"),
            }
            assert!(values.allocate().failure_point.is_some());
        });
    }

    #[test]
    fn a_failure_point_counts_every_marker_recorded_again_in_front_of_it() {
        loom::model(|| {
            let values = Arc::new(ValueAllocator::<u64>::new(stream_core()));
            let (timeline, _) = values.current();
            let allocating = {
                let (values, timeline) = (values.clone(), timeline.clone());
                thread::spawn(move || values.allocate_again(&timeline, None))
            };
            let before = values.last();
            values.set_failure_point(&timeline, before.into());
            let counted = values.last();
            if let Some(value) = allocating.join().unwrap() {
                assert!(value <= counted, "in front, and not counted");
            }
        });
    }

    #[test]
    fn a_value_on_a_new_timeline_is_beyond_what_it_starts_from() {
        loom::model(|| {
            let values = Arc::new(ValueAllocator::<u64>::new(stream_core()));
            values.allocate();
            let before = values.last();
            let (old, _) = values.current();
            values.set_failure_point(&old, before.into());
            old.fail(&Cause::new("x"), false).fire();
            let allocating = {
                let values = values.clone();
                thread::spawn(move || values.allocate())
            };
            values.start_new_epoch();
            let allocated = allocating.join().unwrap();
            if Arc::ptr_eq(&allocated.timeline, &old) {
                assert!(allocated.failure_point.is_some());
            } else {
                assert!(allocated.failure_point.is_none());
                assert!(
                    allocated.timeline.completed() < allocated.value,
                    "complete from the start"
                );
            }
        });
    }

    #[test]
    fn a_failure_point_is_set_on_its_own_timeline_only() {
        loom::model(|| {
            let values = Arc::new(ValueAllocator::<u64>::new(stream_core()));
            let (old, _) = values.current();
            let failing = {
                let (values, old) = (values.clone(), old.clone());
                thread::spawn(move || values.set_failure_point(&old, Arc::new(7)))
            };
            old.fail(&Cause::new("x"), false).fire();
            values.start_new_epoch();
            failing.join().unwrap();
            let (timeline, failure_point) = values.current();
            assert!(!Arc::ptr_eq(&timeline, &old));
            assert_eq!(failure_point, None, "of the timeline before");
        });
    }

    #[test]
    fn two_markers_get_two_values() {
        loom::model(|| {
            let values = Arc::new(ValueAllocator::<u64>::new(stream_core()));
            let other = {
                let values = values.clone();
                thread::spawn(move || values.allocate().value)
            };
            let (timeline, _) = values.current();
            let mine = values.allocate_again(&timeline, None);
            assert_ne!(mine, Some(other.join().unwrap()));
        });
    }
}
