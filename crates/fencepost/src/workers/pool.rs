//! A small pool of workers that starts tasks in the order in which they were pushed.
//!
//! # The protocol
//!
//! Everything is in [`State`] under one lock, except `Shared::queued`, a hint for spinning.
//!
//! | a worker is | counted in | until |
//! |---|---|---|
//! | running a task | `workers` | the task returns |
//! | blocked in a task, through this crate | `workers`, `blocked` | its wait ends |
//! | spinning (one at most) | `workers`, `spinning` | it looks at the queue under the lock, soon |
//! | asleep | `workers`, `idle` | a pusher takes it out of `idle` and wakes it |
//!
//! *Invariant: whenever the lock is free and the queue is not empty, some worker will come for it:*
//! one that spins, one just taken out of `idle`, one just spawned, or, where all workers that may
//! run are running tasks, the next of them to return. A pusher adds its task and chooses one of
//! these in one critical section. A worker goes to sleep only in a critical section in which it saw
//! the queue empty. A worker that takes a task and leaves others behind calls another worker.
//!
//! A task may also block in ways that this crate cannot see. A monitor thread, awake only while
//! tasks are queued, adds a worker whenever no task was taken for a while. Workers beyond the
//! target end when they are idle.

use std::{
    collections::VecDeque,
    sync::{Arc, Weak},
    time::Duration,
};

use crate::{
    deadlock::Blocking,
    diagnostics,
    error::{Error, Result},
    fork::Process,
    sync::{
        AtomicBool, AtomicUsize, Mutex, MutexGuard, Ordering, lock, park, sleep, spin_until, thread,
    },
};

/// Something to run on a worker. It never panics: it catches the panics of users' code.
pub(crate) trait Task: Send + Sync {
    fn run(self: Arc<Self>);
}

/// The owner's handle. Once it is dropped, the workers finish what is queued, and end.
pub(crate) struct Pool {
    shared: Arc<Shared>,
    blocking: Arc<dyn Blocking>,
}

/// How a task that blocks tells its pool.
struct Blocker(Arc<Shared>);

struct Shared {
    /// How many workers should be able to run at the same time.
    target: usize,
    process: Process,
    /// Whether there is a worker, so that tasks pushed from now on will run.
    started: AtomicBool,
    /// The queue's length, for spinning without the lock.
    queued: AtomicUsize,
    state: Mutex<State>,
}

struct State {
    queue: VecDeque<Arc<dyn Task>>,
    idle: Vec<Arc<Sleeper>>,
    workers: usize,
    blocked: usize,
    spinning: bool,
    closed: bool,
    /// How many tasks were ever taken, for the monitor.
    taken: u64,
    monitor: Monitor,
}

enum Monitor {
    NotStarted,
    Awake,
    Asleep(thread::Thread),
}

struct Sleeper {
    thread: thread::Thread,
    woken: AtomicBool,
}

/// How many workers may run tasks at the same time. Workers that block through this crate do not
/// count: whatever they wait for must find a worker.
const MAX_RUNNING: usize = 512;
/// How long a worker beyond the target waits for work before it ends.
const SURPLUS_IDLE: Duration = Duration::from_secs(1);
/// The monitor adds a worker when tasks are queued and none was taken for this long.
const STALL: Duration = Duration::from_millis(5);
/// The same once there are [`MANY_EXTRA`] workers beyond the target: the tasks may well be
/// computing, not blocked.
const SLOW_STALL: Duration = Duration::from_millis(50);
const MANY_EXTRA: usize = 64;

impl Pool {
    pub(crate) fn new(target: usize) -> Pool {
        let shared = Arc::new(Shared {
            target,
            process: Process::this(),
            started: AtomicBool::new(false),
            queued: AtomicUsize::new(0),
            state: Mutex::new(State {
                queue: VecDeque::new(),
                idle: Vec::new(),
                workers: 0,
                blocked: 0,
                spinning: false,
                closed: false,
                taken: 0,
                monitor: Monitor::NotStarted,
            }),
        });
        Pool {
            blocking: Arc::new(Blocker(shared.clone())),
            shared,
        }
    }

    /// Makes sure that there is a worker, so that a task pushed later will run.
    pub(crate) fn start(&self) -> Result<()> {
        if self.shared.started.load(Ordering::Acquire) {
            return Ok(());
        }
        let mut state = lock(&self.shared.state);
        if state.workers == 0 {
            state.workers += 1;
            drop(state);
            spawn_worker(&self.shared)?;
        }
        self.shared.started.store(true, Ordering::Release);
        Ok(())
    }

    /// Queues `task`. Never blocks on other tasks.
    pub(crate) fn push(&self, task: Arc<dyn Task>) {
        let mut state = lock(&self.shared.state);
        state.queue.push_back(task);
        self.shared
            .queued
            .store(state.queue.len(), Ordering::Release);
        summon(&self.shared, state);
    }

    /// What a task tells when it blocks.
    pub(crate) fn blocking(&self) -> &Arc<dyn Blocking> {
        &self.blocking
    }

    /// Whether this process is a fork of the one that has the workers.
    pub(crate) fn is_forked(&self) -> bool {
        !self.shared.process.is_this()
    }
}

/// Makes sure that a worker comes for the queue, which is not empty.
fn summon(shared: &Arc<Shared>, mut state: MutexGuard<'_, State>) {
    if state.spinning {
        return;
    }
    if let Some(sleeper) = state.idle.pop() {
        drop(state);
        sleeper.woken.store(true, Ordering::Release);
        sleeper.thread.unpark();
    } else if state.workers < shared.target + state.blocked {
        state.workers += 1;
        drop(state);
        // If no thread can be started, the present workers go on: `start` made sure of one.
        drop(spawn_worker(shared));
    } else {
        wake_monitor(shared, state);
    }
}

const WORKER: &str = "fencepost-host";
const MONITOR: &str = "fencepost-monitor";

fn spawn_worker(shared: &Arc<Shared>) -> Result<()> {
    let mine = shared.clone();
    let spawned = thread::Builder::new()
        .name(WORKER.into())
        .spawn(move || work(&mine));
    match spawned {
        Ok(_) => Ok(()),
        Err(error) => {
            lock(&shared.state).workers -= 1;
            let error = no_thread(&error);
            diagnostics::thread_not_started(WORKER, &error);
            Err(error)
        }
    }
}

fn no_thread(error: &std::io::Error) -> Error {
    Error::Backend {
        call: "std::thread::Builder::spawn",
        code: error.raw_os_error().unwrap_or(-1).into(),
        text: format!("{error}; raise the limit on threads, or end some"),
    }
}

fn work(shared: &Arc<Shared>) {
    let me = Arc::new(Sleeper {
        thread: thread::current(),
        woken: AtomicBool::new(false),
    });
    while let Some(task) = take(shared, &me) {
        task.run();
    }
}

/// The next task. `None` when this worker is to end; it is no longer counted then.
fn take(shared: &Arc<Shared>, me: &Arc<Sleeper>) -> Option<Arc<dyn Task>> {
    let mut looked = false;
    loop {
        let mut state = lock(&shared.state);
        if let Some(task) = state.queue.pop_front() {
            state.taken += 1;
            shared.queued.store(state.queue.len(), Ordering::Release);
            if !state.queue.is_empty() {
                summon(shared, state);
            }
            return Some(task);
        }
        if state.closed {
            state.workers -= 1;
            return None;
        }
        if !looked && !state.spinning && cfg!(not(loom)) {
            looked = true;
            state.spinning = true;
            drop(state);
            spin_until(None, || shared.queued.load(Ordering::Acquire) != 0);
            // Whether or not there was work, the loop looks again under the lock.
            lock(&shared.state).spinning = false;
            continue;
        }
        let surplus = state.workers > shared.target + state.blocked;
        state.idle.push(me.clone());
        drop(state);
        while !me.woken.load(Ordering::Acquire) {
            park(surplus.then_some(SURPLUS_IDLE));
            if surplus && !me.woken.load(Ordering::Acquire) {
                let mut state = lock(&shared.state);
                // Where it is not in the list, a pusher took it out and is about to wake it.
                if let Some(at) = state.idle.iter().position(|idle| Arc::ptr_eq(idle, me)) {
                    state.idle.swap_remove(at);
                    state.workers -= 1;
                    return None;
                }
            }
        }
        me.woken.store(false, Ordering::Relaxed);
        looked = false;
    }
}

impl Blocking for Blocker {
    fn begin(&self) {
        let mut state = lock(&self.0.state);
        state.blocked += 1;
        if !state.queue.is_empty() {
            summon(&self.0, state);
        }
    }

    fn end(&self) {
        lock(&self.0.state).blocked -= 1;
    }
}

fn wake_monitor(shared: &Arc<Shared>, mut state: MutexGuard<'_, State>) {
    if cfg!(loom) || matches!(state.monitor, Monitor::Awake) {
        return;
    }
    let before = std::mem::replace(&mut state.monitor, Monitor::Awake);
    drop(state);
    match before {
        Monitor::Asleep(thread) => thread.unpark(),
        Monitor::Awake => {}
        Monitor::NotStarted => {
            let weak = Arc::downgrade(shared);
            let spawned = thread::Builder::new()
                .name(MONITOR.into())
                .spawn(move || monitor(&weak));
            if let Err(error) = spawned {
                lock(&shared.state).monitor = Monitor::NotStarted;
                diagnostics::thread_not_started(MONITOR, &no_thread(&error));
            }
        }
    }
}

/// Adds workers while tasks are queued and none is taken.
fn monitor(shared: &Weak<Shared>) {
    let mut seen = u64::MAX;
    let mut pause = STALL;
    loop {
        sleep(pause);
        let Some(shared) = shared.upgrade() else {
            return;
        };
        let mut state = lock(&shared.state);
        if state.closed {
            return;
        }
        if state.queue.is_empty() {
            state.monitor = Monitor::Asleep(thread::current());
            drop(state);
            // A sleeping monitor must not keep the pool's state alive. The pool's drop wakes it.
            drop(shared);
            park(None);
            seen = u64::MAX;
            continue;
        }
        let stalled = state.taken == seen;
        seen = state.taken;
        let extra = state.workers.saturating_sub(shared.target);
        pause = match extra < MANY_EXTRA {
            true => STALL,
            false => SLOW_STALL,
        };
        if stalled && state.workers < MAX_RUNNING + state.blocked {
            state.workers += 1;
            drop(state);
            drop(spawn_worker(&shared));
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // A forked child has no workers, and the lock may be held by a thread of the parent's.
        if self.is_forked() {
            return;
        }
        let mut state = lock(&self.shared.state);
        state.closed = true;
        let idle = std::mem::take(&mut state.idle);
        let monitor = std::mem::replace(&mut state.monitor, Monitor::Awake);
        drop(state);
        for sleeper in idle {
            sleeper.woken.store(true, Ordering::Release);
            sleeper.thread.unpark();
        }
        if let Monitor::Asleep(thread) = monitor {
            thread.unpark();
        }
    }
}
