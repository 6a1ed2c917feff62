//! A device's clock beside the host's, over the time of a trace.
//!
//! A *position* is a time on the device's clock in nanoseconds since the first anchor. An anchor is
//! a moment that was read on both clocks. Between two anchors the host's time runs straight, so
//! that what happens there is off by little more than the two are. Outside of all anchors it goes
//! on as between the two nearest, where these are far enough apart to tell the drift.

use crate::correlation::{DRIFT_BOUND, WANDER};

/// A moment on both clocks, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Anchor {
    /// Since the first anchor, on the device's clock.
    pub(super) position: f64,
    /// Since the trace began, on the host's clock.
    pub(super) host: f64,
    /// How far apart the two readings may be.
    pub(super) error: f64,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Axis {
    /// In the order of their positions.
    anchors: Vec<Anchor>,
    /// The host's own clock: positions are the host's.
    is_host: bool,
    /// Whether positions are an `f32` of milliseconds since the anchor.
    is_rounded: bool,
    /// Of the first anchor, and the nanoseconds of a tick.
    pub(super) ticks: Option<(u64, f64)>,
}

/// The most anchors: an hour with one each second. Of more, every second one goes.
const MOST: usize = 3600;

/// What rounding to an `f32` leaves of a number at most.
const HALF_STEP: f64 = 1.0 / (1 << 24) as f64;

impl Axis {
    pub(super) fn new(is_host: bool, is_rounded: bool, ticks: Option<(u64, f64)>) -> Axis {
        Axis {
            anchors: Vec::new(),
            is_host,
            is_rounded,
            ticks,
        }
    }

    /// Adds an anchor, unless it is not behind the last one.
    pub(super) fn add(&mut self, anchor: Anchor) {
        let is_behind = |last: &Anchor| anchor.position > last.position && anchor.host > last.host;
        if !self.anchors.last().is_none_or(is_behind) {
            return;
        }
        self.anchors.push(anchor);
        if self.anchors.len() > MOST {
            let mut keep = false;
            self.anchors.retain(|_| {
                keep = !keep;
                keep
            });
        }
    }

    /// The host's time at a position, and how far off it may be. Both in nanoseconds, the time
    /// since the trace began. `None` as long as there is no anchor.
    pub(super) fn host(&self, position: f64) -> Option<(f64, f64)> {
        if self.is_host {
            let anchor = self.anchors.first()?;
            return Some((anchor.host + (position - anchor.position), 0.0));
        }
        let behind = self.anchors.partition_point(|a| a.position <= position);
        let (before, after) = (behind.checked_sub(1), behind);
        let get = |index: usize| self.anchors.get(index);
        let (time, off, distance) = match (before.and_then(get), get(after)) {
            (Some(before), Some(after)) => between(before, after, position),
            (Some(last), None) => {
                let other = behind.checked_sub(2).and_then(get);
                beyond(last, other, position)
            }
            (None, first) => beyond(first?, get(after + 1), position),
        };
        let rounding = if self.is_rounded { HALF_STEP } else { 0.0 };
        Some((time, off + distance * rounding))
    }

    /// What the clock counts at a position.
    pub(super) fn ticks_at(&self, position: f64) -> Option<u64> {
        let (first, tick_nanos) = self.ticks?;
        Some(first.wrapping_add_signed((position / tick_nanos).round() as i64))
    }
}

/// The host's time, how far off it may be, and the distance to the nearer anchor.
fn between(before: &Anchor, after: &Anchor, position: f64) -> (f64, f64, f64) {
    let slope = (after.host - before.host) / (after.position - before.position);
    let way = position - before.position;
    let nearer = way.min(after.position - position);
    let off = before.error.max(after.error) + nearer * WANDER;
    (before.host + way * slope, off, nearer)
}

fn beyond(nearest: &Anchor, other: Option<&Anchor>, position: f64) -> (f64, f64, f64) {
    let way = position - nearest.position;
    let (slope, bound) = match other {
        Some(other) => {
            let length = nearest.position - other.position;
            let bound = (nearest.error + other.error) / length.abs() + WANDER;
            ((nearest.host - other.host) / length, bound)
        }
        None => (1.0, DRIFT_BOUND),
    };
    let (slope, bound) = match bound < DRIFT_BOUND {
        true => (slope, bound),
        false => (1.0, DRIFT_BOUND),
    };
    let distance = way.abs();
    (
        nearest.host + way * slope,
        nearest.error + distance * bound,
        distance,
    )
}

#[cfg(all(test, not(loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: f64 = 1e9;

    /// An anchor of a clock that gains `drift` on the host's, which was read `late`.
    fn anchor(drift: f64, host: f64, late: f64, error: f64) -> Anchor {
        Anchor {
            position: host * (1.0 + drift),
            host: host + late,
            error,
        }
    }

    #[test]
    fn a_span_between_two_anchors_is_placed_between_them() {
        let mut axis = Axis::new(false, false, Some((1000, 2.0)));
        assert_eq!(axis.host(5.0), None);
        axis.add(anchor(6.2e-6, 0.0, 0.0, 100.0));
        assert!(
            axis.host(SECOND).unwrap().1 > 90_000.0,
            "nobody knows the drift"
        );
        axis.add(anchor(6.2e-6, 10.0 * SECOND, 0.0, 100.0));
        let (time, off) = axis.host(5.0 * SECOND * (1.0 + 6.2e-6)).unwrap();
        assert!((time - 5.0 * SECOND).abs() < 1.0, "{time}");
        assert!((100.0..60_000.0).contains(&off), "{off}");
        // Behind the last one the drift is known.
        let (time, _) = axis.host(20.0 * SECOND * (1.0 + 6.2e-6)).unwrap();
        assert!((time - 20.0 * SECOND).abs() < 1.0, "{time}");
        assert_eq!(axis.ticks_at(10.0), Some(1005));
        assert_eq!(axis.ticks_at(-10.0), Some(995));
        // A clock that went back gives no anchor.
        axis.add(anchor(0.0, 3.0 * SECOND, 0.0, 0.0));
        assert_eq!(axis.anchors.len(), 2);
    }

    #[test]
    #[cfg_attr(miri, ignore = "150 s for 86,400 anchors")]
    fn a_day_of_anchors_takes_bounded_memory() {
        let mut axis = Axis::new(false, true, None);
        for second in 0..86_400 {
            axis.add(anchor(1e-6, f64::from(second) * SECOND, 0.0, 10.0));
            assert!(axis.anchors.len() <= MOST);
        }
        assert!(axis.host(100.0 * SECOND).unwrap().1 < 10_000_000.0);
    }

    proptest! {
        /// What is said of a time is true, and times are in the order of positions.
        #[test]
        fn a_time_is_as_good_as_it_says(
            drift in -50e-6..50e-6_f64,
            gaps in prop::collection::vec((1e6..5e9_f64, -1.0..1.0_f64), 1..20),
            at in prop::collection::vec(-0.2..1.2_f64, 2..10),
        ) {
            let mut axis = Axis::new(false, false, None);
            let (mut host, error) = (0.0, 5000.0);
            for (gap, late) in &gaps {
                host += gap;
                axis.add(anchor(drift, host, late * error, error));
            }
            let mut at: Vec<f64> = at.iter().map(|part| part * host).collect();
            at.sort_by(f64::total_cmp);
            let mut last = f64::MIN;
            for truth in at {
                let (time, off) = axis.host(truth * (1.0 + drift)).unwrap();
                prop_assert!((time - truth).abs() <= off + 1.0, "{time} for {truth}, ±{off}");
                prop_assert!(time >= last);
                last = time;
            }
        }
    }
}
