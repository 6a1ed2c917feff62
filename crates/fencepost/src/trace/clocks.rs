//! The host's clocks, and the axis of a trace: nanoseconds of the system's clock that runs on while
//! the system sleeps.

// The system's clocks have no safe interface that tells their numbers.
#![allow(unsafe_code)]

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::picture::ClockReading;

/// The clocks at one moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reading {
    pub(super) at: Instant,
    pub(super) clocks: ClockReading,
    /// How long it took to read them, with `at` in the middle.
    pub(super) took: Duration,
}

/// By how much the clocks come apart when the system sleeps, at least.
const SLEPT: Duration = Duration::from_millis(1);

/// How many readings are made: the closest one counts. A thread may be preempted in between.
const TRIES: usize = 5;

impl Reading {
    pub(super) fn now() -> Reading {
        let mut best = Reading::once();
        for _ in 1..TRIES {
            let next = Reading::once();
            if next.took < best.took {
                best = next;
            }
        }
        best
    }

    fn once() -> Reading {
        let before = Instant::now();
        let clocks = read();
        let took = before.elapsed();
        let at = before + took / 2;
        Reading { at, clocks, took }
    }

    /// Whether the system slept between an earlier reading and this one, by more than the two may
    /// be wrong.
    pub(super) fn has_slept_since(&self, earlier: &Reading) -> bool {
        let apart = earlier.on_axis(self.at).abs_diff(self.clocks.boottime);
        u128::from(apart) > (SLEPT + self.took + earlier.took).as_nanos()
    }

    /// The time on the axis of what happened at `at`.
    pub(super) fn on_axis(&self, at: Instant) -> i64 {
        let nanos = |duration: Duration| i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX);
        let forward = nanos(at.saturating_duration_since(self.at));
        let back = nanos(self.at.saturating_duration_since(at));
        self.clocks.boottime.saturating_add(forward - back)
    }
}

fn since_1970() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
    })
}

/// What the system's clocks say, or where it has no such clock what `Instant` counts, from 1970 on
/// as it was when it was first asked here.
fn read() -> ClockReading {
    use crate::fork::Lasting;

    if let Some(reading) = system::read() {
        return reading;
    }
    static FIRST: Lasting<(Instant, i64)> = Lasting::new();
    let (at, origin) = *FIRST.get_or_make(|| (Instant::now(), since_1970()));
    let since = i64::try_from(at.elapsed().as_nanos()).unwrap_or(i64::MAX);
    ClockReading {
        boottime: origin + since,
        monotonic: origin + since,
        realtime: since_1970(),
    }
}

/// Linux and Android, where a `timespec` is two numbers of 64 bits.
#[cfg(all(
    any(target_os = "linux", target_os = "android"),
    target_pointer_width = "64"
))]
mod system {
    use std::ffi::c_int;

    use super::ClockReading;

    const CLOCK_REALTIME: c_int = 0;
    const CLOCK_MONOTONIC: c_int = 1;
    const CLOCK_BOOTTIME: c_int = 7;

    unsafe extern "C" {
        fn clock_gettime(clock: c_int, time: *mut [u64; 2]) -> c_int;
    }

    /// `None` where a clock is missing: an emulator of a kernel may lack one.
    pub(super) fn read() -> Option<ClockReading> {
        Some(ClockReading {
            boottime: nanos(CLOCK_BOOTTIME)?,
            monotonic: nanos(CLOCK_MONOTONIC)?,
            realtime: nanos(CLOCK_REALTIME)?,
        })
    }

    fn nanos(clock: c_int) -> Option<i64> {
        let mut time = [0; 2];
        // SAFETY: `time` is where the answer goes, and of the size of a `timespec` here.
        // https://man7.org/linux/man-pages/man3/clock_gettime.3.html
        let is_there = unsafe { clock_gettime(clock, &raw mut time) } == 0;
        is_there.then(|| (time[0] * 1_000_000_000 + time[1]) as i64)
    }
}

#[cfg(not(all(
    any(target_os = "linux", target_os = "android"),
    target_pointer_width = "64"
)))]
mod system {
    pub(super) fn read() -> Option<super::ClockReading> {
        None
    }
}

/// A number that no other trace has, of this process or another one: of the process, the time, and
/// how many there were before it in this process.
pub(super) fn unique() -> u64 {
    use std::hash::{BuildHasher as _, RandomState};

    use crate::sync::Ids;

    static TRACES: Ids = Ids::new();
    let id = (TRACES.next(), std::process::id(), since_1970());
    RandomState::new().hash_one(id)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_axis_goes_on_from_a_reading_in_both_directions() {
        let (first, second) = (Reading::now(), Reading::now());
        let between = (second.at - first.at).as_nanos() as i64;
        assert_eq!(first.on_axis(second.at), first.clocks.boottime + between);
        assert_eq!(second.on_axis(first.at), second.clocks.boottime - between);
        assert!(second.clocks.monotonic >= first.clocks.monotonic);
        // It is as long since 1970 as the system says, within a day.
        let off = first.clocks.realtime.abs_diff(since_1970());
        assert!(off < 86_400_000_000_000, "{off}");
        assert_ne!(unique(), unique());
    }

    #[test]
    fn a_thread_that_is_preempted_is_no_sleep_of_the_system() {
        let first = Reading::now();
        assert!(!Reading::now().has_slept_since(&first));
        let late = |millis: i64, took| {
            let at = first.at + Duration::from_secs(1);
            let mut clocks = first.clocks;
            clocks.boottime += 1_000_000_000 + millis * 1_000_000;
            Reading { at, clocks, took }
        };
        let short = Duration::from_nanos(100);
        assert!(late(20, short).has_slept_since(&first));
        assert!(!late(20, Duration::from_millis(40)).has_slept_since(&first));
    }
}
