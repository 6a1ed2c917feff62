//! The steps that a clock is seen to make. A driver may count nanoseconds and move on by 32 of
//! them: the differences between its readings tell.
//!
//! # The protocol
//!
//! | field | is |
//! |---|---|
//! | `step` | the greatest common divisor of the differences seen, in ticks; 0 before the first |
//! | `seen` | how many differences have gone into it |
//!
//! *Invariant: `step` only moves to one of its divisors, and divides every difference that `seen`
//! counts.* A difference goes into `step` before it is counted, so whoever sees the count sees the
//! divisor too.

use crate::sync::{AtomicU64, Ordering};

pub(crate) struct Steps {
    step: AtomicU64,
    seen: AtomicU64,
    /// The finest step that is believed, in ticks.
    finest: u64,
}

/// So many differences tell the step: a divisor that they have in common by chance is unlikely.
const ENOUGH: u64 = 16;
/// After so many nobody looks any more, so that a time costs one load.
const MOST: u64 = 64;

impl Steps {
    /// `finest` is for clocks whose readings are rounded to whole ticks: below it, the rounding is
    /// what was seen, and the clock tells no step.
    pub(crate) fn new(finest: u64) -> Steps {
        Steps {
            step: AtomicU64::new(0),
            seen: AtomicU64::new(0),
            finest,
        }
    }

    /// Whether further differences are of use.
    #[inline]
    pub(crate) fn is_learning(&self) -> bool {
        self.seen.load(Ordering::Relaxed) < MOST
    }

    /// The clock was seen to make this difference.
    #[cold]
    pub(crate) fn saw(&self, difference: u64) {
        if difference == 0 {
            return;
        }
        let mut step = self.step.load(Ordering::Relaxed);
        loop {
            let common = divisor(step, difference);
            match self.step.compare_exchange_weak(
                step,
                common,
                Ordering::Relaxed,
                Ordering::Relaxed,
            ) {
                Ok(_) => break,
                Err(now) => step = now,
            }
        }
        self.seen.fetch_add(1, Ordering::Release);
    }

    /// The step in ticks, once enough was seen. It is that of the clock, or a multiple.
    pub(crate) fn step(&self) -> Option<u64> {
        if self.seen.load(Ordering::Acquire) < ENOUGH {
            return None;
        }
        Some(self.step.load(Ordering::Relaxed)).filter(|&step| step >= self.finest)
    }
}

/// The greatest common divisor; that of 0 and a number is the number.
fn divisor(mut one: u64, mut two: u64) -> u64 {
    while two != 0 {
        (one, two) = (two, one % two);
    }
    one
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_step_is_what_all_differences_have_in_common() {
        let steps = Steps::new(8);
        for count in 0..ENOUGH {
            assert_eq!(steps.step(), None, "after {count}");
            steps.saw(0);
            steps.saw(1312 + 32 * (count % 3));
        }
        assert_eq!(steps.step(), Some(32));
        assert!(steps.is_learning());
        (0..MOST).for_each(|_| steps.saw(64));
        assert!(!steps.is_learning());
        // A clock of 27 MHz: its readings are rounded.
        steps.saw(37);
        assert_eq!(steps.step(), None, "1 ns is the rounding");
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use std::sync::Arc;

    use super::*;
    use crate::sync::thread;

    #[test]
    fn a_step_divides_what_was_counted() {
        loom::model(|| {
            let steps = Arc::new(Steps::new(1));
            // One more is enough.
            for _ in 0..ENOUGH - 1 {
                steps.saw(96);
            }
            let other = {
                let steps = steps.clone();
                thread::spawn(move || steps.saw(64))
            };
            if let Some(step) = steps.step() {
                assert_eq!(step, 32, "the difference that is counted was not seen");
            }
            steps.saw(48);
            other.join().unwrap();
            assert_eq!(steps.step(), Some(16));
        });
    }
}
