//! The lock that all devices of a machine share, and who sleeps on it. Nothing that a test or a
//! face handed over is called or dropped while it is held (but [`Command::WaitUntil`], which says
//! so).

use crate::ledger::Ledger;
use crate::life::Full;
use crate::state::State;
use crate::{Batch, Command, Config, Error, QueueId, Submission, Waited};
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

pub(crate) struct Machine {
    pub(crate) ledger: Arc<Ledger>,
    state: Mutex<State>,
    /// Threads that drop what others own; grows under the lock.
    dropping: AtomicUsize,
    changed_for_hosts: Condvar,
    changed_for_drivers: Condvar,
}

impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Machine").finish_non_exhaustive()
    }
}

impl Machine {
    pub(crate) fn new(config: &Config) -> Arc<Machine> {
        Arc::new(Machine {
            ledger: Arc::default(),
            state: Mutex::new(State::new(config)),
            dropping: AtomicUsize::new(0),
            changed_for_hosts: Condvar::new(),
            changed_for_drivers: Condvar::new(),
        })
    }

    /// Runs `f` with the state locked; afterwards wakes who may go on and drops what is to be
    /// dropped.
    pub(crate) fn with<R>(&self, f: impl FnOnce(&mut State) -> R) -> R {
        let mut state = self.lock();
        let before = state.changes;
        let result = f(&mut state);
        let changed = state.changes != before;
        // each of these is a system call, and most steps have nobody waiting
        let wake_hosts = changed && state.sleeping_hosts > 0;
        let wake_drivers = changed && state.sleeping_drivers > 0;
        let trash = std::mem::take(&mut state.trash);
        let drops = !trash.is_empty();
        if drops {
            self.dropping.fetch_add(1, Ordering::SeqCst);
        }
        drop(state);
        if wake_hosts {
            self.changed_for_hosts.notify_all();
        }
        if wake_drivers {
            self.changed_for_drivers.notify_all();
        }
        if drops {
            // a destructor that panics must not leave the count too high
            let _count = Count(&self.dropping);
            drop(trash);
        }
        result
    }

    /// Whether no batch is pending, no handler is due or running, and nothing is being dropped.
    pub(crate) fn is_quiet(&self) -> bool {
        let state = self.lock();
        state.active.is_empty()
            && state.notifications.is_empty()
            && state.calling == 0
            && self.dropping.load(Ordering::SeqCst) == 0
    }

    /// Blocks the calling thread until `over` gives a result or the time is up.
    pub(crate) fn host_wait(
        &self,
        timeout: Option<Duration>,
        mut over: impl FnMut(&State) -> Option<Result<(), Error>>,
    ) -> Result<Waited, Error> {
        // a deadline beyond what the clock can say is none
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let mut state = self.lock();
        loop {
            if let Some(result) = over(&state) {
                return result.map(|()| Waited::Reached);
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return Ok(Waited::TimedOut);
            }
            state.sleeping_hosts += 1;
            state = sleep(&self.changed_for_hosts, state, left);
            state.sleeping_hosts -= 1;
        }
    }

    pub(crate) fn changes(&self) -> u64 {
        self.lock().changes
    }

    /// As `host_wait`, for a condition that must be asked without the lock.
    pub(crate) fn host_wait_unlocked(
        &self,
        timeout: Option<Duration>,
        mut over: impl FnMut() -> bool,
    ) -> Waited {
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        loop {
            let seen = self.changes();
            if over() {
                return Waited::Reached;
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let changed = self.host_wait(left, |state| (state.changes != seen).then_some(Ok(())));
            if changed == Ok(Waited::TimedOut) {
                return if over() {
                    Waited::Reached
                } else {
                    Waited::TimedOut
                };
            }
        }
    }

    /// Lets a driver sleep until something has changed since `seen`.
    pub(crate) fn driver_wait(&self, seen: u64, stop: impl Fn() -> bool) {
        let mut state = self.lock();
        while state.changes == seen && !stop() {
            // nobody tells the machine that the word such a wait looks at has changed
            let polling = state.queues_with_work().any(|queue| {
                queue
                    .in_flight
                    .iter()
                    .any(|batch| matches!(batch.commands.front(), Some(Command::WaitUntil(_))))
            });
            state.sleeping_drivers += 1;
            state = sleep(
                &self.changed_for_drivers,
                state,
                polling.then_some(Duration::from_millis(1)),
            );
            state.sleeping_drivers -= 1;
            if polling {
                return;
            }
        }
    }

    pub(crate) fn submit(
        self: &Arc<Self>,
        id: QueueId,
        submission: Submission,
    ) -> Result<Batch, Error> {
        let mut submission = Some(submission);
        loop {
            match self.with(|state| state.submit(id, &mut submission, &self.ledger)) {
                Ok((batch, view)) => {
                    return Ok(Batch {
                        machine: self.clone(),
                        id: batch,
                        view,
                    });
                }
                Err(Full::Error(error)) => return Err(error),
                Err(Full::Block) => {}
            }
            // whether there is room for this thread is decided again under the lock
            let _ = self.host_wait(None, |state| match state.room(id) {
                Ok(true) => Some(Ok(())),
                Ok(false) => None,
                Err(error) => Some(Err(error)),
            })?;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Count<'a>(&'a AtomicUsize);

impl Drop for Count<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

fn sleep<'a>(
    on: &Condvar,
    state: MutexGuard<'a, State>,
    at_most: Option<Duration>,
) -> MutexGuard<'a, State> {
    match at_most {
        Some(time) => {
            on.wait_timeout(state, time)
                .unwrap_or_else(PoisonError::into_inner)
                .0
        }
        None => on.wait(state).unwrap_or_else(PoisonError::into_inner),
    }
}
