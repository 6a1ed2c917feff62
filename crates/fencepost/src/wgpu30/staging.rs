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
//! 3. *Look back*: if this value is the last one staged, and no submit has taken it, wgpu refused
//!    the submit.
//!
//! *Invariant: at most one value is staged, the highest, and each value that it stands for (`first`
//! to `last`) was handed out before.* A submit that takes it comes after everything that was
//! submitted before those values were handed out, whoever made it, so a marker is never complete
//! too early. Who staged the last value looks back last; so a refused value is always found. A
//! value that was replaced is on the queue only once who replaced it has submitted.

use crate::sync::{Mutex, lock};

pub(super) struct Staging(Mutex<Staged>);

/// The values that are staged for the next submit, or that the last one took.
struct Staged {
    first: u64,
    last: u64,
}

/// Submits of all values from this one on were refused.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refused(pub(super) u64);

impl Staging {
    pub(super) fn new() -> Staging {
        Staging(Mutex::new(Staged { first: 0, last: 0 }))
    }

    /// Stages `value`, higher than all before. `replace` puts it in place of the value that no
    /// submit has taken, and is `true` where there was such a value.
    pub(super) fn stage(&self, value: u64, replace: impl FnOnce() -> bool) {
        let mut staged = lock(&self.0);
        if !replace() {
            staged.first = value;
        }
        staged.last = value;
    }

    /// After the submit of `value`. `withdraw` takes back what no submit has taken, and is `true`
    /// where there was something. Gives whether it is known that a submit has taken `value`; if
    /// not, another thread that has staged a higher one is about to submit.
    pub(super) fn look_back(
        &self,
        value: u64,
        withdraw: impl FnOnce() -> bool,
    ) -> Result<bool, Refused> {
        let staged = lock(&self.0);
        let is_last = staged.last == value;
        match is_last && withdraw() {
            true => Err(Refused(staged.first)),
            false => Ok(is_last),
        }
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use std::sync::Arc;

    use super::*;
    use crate::sync::{AtomicU64, Ordering, thread};

    /// A queue that raises a counter to the staged value.
    struct Queue {
        rides: Mutex<Option<u64>>,
        counter: AtomicU64,
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

        /// As wgpu's queue: the value before is removed, then the new one is added.
        fn stage(&self) -> u64 {
            let mut last = lock(&self.values);
            *last += 1;
            let value = *last;
            self.staging.stage(value, || {
                let before = lock(&self.rides).take();
                *lock(&self.rides) = Some(value);
                before.is_some()
            });
            value
        }

        fn record(&self, refuses: bool) -> Result<bool, Refused> {
            let value = self.stage();
            if !refuses {
                self.submit();
            }
            let withdraw = || lock(&self.rides).take().is_some();
            let looked = self.staging.look_back(value, withdraw);
            if let Ok(true) = looked {
                assert!(self.counter.load(Ordering::Acquire) >= value);
            }
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
