//! Where the markers of one wait tell that they have ended, and where its thread sleeps.
//!
//! # The protocol
//!
//! | in `state` | meaning |
//! |---|---|
//! | `ended` | what has ended, and was not taken out yet |
//! | `sleeper` | who is to be woken by the next that ends; none where nobody sleeps |
//!
//! `count` is the length of `ended`, to be looked at without the lock.
//!
//! *Invariant: what has ended and was not taken out is in `ended`, and then there is no sleeper, or
//! somebody is about to wake it.* Who sleeps puts itself there under the lock under which it finds
//! `ended` empty. Who tells takes the sleeper out under the lock under which it puts something in,
//! and wakes it without the lock.

use std::{
    mem,
    time::{Duration, Instant},
};

use crate::{
    error::Result,
    panics::contain,
    sync::{AtomicU64, Mutex, Ordering, lock, park, thread},
    timeline::Waiter,
};

/// The number of a marker: in the low half its place, which is free for another one once the marker
/// has ended; in the high half, how many were added before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Number(u64);

impl Number {
    pub(super) fn new(added: u32, place: usize) -> Number {
        Number(u64::from(added) << 32 | place as u64)
    }

    /// No other marker has this place at the same time.
    pub(super) fn place(self) -> usize {
        (self.0 & u64::from(u32::MAX)) as usize
    }
}

/// A marker of a wait, and how it ended.
pub(super) type Ended = (Number, Result<()>);

pub(super) struct Inbox {
    count: Apart<AtomicU64>,
    state: Mutex<State>,
}

/// In lines of a core's cache of its own. Who waits looks at the count again and again: that must
/// not take the line with the lock away from who tells.
#[repr(align(128))]
struct Apart<T>(T);

struct State {
    ended: Vec<Ended>,
    sleeper: Option<Waiter>,
}

impl Inbox {
    pub(super) fn new() -> Inbox {
        Inbox {
            count: Apart(AtomicU64::new(0)),
            state: Mutex::new(State {
                ended: Vec::new(),
                sleeper: None,
            }),
        }
    }

    /// Tells that a marker has ended, and wakes who sleeps.
    pub(super) fn put(&self, ended: Ended) {
        let mut state = lock(&self.state);
        state.ended.push(ended);
        let count = state.ended.len() as u64;
        self.count.0.store(count, Ordering::Release);
        let sleeper = state.sleeper.take();
        drop(state);
        if let Some(sleeper) = sleeper {
            sleeper.fire(&Ok(()));
        }
    }

    /// Whether nothing is there. One atomic load.
    pub(super) fn is_empty(&self) -> bool {
        self.count.0.load(Ordering::Acquire) == 0
    }

    /// Takes out what is there, into a list that is empty.
    pub(super) fn take(&self, ended: &mut Vec<Ended>) {
        debug_assert!(ended.is_empty());
        if !self.is_empty() {
            let mut state = lock(&self.state);
            self.count.0.store(0, Ordering::Release);
            mem::swap(&mut state.ended, ended);
        }
    }

    /// Has `sleeper` fired by the next that ends, in place of the one before. Gives it back where
    /// something is there already.
    pub(super) fn wake_by(&self, sleeper: Waiter) -> Option<Waiter> {
        let mut state = lock(&self.state);
        if !state.ended.is_empty() {
            return Some(sleeper);
        }
        let before = state.sleeper.replace(sleeper);
        drop(state);
        // A waker is the user's code.
        contain(|| drop(before));
        None
    }

    /// Nobody sleeps any more.
    pub(super) fn wake_nobody(&self) {
        let before = lock(&self.state).sleeper.take();
        contain(|| drop(before));
    }

    /// Blocks until something is there, or `deadline` has passed.
    pub(super) fn sleep(&self, deadline: Option<Instant>) {
        if self.wake_by(Waiter::Thread(thread::current())).is_some() {
            return;
        }
        while self.is_empty() {
            match deadline {
                None => park(None),
                Some(deadline) => match deadline.checked_duration_since(Instant::now()) {
                    Some(left) if left > Duration::ZERO => park(Some(left)),
                    _ => return self.wake_nobody(),
                },
            }
        }
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use std::sync::Arc;

    use super::*;

    fn taken_from(inbox: &Inbox) -> Vec<Ended> {
        let mut taken = Vec::new();
        inbox.take(&mut taken);
        taken
    }

    #[test]
    fn who_sleeps_is_woken_by_whoever_is_first() {
        loom::model(|| {
            let inbox = Arc::new(Inbox::new());
            let tells = |id| {
                let inbox = inbox.clone();
                thread::spawn(move || inbox.put((Number::new(0, id), Ok(()))))
            };
            let tellers = [tells(1), tells(2)];
            // Not the thread that joins: a late unpark would wake it out of loom's join.
            let sleeper = {
                let inbox = inbox.clone();
                thread::spawn(move || {
                    let mut taken = Vec::new();
                    while taken.len() < 2 {
                        inbox.sleep(None);
                        taken.extend(taken_from(&inbox).into_iter().map(|(id, _)| id.place()));
                    }
                    taken.sort_unstable();
                    taken
                })
            };
            assert_eq!(sleeper.join().unwrap(), [1, 2]);
            for teller in tellers {
                teller.join().unwrap();
            }
        });
    }

    #[test]
    fn a_deadline_takes_the_sleeper_back() {
        loom::model(|| {
            let inbox = Arc::new(Inbox::new());
            let sleeper = {
                let inbox = inbox.clone();
                thread::spawn(move || {
                    inbox.sleep(Some(Instant::now()));
                    taken_from(&inbox).len()
                })
            };
            inbox.put((Number::new(0, 1), Ok(())));
            let taken = sleeper.join().unwrap();
            assert_eq!(taken + taken_from(&inbox).len(), 1);
            assert!(lock(&inbox.state).sleeper.is_none());
        });
    }
}
