//! Anchors: marks whose times are known exactly, from which long times are counted. Knows no CUDA.
//!
//! The driver tells the time between two events as an `f32` of milliseconds. Below a quarter of a
//! second that is good to 8 ns, and a clock that moves on by 32 ns is known exactly. So anchors are
//! recorded more often than that, and the time from one to the next is a *link*. The sum of links
//! is where an anchor is. A long time then is that from its start to the anchor nearest to it, from
//! there to the anchor nearest to its end, and from there to the end.
//!
//! All links are summed up, but not all anchors are kept: the last [`RECENT`], and of the older
//! ones one in [`OLD_EACH`], which an `f32` still reaches within half a microsecond. When these
//! have become [`MOST_OLD`], every second one goes. So there are never more than both numbers
//! together.

use std::{collections::VecDeque, sync::Arc};

use crate::{
    clock::half_step,
    sync::{AtomicBool, Mutex, Ordering, lock},
};

/// A time between two events. All are in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Span {
    pub(super) nanos: f64,
    /// How far off it may be, besides the steps of the clock.
    pub(super) off: f64,
}

/// Below this, an `f32` of milliseconds tells steps of [`STEP`].
pub(super) const EXACT_MILLIS: f32 = 256.0;
/// What a clock's steps are a multiple of, where links are exact.
const STEP: f64 = 32.0;

/// So many anchors are kept of the last ones: with five a second those of 102 s.
const RECENT: usize = 512;
/// Of older anchors one in so many nanoseconds is kept: 16 s.
const OLD_EACH: f64 = 16e9;
/// The most older anchors: 18 hours with one in 16 s, 54 with some of them thinned once.
const MOST_OLD: usize = 4096;

impl Span {
    /// The time that the driver gave. `step` is what the clock's steps are known to be a multiple
    /// of, in nanoseconds.
    pub(super) fn of(millis: f32, step: Option<u64>) -> Span {
        let nanos = f64::from(millis) * 1e6;
        let in_steps = step.is_some_and(|step| step % STEP as u64 == 0);
        match in_steps && millis.abs() < EXACT_MILLIS {
            true => Span {
                nanos: (nanos / STEP).round() * STEP,
                off: 0.0,
            },
            false => Span {
                nanos,
                off: half_step(millis) * 1e6,
            },
        }
    }
}

/// A mark whose place is known. `E` is its event.
pub(super) struct Anchor<E> {
    pub(super) event: E,
    /// Its time since the first anchor.
    at: Span,
}

pub(super) struct Anchors<E> {
    /// Set with the first anchor, so that who has none looks no further.
    any: AtomicBool,
    list: Mutex<List<E>>,
}

struct List<E> {
    old: Vec<Arc<Anchor<E>>>,
    recent: VecDeque<Arc<Anchor<E>>>,
    old_each: f64,
}

impl<E> Anchors<E> {
    pub(super) fn new() -> Anchors<E> {
        Anchors {
            any: AtomicBool::new(false),
            list: Mutex::new(List {
                old: Vec::new(),
                recent: VecDeque::new(),
                old_each: OLD_EACH,
            }),
        }
    }

    #[inline]
    pub(super) fn any(&self) -> bool {
        self.any.load(Ordering::Relaxed)
    }

    pub(super) fn last(&self) -> Option<Arc<Anchor<E>>> {
        lock(&self.list).recent.back().cloned()
    }

    /// Adds an anchor that is `link` behind `from`; without `from` it is the first one. Where
    /// `from` is not the last anchor any more, another keeper was quicker, and nothing is added. So
    /// it is where the link is negative, since anchors are in the order of their times.
    pub(super) fn add(&self, event: E, from: Option<&Arc<Anchor<E>>>, link: Span) {
        let mut list = lock(&self.list);
        let at = match (list.recent.back(), from) {
            (None, None) => Span {
                nanos: 0.0,
                off: 0.0,
            },
            (Some(last), Some(from)) if Arc::ptr_eq(last, from) && link.nanos >= 0.0 => Span {
                nanos: last.at.nanos + link.nanos,
                off: last.at.off + link.off,
            },
            _ => {
                drop(list);
                // It goes back to a pool, which has a lock of its own.
                drop(event);
                return;
            }
        };
        list.recent.push_back(Arc::new(Anchor { event, at }));
        let dropped = list.thin();
        drop(list);
        self.any.store(true, Ordering::Relaxed);
        // Their events go back to a pool, which has a lock of its own.
        drop(dropped);
    }

    /// The time from `start` to `end`, counted over anchors. `measure` is the driver's time between
    /// an anchor and an event; `None` from it is `None` here, as it is without an anchor.
    pub(super) fn between<M>(
        &self,
        start: &M,
        end: &M,
        measure: impl Fn(&E, &M) -> Option<Span>,
    ) -> Option<Span> {
        let place = |event: &M| {
            let last = self.last()?;
            let guess = measure(&last.event, event)?;
            let near = lock(&self.list).nearest(last.at.nanos + guess.nanos)?;
            let rest = match Arc::ptr_eq(&near, &last) {
                true => guess,
                false => measure(&near.event, event)?,
            };
            Some((near.at, rest))
        };
        let ((from, before), (to, behind)) = (place(start)?, place(end)?);
        // What both anchors' places have in common cancels out.
        Some(Span {
            nanos: (to.nanos - from.nanos) + (behind.nanos - before.nanos),
            off: (to.off - from.off).abs() + before.off + behind.off,
        })
    }

    #[cfg(test)]
    fn count(&self) -> usize {
        let list = lock(&self.list);
        list.old.len() + list.recent.len()
    }
}

impl<E> List<E> {
    /// Takes out the anchors that are not kept.
    fn thin(&mut self) -> Vec<Arc<Anchor<E>>> {
        let mut dropped = Vec::new();
        if self.recent.len() <= RECENT {
            return dropped;
        }
        let Some(oldest) = self.recent.pop_front() else {
            return dropped;
        };
        let since = |last: &Arc<Anchor<E>>| oldest.at.nanos - last.at.nanos;
        match self
            .old
            .last()
            .is_none_or(|last| since(last) >= self.old_each)
        {
            true => self.old.push(oldest),
            false => dropped.push(oldest),
        }
        if self.old.len() > MOST_OLD {
            self.old_each *= 2.0;
            let all = std::mem::take(&mut self.old);
            for (index, anchor) in all.into_iter().enumerate() {
                match index % 2 {
                    0 => self.old.push(anchor),
                    _ => dropped.push(anchor),
                }
            }
        }
        dropped
    }

    /// The anchor that is nearest to this time.
    fn nearest(&self, at: f64) -> Option<Arc<Anchor<E>>> {
        let all = self.old.len() + self.recent.len();
        let get = |index: usize| match index.checked_sub(self.old.len()) {
            None => self.old.get(index),
            Some(index) => self.recent.get(index),
        };
        let (mut low, mut high) = (0, all);
        while low < high {
            let middle = (low + high) / 2;
            match get(middle).is_some_and(|anchor| anchor.at.nanos < at) {
                true => low = middle + 1,
                false => high = middle,
            }
        }
        let distance = |anchor: &&Arc<Anchor<E>>| (anchor.at.nanos - at).abs();
        [low.checked_sub(1).and_then(get), get(low)]
            .into_iter()
            .flatten()
            .min_by(|one, two| distance(one).total_cmp(&distance(two)))
            .cloned()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const HOUR: u64 = 3600 * SECOND;

    /// What the driver says of two events of a clock that moves on by `step` nanoseconds.
    fn driver(step: u64, start: u64, end: u64) -> Option<Span> {
        let steps = |time: u64| (time / step * step) as i64;
        let millis = ((steps(end) - steps(start)) as f64 / 1e6) as f32;
        Some(Span::of(millis, Some(step)))
    }

    fn kept(step: u64, times: impl Iterator<Item = u64>) -> Anchors<u64> {
        let anchors = Anchors::new();
        let mut last = None;
        for time in times {
            let link = driver(step, last.unwrap_or(time), time).unwrap();
            anchors.add(time, anchors.last().as_ref(), link);
            last = Some(time);
        }
        anchors
    }

    #[test]
    fn an_hour_is_known_within_a_microsecond() {
        // Woken late by up to 40 ms, never in step with the clock.
        let mut at = 12_345;
        let anchors = kept(
            32,
            std::iter::from_fn(move || {
                at += 200_000_000 + at % 40_000_003;
                (at < HOUR + 20 * SECOND).then_some(at)
            }),
        );
        assert!(anchors.count() <= RECENT + 250, "{}", anchors.count());
        for (start, end) in [
            (SECOND, HOUR + 5 * SECOND),
            (SECOND + 77, 61 * SECOND + 1_234_567),
            (HOUR / 2 + 8 * SECOND, HOUR),
            (HOUR, SECOND),
            (HOUR + 300_000_000, HOUR + 17 * SECOND),
        ] {
            let told = anchors.between(&start, &end, |a, b| driver(32, *a, *b));
            let told = told.unwrap();
            let truth = end as f64 - start as f64;
            let off = (told.nanos - truth).abs();
            assert!(off <= told.off + 32.0, "{off} ns, said {told:?}");
            assert!(told.off < 1000.0, "{told:?}");
        }
        // The driver alone: a quarter of a millisecond.
        assert!(driver(32, SECOND, HOUR).unwrap().off > 100_000.0);
    }

    #[test]
    fn a_link_counts_from_the_anchor_that_it_was_measured_from() {
        let driver = |start, end| driver(32, start, end).unwrap();
        let anchors = kept(32, [0, 200 * 1_000_000].into_iter());
        // Two keepers measure from the same anchor, and both add theirs.
        let last = anchors.last().unwrap();
        let (one, two) = (SECOND * 2 / 5, SECOND / 2);
        anchors.add(one, Some(&last), driver(last.event, one));
        anchors.add(two, Some(&last), driver(last.event, two));
        assert_eq!(anchors.count(), 3);
        // And both begin with the first.
        anchors.add(0, None, Span::of(0.0, None));
        assert_eq!(anchors.count(), 3);
        // The mark of the slower one may be the earlier one.
        let last = anchors.last().unwrap();
        anchors.add(one / 2, Some(&last), driver(last.event, one / 2));
        assert_eq!(anchors.count(), 3);
        assert_eq!(anchors.last().unwrap().at.nanos, one as f64);
    }

    #[test]
    fn a_year_of_anchors_takes_bounded_memory() {
        let anchors = Anchors::new();
        // Links of two minutes, so that the test is short.
        for time in 0..365 * 24 * 30 {
            let link = Span {
                nanos: 120e9,
                off: 0.0,
            };
            anchors.add(time, anchors.last().as_ref(), link);
            assert!(anchors.count() <= RECENT + MOST_OLD);
        }
    }

    proptest! {
        /// Whatever the step of the clock, and however late the keeper's thread is woken, a time is
        /// as near to the truth as it says.
        #[test]
        fn a_time_is_as_good_as_it_says(
            step in prop::sample::select(vec![1_u64, 32, 64, 500, 1000, 1024]),
            gaps in prop::collection::vec(1_000_000..900_000_000_u64, 2..700),
            start in 0.0..1.0_f64,
            end in 0.0..1.0_f64,
        ) {
            let mut at = 500_000_000;
            let times: Vec<u64> = gaps
                .iter()
                .map(|gap| {
                    at += gap;
                    at
                })
                .collect();
            let anchors = kept(step, times.into_iter());
            let whole = (at + 2 * SECOND) as f64;
            let (start, end) = ((start * whole) as u64, (end * whole) as u64);
            let told = anchors.between(&start, &end, |a, b| driver(step, *a, *b)).unwrap();
            let off = (told.nanos - (end as f64 - start as f64)).abs();
            prop_assert!(off <= told.off + step as f64, "{off} ns, said {told:?}");
        }
    }
}
