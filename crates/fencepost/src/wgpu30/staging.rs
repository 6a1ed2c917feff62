//! Values that the next submit signals. Knows no wgpu, so that loom can explore it.
//!
//! wgpu lets anybody submit to its queue at any time, and has no call that stages a signal and
//! submits in one. So the next submit, whoever makes it, signals what is staged.
//!
//! # The protocol
//!
//! 1. *Stage*, under the stream's submit lock: a value is handed out, and the next submit is to
//!    raise the counter to it, in place of an earlier value that no submit has taken.
//! 2. *Submit*, under no lock: wgpu calls callbacks of the user's here, and these may record.
//! 3. *Look back*, under the submit lock again: if this value is the last one staged, and no submit
//!    has taken it, wgpu refused the submit.
//!
//! *Invariant: at most one value is staged, the highest, and each value that it stands for (`first`
//! to `last`) was handed out before.* A submit that takes it comes after everything that was
//! submitted before those values were handed out, whoever made it, so a marker is never complete
//! too early. Who staged the last value looks back last; so a refused value is always found. A
//! value that was replaced is on the queue only once who replaced it has submitted.
//!
//! Where `taken` is `last`, nothing is staged. The three are written under the submit lock only, so
//! they need no atomic read-modify-write.

use crate::sync::{AtomicU64, Ordering};

pub(super) struct Staging {
    /// The first of the values that are staged for the next submit, or that the last one took.
    first: AtomicU64,
    /// The last value that was staged.
    last: AtomicU64,
    /// The last value that a submit is known to have taken.
    taken: AtomicU64,
}

/// Submits of all values from this one on were refused.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refused(pub(super) u64);

impl Staging {
    pub(super) fn new() -> Staging {
        Staging {
            first: AtomicU64::new(0),
            last: AtomicU64::new(0),
            taken: AtomicU64::new(0),
        }
    }

    /// The last value that a submit is known to have taken.
    pub(super) fn taken(&self) -> u64 {
        self.taken.load(Ordering::Acquire)
    }

    /// Stages `value`, higher than all before, by `add`. `withdraw` takes back what no submit has
    /// taken, and is `true` where there was something. Call it under the submit lock.
    pub(super) fn stage(&self, value: u64, withdraw: impl FnOnce() -> bool, add: impl FnOnce()) {
        let is_staged = self.taken() != self.last.load(Ordering::Relaxed) && withdraw();
        if !is_staged {
            self.first.store(value, Ordering::Relaxed);
        }
        self.last.store(value, Ordering::Relaxed);
        add();
    }

    /// After the submit of `value`. If another thread has staged a higher one, that one is about to
    /// submit, and looks back. `withdraw` is as for [`stage`](Staging::stage). Call it under the
    /// submit lock.
    pub(super) fn look_back(
        &self,
        value: u64,
        withdraw: impl FnOnce() -> bool,
    ) -> Result<(), Refused> {
        if self.last.load(Ordering::Relaxed) != value {
            return Ok(());
        }
        if withdraw() {
            return Err(Refused(self.first.load(Ordering::Relaxed)));
        }
        self.taken.store(value, Ordering::Release);
        Ok(())
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use std::sync::Arc;

    use super::*;
    use crate::sync::{Mutex, lock, thread};

    /// A queue that raises a counter to the staged value.
    struct Queue {
        rides: Mutex<Option<u64>>,
        counter: AtomicU64,
        /// The submit lock, and the last value that was handed out.
        values: Mutex<u64>,
        staging: Staging,
    }

    impl Queue {
        fn new() -> Arc<Queue> {
            Arc::new(Queue {
                rides: Mutex::new(None),
                counter: AtomicU64::new(0),
                values: Mutex::new(0),
                staging: Staging::new(),
            })
        }

        fn submit(&self) {
            let mut rides = lock(&self.rides);
            if let Some(value) = rides.take() {
                let before = self.counter.swap(value, Ordering::AcqRel);
                assert!(before < value, "{value} was signalled after {before}");
            }
        }

        fn withdraw(&self) -> bool {
            lock(&self.rides).take().is_some()
        }

        fn add(&self, value: u64) {
            let before = lock(&self.rides).replace(value);
            assert_eq!(before, None, "at most one value is staged");
        }

        fn stage(&self) -> u64 {
            let mut last = lock(&self.values);
            *last += 1;
            let value = *last;
            let (withdraw, add) = (|| self.withdraw(), || self.add(value));
            self.staging.stage(value, withdraw, add);
            value
        }

        fn record(&self, refuses: bool) -> Result<(), Refused> {
            let value = self.stage();
            if !refuses {
                self.submit();
            }
            let values = lock(&self.values);
            let looked = self.staging.look_back(value, || self.withdraw());
            drop(values);
            let taken = self.staging.taken();
            assert!(self.counter.load(Ordering::Acquire) >= taken);
            looked
        }
    }

    #[test]
    fn every_value_rides_along_whoever_submits() {
        loom::model(|| {
            let queue = Queue::new();
            let recording = {
                let queue = queue.clone();
                thread::spawn(move || queue.record(false))
            };
            let callers = {
                let queue = queue.clone();
                thread::spawn(move || queue.submit())
            };
            queue.record(false).unwrap();
            recording.join().unwrap().unwrap();
            callers.join().unwrap();
            assert_eq!(queue.counter.load(Ordering::Acquire), 2);
        });
    }

    #[test]
    fn a_refused_value_is_found_by_who_staged_the_last() {
        loom::model(|| {
            let queue = Queue::new();
            let recording = {
                let queue = queue.clone();
                thread::spawn(move || queue.record(true))
            };
            let mine = queue.record(true);
            let theirs = recording.join().unwrap();
            let refused = [mine, theirs].into_iter().filter_map(Result::err);
            assert_eq!(refused.map(|Refused(first)| first).min(), Some(1));
        });
    }

    #[test]
    fn what_the_callers_submit_takes_is_not_refused() {
        loom::model(|| {
            let queue = Queue::new();
            let callers = {
                let queue = queue.clone();
                thread::spawn(move || queue.submit())
            };
            // Ours never reaches the queue.
            let refused = queue.record(true);
            callers.join().unwrap();
            let reached = queue.counter.load(Ordering::Acquire);
            assert_eq!(refused.is_ok(), reached == 1, "{refused:?}, {reached}");
        });
    }
}
