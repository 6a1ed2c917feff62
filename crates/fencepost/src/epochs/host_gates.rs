//! The turns for which the host holds a stream back: they let go in the order in which they were
//! taken.
//!
//! A stream waits for turn after turn on one native counter, so signalling a turn lets all before
//! it go too. Hence a turn that is done early waits for those in front of it. The signal is made
//! under the lock: two threads must not signal two turns the wrong way round.

use std::collections::VecDeque;

use crate::sync::{Mutex, lock};

pub(crate) struct HostGates {
    state: Mutex<State>,
}

struct State {
    /// The last turn that was let go.
    gone: u64,
    /// Whether the turns behind it are done.
    done: VecDeque<bool>,
}

impl HostGates {
    pub(crate) fn new() -> HostGates {
        HostGates {
            state: Mutex::new(State {
                gone: 0,
                done: VecDeque::new(),
            }),
        }
    }

    /// Takes the next turn. Call it under the stream's submit lock, so that turns are in its order.
    pub(crate) fn take(&self) -> u64 {
        let mut state = lock(&self.state);
        state.done.push_back(false);
        state.gone + state.done.len() as u64
    }

    /// The turn is done: calls `signal` with the last turn that may go now, if one may.
    pub(crate) fn done(&self, turn: u64, signal: impl FnOnce(u64)) {
        let mut state = lock(&self.state);
        let Some(index) = turn.checked_sub(state.gone + 1) else {
            return;
        };
        if let Some(done) = state.done.get_mut(index as usize) {
            *done = true;
        }
        let before = state.gone;
        while let Some(true) = state.done.front() {
            state.done.pop_front();
            state.gone += 1;
        }
        if state.gone > before {
            signal(state.gone);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn turns_go_in_the_order_in_which_they_were_taken() {
        let holds = HostGates::new();
        let turns = [holds.take(), holds.take(), holds.take()];
        let mut went = Vec::new();
        for at in [1, 2, 0] {
            holds.done(turns[at], |turn| went.push(turn));
        }
        assert_eq!(went, [3], "the first holds back the others");
        let next = holds.take();
        holds.done(next, |turn| went.push(turn));
        holds.done(next, |turn| went.push(turn));
        assert_eq!(went, [3, 4]);
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use std::sync::Arc;

    use super::*;
    use crate::sync::{AtomicU64, Ordering, thread};

    #[test]
    fn signals_only_grow_and_reach_the_last_turn() {
        loom::model(|| {
            let (holds, counter) = (Arc::new(HostGates::new()), Arc::new(AtomicU64::new(0)));
            let turns = [holds.take(), holds.take()];
            let done = |turn| {
                let (holds, counter) = (holds.clone(), counter.clone());
                move || {
                    holds.done(turn, |gone| {
                        assert!(counter.swap(gone, Ordering::AcqRel) < gone);
                    });
                }
            };
            let other = thread::spawn(done(turns[1]));
            done(turns[0])();
            other.join().unwrap();
            assert_eq!(counter.load(Ordering::Acquire), 2);
        });
    }
}
