//! The thread that ends at its deadline what nobody ended before: one for the process, started with
//! the first deadline.
//!
//! # The protocol
//!
//! | `thread` | meaning | who moves it on |
//! |---|---|---|
//! | `None` | there is no thread | `add`, which starts one |
//! | `Awake` | it sees everything in `pending` before it sleeps again | itself |
//! | `Asleep` | it is parked until the time given there, or for ever | itself, or `add`, which unparks it for an earlier deadline |
//!
//! *Invariant: a thread that is `Asleep` sleeps no longer than until the first deadline in
//! `pending`.* Both are under one lock. The thread becomes `Asleep` in the same critical section in
//! which it reads the first deadline; `add` looks at `thread` in the one in which it adds. An
//! unpark in between is not lost, since the park that follows returns at once.
//!
//! The thread has no lock of this module while it ends something. With nothing pending it sleeps.

use std::{
    collections::BTreeMap,
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use crate::{
    error::{Error, Result},
    sync::{Mutex, lock, park, thread},
};

/// What ends at its deadline.
pub(crate) trait Expire: Send + Sync {
    /// The deadline has passed. Called on the thread for deadlines, and must not block.
    fn expire(&self);
}

/// A deadline that was added. The number tells apart those of one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Deadline {
    at: Instant,
    number: u64,
}

pub(crate) struct Deadlines {
    state: Mutex<State>,
}

struct State {
    pending: BTreeMap<Deadline, Weak<dyn Expire>>,
    added: u64,
    thread: Thread,
}

enum Thread {
    None,
    Awake,
    Asleep {
        thread: thread::Thread,
        until: Option<Instant>,
    },
}

const NAME: &str = "fencepost-timer";

impl Deadlines {
    pub(crate) fn new() -> Arc<Deadlines> {
        Deadlines::with(Thread::None)
    }

    fn with(thread: Thread) -> Arc<Deadlines> {
        Arc::new(Deadlines {
            state: Mutex::new(State {
                pending: BTreeMap::new(),
                added: 0,
                thread,
            }),
        })
    }

    /// Has `what` expire at `at`, unless it is removed or gone by then.
    ///
    /// # Errors
    /// The thread cannot be started. Nothing was added then.
    pub(crate) fn add(self: &Arc<Self>, at: Instant, what: Weak<dyn Expire>) -> Result<Deadline> {
        let mut state = lock(&self.state);
        state.added += 1;
        let deadline = Deadline {
            at,
            number: state.added,
        };
        let later = |until: &Option<Instant>| until.is_none_or(|until| at < until);
        match &state.thread {
            Thread::None => {
                self.start()?;
                state.thread = Thread::Awake;
            }
            Thread::Asleep { thread, until } if later(until) => {
                thread.unpark();
                state.thread = Thread::Awake;
            }
            Thread::Asleep { .. } | Thread::Awake => {}
        }
        state.pending.insert(deadline, what);
        Ok(deadline)
    }

    /// Forgets a deadline. No-op where it has passed.
    pub(crate) fn remove(&self, deadline: Deadline) {
        let gone = lock(&self.state).pending.remove(&deadline);
        // Dropped without the lock.
        drop(gone);
    }

    /// Starts the thread, which waits for the lock.
    fn start(self: &Arc<Self>) -> Result<()> {
        let this = self.clone();
        let run = move || {
            loop {
                this.turn(park);
            }
        };
        let spawned = thread::Builder::new().name(NAME.into()).spawn(run);
        spawned.map(drop).map_err(|error| Error::no_thread(&error))
    }

    /// Ends what is due; where nothing is, parks until the first deadline.
    fn turn(&self, park: impl FnOnce(Option<Duration>)) {
        let now = Instant::now();
        let mut state = lock(&self.state);
        let mut due = Vec::new();
        while let Some(first) = state.pending.first_entry() {
            if first.key().at > now {
                break;
            }
            due.push(first.remove());
        }
        if due.is_empty() {
            let until = state.pending.keys().next().map(|first| first.at);
            state.thread = Thread::Asleep {
                thread: thread::current(),
                until,
            };
            drop(state);
            park(until.map(|until| until.saturating_duration_since(now)));
            lock(&self.state).thread = Thread::Awake;
            return;
        }
        drop(state);
        for what in due {
            if let Some(what) = what.upgrade() {
                what.expire();
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::mpsc;

    use super::*;

    struct Tells(mpsc::Sender<u32>, u32);

    impl Expire for Tells {
        fn expire(&self) {
            let _ = self.0.send(self.1);
        }
    }

    #[test]
    fn deadlines_pass_in_their_order_and_removed_ones_never() {
        // Longer each time that the machine was too slow to add all of them in time.
        let mut unit = Duration::from_millis(10);
        while !pass_in_order(unit) {
            unit *= 4;
        }
    }

    /// Whether all were added before the first one's time came.
    fn pass_in_order(unit: Duration) -> bool {
        let deadlines = Deadlines::new();
        let (tell, told) = mpsc::channel();
        let all: Vec<Arc<dyn Expire>> = (0..4)
            .map(|number| Arc::new(Tells(tell.clone(), number)) as _)
            .collect();
        let now = Instant::now();
        deadlines
            .add(now + unit * 4, Arc::downgrade(&all[0]))
            .unwrap();
        let removed = deadlines.add(now + unit, Arc::downgrade(&all[1])).unwrap();
        deadlines
            .add(now + unit * 3, Arc::downgrade(&all[2]))
            .unwrap();
        deadlines
            .add(now + unit * 2, Arc::downgrade(&all[3]))
            .unwrap();
        deadlines.remove(removed);
        let in_time = now.elapsed() < unit;
        let passed: Vec<_> = (0..3).map(|_| told.recv().unwrap()).collect();
        if in_time {
            assert_eq!(passed, [3, 2, 0]);
            assert!(told.try_recv().is_err());
        }
        in_time
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use crate::sync::{AtomicUsize, Ordering};

    struct Counts(AtomicUsize);

    impl Expire for Counts {
        fn expire(&self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// The thread parks without a limit, so that only `add` ends its sleep.
    fn a_deadline_that_has_passed_is_seen(later: Option<Duration>) {
        loom::model(move || {
            let deadlines = Deadlines::with(Thread::Awake);
            let what = Arc::new(Counts(AtomicUsize::new(0)));
            let weak = || -> Weak<dyn Expire> { Arc::downgrade(&(what.clone() as Arc<_>)) };
            if let Some(later) = later {
                deadlines.add(Instant::now() + later, weak()).unwrap();
            }
            let sleeping = {
                let (deadlines, what) = (deadlines.clone(), what.clone());
                thread::spawn(move || {
                    while what.0.load(Ordering::SeqCst) == 0 {
                        deadlines.turn(|_| park(None));
                    }
                })
            };
            deadlines.add(Instant::now(), weak()).unwrap();
            sleeping.join().unwrap();
            assert_eq!(what.0.load(Ordering::SeqCst), 1);
        });
    }

    #[test]
    fn the_first_deadline_wakes_the_thread() {
        a_deadline_that_has_passed_is_seen(None);
    }

    #[test]
    fn an_earlier_deadline_wakes_the_thread() {
        a_deadline_that_has_passed_is_seen(Some(Duration::from_secs(3600)));
    }
}
