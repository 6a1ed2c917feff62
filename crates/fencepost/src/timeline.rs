//! What the host knows of one stream: which markers are complete, who waits for them, and the
//! failure that ended it. Every stream of every backend has one, and a backend reports completion
//! in no other way.
//!
//! **A marker is a value on a timeline.** Values count up from 1 as markers are recorded, and
//! markers complete in that order. So one number holds the state of all markers of the stream.
//!
//! **A timeline fails once and for good.** Its completed value then no longer changes: markers up
//! to it are complete for ever, and those above it have failed for ever. A stream that is used
//! again after a failure continues on a new timeline.
//!
//! **No waiter is fired under a lock.** [`Timeline::advance`] and [`Timeline::fail`] return the
//! waiters that are due as a [`Wake`]. The caller drops its own locks first, and then fires it.
//!
//! **Callbacks come in the order of their values**, whichever threads complete them. Two threads
//! may fire what they took out in any order. So a callback is put onto its device's queue by the
//! thread that takes it out, under the lock under which it does so. Firing only starts the queue.
//!
//! # The protocol
//!
//! | `state` | meaning |
//! |---|---|
//! | low 63 bits | the completed value `c`; only grows |
//! | bit 63 (`FAILED`) | set once, together with `Inner::failure`; nothing changes after it |
//!
//! `waiting` is the number of registered waiters. With it, completing a marker for which nothing
//! waits costs one atomic read-modify-write and one load, and no lock.
//!
//! *Invariant: a waiter for value `v` that stays registered is fired by the thread that makes
//! `c >= v` or sets `FAILED`, if no other one has taken it out by then.* A registering thread first
//! raises `waiting`, then does a read-modify-write of `state`. A completing thread first does a
//! read-modify-write of `state`, then loads `waiting`. The two operations on `state` have an order:
//! - If the completing thread's is first, the registering thread sees the new state and does not
//!   stay registered.
//! - If the registering thread's is first, the completing thread's reads from it, and so sees the
//!   raised `waiting`. It takes the lock, which the registering thread holds until its waiter is in
//!   the list.
//!
//! *Invariant: callbacks are queued in the order of their values, and those of one value in the
//! order of their registration.* Waiters are taken out under the lock, lowest first, and nobody
//! takes one out and leaves a lower one. A callback that is registered too late is queued by its
//! own thread, which first takes out those that are due up to its value: the thread that completed
//! them may not have come to that yet.
//!
//! `loom_tests` below explores all of this.

use std::{
    collections::BTreeMap,
    fmt,
    hash::{Hash, Hasher},
    sync::Arc,
    task::Waker,
    time::Instant,
};

use crate::{
    core::{Callbacks, StreamCore},
    error::{Cause, Error, Result},
    panics::contain,
    place::Place,
    sync::{AtomicU64, Mutex, Ordering, lock, park, spin_until, thread},
    unobserved,
};

const FAILED: u64 = 1 << 63;

/// One of the three states a marker can be in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reached {
    Yes,
    NotYet,
    Failed,
}

/// A recorded point: its timeline and value, the source line that recorded it, and whether it has
/// timing.
pub(crate) struct Point {
    pub(crate) timeline: Arc<Timeline>,
    pub(crate) value: u64,
    pub(crate) at: Place,
    pub(crate) timing: bool,
}

impl Point {
    /// The state of this point, as far as the timeline knows. One atomic load.
    pub(crate) fn reached(&self) -> Reached {
        self.timeline.reached(self.value)
    }

    /// Whether this point is complete, for a marker whose driver is to be asked (`ask`) while the
    /// timeline knows nothing. What has failed stays failed, whatever the driver says later.
    #[inline]
    #[cfg_attr(not(has_gpu), allow(dead_code))]
    pub(crate) fn query(&self, ask: impl FnOnce() -> Result<bool>) -> Result<bool> {
        match self.reached() {
            Reached::Yes => Ok(true),
            Reached::NotYet => {
                // Nothing of the driver is to be called in a forked child.
                self.timeline.stream.device.check_fork()?;
                ask()
            }
            Reached::Failed => self.timeline.check(self.value),
        }
    }
}

/// Two points are equal when they are the same recording.
impl PartialEq for Point {
    fn eq(&self, other: &Point) -> bool {
        self.value == other.value && self.timeline.stream.id == other.timeline.stream.id
    }
}

impl Eq for Point {}

impl Hash for Point {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.value, self.timeline.stream.id).hash(state);
    }
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.timeline.stream.is_gate {
            true => self.timeline.stream.fmt(f),
            false => write!(f, "marker {} of {}", self.value, self.timeline.stream),
        }
    }
}

/// A marker as the object of a wait: what is needed to find out why the wait does not end.
pub(crate) trait Awaited: Send + Sync {
    /// The point that the marker is.
    fn point(&self) -> &Point;

    /// `Ok(true)` once it is complete, the failure once it has failed. Never blocks. As written
    /// here for a marker whose timeline tells everything.
    fn query(&self) -> Result<bool> {
        let point = self.point();
        point.timeline.check(point.value)
    }
}

/// What is fired when a value is reached or the timeline fails.
pub(crate) enum Waiter {
    Thread(thread::Thread),
    Waker(Waker),
    /// Code of this crate. It is short, never blocks and never panics. Calls of one timeline that
    /// are due may come in any order.
    Call(OnEnd),
    /// Code of the user's, for this queue. Callbacks of one timeline come in the order of their
    /// values.
    Callback(Arc<dyn Callbacks>, OnEnd),
}

/// Is called with how what it waited for has ended.
type OnEnd = Box<dyn FnOnce(Result<()>) + Send>;

/// Identifies a registered waiter, so that it can be cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ticket {
    value: u64,
    number: u64,
}

/// Waiters that are due. The caller fires them once it holds no lock.
#[must_use = "a waiter that is due and never fired waits for ever"]
#[derive(Default)]
pub(crate) struct Wake {
    /// Each with what it is told. No callbacks: they are on their queue.
    due: Vec<(Waiter, Result<()>)>,
    /// The queue of the callbacks, if any are due.
    queue: Option<Arc<dyn Callbacks>>,
}

pub(crate) struct Timeline {
    pub(crate) stream: Arc<StreamCore>,
    state: AtomicU64,
    waiting: AtomicU64,
    inner: Mutex<Inner>,
}

struct Inner {
    waiters: BTreeMap<Ticket, Waiter>,
    next_number: u64,
    failure: Option<Error>,
}

impl Timeline {
    /// A timeline on which everything up to `completed` is complete.
    pub(crate) fn new(stream: Arc<StreamCore>, completed: u64) -> Arc<Timeline> {
        Arc::new(Timeline {
            stream,
            state: AtomicU64::new(completed),
            waiting: AtomicU64::new(0),
            inner: Mutex::new(Inner {
                waiters: BTreeMap::new(),
                next_number: 0,
                failure: None,
            }),
        })
    }

    /// The last value known to be complete. One atomic load.
    pub(crate) fn completed(&self) -> u64 {
        self.state.load(Ordering::Acquire) & !FAILED
    }

    /// Whether the timeline has ended in a failure. One atomic load.
    pub(crate) fn has_failed(&self) -> bool {
        self.state.load(Ordering::Acquire) & FAILED != 0
    }

    /// The state of the marker at `value`. One atomic load.
    #[inline]
    pub(crate) fn reached(&self, value: u64) -> Reached {
        Self::judge(self.state.load(Ordering::Acquire), value)
    }

    #[inline]
    fn judge(state: u64, value: u64) -> Reached {
        if state & !FAILED >= value {
            Reached::Yes
        } else if state & FAILED == 0 {
            Reached::NotYet
        } else {
            Reached::Failed
        }
    }

    /// The failure that ended the timeline, if it has ended. In a forked child, where a thread of
    /// the parent may hold the lock, that it is one.
    pub(crate) fn failure(&self) -> Option<Error> {
        if let Err(forked) = self.stream.device.check_fork() {
            return Some(forked);
        }
        lock(&self.inner).failure.clone()
    }

    /// Whether `value` is complete; the failure when it never will be.
    pub(crate) fn check(&self, value: u64) -> Result<bool> {
        match self.reached(value) {
            Reached::Yes => Ok(true),
            // Nothing in a forked child will ever complete it.
            Reached::NotYet => self.stream.device.check_fork().map(|()| false),
            // `FAILED` is set under the lock that `failure` takes, so there is a failure.
            Reached::Failed => self.failure().map_or(Ok(false), Err),
        }
    }

    /// Completes everything up to `value`. Does nothing for a value below the completed one, nor on
    /// a failed timeline.
    pub(crate) fn advance(&self, value: u64) -> Wake {
        debug_assert!(value < FAILED);
        // A failed state stays as it is: with `FAILED` it is larger than any value.
        self.state.fetch_max(value, Ordering::AcqRel);
        let mut wake = Wake::default();
        if self.waiting.load(Ordering::Acquire) != 0 {
            let mut inner = lock(&self.inner);
            while let Some(first) = inner.waiters.first_entry() {
                if first.key().value > value {
                    break;
                }
                wake.add(first.remove(), &Ok(()));
            }
            self.waiting
                .store(inner.waiters.len() as u64, Ordering::Release);
        }
        wake
    }

    /// As [`advance`](Timeline::advance), to a value that nothing can be waiting for yet: it was
    /// allocated under the submit lock, which the caller still holds, and everything below it is
    /// complete.
    ///
    /// A plain store is enough. No other thread writes: there is nothing left to complete, and a
    /// failure needs the submit lock. The order with `waiting` does not matter either: a thread
    /// that registers for a lower value finds it reached.
    pub(crate) fn advance_alone(&self, value: u64) {
        debug_assert!(value < FAILED && !self.has_failed());
        self.state.store(value, Ordering::Release);
    }

    /// Ends the timeline: what is not complete now has failed because of `cause`. Only the first
    /// call has an effect. `lost` says whether the device is lost.
    pub(crate) fn fail(&self, cause: &Cause, lost: bool) -> Wake {
        let error = if lost {
            Error::DeviceLost {
                device: self.stream.device.name.clone(),
                cause: cause.clone(),
            }
        } else {
            Error::StreamFailed {
                stream: self.stream.to_string(),
                cause: cause.clone(),
            }
        };
        let mut inner = lock(&self.inner);
        if inner.failure.is_some() {
            return Wake::default();
        }
        let callbacks = self.stream.device.callbacks.clone();
        unobserved::stick(cause, &error, move |job| callbacks.call(job));
        inner.failure = Some(error.clone());
        let completed = self.state.fetch_or(FAILED, Ordering::AcqRel);
        self.waiting.store(0, Ordering::Release);
        let mut wake = Wake::default();
        let failed = Err(error);
        for (ticket, waiter) in std::mem::take(&mut inner.waiters) {
            // Who completed it may not have taken it out yet.
            match ticket.value <= completed {
                true => wake.add(waiter, &Ok(())),
                false => wake.add(waiter, &failed),
            }
        }
        wake
    }

    /// Registers `waiter`, to be fired once `value` is complete or has failed. Gives it back where
    /// that is so already.
    pub(crate) fn register(&self, value: u64, waiter: Waiter) -> Result<Ticket, Waiter> {
        let mut inner = lock(&self.inner);
        self.waiting
            .store(inner.waiters.len() as u64 + 1, Ordering::Release);
        // A read-modify-write, not a load: the protocol needs its place in the order of `state`.
        let state = self.state.fetch_add(0, Ordering::AcqRel);
        if Self::judge(state, value) != Reached::NotYet {
            self.waiting
                .store(inner.waiters.len() as u64, Ordering::Release);
            return Err(waiter);
        }
        let number = inner.next_number;
        inner.next_number += 1;
        let ticket = Ticket { value, number };
        inner.waiters.insert(ticket, waiter);
        Ok(ticket)
    }

    /// Fires a waiter that [`register`](Timeline::register) gave back, behind the callbacks that
    /// are due up to `value`. Call it without any lock held.
    pub(crate) fn fire_late(&self, value: u64, waiter: Waiter) {
        // If `value` has failed, this does nothing: what was due was taken out with the failure.
        self.advance(value).fire();
        waiter.fire(&self.check(value).map(drop));
    }

    /// Takes a waiter back. `None` where it was fired already, or is about to be.
    pub(crate) fn cancel(&self, ticket: Ticket) -> Option<Waiter> {
        let mut inner = lock(&self.inner);
        let waiter = inner.waiters.remove(&ticket);
        self.waiting
            .store(inner.waiters.len() as u64, Ordering::Release);
        waiter
    }

    /// Blocks until `value` is complete (`true`), has failed (an error), or `deadline` has passed
    /// (`false`).
    pub(crate) fn wait(&self, value: u64, deadline: Option<Instant>) -> Result<bool> {
        if spin_until(deadline, || self.reached(value) != Reached::NotYet) {
            return self.check(value);
        }
        self.stream.device.check_fork()?;
        let Ok(ticket) = self.register(value, Waiter::Thread(thread::current())) else {
            return self.check(value);
        };
        loop {
            if self.reached(value) != Reached::NotYet {
                return self.check(value);
            }
            match deadline {
                None => park(None),
                Some(deadline) => match deadline.checked_duration_since(Instant::now()) {
                    Some(left) if !left.is_zero() => park(Some(left)),
                    _ => {
                        drop(self.cancel(ticket));
                        return self.check(value);
                    }
                },
            }
        }
    }
}

impl Wake {
    /// Whether no waiter is due.
    pub(crate) fn is_empty(&self) -> bool {
        self.due.is_empty() && self.queue.is_none()
    }

    /// Adds a waiter that is due. Called under the timeline's lock, lowest value first.
    fn add(&mut self, waiter: Waiter, result: &Result<()>) {
        let result = result.clone();
        match waiter {
            Waiter::Callback(queue, callback) => {
                queue.push(Box::new(move || callback(result)));
                self.queue.get_or_insert(queue);
            }
            other => self.due.push((other, result)),
        }
    }

    /// Fires the waiters. Call it without any lock held.
    pub(crate) fn fire(self) {
        // First: a waker is the user's code and may take its time.
        if let Some(queue) = self.queue {
            queue.start();
        }
        for (waiter, result) in self.due {
            waiter.fire(&result);
        }
    }
}

impl Waiter {
    pub(crate) fn fire(self, result: &Result<()>) {
        match self {
            Waiter::Thread(thread) => thread.unpark(),
            // A waker is the user's code: its panic must not keep others from being fired.
            Waiter::Waker(waker) => contain(|| waker.wake()),
            Waiter::Call(call) => call(result.clone()),
            Waiter::Callback(queue, callback) => {
                let result = result.clone();
                queue.call(Box::new(move || callback(result)));
            }
        }
    }
}

#[cfg(all(test, loom))]
pub(crate) mod loom_tests {
    use super::*;
    use crate::{
        clock::host_clock,
        core::{DeviceCore, Job},
    };
    use loom::sync::atomic::AtomicUsize;

    struct NoCallbacks;
    impl Callbacks for NoCallbacks {
        fn push(&self, _: Job) {}
        fn start(&self) {}
        fn panics(&self) -> u64 {
            0
        }
    }

    pub(crate) fn stream_core() -> Arc<StreamCore> {
        StreamCore::new(DeviceCore::new("loom", host_clock(), Arc::new(NoCallbacks)))
    }

    /// A thread that waits for `value`. It is never the one that joins: a late unpark would wake it
    /// out of loom's join, which loom does not allow.
    fn waiting(timeline: &Arc<Timeline>, value: u64) -> thread::JoinHandle<Result<bool>> {
        let timeline = timeline.clone();
        thread::spawn(move || timeline.wait(value, None))
    }

    #[test]
    fn a_blocked_thread_is_always_woken() {
        loom::model(|| {
            let timeline = Timeline::new(stream_core(), 0);
            let waiter = waiting(&timeline, 2);
            timeline.advance(1).fire();
            timeline.advance(2).fire();
            assert!(waiter.join().unwrap().unwrap());
        });
    }

    #[test]
    fn a_waiter_is_fired_exactly_once_or_given_back() {
        loom::model(|| {
            let timeline = Timeline::new(stream_core(), 0);
            let fired = Arc::new(AtomicUsize::new(0));
            let completer = {
                let timeline = timeline.clone();
                thread::spawn(move || timeline.advance(1).fire())
            };
            let count = fired.clone();
            let call = Waiter::Call(Box::new(move |result| {
                assert!(result.is_ok());
                count.fetch_add(1, Ordering::SeqCst);
            }));
            if let Err(waiter) = timeline.register(1, call) {
                waiter.fire(&Ok(()));
            }
            completer.join().unwrap();
            assert_eq!(fired.load(Ordering::SeqCst), 1);
        });
    }

    #[test]
    fn a_cancelled_waiter_is_either_taken_back_or_fired() {
        loom::model(|| {
            let timeline = Timeline::new(stream_core(), 0);
            let fired = Arc::new(AtomicUsize::new(0));
            let count = fired.clone();
            let call = Waiter::Call(Box::new(move |_| {
                count.fetch_add(1, Ordering::SeqCst);
            }));
            let Ok(ticket) = timeline.register(1, call) else {
                unreachable!("nothing has completed it");
            };
            let completer = {
                let timeline = timeline.clone();
                thread::spawn(move || timeline.advance(1).fire())
            };
            let taken = usize::from(timeline.cancel(ticket).is_some());
            completer.join().unwrap();
            assert_eq!(taken + fired.load(Ordering::SeqCst), 1);
        });
    }

    #[test]
    fn completion_and_failure_agree_on_every_value() {
        loom::model(|| {
            let timeline = Timeline::new(stream_core(), 0);
            let waiter = waiting(&timeline, 1);
            let failer = {
                let timeline = timeline.clone();
                thread::spawn(move || timeline.fail(&Cause::new("x"), false).fire())
            };
            timeline.advance(1).fire();
            failer.join().unwrap();
            // Whatever came first, the waiter is released and the answer never changes again.
            let seen = waiter.join().unwrap();
            assert_eq!(seen.is_ok(), timeline.check(1).is_ok());
            assert!(timeline.check(2).is_err());
        });
    }

    #[test]
    fn completing_alone_strands_nobody_who_waits_for_less() {
        loom::model(|| {
            let timeline = Timeline::new(stream_core(), 0);
            timeline.advance(1).fire();
            let waiter = waiting(&timeline, 1);
            timeline.advance_alone(2);
            assert!(waiter.join().unwrap().unwrap());
            // The first waiter left nothing behind, so the next one is woken too.
            let waiter = waiting(&timeline, 3);
            timeline.advance(3).fire();
            assert!(waiter.join().unwrap().unwrap());
        });
    }

    #[test]
    fn two_completers_leave_no_waiter_behind() {
        loom::model(|| {
            let timeline = Timeline::new(stream_core(), 0);
            let waiter = waiting(&timeline, 1);
            let other = {
                let timeline = timeline.clone();
                thread::spawn(move || timeline.advance(2).fire())
            };
            timeline.advance(1).fire();
            assert!(waiter.join().unwrap().unwrap());
            other.join().unwrap();
            assert_eq!(timeline.completed(), 2);
            assert_eq!(timeline.waiting.load(Ordering::SeqCst), 0);
        });
    }

    /// The callbacks that were queued, and how many of them somebody has had started.
    #[derive(Default)]
    struct Queue {
        jobs: Vec<Job>,
        started: usize,
    }

    impl Callbacks for Mutex<Queue> {
        fn push(&self, job: Job) {
            lock(self).jobs.push(job);
        }
        fn start(&self) {
            let mut queue = lock(self);
            queue.started = queue.jobs.len();
        }
        fn panics(&self) -> u64 {
            0
        }
    }

    /// A timeline whose callbacks note their number and whether they were told of a completion.
    struct Noted {
        timeline: Arc<Timeline>,
        queue: Arc<Mutex<Queue>>,
        noted: Arc<Mutex<Vec<(u64, bool)>>>,
    }

    impl Noted {
        fn new() -> Noted {
            let queue = Arc::new(Mutex::new(Queue::default()));
            let device = DeviceCore::new("loom", host_clock(), queue.clone());
            Noted {
                timeline: Timeline::new(StreamCore::new(device), 0),
                queue,
                noted: Arc::new(Mutex::new(Vec::new())),
            }
        }

        fn call_back(&self, value: u64, number: u64) {
            let noted = self.noted.clone();
            let note = move |result: Result<()>| lock(&noted).push((number, result.is_ok()));
            let queue = self.timeline.stream.device.callbacks.clone();
            let waiter = Waiter::Callback(queue, Box::new(note));
            if let Err(waiter) = self.timeline.register(value, waiter) {
                self.timeline.fire_late(value, waiter);
            }
        }

        /// What the callbacks have noted, which somebody has had started, all of them.
        fn noted(self) -> Vec<(u64, bool)> {
            let queue = std::mem::take(&mut *lock(&self.queue));
            assert_eq!(
                queue.started,
                queue.jobs.len(),
                "a callback would never run"
            );
            queue.jobs.into_iter().for_each(|job| job());
            let noted = std::mem::take(&mut *lock(&self.noted));
            noted
        }
    }

    #[test]
    fn callbacks_are_queued_in_the_order_of_their_values() {
        loom::model(|| {
            let calls = Noted::new();
            calls.call_back(2, 2);
            calls.call_back(1, 1);
            let other = {
                let timeline = calls.timeline.clone();
                thread::spawn(move || timeline.advance(1).fire())
            };
            calls.timeline.advance(2).fire();
            other.join().unwrap();
            assert_eq!(calls.noted(), [(1, true), (2, true)]);
        });
    }

    #[test]
    fn a_late_callback_is_queued_behind_those_that_are_due() {
        loom::model(|| {
            let calls = Noted::new();
            calls.call_back(1, 1);
            let completer = {
                let timeline = calls.timeline.clone();
                thread::spawn(move || timeline.advance(2).fire())
            };
            // It is registered, or the value is complete already.
            calls.call_back(2, 2);
            completer.join().unwrap();
            assert_eq!(calls.noted(), [(1, true), (2, true)]);
        });
    }

    #[test]
    fn callbacks_are_told_what_their_timeline_tells() {
        loom::model(|| {
            let calls = Noted::new();
            calls.call_back(1, 1);
            calls.call_back(2, 2);
            let completer = {
                let timeline = calls.timeline.clone();
                thread::spawn(move || timeline.advance(1).fire())
            };
            calls.timeline.fail(&Cause::new("x"), false).fire();
            completer.join().unwrap();
            let is_complete = calls.timeline.check(1).is_ok();
            assert_eq!(calls.noted(), [(1, is_complete), (2, false)]);
        });
    }
}
