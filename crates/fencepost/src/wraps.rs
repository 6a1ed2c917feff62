//! How often a counter has wrapped between two readings.
//!
//! A counter of few valid bits starts over from 0: one of 32 bits and 1 ns after 4.29 s. Its
//! readings alone tell the time between them up to whole periods. The host's clock tells the rest:
//! each reading was taken after the host submitted it, and before the host saw it complete. If
//! exactly one number of periods fits that, it is the number; else nobody can tell.

use std::time::Duration;

/// When a reading was taken, by the host's monotonic clock in nanoseconds: at some time from
/// `before` to `after`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Bounds {
    pub(crate) before: u64,
    pub(crate) after: u64,
}

/// A reading of a counter, of which the lowest `bits` are valid, from 1 to 64. The bounds are
/// `None` where the host did not note them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Reading {
    pub(crate) ticks: u64,
    pub(crate) bits: u32,
    pub(crate) bounds: Option<Bounds>,
}

/// How much faster or slower one of the two clocks may run than the other. System time is slewed by
/// up to 500 millionths (`adjtimex`), and crystals are good to 100.
const RATE: f64 = 1e-3;

/// What the two clocks may differ by besides, in periods of the counter: some drivers update it in
/// coarse steps, and some read it late.
const LAG: f64 = 0.125;

/// The signed number of ticks from `start` to `end`, by the bits that are valid in both; `None`
/// where the host cannot tell how often the counter has wrapped. `tick_ns` is the length of a tick.
pub(crate) fn ticks_between(tick_ns: f64, start: Reading, end: Reading) -> Option<i128> {
    let bits = start.bits.min(end.bits);
    if bits >= 64 {
        // 584 years of 1 ns: the sign of the difference is that of an i64.
        return Some((end.ticks.wrapping_sub(start.ticks) as i64).into());
    }
    let (first, last) = (start.bounds?, end.bounds?);
    let period = 1_i128 << bits;
    // At least 0, and less than a period.
    let ticks = i128::from(end.ticks.wrapping_sub(start.ticks)) & (period - 1);
    let least = nanos(first.after, last.before);
    let most = nanos(first.before, last.after);
    let periods = |limit: f64| (limit / tick_ns - ticks as f64) / period as f64;
    let fewest = (periods(least - least.abs() * RATE) - LAG).ceil();
    let most = (periods(most + most.abs() * RATE) + LAG).floor();
    (fewest == most).then(|| ticks + fewest as i128 * period)
}

/// How long a counter of the bits that are valid in both runs before it starts over.
pub(crate) fn period(tick_ns: f64, start: Reading, end: Reading) -> Duration {
    let ticks = f64::from(start.bits.min(end.bits)).exp2();
    Duration::from_nanos((ticks * tick_ns) as u64)
}

/// How well the host knows the time between two readings: by when it submitted and saw them, and by
/// what the two clocks may drift apart meanwhile.
pub(crate) fn known_to(start: Reading, end: Reading) -> Option<Duration> {
    let (first, last) = (start.bounds?, end.bounds?);
    let span = [
        nanos(first.after, last.before),
        nanos(first.before, last.after),
    ]
    .map(f64::abs);
    let drift = 2.0 * RATE * span[0].max(span[1]);
    Some(width(first, last) + Duration::from_nanos(drift as u64))
}

fn width(first: Bounds, last: Bounds) -> Duration {
    let width = |bounds: Bounds| bounds.after.saturating_sub(bounds.before);
    Duration::from_nanos(width(first).saturating_add(width(last)))
}

fn nanos(from: u64, to: u64) -> f64 {
    // Less than 2^53 ns is 104 days; beyond, an f64 is off by less than a microsecond for 200
    // years.
    (i128::from(to) - i128::from(from)) as f64
}

#[cfg(all(test, not(loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn reading(bits: u32, ticks: u64, before: u64, after: u64) -> Reading {
        Reading {
            ticks,
            bits,
            bounds: Some(Bounds { before, after }),
        }
    }

    /// A counter of 36 bits and 1 ns wraps after 68.7 s.
    #[test]
    fn forty_seconds_of_36_bits_are_forty_seconds() {
        let at = |time| reading(36, time & ((1 << 36) - 1), time - 1000, time + 50_000);
        for start in [SECOND, 50 * SECOND, 60 * SECOND] {
            let ticks = |seconds| {
                let end = at(start + seconds * SECOND);
                ticks_between(1.0, at(start), end)
            };
            for seconds in [0, 30, 40, 68, 69, 3600, 86_400 / 4] {
                assert_eq!(ticks(seconds), Some((seconds * SECOND).into()));
            }
        }
        let (start, end) = (at(SECOND), at(41 * SECOND));
        let back = ticks_between(1.0, end, start);
        assert_eq!(back, Some(-40 * i128::from(SECOND)));
    }

    #[test]
    fn what_was_seen_too_late_has_no_time() {
        // 32 bits and 1 ns: 4.29 s.
        let start = reading(32, 100, 0, 1000);
        let at_once = reading(32, 300, SECOND, 2 * SECOND);
        let late = reading(32, 300, SECOND, 9 * SECOND);
        assert_eq!(ticks_between(1.0, start, at_once), None, "none fits");
        assert_eq!(ticks_between(1.0, start, late), None, "two fit");
        assert_eq!(
            known_to(start, late),
            Some(Duration::from_nanos(8 * SECOND + 1000 + 18_000_000)),
            "and 9 s may be off by 9 ms to both sides"
        );
        let unseen = |bits| Reading {
            ticks: 300,
            bits,
            bounds: None,
        };
        assert_eq!(ticks_between(1.0, start, unseen(64)), None);
        assert_eq!(ticks_between(1.0, unseen(64), unseen(64)), Some(0));
    }

    /// However well both were seen: 32 bits and 1 ns, after 1,100 periods.
    #[test]
    fn beyond_hundreds_of_periods_the_drift_of_the_clocks_hides_one() {
        let at = |seconds: u64| {
            let time = seconds * SECOND;
            reading(32, time & 0xffff_ffff, time, time + 1000)
        };
        let told = |seconds| ticks_between(1.0, at(0), at(seconds));
        assert_eq!(told(1200), Some(i128::from(1200 * SECOND)));
        assert_eq!(told(4800), None);
        let known_to = known_to(at(0), at(4800)).unwrap();
        assert!(known_to > period(1.0, at(0), at(4800)), "{known_to:?}");
    }

    proptest! {
        /// A counter that runs beside the host's clock, for up to two days. `rate` is by how many
        /// millionths it is faster.
        #[test]
        fn the_number_of_wraps_is_right_or_not_told(
            bits in 20_u32..64,
            tick_ns in prop::sample::select(vec![1.0, 10.0, 52.083_333, 83.333_333]),
            origin in any::<u64>(),
            rate in -700_i32..700,
            start in 0..2 * 86_400 * SECOND,
            end in 0..2 * 86_400 * SECOND,
            [a, b, c, d] in [0..SECOND, 0..SECOND / 100, 0..20 * SECOND, 0..SECOND / 1000],
        ) {
            let ticks = |time: u64| {
                let ran = time as f64 * (1.0 + f64::from(rate) / 1e6);
                (ran / tick_ns) as u64
            };
            let mask = (1 << bits) - 1;
            let at = |time: u64, early: u64, late: u64| {
                // The host's clock began an hour before.
                let host = time + 3600 * SECOND;
                reading(bits, origin.wrapping_add(ticks(time)) & mask, host - early, host + late)
            };
            let (first, last) = (at(start, a, b), at(end, d, c));
            let truth = i128::from(ticks(end)) - i128::from(ticks(start));
            let told = ticks_between(tick_ns, first, last);
            prop_assert!(told.is_none_or(|told| told == truth), "{told:?}, not {truth}");
            // Where the bounds are narrower than a period, it is always told.
            let apart = start.abs_diff(end) as f64;
            let width = width(first.bounds.unwrap(), last.bounds.unwrap()).as_nanos() as f64;
            let period = (1_u64 << bits) as f64 * tick_ns;
            let blurred = 2.0 * (apart + width) * RATE + 2.0 * LAG * period + 2.0 * tick_ns;
            if width + blurred < period {
                prop_assert_eq!(told, Some(truth));
            }
        }
    }
}
