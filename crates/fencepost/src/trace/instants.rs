//! Differences of instants, for spans of threads, in few instructions.
//!
//! `Instant::duration_since` looks which of two is later, borrows and makes a `Duration`: 55
//! instructions, and a span needs two differences. What an instant consists of, it tells to a
//! hasher; where that is seconds and nanoseconds, the difference of two numbers is the same. No
//! documentation promises that, so each trace tries it, and does without where it is not so.

use std::{
    hash::{Hash, Hasher},
    time::{Duration, Instant},
};

/// Where the times of a trace count from.
pub(super) struct Origin {
    pub(super) at: Instant,
    /// The same as a number, where instants are such.
    number: Option<u64>,
}

impl Origin {
    pub(super) fn now() -> Origin {
        let at = Instant::now();
        let number = are_numbers(at).then(|| number_of(at));
        Origin { at, number }
    }

    /// The nanoseconds from the origin to `at`; 0 for what is earlier.
    #[inline]
    pub(super) fn until(&self, at: Instant) -> u64 {
        match self.number {
            Some(origin) => number_of(at).saturating_sub(origin),
            None => between(self.at, at),
        }
    }

    /// The same, and the nanoseconds from `start` to `end`.
    #[inline]
    pub(super) fn place(&self, start: Instant, end: Instant) -> (u64, u64) {
        match self.number {
            Some(origin) => {
                let (start, end) = (number_of(start), number_of(end));
                (start.saturating_sub(origin), end.saturating_sub(start))
            }
            None => (between(self.at, start), between(start, end)),
        }
    }
}

fn between(start: Instant, end: Instant) -> u64 {
    end.saturating_duration_since(start).as_nanos() as u64
}

/// Whether [`number_of`] tells differences to the nanosecond: tried with some that do and do not
/// carry over into a second.
fn are_numbers(at: Instant) -> bool {
    let nanos = [0, 1, 999_999_999, 1_000_000_000, 3_600_500_000_000];
    nanos.into_iter().all(|nanos| {
        let later = at.checked_add(Duration::from_nanos(nanos));
        later.is_some_and(|later| number_of(later).checked_sub(number_of(at)) == Some(nanos))
    })
}

/// Nanoseconds since a point in the past, where an instant is whole seconds and nanoseconds.
#[inline]
fn number_of(at: Instant) -> u64 {
    let mut fields = Fields(0);
    at.hash(&mut fields);
    fields.finish()
}

/// Takes a number of seconds, then one of nanoseconds.
struct Fields(u64);

impl Hasher for Fields {
    #[inline]
    fn write_u64(&mut self, seconds: u64) {
        self.0 = seconds.wrapping_mul(1_000_000_000);
    }

    #[inline]
    fn write_i64(&mut self, seconds: i64) {
        self.write_u64(seconds as u64);
    }

    #[inline]
    fn write_u32(&mut self, nanos: u32) {
        self.0 = self.0.wrapping_add(nanos.into());
    }

    fn write(&mut self, _: &[u8]) {
        // No instant that is two numbers.
        self.0 = 0;
    }

    #[inline]
    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn numbers_tell_what_durations_tell() {
        let mut origin = Origin::now();
        if cfg!(target_os = "linux") {
            assert!(
                origin.number.is_some(),
                "no instant is two numbers any more"
            );
        }
        let later = |nanos| origin.at + Duration::from_nanos(nanos);
        let times = [(0, 7), (999_999_999, 1_000_000_000), (5, 5), (9, 2)];
        let pairs = times.map(|(start, end)| (later(start), later(end)));
        let earlier = origin.at.checked_sub(Duration::from_nanos(3));
        let told = |origin: &Origin| {
            let places = pairs.map(|(start, end)| origin.place(start, end));
            (places, earlier.map(|at| origin.until(at)))
        };
        let expected = [(0, 7), (999_999_999, 1), (5, 0), (9, 0)];
        assert_eq!(told(&origin), (expected, earlier.map(|_| 0)));
        origin.number = None;
        assert_eq!(told(&origin), (expected, earlier.map(|_| 0)));
    }
}
