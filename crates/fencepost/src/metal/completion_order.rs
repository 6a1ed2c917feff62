//! What a stream was given to do, in its order, and how much of it is over. Knows no Metal.
//!
//! Metal tells of completed command buffers in any order, and late. The completion_order puts the
//! news into the stream's order before anybody hears of it: a step takes effect when all steps in
//! front of it have.
//!
//! | step | over | takes effect by |
//! |---|---|---|
//! | `Buffer` | when its completed handler is called | nothing; or, if it failed, by dooming what lies behind it, and by being released on the device |
//! | `Wait` | when the marker it is for has completed or failed | nothing; or, if that failed, by dooming what lies behind it |
//! | `Value` | from the start | completing the markers up to it, or failing them if they are doomed |
//!
//! *Invariant: a marker is told complete only when all buffers in front of it are, and all markers
//! that its stream waited for.* So whoever sees a marker complete sees those complete that it
//! waited for, on whichever stream, though their handlers may come later. And a failure is known
//! before anything behind it: both happen under the one lock, in order.
//!
//! A failed buffer leaves its event unsignalled. It is released in its turn, and not before: a
//! value that is signalled early would let later buffers overtake those in front of it.

use std::{cell::RefCell, collections::VecDeque, sync::Arc};

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
    /// The turn of the last step that took effect.
    gone: u64,
    steps: VecDeque<Entry>,
}

struct Entry {
    epoch: Arc<Epoch>,
    step: Step,
    over: Option<Result<(), Cause>>,
}

/// What is in the stream's order. `before` is the last marker in front.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    /// A command buffer, which signals `ordinal` when it is complete.
    Buffer { ordinal: u64, before: u64 },
    /// Another's marker.
    Wait { before: u64 },
    /// A marker's native value, or that of an end.
    Value(u64),
}

impl CompletionOrder {
    pub(crate) fn new() -> CompletionOrder {
        CompletionOrder {
            state: Mutex::new(State {
                gone: 0,
                steps: VecDeque::new(),
            }),
            reached: AtomicU64::new(0),
        }
    }

    /// The last native value that took effect. One atomic load.
    pub(crate) fn reached(&self) -> u64 {
        self.reached.load(Ordering::Acquire)
    }

    /// Adds a step that is not over, and gives its turn. Call it under the stream's submit lock.
    pub(crate) fn push(&self, epoch: &Arc<Epoch>, step: Step) -> u64 {
        let mut state = lock(&self.state);
        state.steps.push_back(Entry {
            epoch: epoch.clone(),
            step,
            over: None,
        });
        state.gone + state.steps.len() as u64
    }

    /// Adds a native value, behind everything that was added. Call it under the stream's submit
    /// lock, and fire what it gives without.
    #[must_use]
    pub(crate) fn value(&self, epoch: &Arc<Epoch>, native: u64) -> Vec<Wake> {
        let mut state = lock(&self.state);
        if let Some(last) = state.steps.back_mut()
            && let Step::Value(value) = &mut last.step
            && Arc::ptr_eq(&last.epoch, epoch)
        {
            // Nothing lies between them.
            *value = native;
            return Vec::new();
        }
        state.steps.push_back(Entry {
            epoch: epoch.clone(),
            step: Step::Value(native),
            over: Some(Ok(())),
        });
        self.take_effect(&mut state, |_| {})
    }

    /// A step is over. `release` is called for failed buffers, with their ordinals, in order. Fire
    /// what it gives without any lock.
    #[must_use]
    pub(crate) fn finish(
        &self,
        turn: u64,
        result: Result<(), Cause>,
        release: impl FnMut(u64),
    ) -> Vec<Wake> {
        let mut state = lock(&self.state);
        let Some(index) = turn.checked_sub(state.gone + 1) else {
            return Vec::new();
        };
        if let Some(entry) = state.steps.get_mut(index as usize)
            && entry.over.is_none()
        {
            entry.over = Some(result);
        }
        self.take_effect(&mut state, release)
    }

    fn take_effect(&self, state: &mut State, mut release: impl FnMut(u64)) -> Vec<Wake> {
        let mut due = Vec::new();
        while let Some(entry) = state.steps.pop_front() {
            let Some(result) = entry.over else {
                state.steps.push_front(entry);
                break;
            };
            state.gone += 1;
            let epoch = &entry.epoch;
            let reached = match (entry.step, result) {
                (Step::Value(native), _) => native,
                (_, Ok(())) => continue,
                (Step::Buffer { before, ordinal }, Err(cause)) => {
                    epoch.fail_after(before, &cause);
                    release(ordinal);
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

#[cfg(not(loom))]
thread_local! {
    /// What this thread has yet to fire, while it fires.
    static DUE: RefCell<Option<VecDeque<Wake>>> = const { RefCell::new(None) };
}
#[cfg(loom)]
loom::thread_local! {
    static DUE: RefCell<Option<VecDeque<Wake>>> = RefCell::new(None);
}

/// Fires them one after the other. Whoever is told may end a step of another completion_order, and
/// so on through thousands of streams: those come behind, they do not nest.
pub(crate) fn fire(wakes: Vec<Wake>) {
    if wakes.is_empty() {
        return;
    }
    let mut wakes = Some(wakes);
    let nested = DUE.try_with(|due| match &mut *due.borrow_mut() {
        Some(due) => {
            due.extend(wakes.take().into_iter().flatten());
            true
        }
        none => {
            *none = Some(wakes.take().into_iter().flatten().collect());
            false
        }
    });
    match nested {
        Ok(true) => {}
        Ok(false) => {
            while let Ok(Some(wake)) = DUE.try_with(|due| {
                let mut due = due.borrow_mut();
                let next = due.as_mut().and_then(VecDeque::pop_front);
                if next.is_none() {
                    *due = None;
                }
                next
            }) {
                wake.fire();
            }
        }
        // The thread is ending.
        Err(_) => wakes.into_iter().flatten().for_each(Wake::fire),
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use crate::{
        epochs::ValueAllocator,
        sync::thread,
        timeline::{Reached, loom_tests::stream_core},
    };

    /// A stream with a marker behind each of two buffers; gives their turns.
    fn two_buffers() -> (Arc<Epoch>, Arc<CompletionOrder>, [u64; 2]) {
        let epoch = ValueAllocator::new(stream_core()).now();
        let completion_order = Arc::new(CompletionOrder::new());
        let turns = [1, 2].map(|value| {
            let (ordinal, before) = (value, value - 1);
            let turn = completion_order.push(&epoch, Step::Buffer { ordinal, before });
            fire(completion_order.value(&epoch, value));
            turn
        });
        (epoch, completion_order, turns)
    }

    #[test]
    fn handlers_in_any_order_complete_all_markers() {
        loom::model(|| {
            let (epoch, completion_order, turns) = two_buffers();
            let other = {
                let completion_order = completion_order.clone();
                thread::spawn(move || fire(completion_order.finish(turns[1], Ok(()), |_| {})))
            };
            fire(completion_order.finish(turns[0], Ok(()), |_| {}));
            other.join().unwrap();
            assert_eq!(epoch.timeline.reached(2), Reached::Yes);
            assert_eq!(completion_order.reached(), 2);
        });
    }

    #[test]
    fn nothing_behind_a_failed_buffer_is_ever_complete() {
        loom::model(|| {
            let (epoch, completion_order, turns) = two_buffers();
            let other = {
                let completion_order = completion_order.clone();
                thread::spawn(move || fire(completion_order.finish(turns[1], Ok(()), |_| {})))
            };
            let looking = {
                let (epoch, completion_order) = (epoch.clone(), completion_order.clone());
                thread::spawn(move || {
                    epoch.settle(completion_order.reached());
                    assert_ne!(epoch.timeline.reached(1), Reached::Yes);
                })
            };
            let mut released = Vec::new();
            fire(
                completion_order.finish(turns[0], Err(Cause::new("x")), |ordinal| {
                    released.push(ordinal);
                }),
            );
            other.join().unwrap();
            looking.join().unwrap();
            assert_eq!(released, [1]);
            for value in [1, 2] {
                assert_eq!(epoch.timeline.reached(value), Reached::Failed);
            }
        });
    }
}
