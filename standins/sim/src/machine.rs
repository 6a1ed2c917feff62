//! The lock that all devices of a machine share, and the threads that sleep until its state
//! changes.
//!
//! Callers' closures and values are called and dropped without the lock. The one exception is the
//! condition of [`Command::wait_until`](crate::Command::wait_until).

use crate::command::Op;
use crate::lock;
use crate::object::ObjectTracker;
use crate::state::State;
use crate::{Config, Error, Waited};
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

pub(crate) struct Machine {
    pub(crate) tracker: Arc<ObjectTracker>,
    state: Mutex<State>,
    /// How many threads are dropping callers' values. Incremented with the lock held.
    dropping: AtomicUsize,
    changed_for_hosts: Condvar,
    changed_for_steppers: Condvar,
}

impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Machine").finish_non_exhaustive()
    }
}

impl Machine {
    pub(crate) fn new(config: &Config) -> Arc<Machine> {
        Arc::new(Machine {
            tracker: Arc::default(),
            state: Mutex::new(State::new(config)),
            dropping: AtomicUsize::new(0),
            changed_for_hosts: Condvar::new(),
            changed_for_steppers: Condvar::new(),
        })
    }

    /// Runs `f` with the state locked. Afterwards it wakes the threads that may continue, and
    /// drops `deferred_drops`.
    pub(crate) fn with<R>(&self, f: impl FnOnce(&mut State) -> R) -> R {
        let mut state = self.lock();
        let before = state.changes;
        let result = f(&mut state);
        let changed = state.changes != before;
        // a wake-up is a system call, and most steps have no sleeping thread
        let wake_hosts = changed && state.sleeping_hosts > 0;
        let wake_steppers = changed && state.sleeping_steppers > 0;
        let dropped = std::mem::take(&mut state.deferred_drops);
        let drops = !dropped.is_empty();
        if drops {
            self.dropping.fetch_add(1, Ordering::SeqCst);
        }
        drop(state);
        if wake_hosts {
            self.changed_for_hosts.notify_all();
        }
        if wake_steppers {
            self.changed_for_steppers.notify_all();
        }
        if drops {
            // a destructor may panic, and the count must fall all the same
            let _guard = Decrement(&self.dropping);
            drop(dropped);
        }
        result
    }

    /// Whether no batch is pending, no handler is due or running, and no value is being dropped.
    pub(crate) fn is_quiescent(&self) -> bool {
        let state = self.lock();
        state.active.is_empty()
            && state.handler_calls.is_empty()
            && state.running_handlers == 0
            && self.dropping.load(Ordering::SeqCst) == 0
    }

    /// Blocks the calling thread until `over` returns a result or the timeout runs out.
    pub(crate) fn host_wait(
        &self,
        timeout: Option<Duration>,
        mut over: impl FnMut(&State) -> Option<Result<(), Error>>,
    ) -> Result<Waited, Error> {
        // a deadline that the clock cannot represent is no limit
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

    /// Blocks until `reached` holds, the device is lost or closed, or the timeout runs out.
    pub(crate) fn wait_on_device(
        &self,
        device: usize,
        timeout: Option<Duration>,
        reached: impl Fn() -> bool,
    ) -> Result<Waited, Error> {
        self.host_wait(timeout, |state| match reached() {
            true => Some(Ok(())),
            false => state.device_error(device).map(Err),
        })
    }

    pub(crate) fn changes(&self) -> u64 {
        self.lock().changes
    }

    /// As `host_wait`, for a condition that is evaluated without the lock.
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

    /// Puts a stepping thread to sleep until something has changed since `seen`.
    pub(crate) fn stepper_wait(&self, seen: u64, stop: impl Fn() -> bool) {
        let mut state = self.lock();
        while state.changes == seen && !stop() {
            // a condition may start to hold without a call of the machine
            let polling = state.queues_with_work().any(|queue| {
                queue
                    .in_flight
                    .iter()
                    .any(|batch| matches!(batch.next_op(), Some(Op::WaitUntil(_))))
            });
            state.sleeping_steppers += 1;
            state = sleep(
                &self.changed_for_steppers,
                state,
                polling.then_some(Duration::from_millis(1)),
            );
            state.sleeping_steppers -= 1;
            if polling {
                return;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

struct Decrement<'a>(&'a AtomicUsize);

impl Drop for Decrement<'_> {
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
