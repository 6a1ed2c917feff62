//! What a pool knows of its queue and its workers, all under one lock. The protocol is at the head
//! of [`pool`](super::pool).

use std::{collections::VecDeque, sync::Arc};

use super::probe::Probe;
use crate::{
    deadlock::Blocking,
    fork::Process,
    sync::{AtomicBool, AtomicUsize, Mutex, thread},
};

/// Something to run on a worker. It never panics: it catches the panics of users' code. In a child
/// that was forked in users' code it returns at once, since a thread of the parent may hold a lock.
pub(crate) trait Task: Send + Sync {
    /// `worker` is to be told when the task blocks.
    fn run(self: Arc<Self>, worker: &Arc<dyn Blocking>);
}

pub(super) struct Shared {
    pub(super) target: usize,
    pub(super) max_threads: usize,
    pub(super) process: Process,
    /// Whether there is a worker, so that tasks pushed from now on will run.
    pub(super) started: AtomicBool,
    /// The queue's length, for spinning without the lock.
    pub(super) queued: AtomicUsize,
    pub(super) state: Mutex<State>,
}

pub(super) struct State {
    pub(super) queue: VecDeque<Arc<dyn Task>>,
    pub(super) idle: Vec<Arc<Sleeper>>,
    /// By the number of the worker's place. Those of places in `free` mean nothing.
    pub(super) workers: Vec<Worker>,
    pub(super) free: Vec<usize>,
    /// How many are [`Doing::Told`] or [`Doing::Seen`].
    pub(super) blocked: usize,
    /// How many are [`Doing::Seen`].
    pub(super) seen: usize,
    pub(super) spinning: bool,
    pub(super) closed: bool,
    /// How many tasks were ever taken.
    pub(super) taken: u64,
    pub(super) monitor: Monitor,
}

pub(super) struct Worker {
    pub(super) doing: Doing,
    /// The number of its latest task: the value of `taken`.
    pub(super) task: u64,
    /// How many calls that block are nested in the task.
    pub(super) told: u32,
    /// `None` until the worker arrives, and where the system cannot tell.
    pub(super) probe: Option<Arc<Probe>>,
    /// The CPU time at the latest look, if that saw the present task.
    pub(super) cpu_time: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Doing {
    Coming,
    Running,
    Told,
    Seen,
    Idle,
}

/// What a look at a worker's thread found, with its CPU time where the system tells that.
pub(super) enum Finding {
    /// It ran since the last look, or could have, had it been given a core.
    Runs(Option<u64>),
    Blocked(Option<u64>),
}

/// The finding, for the worker of this place while it runs the task of this number.
pub(super) type Found = (usize, u64, Finding);

pub(super) enum Monitor {
    NotStarted,
    Awake,
    Asleep(thread::Thread),
}

pub(super) struct Sleeper {
    pub(super) place: usize,
    pub(super) thread: thread::Thread,
    pub(super) woken: AtomicBool,
}

impl State {
    /// How many workers are running a task, or on their way to the queue.
    pub(super) fn active(&self) -> usize {
        self.live() - self.idle.len() - self.blocked
    }

    pub(super) fn live(&self) -> usize {
        self.workers.len() - self.free.len()
    }

    /// A place for a worker that is about to be started.
    pub(super) fn add_worker(&mut self) -> usize {
        let worker = Worker {
            doing: Doing::Coming,
            task: 0,
            told: 0,
            probe: None,
            cpu_time: None,
        };
        match self.free.pop() {
            Some(place) => {
                self.workers[place] = worker;
                place
            }
            None => {
                self.workers.push(worker);
                self.workers.len() - 1
            }
        }
    }

    /// The worker of this place comes to the queue.
    pub(super) fn arrive(&mut self, place: usize) {
        let before = std::mem::replace(&mut self.workers[place].doing, Doing::Coming);
        if before == Doing::Seen {
            self.blocked -= 1;
            self.seen -= 1;
        }
    }

    /// Notes what a look found. What a worker has done since then makes it void.
    pub(super) fn note(&mut self, (place, task, finding): Found) {
        let worker = &mut self.workers[place];
        if worker.task != task {
            return;
        }
        match (worker.doing, finding) {
            (Doing::Running, Finding::Blocked(cpu_time)) => {
                worker.cpu_time = cpu_time;
                worker.doing = Doing::Seen;
                self.blocked += 1;
                self.seen += 1;
            }
            (Doing::Seen, Finding::Runs(cpu_time)) => {
                worker.cpu_time = cpu_time;
                worker.doing = Doing::Running;
                self.blocked -= 1;
                self.seen -= 1;
            }
            (Doing::Running, Finding::Runs(cpu_time)) => worker.cpu_time = cpu_time,
            _ => {}
        }
    }

    /// Whether there are more workers than could be active.
    pub(super) fn is_surplus(&self, target: usize) -> bool {
        self.live() > target + self.blocked
    }
}
