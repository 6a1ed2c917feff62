//! What is submitted to one OpenCL stream and not yet known to be over, in order, without any
//! OpenCL.
//!
//! Implementations differ in what they tell of a failure (the table at the head of
//! [`opencl`](crate::opencl)): one calls complete what never ran, one calls no callback, and they
//! disagree on what a failure spreads to. So the driver is believed about one event at a time, and
//! what follows from a failure is worked out here.
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
//! | `Wait` | the marker that is waited for is complete | nothing |
//! | | that marker has failed | the stream fails there, by that marker's cause |
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
//! believed by its own event, so either is right. A wait adds its entry in front of its native
//! call, and takes it back if that is refused: what any thread submits behind the native wait finds
//! the entry in front of it.
//!
//! *Invariant: no lock is held across a call that may run code of the driver, of the caller, or of
//! another account.* A callback may run inside of any call of the driver, on any thread. A walk
//! copies the front entry under the lock, asks without it, and takes the entry off only if it is
//! still the front, by its number. The timeline moves under the lock: else a thread could fail it
//! before another one has advanced it over what is complete. Its waiters are fired afterwards.
//!
//! **A wait is for a marker that was recorded before it.** So the entries in front of that marker
//! are all older than the wait, and a walk that follows waits into other accounts only ever goes to
//! older entries: it ends. It keeps the accounts in a list of its own, so that the length of a
//! chain of waits costs no stack.
//!
//! `loom_tests` explores the order of the threads.

use std::{collections::VecDeque, sync::Arc};

use crate::{
    contract::MarkerImpl,
    core::StreamCore,
    error::Cause,
    host_gate::failed_wait,
    sync::{Mutex, Ordering, lock},
    timeline::{Reached, Timeline, Wake},
};

/// A marker of the backend, as an account knows it.
pub(super) trait Recorded: Send + Sync + Sized + 'static {
    /// What the driver says of its native event. Asked without a lock.
    fn ask(&self) -> Answer;

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

pub(super) struct Account<M> {
    core: Arc<StreamCore>,
    state: Mutex<State<M>>,
}

struct State<M> {
    timeline: Arc<Timeline>,
    entries: VecDeque<Entry<M>>,
    /// The number of the front entry; those behind it count up from there. No number is used again.
    first: u64,
    /// Whether an entry is an `End`, or the timeline has failed.
    has_ended: bool,
    /// All entries are looked at when there are that many.
    sweep_at: usize,
}

enum Entry<M> {
    Record {
        value: u64,
        marker: Arc<M>,
    },
    Wait {
        marker: Arc<dyn MarkerImpl>,
        /// Where the marker is, if it is one of this backend.
        place: Option<(Arc<Account<M>>, u64)>,
    },
    End {
        at: Arc<M>,
        cause: Cause,
    },
    /// A wait that was taken back.
    Void,
}

// Derived, it would ask for `M: Clone`.
impl<M> Clone for Entry<M> {
    fn clone(&self) -> Entry<M> {
        match self {
            Entry::Record { value, marker } => Entry::Record {
                value: *value,
                marker: marker.clone(),
            },
            Entry::Wait { marker, place } => Entry::Wait {
                marker: marker.clone(),
                place: place.clone(),
            },
            Entry::End { at, cause } => Entry::End {
                at: at.clone(),
                cause: cause.clone(),
            },
            Entry::Void => Entry::Void,
        }
    }
}

/// A wait's entry, for taking it back.
pub(super) struct Waiting {
    number: u64,
    /// The last value in front of it.
    pub(super) after: u64,
}

/// What the front entry has come to.
enum Step<M> {
    /// The value is complete or has failed, or nothing is left.
    Done,
    /// The front was taken off, by this thread or another one.
    On,
    /// The front is not over.
    Blocked,
    /// The front is a wait for this value of this account.
    Upstream(Arc<Account<M>>, u64),
}

/// How an entry is over.
enum Over {
    Complete(Option<u64>),
    Failed(Cause),
}

const FIRST_SWEEP: usize = 32;

impl<M: Recorded> Account<M> {
    pub(super) fn new(core: Arc<StreamCore>) -> Arc<Account<M>> {
        Arc::new(Account {
            state: Mutex::new(State {
                timeline: Timeline::new(core.clone(), 0),
                entries: VecDeque::new(),
                first: 0,
                has_ended: false,
                sweep_at: FIRST_SWEEP,
            }),
            core,
        })
    }

    /// The current timeline.
    pub(super) fn timeline(&self) -> Arc<Timeline> {
        lock(&self.state).timeline.clone()
    }

    /// Whether the stream has failed, or fails once what was submitted before is over.
    #[cfg_attr(not(feature = "conformance"), allow(dead_code))]
    pub(super) fn has_ended(&self) -> bool {
        lock(&self.state).has_ended
    }

    /// Whether nothing is left that is not known to be over.
    pub(super) fn is_settled(&self) -> bool {
        lock(&self.state).entries.is_empty()
    }

    /// Adds the marker that `make` makes of its timeline and value, behind its native call. On a
    /// stream that has failed it has failed from the start. `make` must not call the driver.
    ///
    /// Now and then it looks at what may be over, so that entries do not pile up while nobody asks:
    /// at a cost that is constant on average.
    pub(super) fn record(self: &Arc<Self>, make: impl FnOnce(Arc<Timeline>, u64) -> M) -> Arc<M> {
        let mut state = lock(&self.state);
        let value = self.core.recorded.load(Ordering::Relaxed) + 1;
        self.core.recorded.store(value, Ordering::Release);
        let marker = Arc::new(make(state.timeline.clone(), value));
        if state.timeline.has_failed() {
            return marker;
        }
        let entry = Entry::Record {
            value,
            marker: marker.clone(),
        };
        state.entries.push_back(entry);
        if state.entries.len() < state.sweep_at {
            return marker;
        }
        drop(state);
        self.settle(u64::MAX);
        let mut state = lock(&self.state);
        state.sweep_at = (state.entries.len() * 2).max(FIRST_SWEEP);
        drop(state);
        marker
    }

    /// Adds a wait for `marker`, in front of its native call. `None` where the stream has failed,
    /// so that there is nothing to wait for.
    pub(super) fn wait(&self, marker: &Arc<dyn MarkerImpl>) -> Option<Waiting> {
        let place = M::place_of(&**marker);
        let mut state = lock(&self.state);
        if state.timeline.has_failed() {
            drop(state);
            return None;
        }
        let number = state.first + state.entries.len() as u64;
        state.entries.push_back(Entry::Wait {
            marker: marker.clone(),
            place,
        });
        let after = self.core.recorded.load(Ordering::Relaxed);
        Some(Waiting { number, after })
    }

    /// Takes back a wait whose native call was refused.
    pub(super) fn take_back(&self, wait: &Waiting) {
        let mut state = lock(&self.state);
        let at = wait.number.checked_sub(state.first);
        let entry = at.and_then(|at| state.entries.get_mut(at as usize));
        let gone = entry.map(|entry| std::mem::replace(entry, Entry::Void));
        drop(state);
        drop(gone);
    }

    /// The stream fails with `cause` behind `at`, which was submitted just now.
    pub(super) fn end(&self, at: Arc<M>, cause: Cause) {
        let mut state = lock(&self.state);
        if state.timeline.has_failed() {
            // What `at` holds is dropped without the lock.
            drop(state);
            return;
        }
        state.has_ended = true;
        state.entries.push_back(Entry::End { at, cause });
    }

    /// The stream fails now.
    pub(super) fn fail(&self, cause: &Cause, lost: bool) {
        let mut state = lock(&self.state);
        let (wake, gone) = state.fail(cause, lost);
        drop(state);
        drop(gone);
        wake.fire();
    }

    /// Starts a new timeline if the current one has failed.
    pub(super) fn start_new_epoch(&self) {
        let mut state = lock(&self.state);
        if !state.timeline.has_failed() {
            return;
        }
        state.has_ended = false;
        let last = self.core.recorded.load(Ordering::Relaxed);
        let before = std::mem::replace(&mut state.timeline, Timeline::new(self.core.clone(), last));
        drop(state);
        drop(before);
    }

    /// Takes off what is over, up to the marker at `value`. Asks the driver, and fires waiters: call
    /// it without any lock.
    pub(super) fn settle(self: &Arc<Self>, value: u64) {
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
        let state = lock(&self.state);
        if state.timeline.reached(value) != Reached::NotYet {
            return Step::Done;
        }
        let Some(front) = state.entries.front().cloned() else {
            return Step::Done;
        };
        let number = state.first;
        drop(state);
        let over = match &front {
            Entry::Record { value, marker } => match marker.ask() {
                Answer::Pending => return Step::Blocked,
                Answer::Complete => Over::Complete(Some(*value)),
                Answer::Failed(cause) => Over::Failed(cause),
            },
            Entry::End { at, cause } => match at.ask() {
                Answer::Pending => return Step::Blocked,
                Answer::Complete => Over::Failed(cause.clone()),
                Answer::Failed(first) => Over::Failed(first),
            },
            Entry::Wait { marker, place } => match self.awaited(marker, place.as_ref()) {
                Ok(over) => over,
                Err(step) => return step,
            },
            Entry::Void => Over::Complete(None),
        };
        self.take_off(number, over);
        Step::On
    }

    fn awaited(
        &self,
        marker: &Arc<dyn MarkerImpl>,
        place: Option<&(Arc<Account<M>>, u64)>,
    ) -> Result<Over, Step<M>> {
        let point = marker.point();
        match (point.reached(), place) {
            (Reached::Yes, _) => return Ok(Over::Complete(None)),
            (Reached::NotYet, Some((account, value))) => {
                // The account may have nothing left of a value that is still pending: one of a
                // mutant's, or of another timeline. Then the marker itself is asked.
                if !account.is_settled() {
                    return Err(Step::Upstream(account.clone(), *value));
                }
            }
            _ => {}
        }
        match marker.query() {
            Ok(true) => Ok(Over::Complete(None)),
            Ok(false) => Err(Step::Blocked),
            Err(error) => Ok(Over::Failed(failed_wait(marker.to_string(), &error))),
        }
    }

    /// Takes off the front entry, if it still has this number.
    fn take_off(&self, number: u64, over: Over) {
        let mut state = lock(&self.state);
        if state.first != number {
            return;
        }
        let (wake, gone) = match over {
            Over::Complete(value) => {
                let front: VecDeque<_> = state.entries.pop_front().into_iter().collect();
                state.first += 1;
                (value.map(|value| state.timeline.advance(value)), front)
            }
            Over::Failed(cause) => {
                let (wake, gone) = state.fail(&cause, false);
                (Some(wake), gone)
            }
        };
        drop(state);
        // What the entries hold is dropped without the lock.
        drop(gone);
        if let Some(wake) = wake {
            wake.fire();
        }
    }
}

impl<M> State<M> {
    /// Fails the timeline, and gives the entries that fail with it.
    fn fail(&mut self, cause: &Cause, lost: bool) -> (Wake, VecDeque<Entry<M>>) {
        let gone = std::mem::take(&mut self.entries);
        self.first += gone.len() as u64;
        self.has_ended = true;
        (self.timeline.fail(cause, lost), gone)
    }
}
