//! What is submitted to one OpenCL stream and not yet known to be over, in order, without any
//! OpenCL.
//!
//! Implementations differ in what they tell of a failure (the table at the head of
//! [`opencl`](crate::opencl)): one calls complete what never ran, one calls no callback, and they
//! disagree on what a failure spreads to. So a status counts for the event that has it, and for no
//! other; what follows from a failure is worked out here.
//!
//! # The protocol
//!
//! An account is a queue of entries. [`settle`](Account::settle) takes them from the front, one
//! after the other:
//!
//! | entry | is over when | then |
//! |---|---|---|
//! | `Record` | its native event is complete | the timeline advances to its value |
//! | | its native event has failed | the stream fails there |
//! | `Wait` | what is in front of it has failed, by the event of a marker there | the stream fails there, by what the driver says |
//! | | what is in front of it is complete, and so is the marker that is waited for | nothing |
//! | | what is in front of it is complete, and that marker has failed | the stream fails there, by that marker's cause |
//! | `End` | its native event is complete | the stream fails there, by the entry's cause |
//! | | its native event has failed | the stream fails there, by what the driver says |
//!
//! An entry that is not over stops the walk. When the stream fails, the entries behind are dropped
//! with it.
//!
//! *Invariant: a marker counts as complete only when its own event is complete, and every entry in
//! front of it is over without a failure.* So a failure is never passed over, whoever learns of
//! what first: a callback, a poll or a wait.
//!
//! *Invariant: an entry is in front of those of every call that begins after its own call has
//! returned.* A record adds its entry behind its native call, with the value under the same lock,
//! so the entries of two threads that record at the same time may be in either order; each is
//! judged by its own event, so either is right. A wait adds its entry in front of its native
//! call, and takes it back if that is refused: what any thread submits behind the native wait finds
//! the entry in front of it.
//!
//! *Invariant: what an entry is asked for is submitted before the entry is added.* So it depends on
//! no call that begins after an entry behind has been added, and no entry is blocked by what waits
//! for one behind it.
//!
//! *Invariant: what `ends_after` tells of cannot be taken back.* An `End` sets it, a failure of the
//! timeline, and a wait for a marker that is known to fail, once the native call for it was
//! accepted. Waits and failures that come while it is set are dropped, so a wait that is taken back
//! must never have set it.
//!
//! *Invariant: a record that the driver refused is on a timeline that has failed.* It has no event,
//! so nothing else would ever tell of it. Whether the timeline has failed is seen under the lock
//! under which the marker gets it: another thread may start a new one at any time.
//!
//! *Invariant: no lock is held across a call that may run code of the driver, of the caller, or of
//! another account.* A callback may run inside of any call of the driver, on any thread. A walk
//! copies the front entry under the lock, asks without it, and takes the entry off only if it is
//! still the front, by its number. The timeline moves under the lock: else a thread could fail it
//! before another one has advanced it over what is complete. Its waiters are fired afterwards.
//!
//! **The lock is that of the stream's order**, which guards the slots of events that are recorded
//! in place as well. Such a record has it already when it adds its entry: it locks once.
//!
//! **Events are kept until their commands are over.** A driver may need them until then (see
//! [`event`](super::event)). Some of them belong to no marker: that of a wait's barrier, and what
//! is submitted beside markers. Others outlive their entry: those in front of a failure. The list
//! `kept` holds both kinds. Whoever settles the account drops those in front that are over, and
//! every 64th record settles it.
//!
//! **A wait is for a marker that was recorded before it.** So the entries in front of that marker
//! are all older than the wait, and a walk that follows waits into other accounts only ever goes to
//! older entries: it ends. It keeps the accounts in a list of its own, so that the length of a
//! chain of waits costs no stack.
//!
//! `loom_tests` explores the order of the threads.

use std::{
    collections::VecDeque,
    sync::{Arc, atomic},
};

use crate::{
    contract::MarkerImpl,
    core::StreamCore,
    error::Cause,
    host_gate::failed_wait,
    lost::Loses,
    ordered::{Guard, Ordered},
    rerecord::Lock,
    sync::{self, Ordering},
    timeline::{Reached, Timeline, Wake},
};

/// A native event. It is asked and dropped without a lock.
pub(super) trait Native: Send + Sync + 'static {
    fn ask(&self) -> Answer;

    /// Whether its command is over, for good or ill: for less than [`ask`](Native::ask).
    fn is_over(&self) -> bool;
}

/// A marker of the backend, as an account knows it.
pub(super) trait Recorded: Send + Sync + Sized + 'static {
    /// The native event of a marker, and of what else is submitted.
    type Event: Native;

    /// The account and the value of a marker, if it is one of this kind.
    fn place_of(marker: &dyn MarkerImpl) -> Option<(Arc<Account<Self>>, u64)>;
}

/// What the driver says of a native event.
pub(super) enum Answer {
    Pending,
    Complete,
    /// Why the work in front of it has failed.
    Failed(Cause),
}

/// An account, as the watcher knows it.
pub(super) trait Unsettled: Loses {
    /// As [`Account::settle`].
    fn settle(&self, value: u64);

    /// As [`Account::is_settled`].
    fn is_settled(&self) -> bool;

    /// As [`Account::is_done`].
    fn is_done(&self) -> bool;
}

impl<M: Recorded> Unsettled for Account<M> {
    fn settle(&self, value: u64) {
        Account::settle(self, value);
    }

    fn is_settled(&self) -> bool {
        Account::is_settled(self)
    }

    fn is_done(&self) -> bool {
        Account::is_done(self)
    }
}

impl<M: Recorded> Loses for Account<M> {
    fn lose(&self, cause: &Cause) -> Wake {
        self.fail_now(cause, true)
    }
}

pub(super) struct Account<M: Recorded> {
    /// Whether it is time for a [`sweep`](Account::sweep): set by a record in place, which makes
    /// none. A hint: late by some records, it costs memory for as long.
    is_full: sync::AtomicBool,
    state: Ordered<State<M>>,
}

struct State<M: Recorded> {
    timeline: Arc<Timeline>,
    entries: VecDeque<Entry<M>>,
    /// The events that are kept for the driver alone, until their commands are over. They are in
    /// the order of the queue, so one that is pending stands for all behind it.
    kept: VecDeque<Arc<M::Event>>,
    /// The number of the front entry; those behind it count up from there. No number is used again.
    first: u64,
    /// The last value in front of the first entry that is known to fail the stream; `None` while
    /// there is no such entry and the timeline has not failed.
    ends_after: Option<u64>,
    /// The entries and kept events are looked at when there are that many: `SWEEP_EVERY` more than
    /// the last look, or whoever took some off since, has left.
    sweep_at: usize,
}

enum Entry<M: Recorded> {
    Record {
        value: u64,
        event: Arc<M::Event>,
        /// The event that the marker had before, where it was recorded in place: to let go of it
        /// costs a read-modify-write, and perhaps a call of the driver, which the record saves.
        _before: Option<Arc<M::Event>>,
    },
    Wait(Arc<Wait<M>>),
    End {
        at: Arc<M::Event>,
        cause: Cause,
    },
    /// A wait that was taken back.
    Void,
}

struct Wait<M: Recorded> {
    marker: Arc<dyn MarkerImpl>,
    /// Where the marker is, if it is one of this backend.
    place: Option<(Arc<Account<M>>, u64)>,
    /// The event of a native marker in front of the native wait. A failure of the marker that is
    /// waited for must not overtake what is in front of the wait. One of what is in front waits for
    /// nothing else.
    at: Arc<M::Event>,
    /// Whether a host gate holds the stream for it, which the end of the process opens.
    through_host: bool,
}

// Derived, it would ask for `M: Clone`.
impl<M: Recorded> Clone for Entry<M> {
    fn clone(&self) -> Entry<M> {
        match self {
            Entry::Record { value, event, .. } => Entry::Record {
                value: *value,
                event: event.clone(),
                _before: None,
            },
            Entry::Wait(wait) => Entry::Wait(wait.clone()),
            Entry::End { at, cause } => Entry::End {
                at: at.clone(),
                cause: cause.clone(),
            },
            Entry::Void => Entry::Void,
        }
    }
}

/// A wait whose native call is still to come.
pub(super) struct Waiting<'a, M: Recorded> {
    account: &'a Account<M>,
    wait: Arc<Wait<M>>,
    number: u64,
    /// The last value in front of it.
    pub(super) after: u64,
}

/// What the front entry has come to.
enum Step<M: Recorded> {
    /// The value is complete or has failed, or nothing is left.
    Done,
    /// The front was taken off, by this thread or another one.
    On,
    /// The front is not over.
    Blocked,
    /// The front is a wait for this value of this account.
    Upstream(Arc<Account<M>>, u64),
}

/// What is to be dropped without the lock.
struct Gone<M: Recorded> {
    _entries: VecDeque<Entry<M>>,
    _kept: VecDeque<Arc<M::Event>>,
}

/// How an entry is over.
enum Over {
    Complete(Option<u64>),
    Failed(Cause),
}

/// Whether the process is ending, and every host gate is open, whatever it was closed for. An
/// atomic of std in models, too, where it never changes.
static GATES_ARE_OPEN: atomic::AtomicBool = atomic::AtomicBool::new(false);

/// Host gates hold nothing any more: what they were closed for is not waited for.
pub(super) fn gates_are_open() {
    GATES_ARE_OPEN.store(true, Ordering::Release);
}

/// How many entries are added between two looks at those in front. A look ends at the first entry
/// that is not over.
const SWEEP_EVERY: usize = 64;

impl<M: Recorded> Account<M> {
    pub(super) fn new(core: Arc<StreamCore>) -> Arc<Account<M>> {
        let state = State {
            timeline: Timeline::new(core.clone(), 0),
            entries: VecDeque::new(),
            kept: VecDeque::new(),
            first: 0,
            ends_after: None,
            sweep_at: SWEEP_EVERY,
        };
        Arc::new(Account {
            is_full: sync::AtomicBool::new(false),
            state: Ordered::new(core, state),
        })
    }

    /// The current timeline.
    pub(super) fn timeline(&self) -> Arc<Timeline> {
        self.state.lock().timeline.clone()
    }

    /// Whether the stream has failed, or fails once what was submitted before is over.
    pub(super) fn has_ended(&self) -> bool {
        self.state.lock().ends_after.is_some()
    }

    /// Whether the marker at `value` is known to fail.
    fn fails_in_front_of(&self, value: u64) -> bool {
        let ends_after = self.state.lock().ends_after;
        ends_after.is_some_and(|after| after < value)
    }

    /// Whether nothing is left that is not known to be over.
    pub(super) fn is_settled(&self) -> bool {
        self.state.lock().entries.is_empty()
    }

    /// Whether nothing is left, and no event is kept.
    pub(super) fn is_done(&self) -> bool {
        let state = self.state.lock();
        state.entries.is_empty() && state.kept.is_empty()
    }

    /// Keeps the event of a command that was submitted just now until that is over.
    pub(super) fn keep(&self, event: Arc<M::Event>) {
        self.state.lock().kept.push_back(event);
    }

    /// Adds the marker that `make` makes of its timeline and value, behind its native call, whose
    /// event is `event`. On a stream that has failed it has failed from the start. `make` must not
    /// call the driver.
    ///
    /// It looks at what may be over as [`look_now_and_then`](Account::look_now_and_then) does.
    pub(super) fn record(
        &self,
        event: Arc<M::Event>,
        make: impl FnOnce(Arc<Timeline>, u64) -> M,
    ) -> Arc<M> {
        let mut state = self.state.lock();
        let (value, marker) = self.next(&state, make);
        if state.timeline.has_failed() {
            state.kept.push_back(event);
        } else {
            state.entries.push_back(Entry::Record {
                value,
                event,
                _before: None,
            });
        }
        self.look_now_and_then(state);
        marker
    }

    /// The marker of a record that the driver refused: where the stream has failed, so has the
    /// marker. `None` where it has not. `make` is as in [`record`](Account::record).
    #[cold]
    pub(super) fn record_refused(
        &self,
        make: impl FnOnce(Arc<Timeline>, u64) -> M,
    ) -> Option<Arc<M>> {
        let state = self.state.lock();
        let has_failed = state.timeline.has_failed();
        has_failed.then(|| self.next(&state, make).1)
    }

    fn next(&self, state: &State<M>, make: impl FnOnce(Arc<Timeline>, u64) -> M) -> (u64, Arc<M>) {
        let value = self.state.stream.count();
        (value, Arc::new(make(state.timeline.clone(), value)))
    }

    /// The value of a marker of this account that is recorded again in place, on its timeline;
    /// `None` where that has failed, or another one has come. `event` is that of the native call,
    /// which takes the place of the one that the marker has, and `lock` may be the lock of the
    /// account already.
    ///
    /// Fires no waiter, so it does not look at what may be over.
    #[inline]
    pub(super) fn record_again(
        &self,
        lock: Lock<'_>,
        timeline: &Arc<Timeline>,
        event: Arc<M::Event>,
        of_marker: &mut Option<Arc<M::Event>>,
    ) -> Option<u64> {
        let mut state = self.state.lock_from(lock);
        if !Arc::ptr_eq(&state.timeline, timeline) || timeline.has_failed() {
            state.kept.push_back(event);
            return None;
        }
        let value = self.state.stream.count();
        let before = of_marker.replace(event.clone());
        state.entries.push_back(Entry::Record {
            value,
            event,
            _before: before,
        });
        if state.is_full() {
            self.is_full.store(true, Ordering::Relaxed);
        }
        Some(value)
    }

    /// Whether the next record is to look at what may be over, and not to be one in place.
    #[inline]
    pub(super) fn is_full(&self) -> bool {
        self.is_full.load(Ordering::Relaxed)
    }

    /// Looks at what may be over if many entries were added since the last look. So they do not
    /// pile up while nobody asks, at a cost that is constant on average: a look ends at what is
    /// pending.
    fn look_now_and_then(&self, state: Guard<'_, State<M>>) {
        let is_full = state.is_full();
        if !is_full {
            // Somebody has taken off what filled it, without a sweep.
            self.is_full.store(false, Ordering::Relaxed);
        }
        drop(state);
        if is_full {
            self.sweep();
        }
    }

    #[cold]
    fn sweep(&self) {
        self.settle(u64::MAX);
        let mut state = self.state.lock();
        state.sweep_at = state.len() + SWEEP_EVERY;
        self.is_full.store(false, Ordering::Relaxed);
    }

    /// Drops the kept events whose commands are over, up to the first that is pending.
    fn release_over(&self) {
        loop {
            let Some(front) = self.state.lock().kept.front().cloned() else {
                return;
            };
            if !front.is_over() {
                return;
            }
            let mut state = self.state.lock();
            // Another thread may have been here.
            let is_front = state
                .kept
                .front()
                .is_some_and(|now| Arc::ptr_eq(now, &front));
            let gone = is_front.then(|| state.kept.pop_front());
            state.has_shrunk();
            drop(state);
            drop(gone);
        }
    }

    /// Adds a wait for `marker`, in front of its native call. `at` is the event of a native marker
    /// that was submitted for it. `None` where the stream fails anyway, so that nothing behind the
    /// wait depends on it. `through_host` says that the native wait is for a host gate.
    pub(super) fn wait(
        &self,
        marker: &Arc<dyn MarkerImpl>,
        through_host: bool,
        at: Arc<M::Event>,
    ) -> Option<Waiting<'_, M>> {
        let place = M::place_of(&**marker);
        let mut state = self.state.lock();
        if state.ends_after.is_some() {
            // What `place` holds is dropped without the lock.
            drop(state);
            return None;
        }
        let number = state.first + state.entries.len() as u64;
        let wait = Arc::new(Wait {
            marker: marker.clone(),
            place,
            at,
            through_host,
        });
        state.entries.push_back(Entry::Wait(wait.clone()));
        let after = self.state.stream.recorded.load(Ordering::Relaxed);
        Some(Waiting {
            account: self,
            wait,
            number,
            after,
        })
    }

    /// Takes back a wait whose native call was refused.
    pub(super) fn take_back(&self, wait: Waiting<'_, M>) {
        let mut state = self.state.lock();
        let at = wait.number.checked_sub(state.first);
        let entry = at.and_then(|at| state.entries.get_mut(at as usize));
        let gone = entry.map(|entry| std::mem::replace(entry, Entry::Void));
        drop(state);
        drop(gone);
    }

    /// The stream fails with `cause` behind `at`, which was submitted just now.
    pub(super) fn end(&self, at: Arc<M::Event>, cause: Cause) {
        let mut state = self.state.lock();
        if state.ends_after.is_some() {
            state.kept.push_back(at);
            return;
        }
        state.ends_after = Some(self.state.stream.recorded.load(Ordering::Relaxed));
        state.entries.push_back(Entry::End { at, cause });
    }

    /// The stream fails now.
    pub(super) fn fail(&self, cause: &Cause) {
        self.fail_now(cause, false).fire();
    }

    /// As [`State::fail`], for a caller without any lock, who fires what it gives.
    fn fail_now(&self, cause: &Cause, lost: bool) -> Wake {
        let mut state = self.state.lock();
        let (wake, gone) = state.fail(cause, lost);
        drop(state);
        drop(gone);
        wake
    }

    /// Starts a new timeline if the current one has failed.
    pub(super) fn start_new_epoch(&self) {
        let mut state = self.state.lock();
        if !state.timeline.has_failed() {
            return;
        }
        state.ends_after = None;
        let last = self.state.stream.recorded.load(Ordering::Relaxed);
        let fresh = Timeline::new(self.state.stream.clone(), last);
        let before = std::mem::replace(&mut state.timeline, fresh);
        drop(state);
        drop(before);
    }

    /// Takes off what is over, up to the marker at `value`, and releases the kept events that are
    /// over. Asks the driver, and fires waiters: call it without any lock.
    pub(super) fn settle(&self, value: u64) {
        self.walk(value);
        self.release_over();
    }

    fn walk(&self, value: u64) {
        let mut upstream: Vec<(Arc<Account<M>>, u64)> = Vec::new();
        loop {
            let step = match upstream.last() {
                None => self.step(value),
                Some((account, value)) => account.step(*value),
            };
            match step {
                Step::On => {}
                Step::Blocked => return,
                Step::Upstream(account, value) => upstream.push((account, value)),
                // Back to the wait that led there.
                Step::Done => {
                    if upstream.pop().is_none() {
                        return;
                    }
                }
            }
        }
    }

    fn step(&self, value: u64) -> Step<M> {
        let state = self.state.lock();
        if state.timeline.reached(value) != Reached::NotYet {
            return Step::Done;
        }
        let Some(front) = state.entries.front().cloned() else {
            return Step::Done;
        };
        let number = state.first;
        drop(state);
        let over = match &front {
            Entry::Record { value, event, .. } => match event.ask() {
                Answer::Pending => return Step::Blocked,
                Answer::Complete => Over::Complete(Some(*value)),
                Answer::Failed(cause) => Over::Failed(cause),
            },
            Entry::End { at, cause } => match at.ask() {
                Answer::Pending => return Step::Blocked,
                Answer::Complete => Over::Failed(cause.clone()),
                Answer::Failed(first) => Over::Failed(first),
            },
            Entry::Wait(wait) => match wait.ask() {
                Ok(over) => over,
                Err(step) => return step,
            },
            Entry::Void => Over::Complete(None),
        };
        self.take_off(number, over);
        Step::On
    }

    /// Takes off the front entry, if it still has this number.
    fn take_off(&self, number: u64, over: Over) {
        let mut state = self.state.lock();
        if state.first != number {
            return;
        }
        let (wake, front, gone) = match over {
            Over::Complete(value) => {
                state.first += 1;
                let front = state.entries.pop_front();
                state.has_shrunk();
                (
                    value.map(|value| state.timeline.advance(value)),
                    front,
                    None,
                )
            }
            Over::Failed(cause) => {
                let (wake, gone) = state.fail(&cause, false);
                (Some(wake), None, Some(gone))
            }
        };
        drop(state);
        // What the entries hold is dropped without the lock.
        drop((front, gone));
        if let Some(wake) = wake {
            wake.fire();
        }
    }
}

impl<M: Recorded> Waiting<'_, M> {
    /// The native call was accepted.
    ///
    /// It looks at what may be over as [`look_now_and_then`](Account::look_now_and_then) does.
    pub(super) fn submitted(self) {
        let place = self.wait.place.as_ref();
        let fails = place.is_some_and(|(account, value)| account.fails_in_front_of(*value));
        let mut state = self.account.state.lock();
        // A walk may have taken it off meanwhile.
        if fails && self.number >= state.first {
            let other = state.ends_after.unwrap_or(u64::MAX);
            state.ends_after = Some(other.min(self.after));
        }
        self.account.look_now_and_then(state);
    }
}

impl<M: Recorded> Wait<M> {
    /// How it is over; else what the account does about it.
    fn ask(&self) -> Result<Over, Step<M>> {
        match self.at.ask() {
            Answer::Pending => return Err(Step::Blocked),
            Answer::Failed(cause) => return Ok(Over::Failed(cause)),
            Answer::Complete => {}
        }
        match (self.marker.point().reached(), &self.place) {
            (Reached::Yes, _) => return Ok(Over::Complete(None)),
            // With nothing left there, the marker itself tells.
            (Reached::NotYet, Some((account, value))) if !account.is_settled() => {
                return Err(Step::Upstream(account.clone(), *value));
            }
            _ => {}
        }
        match self.marker.query() {
            Ok(true) => Ok(Over::Complete(None)),
            Ok(false) if self.through_host && GATES_ARE_OPEN.load(Ordering::Acquire) => {
                Ok(Over::Complete(None))
            }
            Ok(false) => Err(Step::Blocked),
            Err(error) => {
                let marker = self.marker.to_string();
                Ok(Over::Failed(failed_wait(marker, &error)))
            }
        }
    }
}

impl<M: Recorded> State<M> {
    fn len(&self) -> usize {
        self.entries.len() + self.kept.len()
    }

    /// Whether it is time for a [`sweep`](Account::sweep).
    fn is_full(&self) -> bool {
        self.len() >= self.sweep_at
    }

    /// Else what is over would pile up after a burst, up to the length of the burst.
    fn has_shrunk(&mut self) {
        self.sweep_at = self.sweep_at.min(self.len() + SWEEP_EVERY);
    }

    /// Fails the timeline, and gives what goes with it. The events of the entries are kept, but for
    /// those of a device that is `lost`: its driver may never tell that they are over.
    fn fail(&mut self, cause: &Cause, lost: bool) -> (Wake, Gone<M>) {
        let entries = std::mem::take(&mut self.entries);
        self.first += entries.len() as u64;
        let mut kept = VecDeque::new();
        if lost {
            kept = std::mem::take(&mut self.kept);
        } else {
            let events = entries.iter().filter_map(|entry| match entry {
                Entry::Record { event, .. } => Some(event.clone()),
                Entry::End { at, .. } => Some(at.clone()),
                // Kept since they were submitted.
                Entry::Wait(_) | Entry::Void => None,
            });
            self.kept.extend(events);
        }
        let gone = Gone {
            _entries: entries,
            _kept: kept,
        };
        self.ends_after = Some(self.timeline.completed());
        (self.timeline.fail(cause, lost), gone)
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use std::any::Any;

    use super::*;
    use crate::{
        contract::TimelineKnowledge,
        error::Result,
        lost::loom_tests::{Epochs, a_loss_reaches_every_stream},
        place::Place,
        rerecord::Slot,
        sync::thread,
        timeline::{Awaited, Point, loom_tests::stream_core},
    };

    const PENDING: u64 = 0;
    const COMPLETE: u64 = 1;
    const FAILED: u64 = 2;

    /// What a driver says of an event.
    #[derive(Clone)]
    struct Says(Arc<sync::AtomicU64>);

    impl Says {
        fn new(status: u64) -> Says {
            Says(Arc::new(sync::AtomicU64::new(status)))
        }

        fn set(&self, status: u64) {
            self.0.store(status, Ordering::Release);
        }
    }

    impl Native for Says {
        fn ask(&self) -> Answer {
            match self.0.load(Ordering::Acquire) {
                PENDING => Answer::Pending,
                COMPLETE => Answer::Complete,
                _ => Answer::Failed(Cause::new("the driver's")),
            }
        }

        fn is_over(&self) -> bool {
            self.0.load(Ordering::Acquire) != PENDING
        }
    }

    struct Fake {
        point: Point,
        account: Arc<Account<Fake>>,
    }

    impl Recorded for Fake {
        type Event = Says;

        fn place_of(marker: &dyn MarkerImpl) -> Option<(Arc<Account<Fake>>, u64)> {
            let fake: &Fake = (marker as &dyn Any).downcast_ref()?;
            Some((fake.account.clone(), fake.point.value))
        }
    }

    impl Awaited for Fake {
        fn point(&self) -> &Point {
            &self.point
        }

        fn query(&self) -> Result<bool> {
            self.account.settle(self.point.value);
            self.point.timeline.check(self.point.value)
        }
    }

    impl MarkerImpl for Fake {
        fn timeline_knowledge(&self) -> TimelineKnowledge {
            TimelineKnowledge::Completion
        }
    }

    fn account() -> Arc<Account<Fake>> {
        Account::new(stream_core())
    }

    fn fake(account: &Arc<Account<Fake>>, timeline: Arc<Timeline>, value: u64) -> Fake {
        let point = Point {
            timeline,
            value,
            at: Place::caller(),
            timing: false,
        };
        Fake {
            point,
            account: account.clone(),
        }
    }

    fn record(account: &Arc<Account<Fake>>, says: &Says) -> Arc<Fake> {
        let event = Arc::new(says.clone());
        account.record(event, |timeline, value| fake(account, timeline, value))
    }

    /// The event in `slot` is recorded in place, as the stream does it, where that can be.
    fn record_in_place(account: &Account<Fake>, slot: &Slot) -> Option<u64> {
        let (mut marker, lock) = slot.rerecord().begin::<Fake>()?;
        let event = Arc::new(Says::new(COMPLETE));
        let timeline = &marker.point.timeline;
        let value = account.record_again(lock, timeline, event, &mut None)?;
        marker.point.value = value;
        marker.finish();
        Some(value)
    }

    /// A wait, with a native marker in front of it.
    fn wait<'a>(
        account: &'a Account<Fake>,
        marker: &Arc<dyn MarkerImpl>,
        in_front: &Says,
    ) -> Option<Waiting<'a, Fake>> {
        account.wait(marker, false, Arc::new(in_front.clone()))
    }

    /// The texts of the causes, or none where it is complete.
    fn failure(marker: &Fake) -> Option<String> {
        let error = marker.query().err()?;
        Some(error.cause().expect("a failure has a cause").root().into())
    }

    impl Epochs for Account<Fake> {
        fn timeline(&self) -> Arc<Timeline> {
            Account::timeline(self)
        }

        fn start_new_epoch(&self) {
            Account::start_new_epoch(self);
        }
    }

    #[test]
    fn a_loss_reaches_a_stream_that_is_made_or_cleared_beside_it() {
        a_loss_reaches_every_stream(account);
    }

    #[test]
    fn no_walk_passes_over_a_failure() {
        loom::model(|| {
            let account = account();
            let first = record(&account, &Says::new(COMPLETE));
            let failed = record(&account, &Says::new(FAILED));
            // A driver may call complete what is behind a failure.
            let behind = record(&account, &Says::new(COMPLETE));
            let other = {
                let behind = behind.clone();
                thread::spawn(move || behind.query().is_err())
            };
            assert!(behind.query().is_err());
            assert!(other.join().unwrap());
            assert!(failed.query().is_err());
            assert!(
                first.query().unwrap(),
                "it was complete in front of the failure"
            );
        });
    }

    #[test]
    fn what_is_behind_a_wait_fails_by_its_marker_and_never_completes() {
        loom::model(|| {
            let (up, down) = (account(), account());
            let upstream = Says::new(PENDING);
            let marker: Arc<dyn MarkerImpl> = record(&up, &upstream);
            let failing = {
                let upstream = upstream.clone();
                thread::spawn(move || upstream.set(FAILED))
            };
            // The native calls, which a driver may call complete at once, whatever becomes of the
            // other; and a record behind them.
            let wait = wait(&down, &marker, &Says::new(COMPLETE));
            wait.expect("it has not failed").submitted();
            let behind = record(&down, &Says::new(COMPLETE));
            assert!(!matches!(behind.query(), Ok(true)), "it was believed");
            failing.join().unwrap();
            assert_eq!(failure(&behind).as_deref(), Some("the driver's"));
        });
    }

    #[test]
    fn a_failure_does_not_overtake_what_is_in_front_of_the_wait() {
        loom::model(|| {
            let (up, down) = (account(), account());
            let marker: Arc<dyn MarkerImpl> = record(&up, &Says::new(FAILED));
            let in_front = Says::new(PENDING);
            let wait = wait(&down, &marker, &in_front);
            wait.expect("nobody has asked").submitted();
            let behind = record(&down, &Says::new(PENDING));
            let completing = {
                let in_front = in_front.clone();
                thread::spawn(move || in_front.set(COMPLETE))
            };
            if behind.query().is_err() {
                assert!(matches!(in_front.ask(), Answer::Complete));
            }
            completing.join().unwrap();
            assert!(behind.query().is_err());
        });
    }

    #[test]
    fn what_fails_in_front_of_a_wait_is_told_while_that_goes_on() {
        loom::model(|| {
            let (up, down) = (account(), account());
            let marker: Arc<dyn MarkerImpl> = record(&up, &Says::new(PENDING));
            let in_front = Says::new(PENDING);
            let wait = wait(&down, &marker, &in_front);
            wait.expect("it has not failed").submitted();
            let behind = record(&down, &Says::new(COMPLETE));
            let failing = {
                let in_front = in_front.clone();
                thread::spawn(move || in_front.set(FAILED))
            };
            assert!(!matches!(behind.query(), Ok(true)), "it was believed");
            failing.join().unwrap();
            assert!(behind.query().is_err());
        });
    }

    #[test]
    fn a_wait_that_is_taken_back_holds_nothing_up() {
        loom::model(|| {
            let (up, down) = (account(), account());
            let marker: Arc<dyn MarkerImpl> = record(&up, &Says::new(PENDING));
            let wait = wait(&down, &marker, &Says::new(COMPLETE));
            let wait = wait.expect("it has not failed");
            let recording = {
                let down = down.clone();
                thread::spawn(move || record(&down, &Says::new(COMPLETE)))
            };
            down.take_back(wait);
            assert!(recording.join().unwrap().query().unwrap());
        });
    }

    /// A wait for a marker that is known to fail, but has not failed yet.
    #[test]
    fn a_wait_for_a_failure_that_is_taken_back_leaves_later_waits_and_failures() {
        loom::model(|| {
            let (up, down) = (account(), account());
            up.end(Arc::new(Says::new(PENDING)), Cause::new("x"));
            let failing: Arc<dyn MarkerImpl> = record(&up, &Says::new(PENDING));
            let mine = wait(&down, &failing, &Says::new(COMPLETE));
            let mine = mine.expect("it has not failed");
            let other = {
                let down = down.clone();
                thread::spawn(move || {
                    let marker: Arc<dyn MarkerImpl> = record(&account(), &Says::new(COMPLETE));
                    let wait = wait(&down, &marker, &Says::new(COMPLETE));
                    wait.expect("nothing fails").submitted();
                })
            };
            down.take_back(mine);
            other.join().unwrap();
            down.end(Arc::new(Says::new(COMPLETE)), Cause::new("y"));
            let behind = record(&down, &Says::new(COMPLETE));
            assert_eq!(failure(&behind).as_deref(), Some("y"));
        });
    }

    #[test]
    fn complete_waits_do_not_pile_up_where_nobody_records() {
        loom::model(|| {
            let (up, down) = (account(), account());
            let marker: Arc<dyn MarkerImpl> = record(&up, &Says::new(COMPLETE));
            for _ in 0..SWEEP_EVERY {
                let wait = wait(&down, &marker, &Says::new(COMPLETE));
                wait.expect("nothing fails").submitted();
            }
            assert!(down.is_settled());
        });
    }

    #[test]
    fn what_is_over_does_not_pile_up_after_a_burst() {
        let mut model = loom::model::Builder::new();
        // One thread, but many records.
        model.max_branches = 100_000;
        model.check(|| {
            let account = account();
            let burst = Says::new(PENDING);
            for _ in 0..4 * SWEEP_EVERY {
                record(&account, &burst);
            }
            burst.set(COMPLETE);
            account.settle(u64::MAX);
            for _ in 0..2 * SWEEP_EVERY {
                record(&account, &burst);
                let entries = account.state.lock().entries.len();
                assert!(entries <= SWEEP_EVERY, "{entries} that are over are kept");
            }
        });
    }

    #[test]
    fn a_marker_of_a_new_epoch_does_not_fail_by_the_one_before() {
        loom::model(|| {
            let account = account();
            account.end(Arc::new(Says::new(COMPLETE)), Cause::new("x"));
            let recording = {
                let account = account.clone();
                thread::spawn(move || record(&account, &Says::new(COMPLETE)))
            };
            account.settle(u64::MAX);
            account.start_new_epoch();
            let marker = recording.join().unwrap();
            let is_of_now = Arc::ptr_eq(&marker.point.timeline, &account.timeline());
            assert_eq!(marker.query().is_ok(), is_of_now);
            assert!(record(&account, &Says::new(COMPLETE)).query().unwrap());
        });
    }

    /// Its value would be of another timeline than the marker.
    #[test]
    fn a_record_in_place_is_not_made_on_another_timeline() {
        loom::model(|| {
            let account = account();
            let marker = record(&account, &Says::new(COMPLETE));
            let timeline = marker.point.timeline.clone();
            let failing = {
                let account = account.clone();
                thread::spawn(move || {
                    account.fail(&Cause::new("x"));
                    account.start_new_epoch();
                })
            };
            let lock = Lock::of(&account.state.stream, None);
            let event = Arc::new(Says::new(COMPLETE));
            let again = account.record_again(lock, &timeline, event, &mut None);
            failing.join().unwrap();
            if let Some(value) = again {
                assert!(timeline.check(value).is_err(), "it came before the failure");
            }
            assert!(record(&account, &Says::new(COMPLETE)).query().unwrap());
        });
    }

    /// The lock of the account guards the event's slot, too.
    #[test]
    fn a_marker_that_is_taken_beside_a_record_in_place_is_the_one_before_or_the_new_one() {
        loom::model(|| {
            let (account, slot) = (account(), Arc::new(Slot::new()));
            slot.put(record(&account, &Says::new(COMPLETE)), true);
            assert_eq!(record_in_place(&account, &slot), Some(2));
            assert!(slot.is_delegated());
            let taking = {
                let slot = slot.clone();
                thread::spawn(move || slot.marker().map(|marker| marker.point().value))
            };
            let settling = {
                let account = account.clone();
                thread::spawn(move || account.settle(u64::MAX))
            };
            let again = record_in_place(&account, &slot);
            settling.join().unwrap();
            match (taking.join().unwrap(), again) {
                (Some(2), _) | (Some(3), Some(3)) => {}
                other => panic!("{other:?}"),
            }
            account.settle(u64::MAX);
            let last = again.unwrap_or(2);
            assert_eq!(account.timeline().completed(), last);
        });
    }

    /// The driver may refuse a record on a stream that has failed, and tells nothing of it.
    #[test]
    fn a_refused_record_has_failed_whoever_clears_the_error() {
        loom::model(|| {
            let account = account();
            account.fail(&Cause::new("x"));
            let clearing = {
                let account = account.clone();
                thread::spawn(move || account.start_new_epoch())
            };
            let refused = account.record_refused(|timeline, value| fake(&account, timeline, value));
            clearing.join().unwrap();
            if let Some(marker) = refused {
                assert_eq!(failure(&marker).as_deref(), Some("x"));
            }
            assert!(record(&account, &Says::new(COMPLETE)).query().unwrap());
        });
    }
}
