//! The order of one CUDA stream's markers, without any CUDA.
//!
//! # The protocol
//!
//! A marker takes its value first and makes its native record second, with no lock held over the two:
//! a native record may block while the driver's queue is full (1,020 timed records on the drivers
//! measured; see docs/measurements/cuda-stalls.md), and then nobody else should block with it.
//!
//! *Invariant: work submitted before a marker with value `v` took its value is covered by every native
//! record whose marker took a value `>= v`.* Values are counted under one lock, the stream's `order`, so whoever
//! has a later value took it later, and records natively later still. So completing a marker completes
//! all markers with lower values, although two threads may make their native records in either order.
//! A refused record leaves a gap in the values, which later ones pass over.
//!
//! | `turn` | meaning |
//! |---|---|
//! | 0 | `first` is the timeline, and nothing ends it: the fast path, which takes no lock but the order's |
//! | odd | the current timeline has an end: [`Now::end`] tells which |
//! | even, not 0 | a later timeline, without an end |
//!
//! **An end** is a native record behind which the stream counts as failed: an injected fault, or
//! a wait for a marker that failed. It covers every value up to `before`; those complete with it,
//! and those above fail with it.
//!
//! *Invariant: a marker placed on a timeline with `turn` t has a value that an end made in a later
//! turn counts in its `before`.* `close` moves `turn` on and reads the count while it has the lock.
//! `place_again` looks at `turn` and counts while it has it. `place` counts, then looks at `turn` again: if it had
//! the lock first, `close` sees what it counted; otherwise it sees the moved `turn`, and takes another value.
//! `loom_tests` explores each.

use std::sync::Arc;

use crate::rerecord::Lock;
use crate::{
    sync::{AtomicU64, Mutex, Ordering, lock},
    timeline::{StreamCore, Timeline},
};

/// Gives out a stream's values. `E` is what the backend knows of an end.
pub(super) struct Line<E> {
    core: Arc<StreamCore>,
    first: Arc<Timeline>,
    turn: AtomicU64,
    now: Mutex<Now<E>>,
}

struct Now<E> {
    timeline: Arc<Timeline>,
    end: Option<Arc<E>>,
}

/// Where a marker goes.
pub(super) struct Place<E> {
    pub(super) timeline: Arc<Timeline>,
    pub(super) value: u64,
    /// The end in front of it: it fails when that is reached.
    pub(super) end: Option<Arc<E>>,
}

impl<E> Line<E> {
    pub(super) fn new(core: Arc<StreamCore>) -> Line<E> {
        let first = Timeline::new(core.clone(), 0);
        Line {
            core,
            turn: AtomicU64::new(0),
            now: Mutex::new(Now {
                timeline: first.clone(),
                end: None,
            }),
            first,
        }
    }

    /// Takes the next value. Call it before the native record.
    #[inline]
    pub(super) fn place(&self) -> Place<E> {
        loop {
            let turn = self.turn.load(Ordering::Acquire);
            let (timeline, end) = if turn == 0 {
                (self.first.clone(), None)
            } else {
                let now = lock(&self.now);
                (now.timeline.clone(), now.end.clone())
            };
            let value = self.core.next_value();
            if self.turn.load(Ordering::Acquire) == turn {
                return Place {
                    timeline,
                    value,
                    end,
                };
            }
        }
    }

    /// As [`place`](Line::place), for a marker that is on `timeline` already; `None` where that is not
    /// the first timeline with nothing to end it. `lock` may be that of the order already.
    #[inline(always)]
    pub(super) fn place_again(
        &self,
        timeline: &Arc<Timeline>,
        lock: Option<Lock<'_>>,
    ) -> Option<u64> {
        if !Arc::ptr_eq(timeline, &self.first) || timeline.has_failed() {
            return None;
        }
        let _order = Lock::of(&self.core, lock);
        match self.turn.load(Ordering::Relaxed) {
            0 => Some(self.core.count()),
            _ => None,
        }
    }

    /// The current timeline, and its end if it has one.
    pub(super) fn now(&self) -> (Arc<Timeline>, Option<Arc<E>>) {
        if self.turn.load(Ordering::Acquire) == 0 {
            return (self.first.clone(), None);
        }
        let now = lock(&self.now);
        (now.timeline.clone(), now.end.clone())
    }

    /// Puts an end behind everything placed so far: `make` is given the timeline and the last value
    /// in front of it, and makes the native record. No-op on a timeline that has an end or has failed.
    pub(super) fn close<R>(
        &self,
        make: impl FnOnce(&Arc<Timeline>, u64) -> Result<E, R>,
    ) -> Result<Option<Arc<E>>, R> {
        let mut now = lock(&self.now);
        if now.end.is_some() || now.timeline.has_failed() {
            return Ok(None);
        }
        let (turn, before) = {
            let _order = self.core.order.lock();
            let turn = self.turn.fetch_add(1, Ordering::AcqRel);
            (turn, self.core.recorded.load(Ordering::Relaxed))
        };
        match make(&now.timeline, before) {
            Ok(end) => {
                let end = Arc::new(end);
                now.end = Some(end.clone());
                Ok(Some(end))
            }
            Err(error) => {
                // No end: an even turn again. Never back to an earlier one, or a marker that took its
                // place meanwhile would miss the change.
                self.turn.store(turn + 2, Ordering::Release);
                Err(error)
            }
        }
    }

    /// The last value taken.
    pub(super) fn last(&self) -> u64 {
        self.core.last_value()
    }

    /// Puts `end`, which was recorded some time ago, where there is none: its record was made after
    /// [`last`](Line::last) told the value that it covers.
    pub(super) fn end_at(&self, end: E) -> Arc<E> {
        let end = Arc::new(end);
        let mut now = lock(&self.now);
        if now.end.is_none() && !now.timeline.has_failed() {
            self.turn.fetch_add(1, Ordering::AcqRel);
            now.end = Some(end.clone());
        }
        end
    }

    /// A new timeline, if the current one has failed.
    pub(super) fn reopen(&self) {
        let mut now = lock(&self.now);
        if !now.timeline.has_failed() {
            return;
        }
        let turn = self.turn.load(Ordering::Acquire);
        self.turn.store((turn + 2) & !1, Ordering::Release);
        let last = self.last();
        now.timeline = Timeline::new(self.core.clone(), last);
        now.end = None;
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use crate::{sync::thread, timeline::loom_tests::stream_core};

    #[test]
    fn an_end_counts_every_marker_placed_in_front_of_it() {
        loom::model(|| {
            let line = Arc::new(Line::<u64>::new(stream_core()));
            let placing = {
                let line = line.clone();
                thread::spawn(move || line.place())
            };
            let end = line
                .close(|_, before| Ok::<_, ()>(before))
                .unwrap()
                .unwrap();
            let place = placing.join().unwrap();
            match place.end {
                None => assert!(place.value <= *end, "in front, and not counted"),
                Some(_) => assert!(place.value > *end, "behind, and counted"),
            }
        });
    }

    #[test]
    fn an_end_counts_every_marker_recorded_again_in_front_of_it() {
        loom::model(|| {
            let line = Arc::new(Line::<u64>::new(stream_core()));
            let (timeline, _) = line.now();
            let placing = {
                let line = line.clone();
                thread::spawn(move || line.place_again(&timeline, None))
            };
            let end = line
                .close(|_, before| Ok::<_, ()>(before))
                .unwrap()
                .unwrap();
            if let Some(value) = placing.join().unwrap() {
                assert!(value <= *end, "in front, and not counted");
            }
        });
    }

    #[test]
    fn a_place_on_a_new_timeline_is_beyond_what_it_starts_from() {
        loom::model(|| {
            let line = Arc::new(Line::<u64>::new(stream_core()));
            line.place();
            line.close(|_, before| Ok::<_, ()>(before)).unwrap();
            let (old, _) = line.now();
            old.fail(&crate::error::Cause::new("x"), false).fire();
            let placing = {
                let line = line.clone();
                thread::spawn(move || line.place())
            };
            line.reopen();
            let place = placing.join().unwrap();
            if Arc::ptr_eq(&place.timeline, &old) {
                assert!(place.end.is_some());
            } else {
                assert!(place.end.is_none());
                assert!(
                    place.timeline.completed() < place.value,
                    "complete from the start"
                );
            }
        });
    }

    #[test]
    fn two_markers_get_two_values() {
        loom::model(|| {
            let line = Arc::new(Line::<u64>::new(stream_core()));
            let other = {
                let line = line.clone();
                thread::spawn(move || line.place().value)
            };
            let (timeline, _) = line.now();
            let mine = line.place_again(&timeline, None);
            assert_ne!(mine, Some(other.join().unwrap()));
        });
    }
}
