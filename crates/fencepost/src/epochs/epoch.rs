//! An epoch: the markers of a stream between two failures, and how it ends.
//!
//! A marker is complete when the counter has its value plus the `offset` of its epoch, which is its
//! *native* value. The two differ because a failure point takes a native value that no marker has.
//!
//! # The protocol
//!
//! | `limit` | meaning |
//! |---|---|
//! | `NONE` | no failure point is known: the counter alone tells what is complete |
//! | `v` | what is above `v` never completes; [`Failures::points`] tells when it fails, and why |
//!
//! *Invariant: `limit` is set before any native signal can take the counter past a failure point.*
//! A failure point that is submitted ([`Epoch::close`]) sets `limit` before its submit. One that is
//! found out later ([`Epoch::fail_after`]) sets it before the host opens the gate in front of it. A
//! thread that settles reads the counter first and `limit` second, so whoever sees a counter past a
//! failure point sees the limit too.
//!
//! # Epochs that may fail
//!
//! While a stream waits for a marker that the device cannot see, its later markers may still turn
//! out to have failed, although they are submitted: the epoch *may fail*. A stream that waits for
//! such a marker on the device *depends* on the epoch, and may fail in turn. If the awaited marker
//! fails, all dependents are marked as failed before the gate opens, so that no marker behind a
//! failure is ever seen complete.

use std::sync::{Arc, Weak};

use crate::{
    core::StreamCore,
    error::Cause,
    sync::{AtomicU64, Mutex, Ordering, lock},
    timeline::{Timeline, Wake},
};

pub(crate) struct Epoch {
    pub(crate) timeline: Arc<Timeline>,
    /// The last value in front of it.
    start: u64,
    offset: u64,
    limit: AtomicU64,
    failures: Mutex<Failures>,
}

/// The failures of an epoch that are known, and who is told of further ones.
struct Failures {
    /// Ordered by `before`, the lowest first.
    points: Vec<FailurePoint>,
    /// How many waits may still make it fail.
    may_fail: usize,
    dependents: Vec<Dependent>,
}

/// Once the counter has reached `native`, markers up to `before` are complete and the others have
/// failed.
struct FailurePoint {
    before: u64,
    native: u64,
    cause: Cause,
}

/// An epoch whose markers above `before` wait for the marker `value` of this one.
struct Dependent {
    value: u64,
    epoch: Weak<Epoch>,
    before: u64,
    marker: String,
}

/// How a wait for a marker on the device ends.
#[derive(Clone, Debug)]
pub(crate) enum Expected {
    /// It completes when the counter reaches this.
    Completes(u64),
    /// It fails when the counter reaches this, and why.
    Fails(u64, Cause),
}

const NONE: u64 = u64::MAX;

impl Epoch {
    /// The epoch of the markers after `last`. Their native values are larger by `offset`.
    pub(super) fn new(core: &Arc<StreamCore>, last: u64, offset: u64) -> Arc<Epoch> {
        Arc::new(Epoch {
            timeline: Timeline::new(core.clone(), last),
            start: last,
            offset,
            limit: AtomicU64::new(NONE),
            failures: Mutex::new(Failures {
                points: Vec::new(),
                may_fail: 0,
                dependents: Vec::new(),
            }),
        })
    }

    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    pub(crate) fn native(&self, value: u64) -> u64 {
        value + self.offset
    }

    /// Whether what is submitted now would lie behind a failure.
    pub(crate) fn is_closed(&self) -> bool {
        self.limit.load(Ordering::Acquire) != NONE || self.timeline.has_failed()
    }

    /// The marker in front of the one with this native value.
    #[cfg(any(feature = "wgpu30", has_metal))]
    pub(crate) fn before(&self, native: u64) -> u64 {
        native.saturating_sub(self.offset + 1)
    }

    /// Blocks until the counter is known to have reached `native`, or the epoch has failed, or
    /// until `deadline`: for counters whose markers are completed by callbacks.
    #[cfg(has_metal)]
    pub(crate) fn wait(
        &self,
        native: u64,
        deadline: Option<std::time::Instant>,
    ) -> crate::error::Result<()> {
        let value = native.saturating_sub(self.offset);
        self.timeline.wait(value, deadline).map(drop)
    }

    /// Tells the epoch what the counter was read as, and fires the waiters that are due. Call it
    /// without any lock.
    pub(crate) fn settle(&self, counter: u64) {
        for wake in self.reach(counter).into_iter().flatten() {
            wake.fire();
        }
    }

    /// As [`settle`](Epoch::settle), for a caller that holds a lock: gives the waiters that are
    /// due, to be fired without that lock.
    #[inline]
    pub(crate) fn reach(&self, counter: u64) -> [Option<Wake>; 2] {
        let value = counter.saturating_sub(self.offset);
        let limit = self.limit.load(Ordering::Acquire);
        if limit == NONE {
            return [Some(self.timeline.advance(value)), None];
        }
        let failures = lock(&self.failures);
        let reached = failures
            .points
            .first()
            .filter(|point| counter >= point.native);
        let reached = reached.map(|point| (point.before, point.cause.clone()));
        drop(failures);
        match reached {
            Some((before, cause)) => {
                let advanced = self.timeline.advance(before);
                [Some(advanced), Some(self.timeline.fail(&cause, false))]
            }
            None => [Some(self.timeline.advance(value.min(limit))), None],
        }
    }

    /// Sets the limit for a failure point that is about to be submitted, and gives its native
    /// value, the one after `last`. Called under the submit lock, on an epoch that is not closed.
    pub(super) fn close(&self, last: u64, cause: Cause) -> u64 {
        let native = self.native(last) + 1;
        let mut failures = lock(&self.failures);
        failures.add(FailurePoint {
            before: last,
            native,
            cause,
        });
        self.lower(&failures);
        native
    }

    /// How a wait for the marker `value` ends, as far as that is known.
    pub(crate) fn expected(&self, value: u64) -> Expected {
        if self.limit.load(Ordering::Acquire) >= value {
            return Expected::Completes(self.native(value));
        }
        lock(&self.failures).expected(value, self.offset)
    }

    /// The value of the counter at which it is known whether the marker with this native value
    /// completes. A failure point in front of it is reached earlier than the marker itself.
    pub(crate) fn known_at(&self, native: u64) -> u64 {
        match self.expected(native.saturating_sub(self.offset)) {
            Expected::Completes(native) | Expected::Fails(native, _) => native,
        }
    }

    /// Whether its pending markers may still turn out to have failed.
    pub(crate) fn may_fail(&self) -> bool {
        lock(&self.failures).may_fail > 0
    }

    /// As [`expected`](Epoch::expected), for a wait of `dependent`, whose markers above `before`
    /// will be behind that wait. If this epoch turns out to fail before `value`, they fail too.
    /// Call it before the wait is submitted, under the dependent's submit lock.
    pub(crate) fn add_dependent(
        &self,
        value: u64,
        dependent: &Arc<Epoch>,
        before: u64,
        marker: impl FnOnce() -> String,
    ) -> Expected {
        let failures = lock(&self.failures);
        let expected = failures.expected(value, self.offset);
        if failures.may_fail == 0 || std::ptr::eq(self, &**dependent) {
            return expected;
        }
        drop(failures);
        // Counted before it is listed, since whoever clears or fails a listed dependent takes one
        // off. Never two locks at a time: two epochs may depend on each other.
        dependent.begin_may_fail();
        let mut failures = lock(&self.failures);
        let expected = failures.expected(value, self.offset);
        if failures.may_fail > 0 && matches!(expected, Expected::Completes(_)) {
            failures.dependents.push(Dependent {
                value,
                epoch: Arc::downgrade(dependent),
                before,
                marker: marker(),
            });
        } else {
            drop(failures);
            dependent.clear();
        }
        expected
    }

    /// The epoch may fail from now on: call [`clear`](Epoch::clear) or
    /// [`fail_after`](Epoch::fail_after) once it is known whether it does.
    pub(crate) fn begin_may_fail(&self) {
        lock(&self.failures).may_fail += 1;
    }

    /// One reason less why it may fail: the awaited marker is complete.
    pub(crate) fn clear(&self) {
        let mut cleared = Vec::new();
        let mut failures = lock(&self.failures);
        failures.may_fail = failures.may_fail.saturating_sub(1);
        if failures.may_fail == 0 {
            cleared.append(&mut failures.dependents);
        }
        drop(failures);
        // A loop and no recursion: a chain may be thousands of epochs long.
        while let Some(dependent) = cleared.pop() {
            let Some(epoch) = dependent.epoch.upgrade() else {
                continue;
            };
            let mut failures = lock(&epoch.failures);
            failures.may_fail = failures.may_fail.saturating_sub(1);
            if failures.may_fail == 0 {
                cleared.append(&mut failures.dependents);
            }
        }
    }

    /// The epoch fails: markers above `before` fail with `cause`, once those up to it are complete.
    /// That is one reason less why it may fail. When this returns, all dependents of the failed
    /// markers are marked as failed too, and the host may open the gate.
    pub(crate) fn fail_after(&self, before: u64, cause: &Cause) {
        let mut due = self.add_failure_point(before, cause);
        self.clear();
        while let Some((dependent, cause)) = due.pop() {
            if let Some(epoch) = dependent.epoch.upgrade() {
                due.extend(
                    epoch.add_failure_point(dependent.before, &cause.through(dependent.marker)),
                );
                epoch.clear();
            }
        }
    }

    /// Sets a failure point, and gives the dependents that fail by it.
    fn add_failure_point(&self, before: u64, cause: &Cause) -> Vec<(Dependent, Cause)> {
        let mut failures = lock(&self.failures);
        failures.add(FailurePoint {
            before,
            native: self.complete_at(before),
            cause: cause.clone(),
        });
        self.lower(&failures);
        let (due, stay) = std::mem::take(&mut failures.dependents)
            .into_iter()
            .partition(|dependent| dependent.value > before);
        failures.dependents = stay;
        due.into_iter()
            .map(|dependent: Dependent| (dependent, cause.clone()))
            .collect()
    }

    /// The value of the counter at which the markers of this epoch up to `before` are complete.
    /// Without any they are from the start: nobody may ever signal the native value in front of the
    /// first marker, which belonged to a failure point of the epoch before.
    fn complete_at(&self, before: u64) -> u64 {
        match before > self.start {
            true => self.native(before),
            false => 0,
        }
    }

    /// Lowers the limit to the first failure point.
    fn lower(&self, failures: &Failures) {
        if let Some(point) = failures.points.first() {
            self.limit.fetch_min(point.before, Ordering::AcqRel);
        }
    }
}

impl Failures {
    fn add(&mut self, point: FailurePoint) {
        let at = self
            .points
            .partition_point(|other| other.before <= point.before);
        self.points.insert(at, point);
    }

    fn expected(&self, value: u64, offset: u64) -> Expected {
        match self.points.first() {
            Some(point) if point.before < value => {
                Expected::Fails(point.native, point.cause.clone())
            }
            _ => Expected::Completes(value + offset),
        }
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use crate::{
        sync::thread,
        timeline::{Reached, loom_tests::stream_core},
    };

    /// A device's counter, which whoever settles reads first.
    fn device() -> Arc<AtomicU64> {
        Arc::new(AtomicU64::new(0))
    }

    #[test]
    fn a_marker_behind_a_submitted_failure_point_never_completes() {
        loom::model(|| {
            let (epoch, counter) = (Epoch::new(&stream_core(), 0, 0), device());
            let looking = {
                let (epoch, counter) = (epoch.clone(), counter.clone());
                thread::spawn(move || epoch.settle(counter.load(Ordering::Acquire)))
            };
            counter.store(1, Ordering::Release);
            let native = epoch.close(1, Cause::new("x"));
            // The submit, and the device that comes to it at once. Marker 2 has the same number.
            counter.store(native, Ordering::Release);
            looking.join().unwrap();
            assert_ne!(epoch.timeline.reached(2), Reached::Yes);
            epoch.settle(counter.load(Ordering::Acquire));
            assert_eq!(epoch.timeline.reached(1), Reached::Yes);
            assert_eq!(epoch.timeline.reached(2), Reached::Failed);
        });
    }

    #[test]
    fn a_failed_wait_fails_its_dependents_before_the_gate_opens() {
        loom::model(|| {
            let (one, two) = (
                Epoch::new(&stream_core(), 0, 0),
                Epoch::new(&stream_core(), 0, 0),
            );
            let (first, second) = (device(), device());
            one.begin_may_fail();
            let expected = one.add_dependent(1, &two, 0, || "marker 1".into());
            assert!(matches!(expected, Expected::Completes(1)));
            let looking = {
                let (two, second) = (two.clone(), second.clone());
                thread::spawn(move || two.settle(second.load(Ordering::Acquire)))
            };
            one.fail_after(0, &Cause::new("x"));
            // The gate opens, and the device runs through both.
            first.store(1, Ordering::Release);
            second.store(1, Ordering::Release);
            looking.join().unwrap();
            assert_ne!(two.timeline.reached(1), Reached::Yes);
            one.settle(first.load(Ordering::Acquire));
            two.settle(second.load(Ordering::Acquire));
            assert_eq!(one.timeline.reached(1), Reached::Failed);
            assert_eq!(two.timeline.reached(1), Reached::Failed);
        });
    }

    #[test]
    fn a_dependent_is_failed_or_sees_the_failure() {
        loom::model(|| {
            let (one, two) = (
                Epoch::new(&stream_core(), 0, 0),
                Epoch::new(&stream_core(), 0, 0),
            );
            one.begin_may_fail();
            let waiting = {
                let (one, two) = (one.clone(), two.clone());
                thread::spawn(move || one.add_dependent(1, &two, 0, || "marker 1".into()))
            };
            one.fail_after(0, &Cause::new("x"));
            match waiting.join().unwrap() {
                Expected::Completes(_) => assert!(two.is_closed(), "the failure did not reach it"),
                Expected::Fails(native, _) => assert_eq!(native, 0),
            }
        });
    }
}
