//! A pool of workers that starts tasks in the order in which they were pushed.
//!
//! # The protocol
//!
//! Everything is in [`State`] under one lock, except `Shared::queued`, a hint for spinning.
//!
//! | a worker is | [`Doing`] | active | until |
//! |---|---|---|---|
//! | on its way to the queue: just started, woken, back from a task, or spinning (one at most) | `Coming` | yes | it looks at the queue under the lock, soon |
//! | running a task | `Running` | yes | the task returns |
//! | blocked in a task that has said so | `Told` | no | the task says that it goes on |
//! | blocked in a task, as the monitor saw | `Seen` | no | the monitor sees it run, or the task returns |
//! | asleep | `Idle`, and it is in `idle` | no | a caller takes it out of `idle` and wakes it |
//!
//! `target` is how many workers should be active, `max_threads` how many there may be at all.
//!
//! *Invariant: whenever the lock is free and the queue is not empty, some worker will come for it,
//! or all threads that there may be are blocked.* Either a worker is `Coming`; or as many as the
//! target are active, the first of them to return, or to block, sees to the queue, and the monitor
//! is awake; or no thread can be had, and the monitor tries again. A pusher adds its task and calls
//! a worker, if fewer than the target are active, in one critical section. A worker that takes a
//! task and leaves others behind calls another one. A worker that begins to block does, too.
//!
//! *Invariant: a worker takes a task only while no more workers than the target are active, itself
//! included.* When blocked tasks go on, more than the target are active for a while; those whose
//! tasks return first then go to sleep and leave the queue to the others. So whatever is computing
//! is not slowed down by more threads than there are cores.
//!
//! Tasks that block in ways that this crate cannot see are found by [`monitor`], which is awake
//! only while tasks are queued and as many workers as the target are active. Workers beyond the
//! target end when they have been idle for a while.

use std::{
    collections::VecDeque,
    sync::{Arc, Weak},
    time::Duration,
};

use super::{
    monitor,
    probe::Probe,
    state::{Doing, Found, Monitor, Shared, Sleeper, State, Task},
};
use crate::{
    deadlock::Blocking,
    diagnostics,
    error::{Error, Result},
    fork::Process,
    sync::{AtomicBool, AtomicUsize, Mutex, MutexGuard, Ordering, lock, park, spin_until, thread},
};

/// The owner's handle. Once it is dropped, the workers finish what is queued, and end.
pub(crate) struct Pool {
    pub(super) shared: Arc<Shared>,
}

/// How many threads a pool has at most, if nobody says otherwise.
pub(crate) const MAX_THREADS: usize = 4096;
/// How long a worker beyond the target waits for work before it ends.
const SURPLUS_IDLE: Duration = Duration::from_secs(1);

impl Pool {
    /// At most `target` workers run at the same time, those that are blocked not counted.
    #[cfg_attr(not(has_gpu), allow(dead_code))]
    pub(crate) fn new(target: usize) -> Pool {
        Pool::with_max_threads(target, MAX_THREADS)
    }

    /// The same, on at most `max_threads` threads, or `target` of them where that is more.
    pub(crate) fn with_max_threads(target: usize, max_threads: usize) -> Pool {
        Pool {
            shared: Arc::new(Shared {
                target,
                max_threads: max_threads.max(target),
                process: Process::this(),
                started: AtomicBool::new(false),
                queued: AtomicUsize::new(0),
                state: Mutex::new(State {
                    queue: VecDeque::new(),
                    idle: Vec::new(),
                    workers: Vec::new(),
                    free: Vec::new(),
                    blocked: 0,
                    seen: 0,
                    spinning: false,
                    closed: false,
                    taken: 0,
                    monitor: Monitor::NotStarted,
                }),
            }),
        }
    }

    /// Makes sure that there is a worker, so that a task pushed later will run.
    pub(crate) fn start(&self) -> Result<()> {
        if self.shared.started.load(Ordering::Acquire) {
            return Ok(());
        }
        let mut state = lock(&self.shared.state);
        if state.live() == 0 {
            let place = state.add_worker();
            drop(state);
            spawn_worker(&self.shared, place)?;
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

    /// Whether this process is a fork of the one that has the workers.
    pub(crate) fn is_forked(&self) -> bool {
        !self.shared.process.is_this()
    }

    /// Why no queued task will start before another one returns, in words for the text of a
    /// timeout. `None` while any worker is at work, or can be had.
    pub(crate) fn exhausted(&self) -> Option<String> {
        let state = lock(&self.shared.state);
        let (queued, threads) = (state.queue.len(), state.live());
        let exhausted = queued > 0 && threads >= self.shared.max_threads && state.active() == 0;
        exhausted.then(|| {
            let queued = match queued {
                1 => "1 stream has".into(),
                n => format!("{n} streams have"),
            };
            format!(
                "no thread is free: {queued} work queued, and all {threads} threads \
                 of the pool, its most, are blocked in other work; let that work return, or make \
                 the device with a higher HostOptions::max_threads"
            )
        })
    }
}

/// Calls a worker for the queue, which is not empty, if fewer than the target are active.
fn summon(shared: &Arc<Shared>, mut state: MutexGuard<'_, State>) {
    if state.spinning {
        return;
    }
    if state.active() >= shared.target {
        return wake_monitor(shared, state);
    }
    if let Some(sleeper) = state.idle.pop() {
        state.workers[sleeper.place].doing = Doing::Coming;
        drop(state);
        sleeper.woken.store(true, Ordering::Release);
        sleeper.thread.unpark();
    } else if state.live() < shared.max_threads {
        let place = state.add_worker();
        drop(state);
        if spawn_worker(shared, place).is_err() {
            // The present workers go on: `start` made sure of one. If all of them are blocked, the
            // monitor tries again.
            wake_monitor(shared, lock(&shared.state));
        }
    }
}

/// Notes what a look found, and calls as many workers for the queue as may be active now. Gives the
/// number that are [`Doing::Seen`] after it.
fn note(shared: &Arc<Shared>, found: Vec<Found>) -> usize {
    let mut state = lock(&shared.state);
    for finding in found {
        state.note(finding);
    }
    let seen = state.seen;
    let free = shared.target.saturating_sub(state.active());
    let wanted = free.min(state.queue.len());
    drop(state);
    for _ in 0..wanted {
        let state = lock(&shared.state);
        if !state.queue.is_empty() {
            summon(shared, state);
        }
    }
    seen
}

const WORKER: &str = "fencepost-host";
const MONITOR: &str = "fencepost-monitor";

fn spawn_worker(shared: &Arc<Shared>, place: usize) -> Result<()> {
    let mine = shared.clone();
    let spawned = thread::Builder::new()
        .name(WORKER.into())
        .spawn(move || work(&mine, place));
    match spawned {
        Ok(_) => Ok(()),
        Err(error) => {
            lock(&shared.state).free.push(place);
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

fn work(shared: &Arc<Shared>, place: usize) {
    let probe = Probe::of_this_thread().map(Arc::new);
    lock(&shared.state).workers[place].probe = probe;
    let me = Arc::new(Sleeper {
        place,
        thread: thread::current(),
        woken: AtomicBool::new(false),
    });
    let blocking: Arc<dyn Blocking> = Arc::new(Blocker {
        shared: shared.clone(),
        place,
    });
    while let Some(task) = take(shared, &me) {
        task.run(&blocking);
    }
}

/// The next task. `None` when this worker is to end; it has no place any more then.
///
/// In a child that was forked in a task, this thread alone is left of the pool, and the queue is
/// the parent's. Its end is the end of the child, unless that has started threads.
fn take(shared: &Arc<Shared>, me: &Arc<Sleeper>) -> Option<Arc<dyn Task>> {
    if !shared.process.is_this() {
        return None;
    }
    let mut looked = false;
    loop {
        let mut state = lock(&shared.state);
        state.arrive(me.place);
        let wanted = state.active() <= shared.target;
        if wanted && let Some(task) = state.queue.pop_front() {
            state.taken += 1;
            let taken = state.taken;
            let worker = &mut state.workers[me.place];
            worker.doing = Doing::Running;
            worker.task = taken;
            worker.cpu_time = None;
            shared.queued.store(state.queue.len(), Ordering::Release);
            if !state.queue.is_empty() {
                summon(shared, state);
            }
            return Some(task);
        }
        if state.closed {
            state.free.push(me.place);
            return None;
        }
        if wanted && !looked && !state.spinning && cfg!(not(loom)) {
            looked = true;
            state.spinning = true;
            drop(state);
            spin_until(None, || shared.queued.load(Ordering::Acquire) != 0);
            // Whether or not there was work, the loop looks again under the lock.
            lock(&shared.state).spinning = false;
            continue;
        }
        state.workers[me.place].doing = Doing::Idle;
        state.idle.push(me.clone());
        let surplus = state.is_surplus(shared.target);
        // Workers that came back from a wait may have made this one unwanted on its way to a task.
        // If they block out of sight, only the monitor sees to that task.
        match state.queue.is_empty() {
            true => drop(state),
            false => wake_monitor(shared, state),
        }
        if !is_called(shared, me, surplus) {
            return None;
        }
        looked = false;
    }
}

/// Sleeps until a caller wakes this worker. `false` if it has given up its place instead, for it
/// was `surplus` for a while.
fn is_called(shared: &Shared, me: &Arc<Sleeper>, mut surplus: bool) -> bool {
    while !me.woken.load(Ordering::Acquire) {
        park(surplus.then_some(SURPLUS_IDLE));
        if surplus && !me.woken.load(Ordering::Acquire) {
            let mut state = lock(&shared.state);
            // Where it is not in the list, a caller took it out and is about to wake it.
            let at = state.idle.iter().position(|idle| Arc::ptr_eq(idle, me));
            surplus = at.is_some() && state.is_surplus(shared.target);
            if surplus && let Some(at) = at {
                state.idle.swap_remove(at);
                state.free.push(me.place);
                return false;
            }
        }
    }
    me.woken.store(false, Ordering::Relaxed);
    true
}

/// How a task that blocks tells its pool.
struct Blocker {
    shared: Arc<Shared>,
    place: usize,
}

impl Blocking for Blocker {
    fn begin(&self) {
        let mut state = lock(&self.shared.state);
        let worker = &mut state.workers[self.place];
        worker.told += 1;
        if worker.told > 1 {
            return;
        }
        match std::mem::replace(&mut worker.doing, Doing::Told) {
            Doing::Seen => state.seen -= 1,
            _ => state.blocked += 1,
        }
        if !state.queue.is_empty() {
            summon(&self.shared, state);
        }
    }

    fn end(&self) {
        let mut state = lock(&self.shared.state);
        let worker = &mut state.workers[self.place];
        worker.told -= 1;
        if worker.told == 0 {
            worker.doing = Doing::Running;
            worker.cpu_time = None;
            state.blocked -= 1;
        }
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
            let weak: Weak<Shared> = Arc::downgrade(shared);
            let spawned = thread::Builder::new()
                .name(MONITOR.into())
                .spawn(move || monitor::run(&weak, note));
            if let Err(error) = spawned {
                lock(&shared.state).monitor = Monitor::NotStarted;
                diagnostics::thread_not_started(MONITOR, &no_thread(&error));
            }
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

#[cfg(all(test, unix, not(loom), not(miri)))]
mod fork_tests {
    use std::sync::mpsc;

    use super::*;
    use crate::{deadlock, fork::tests::in_a_child};

    const PATIENCE: Duration = Duration::from_secs(120);

    /// Forks once it may, and tells whether the child could make a call that blocks.
    struct Forks {
        started: mpsc::Sender<()>,
        go: Mutex<mpsc::Receiver<()>>,
        tell: mpsc::Sender<bool>,
    }

    impl Task for Forks {
        fn run(self: Arc<Self>, worker: &Arc<dyn Blocking>) {
            deadlock::enter(None, worker, || {
                self.started.send(()).unwrap();
                lock(&self.go).recv_timeout(PATIENCE).unwrap();
                let could = in_a_child(|| deadlock::blocking(|| true));
                self.tell.send(could).unwrap();
            });
        }
    }

    #[test]
    fn a_child_forked_in_a_task_takes_no_lock_of_the_pool() {
        let pool = Pool::new(1);
        pool.start().unwrap();
        let (started, starts) = mpsc::channel();
        let (may_go, go) = mpsc::channel();
        let (tell, told) = mpsc::channel();
        let go = Mutex::new(go);
        pool.push(Arc::new(Forks { started, go, tell }));
        starts.recv_timeout(PATIENCE).unwrap();
        let state = lock(&pool.shared.state);
        may_go.send(()).unwrap();
        assert!(told.recv_timeout(PATIENCE).unwrap(), "the child hangs");
        drop(state);
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::{super::state::Finding, *};
    use crate::sync::AtomicUsize;

    /// What the tasks of a model share.
    struct World {
        /// How many tasks are computing.
        computing: AtomicUsize,
        progress: Mutex<Progress>,
        changed: loom::sync::Condvar,
    }

    #[derive(Default)]
    struct Progress {
        started: usize,
        done: usize,
        /// By [`Piece::Releases`]; those that block await it.
        released: bool,
    }

    impl World {
        fn new() -> Arc<World> {
            Arc::new(World {
                computing: AtomicUsize::new(0),
                progress: Mutex::new(Progress::default()),
                changed: loom::sync::Condvar::new(),
            })
        }

        fn compute(&self) {
            let others = self.computing.fetch_add(1, Ordering::SeqCst);
            assert_eq!(others, 0, "more tasks compute at once than the target");
            self.computing.fetch_sub(1, Ordering::SeqCst);
        }

        fn change(&self, change: impl FnOnce(&mut Progress)) {
            change(&mut lock(&self.progress));
            self.changed.notify_all();
        }

        fn wait(&self, done: impl Fn(&Progress) -> bool) {
            let mut progress = lock(&self.progress);
            while !done(&progress) {
                progress = self.changed.wait(progress).unwrap();
            }
        }
    }

    enum Piece {
        /// Blocks until it is released, and says so.
        Says(Arc<World>),
        /// Blocks until it is released, and tells nobody.
        Silent(Arc<World>),
        /// Computes, and releases those that block.
        Releases(Arc<World>),
    }

    impl Task for Piece {
        fn run(self: Arc<Self>, worker: &Arc<dyn Blocking>) {
            let (Piece::Says(world) | Piece::Silent(world) | Piece::Releases(world)) = &*self;
            world.change(|progress| progress.started += 1);
            match &*self {
                Piece::Says(_) => {
                    worker.begin();
                    // As where one call that blocks makes another.
                    worker.begin();
                    world.wait(|progress| progress.released);
                    worker.end();
                    worker.end();
                }
                Piece::Silent(_) => world.wait(|progress| progress.released),
                Piece::Releases(_) => {
                    world.compute();
                    world.change(|progress| progress.released = true);
                }
            }
            world.change(|progress| progress.done += 1);
        }
    }

    /// A pool for one task at a time, with one that blocks and, behind it, one that releases it.
    fn blocked_and_released(blocks: fn(Arc<World>) -> Piece) -> (Pool, Arc<World>) {
        let (pool, world) = (Pool::with_max_threads(1, 2), World::new());
        pool.start().unwrap();
        pool.push(Arc::new(blocks(world.clone())));
        pool.push(Arc::new(Piece::Releases(world.clone())));
        (pool, world)
    }

    /// A look that finds the worker which runs the task of this number blocked, or not.
    fn look(shared: &Arc<Shared>, task: u64, blocked: bool) {
        let running = |doing| matches!(doing, Doing::Running | Doing::Seen);
        let found: Vec<Found> = lock(&shared.state)
            .workers
            .iter()
            .enumerate()
            .filter(|(_, worker)| running(worker.doing) && worker.task == task)
            .map(|(place, worker)| {
                let finding = match blocked {
                    true => Finding::Blocked(None),
                    false => Finding::Runs(None),
                };
                (place, worker.task, finding)
            })
            .collect();
        note(shared, found);
    }

    #[test]
    fn a_worker_that_says_it_blocks_is_replaced_at_once() {
        loom::model(|| {
            let (pool, world) = blocked_and_released(Piece::Says);
            world.wait(|progress| progress.done == 2);
            drop(pool);
        });
    }

    #[test]
    fn a_worker_that_was_seen_blocked_is_replaced_and_returns() {
        loom::model(|| {
            let (pool, world) = blocked_and_released(Piece::Silent);
            // A look finds the task only once it is taken.
            world.wait(|progress| progress.started == 1);
            look(&pool.shared, 1, true);
            world.wait(|progress| progress.done == 2);
            // It is seen to go on, if it has not come back to the queue before.
            look(&pool.shared, 1, false);
            let state = lock(&pool.shared.state);
            assert!(state.live() <= 2 && state.seen == 0 && state.blocked == 0);
            drop(state);
            drop(pool);
        });
    }

    #[test]
    fn no_more_than_the_target_compute_once_the_blocked_go_on() {
        loom::model(|| {
            let (pool, world) = blocked_and_released(Piece::Silent);
            world.wait(|progress| progress.started == 1);
            look(&pool.shared, 1, true);
            // Both workers may come for this one while the other is still at work.
            pool.push(Arc::new(Piece::Releases(world.clone())));
            world.wait(|progress| progress.done == 3);
            drop(pool);
        });
    }
}
