//! The steps that a clock is seen to make. A driver may count nanoseconds and move on by 32 of
//! them: the differences between its readings tell.
//!
//! # The protocol
//!
//! | field | is |
//! |---|---|
//! | `step` | the greatest common divisor of the differences seen, in ticks; 0 before the first |
//! | `known` | different differences that have gone into it; 0 in the places behind them |
//!
//! *Invariant: `step` only moves to one of its divisors, and divides every difference in `known`.
//! No difference is there twice, and none is behind a 0.* A difference goes into `step` before it
//! goes into `known`, and each place is read before the next one is filled, so whoever sees a place
//! filled sees the divisor of all up to there.
//!
//! A difference that was seen before tells nothing: who reads the same two markers again and again
//! sees one difference, however long it is.

use crate::sync::{AtomicU64, Ordering};

pub(crate) struct Steps {
    step: AtomicU64,
    known: [AtomicU64; MOST],
    /// The finest step that is believed, in ticks.
    finest: u64,
}

/// So many different differences tell the step. That six random multiples have a larger divisor in
/// common happens once in 60 times, and further ones correct it.
const ENOUGH: usize = 6;
/// After so many nobody looks any more, so that a time costs one load. That so many have a larger
/// divisor in common happens once in 65,000 times.
const MOST: usize = 16;

impl Steps {
    /// `finest` is for clocks whose readings are rounded to whole ticks: below it, the rounding is
    /// what was seen, and the clock tells no step.
    pub(crate) fn new(finest: u64) -> Steps {
        Steps {
            step: AtomicU64::new(0),
            known: std::array::from_fn(|_| AtomicU64::new(0)),
            finest,
        }
    }

    /// Whether further differences are of use.
    #[inline]
    pub(crate) fn is_learning(&self) -> bool {
        self.known[MOST - 1].load(Ordering::Relaxed) == 0
    }

    /// The clock was seen to make this difference.
    #[inline]
    pub(crate) fn saw(&self, difference: u64) {
        // As where the time of two markers is read again.
        if self.known[0].load(Ordering::Acquire) != difference {
            self.learn(difference);
        }
    }

    #[cold]
    fn learn(&self, difference: u64) {
        if difference == 0 || self.has_seen(difference) {
            return;
        }
        let mut step = self.step.load(Ordering::Relaxed);
        loop {
            let common = divisor(step, difference);
            if common == step {
                break;
            }
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
        self.count(difference);
    }

    /// Whether the difference has gone into the step before. That takes no division, and who takes
    /// the time between the same two markers again and again never stops learning.
    fn has_seen(&self, difference: u64) -> bool {
        let known = self.known.iter().map(|place| place.load(Ordering::Acquire));
        known
            .take_while(|&known| known != 0)
            .any(|known| known == difference)
    }

    /// Fills the first free place, unless the difference is known.
    fn count(&self, difference: u64) {
        for place in &self.known {
            let filled = match place.load(Ordering::Acquire) {
                0 => place.compare_exchange(0, difference, Ordering::AcqRel, Ordering::Acquire),
                known => Err(known),
            };
            match filled {
                Ok(_) => return,
                Err(known) if known == difference => return,
                Err(_) => {}
            }
        }
    }

    /// The step in ticks, once enough was seen. It is that of the clock, or a multiple.
    pub(crate) fn step(&self) -> Option<u64> {
        if self.known[ENOUGH - 1].load(Ordering::Acquire) == 0 {
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
        for count in 0..ENOUGH as u64 {
            assert_eq!(steps.step(), None, "after {count}");
            steps.saw(0);
            steps.saw(1312 + 32 * count);
        }
        assert_eq!(steps.step(), Some(32));
        assert!(steps.is_learning());
        (0..64).for_each(|_| steps.saw(64));
        assert!(steps.is_learning(), "one more difference");
        (1..MOST as u64).for_each(|more| steps.saw(64 * more));
        assert!(!steps.is_learning());
        // A clock of 27 MHz: its readings are rounded.
        steps.saw(37);
        assert_eq!(steps.step(), None, "1 ns is the rounding");
    }

    #[test]
    fn the_same_few_intervals_read_again_tell_no_step() {
        let steps = Steps::new(8);
        for _ in 0..1000 {
            steps.saw(1_000_000);
            steps.saw(3_000_000);
        }
        assert_eq!(steps.step(), None);
        assert!(steps.is_learning());
        (0..ENOUGH as u64).for_each(|count| steps.saw(1312 + 32 * count));
        assert_eq!(steps.step(), Some(32));
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
            for times in 1..ENOUGH as u64 {
                steps.saw(96 * times);
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
