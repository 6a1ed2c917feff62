//! The steps of a stream in their order, and which of them are over. Knows no Metal.
//!
//! Metal calls completed handlers late and in any order. A step takes effect only once it and all
//! steps in front of it are over, so completion and failure are reported in the stream's order.
//!
//! | step | is over | takes effect by |
//! |---|---|---|
//! | `Buffer` | when its completed handler has run | nothing, unless it failed |
//! | `Wait` | when the awaited marker is complete or has failed | nothing, unless that failed |
//! | `Value` | from the start | completing the markers up to it |
//!
//! A step that failed takes effect by failing the markers behind it. A failed command buffer is
//! also signalled by the host.
//!
//! *Invariant: a marker is reported complete only when all command buffers in front of it are
//! complete, and all markers that its stream waited for.* So a thread that sees a marker complete
//! also sees those complete that its stream waited for, on whichever stream, even if their handlers
//! run later. A failure is known before anything behind it completes: both take effect in order,
//! under one lock.
//!
//! Metal leaves the event of a failed command buffer unsignalled, so the host signals it. It does
//! so when the step takes effect and not before: an earlier signal would let later command buffers
//! overtake those in front of the failed one.

use std::{collections::VecDeque, sync::Arc};

use crate::{
    epochs::Epoch,
    error::Cause,
    sync::{AtomicU64, Mutex, Ordering, lock},
    timeline::Wake,
};

pub(crate) struct CompletionOrder {
    state: Mutex<State>,
    /// The last native value that took effect.
    reached: AtomicU64,
}

struct State {
    /// The ticket of the last step that took effect. Tickets count up from 1.
    done: u64,
    /// The steps behind it.
    steps: VecDeque<Entry>,
}

struct Entry {
    epoch: Arc<Epoch>,
    step: Step,
    /// How it ended, once it is over.
    result: Option<Result<(), Cause>>,
}

/// One step in a stream's order. `before` is the last marker in front of it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    /// A command buffer, which signals `ordinal` when it completes.
    Buffer { ordinal: u64, before: u64 },
    /// A wait for a marker of another stream, or for the host.
    Wait { before: u64 },
    /// The native value of a marker, or of a failure point.
    Value(u64),
}

impl CompletionOrder {
    pub(crate) fn new() -> CompletionOrder {
        CompletionOrder {
            state: Mutex::new(State {
                done: 0,
                steps: VecDeque::new(),
            }),
            reached: AtomicU64::new(0),
        }
    }

    /// The last native value that took effect. One atomic load.
    pub(crate) fn reached(&self) -> u64 {
        self.reached.load(Ordering::Acquire)
    }

    /// Adds a step that is not over, and returns its ticket. Call it under the stream's submit
    /// lock.
    pub(crate) fn push(&self, epoch: &Arc<Epoch>, step: Step) -> u64 {
        let mut state = lock(&self.state);
        state.steps.push_back(Entry {
            epoch: epoch.clone(),
            step,
            result: None,
        });
        state.done + state.steps.len() as u64
    }

    /// Adds a native value behind all steps so far. Call it under the stream's submit lock. Fire
    /// the returned wakes when the lock is released.
    #[must_use]
    pub(crate) fn push_value(&self, epoch: &Arc<Epoch>, native: u64) -> Vec<Wake> {
        let mut state = lock(&self.state);
        if let Some(last) = state.steps.back_mut()
            && let Step::Value(value) = &mut last.step
            && Arc::ptr_eq(&last.epoch, epoch)
        {
            // No step lies between the two values.
            *value = native;
            return Vec::new();
        }
        state.steps.push_back(Entry {
            epoch: epoch.clone(),
            step: Step::Value(native),
            result: Some(Ok(())),
        });
        self.take_effect(&mut state, |_| {})
    }

    /// Ends the step with this ticket. Calls `signal` with the ordinals of failed command buffers,
    /// in order. Fire the returned wakes without any lock held.
    #[must_use]
    pub(crate) fn finish(
        &self,
        ticket: u64,
        result: Result<(), Cause>,
        signal: impl FnMut(u64),
    ) -> Vec<Wake> {
        let mut state = lock(&self.state);
        let Some(index) = ticket.checked_sub(state.done + 1) else {
            return Vec::new();
        };
        if let Some(entry) = state.steps.get_mut(index as usize)
            && entry.result.is_none()
        {
            entry.result = Some(result);
        }
        self.take_effect(&mut state, signal)
    }

    fn take_effect(&self, state: &mut State, mut signal: impl FnMut(u64)) -> Vec<Wake> {
        let mut due = Vec::new();
        while let Some(entry) = state.steps.pop_front() {
            let Some(result) = entry.result else {
                state.steps.push_front(entry);
                break;
            };
            state.done += 1;
            let epoch = &entry.epoch;
            let reached = match (entry.step, result) {
                (Step::Value(native), _) => native,
                (_, Ok(())) => continue,
                (Step::Buffer { before, ordinal }, Err(cause)) => {
                    epoch.fail_after(before, &cause);
                    signal(ordinal);
                    epoch.native(before)
                }
                (Step::Wait { before }, Err(cause)) => {
                    epoch.fail_after(before, &cause);
                    epoch.native(before)
                }
            };
            self.reached.fetch_max(reached, Ordering::AcqRel);
            let wakes = epoch.reach(reached).into_iter().flatten();
            due.extend(wakes.filter(|wake| !wake.is_empty()));
        }
        due
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use std::sync::Arc;

    use crate::{
        epochs::{Epoch, ValueAllocator},
        error::Cause,
        metal::{
            completion_order::{CompletionOrder, Step},
            wakes::fire_all,
        },
        sync::thread,
        timeline::{Reached, loom_tests::stream_core},
    };

    /// A stream with a marker behind each of two command buffers, and the buffers' tickets.
    fn two_buffers() -> (Arc<Epoch>, Arc<CompletionOrder>, [u64; 2]) {
        let epoch = ValueAllocator::new(stream_core()).current_epoch();
        let order = Arc::new(CompletionOrder::new());
        let tickets = [1, 2].map(|value| {
            let (ordinal, before) = (value, value - 1);
            let ticket = order.push(&epoch, Step::Buffer { ordinal, before });
            fire_all(order.push_value(&epoch, value));
            ticket
        });
        (epoch, order, tickets)
    }

    #[test]
    fn handlers_in_any_order_complete_all_markers() {
        loom::model(|| {
            let (epoch, order, tickets) = two_buffers();
            let other = {
                let order = order.clone();
                thread::spawn(move || fire_all(order.finish(tickets[1], Ok(()), |_| {})))
            };
            fire_all(order.finish(tickets[0], Ok(()), |_| {}));
            other.join().unwrap();
            assert_eq!(epoch.timeline.reached(2), Reached::Yes);
            assert_eq!(order.reached(), 2);
        });
    }

    #[test]
    fn nothing_behind_a_failed_buffer_is_ever_complete() {
        loom::model(|| {
            let (epoch, order, tickets) = two_buffers();
            let other = {
                let order = order.clone();
                thread::spawn(move || fire_all(order.finish(tickets[1], Ok(()), |_| {})))
            };
            let looking = {
                let (epoch, order) = (epoch.clone(), order.clone());
                thread::spawn(move || {
                    epoch.settle(order.reached());
                    assert_ne!(epoch.timeline.reached(1), Reached::Yes);
                })
            };
            let mut signalled = Vec::new();
            fire_all(order.finish(tickets[0], Err(Cause::new("x")), |ordinal| {
                signalled.push(ordinal);
            }));
            other.join().unwrap();
            looking.join().unwrap();
            assert_eq!(signalled, [1]);
            for value in [1, 2] {
                assert_eq!(epoch.timeline.reached(value), Reached::Failed);
            }
        });
    }
}
