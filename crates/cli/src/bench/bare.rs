//! What the host backend is compared with: bare primitives, and a simple event of a mutex and a
//! condition variable.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU8, Ordering},
        mpsc,
    },
    thread::{Builder, JoinHandle, Thread, current, park},
    time::{Duration, Instant},
};

use crate::Stop;

fn spawn(work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, Stop> {
    let spawned = Builder::new().name("bare".into()).spawn(work);
    spawned.map_err(|error| Stop::Failed(format!("cannot start a thread: {error}")))
}

/// Two threads that wake each other by park and unpark alone.
pub(super) struct PingPong {
    turn: Arc<AtomicU8>,
    other: Option<JoinHandle<()>>,
}

const HERE: u8 = 0;
const THERE: u8 = 1;
const END: u8 = 2;

impl PingPong {
    /// Used by this thread alone.
    pub(super) fn new() -> Result<PingPong, Stop> {
        let turn = Arc::new(AtomicU8::new(HERE));
        let (theirs, here): (_, Thread) = (turn.clone(), current());
        let other = spawn(move || {
            loop {
                match theirs.load(Ordering::Acquire) {
                    HERE => park(),
                    THERE => {
                        theirs.store(HERE, Ordering::Release);
                        here.unpark();
                    }
                    _ => return,
                }
            }
        })?;
        let other = Some(other);
        Ok(PingPong { turn, other })
    }

    pub(super) fn round_trip(&self) {
        self.pass(THERE);
        while self.turn.load(Ordering::Acquire) == THERE {
            park();
        }
    }

    fn pass(&self, to: u8) {
        self.turn.store(to, Ordering::Release);
        if let Some(other) = &self.other {
            other.thread().unpark();
        }
    }
}

impl Drop for PingPong {
    fn drop(&mut self) {
        self.pass(END);
        if let Some(other) = self.other.take() {
            let _ = other.join();
        }
    }
}

/// The naive design: a worker thread with a locked queue, and an event that is a locked flag.
pub(super) struct Naive {
    shared: Arc<(Mutex<VecDeque<Op>>, Condvar)>,
    worker: Option<JoinHandle<()>>,
}

enum Op {
    Work(Box<dyn FnOnce() + Send>),
    Signal(Arc<NaiveEvent>),
    End,
}

#[derive(Default)]
pub(super) struct NaiveEvent {
    done: Mutex<bool>,
    changed: Condvar,
}

impl NaiveEvent {
    pub(super) fn signal(&self) {
        *lock(&self.done) = true;
        self.changed.notify_all();
    }

    pub(super) fn synchronize(&self) {
        let mut done = lock(&self.done);
        while !*done {
            done = wait(&self.changed, done);
        }
    }
}

impl Naive {
    pub(super) fn new() -> Result<Naive, Stop> {
        let shared = Arc::new((Mutex::new(VecDeque::new()), Condvar::new()));
        let theirs = shared.clone();
        let worker = spawn(move || {
            let (ops, pushed) = &*theirs;
            loop {
                let mut queue = lock(ops);
                let op = loop {
                    match queue.pop_front() {
                        Some(op) => break op,
                        None => queue = wait(pushed, queue),
                    }
                };
                drop(queue);
                match op {
                    Op::Work(work) => work(),
                    Op::Signal(event) => event.signal(),
                    Op::End => return,
                }
            }
        })?;
        let worker = Some(worker);
        Ok(Naive { shared, worker })
    }

    pub(super) fn launch(&self, work: impl FnOnce() + Send + 'static) {
        self.push(Op::Work(Box::new(work)));
    }

    pub(super) fn record(&self, event: &Arc<NaiveEvent>) {
        *lock(&event.done) = false;
        self.push(Op::Signal(event.clone()));
    }

    /// What is launched later runs once `event` is signalled.
    pub(super) fn wait(&self, event: &Arc<NaiveEvent>) {
        let event = event.clone();
        self.launch(move || event.synchronize());
    }

    /// Waits until everything so far has run.
    pub(super) fn settle(&self) {
        let end = Arc::new(NaiveEvent::default());
        self.record(&end);
        end.synchronize();
    }

    fn push(&self, op: Op) {
        let (ops, pushed) = &*self.shared;
        lock(ops).push_back(op);
        pushed.notify_one();
    }
}

impl Drop for Naive {
    fn drop(&mut self) {
        self.push(Op::End);
        if let Some(worker) = self.worker.take() {
            let _ = worker.join();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn wait<'a, T>(condvar: &Condvar, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
    condvar.wait(guard).unwrap_or_else(PoisonError::into_inner)
}

/// How long it takes to start this many threads that block, and one more, until that one runs.
pub(super) fn behind_blocked_threads(count: usize) -> Result<Duration, Stop> {
    let (release, blocked) = mpsc::channel::<()>();
    let blocked = Arc::new(Mutex::new(blocked));
    let (tell, told) = mpsc::channel();
    let start = Instant::now();
    let mut threads = Vec::with_capacity(count + 1);
    for _ in 0..count {
        let blocked = blocked.clone();
        threads.push(spawn(move || {
            // Ends when the sender is dropped.
            let _ = blocked
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .recv();
        })?);
    }
    threads.push(spawn(move || {
        let _ = tell.send(start.elapsed());
        drop(release);
    })?);
    for thread in threads {
        let _ = thread.join();
    }
    told.recv().map_err(|error| Stop::Failed(error.to_string()))
}
