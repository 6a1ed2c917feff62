//! The host gates of a stream, which open in the order in which the stream waits for them.
//!
//! All gates of a stream are values of one native counter, called tickets. Signalling a ticket
//! opens all gates before it too, so a gate whose marker is complete early stays closed until those
//! in front of it may open. Signals are made under the lock, so that two threads cannot signal two
//! tickets in the wrong order.

use std::{collections::VecDeque, time::Duration};

use crate::sync::{Mutex, lock, sleep};

pub(crate) struct HostGates {
    state: Mutex<State>,
}

struct State {
    /// The last ticket that was signalled.
    signalled: u64,
    /// Whether the gates of the tickets after it may open.
    done: VecDeque<bool>,
}

impl HostGates {
    pub(crate) fn new() -> HostGates {
        HostGates {
            state: Mutex::new(State {
                signalled: 0,
                done: VecDeque::new(),
            }),
        }
    }

    /// Takes the next ticket. Call it under the stream's submit lock, so that tickets are in its
    /// order.
    pub(crate) fn take(&self) -> u64 {
        let mut state = lock(&self.state);
        state.done.push_back(false);
        state.signalled + state.done.len() as u64
    }

    /// The gate of `ticket` may open: calls `signal` with the last ticket that may be signalled
    /// now, if one may.
    pub(crate) fn done(&self, ticket: u64, signal: impl FnOnce(u64)) {
        let mut state = lock(&self.state);
        let Some(index) = ticket.checked_sub(state.signalled + 1) else {
            return;
        };
        if let Some(done) = state.done.get_mut(index as usize) {
            *done = true;
        }
        let before = state.signalled;
        while let Some(true) = state.done.front() {
            state.done.pop_front();
            state.signalled += 1;
        }
        if state.signalled > before {
            signal(state.signalled);
        }
    }

    /// For the end of the process: calls `signal` with the last ticket taken, if its gate is not
    /// open yet. No-op where a signal of another thread does not return within a moment, or was
    /// begun by the calling thread.
    pub(crate) fn all_done(&self, signal: impl FnOnce(u64)) {
        for _ in 0..200 {
            if let Ok(mut state) = self.state.try_lock() {
                if !state.done.is_empty() {
                    state.signalled += state.done.len() as u64;
                    state.done.clear();
                    signal(state.signalled);
                }
                return;
            }
            sleep(Duration::from_millis(1));
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn gates_open_in_the_order_in_which_their_tickets_were_taken() {
        let gates = HostGates::new();
        let tickets = [gates.take(), gates.take(), gates.take()];
        let mut signalled = Vec::new();
        for at in [1, 2, 0] {
            gates.done(tickets[at], |ticket| signalled.push(ticket));
        }
        assert_eq!(signalled, [3], "the first holds back the others");
        let next = gates.take();
        gates.done(next, |ticket| signalled.push(ticket));
        gates.done(next, |ticket| signalled.push(ticket));
        assert_eq!(signalled, [3, 4]);
    }

    #[test]
    fn at_the_end_all_gates_open_at_once() {
        let gates = HostGates::new();
        gates.all_done(|_| unreachable!("there is no gate"));
        let tickets = [gates.take(), gates.take()];
        let mut signalled = Vec::new();
        gates.all_done(|ticket| signalled.push(ticket));
        gates.done(tickets[0], |ticket| signalled.push(ticket));
        assert_eq!(signalled, [2]);
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use std::sync::Arc;

    use super::*;
    use crate::sync::{AtomicU64, Ordering, thread};

    #[test]
    fn signals_only_grow_and_reach_the_last_ticket() {
        loom::model(|| {
            let (gates, counter) = (Arc::new(HostGates::new()), Arc::new(AtomicU64::new(0)));
            let tickets = [gates.take(), gates.take()];
            let done = |ticket| {
                let (gates, counter) = (gates.clone(), counter.clone());
                move || {
                    gates.done(ticket, |last| {
                        assert!(counter.swap(last, Ordering::AcqRel) < last);
                    });
                }
            };
            let other = thread::spawn(done(tickets[1]));
            done(tickets[0])();
            other.join().unwrap();
            assert_eq!(counter.load(Ordering::Acquire), 2);
        });
    }
}
