//! Where users' callbacks run: one at a time, in order, on a worker, with no lock held.
//!
//! A callback never runs on a stream, so that a slow one delays other callbacks but no stream. It
//! never runs within the call that completed the marker or asked for the callback, so that it
//! cannot run under a lock of its caller's, nor inside another callback.

use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use super::{pool::Pool, state::Task};
use crate::{
    core::{Callbacks, Job},
    deadlock::{self, Blocking},
    diagnostics, exit,
    panics::{discard, text_of},
    sync::{AtomicU64, Mutex, Ordering, lock},
};

/// A serial queue of callbacks on a pool.
pub(crate) struct CallbackQueue {
    shared: Arc<Shared>,
}

struct Shared {
    pool: Arc<Pool>,
    queue: Mutex<Queue>,
    panics: AtomicU64,
}

/// *Invariant: where there are jobs, the pool has the queue, or a worker is running it, or whoever
/// put the last one there is about to start it.* A worker that finds no job gives the queue up
/// under the lock under which it looked.
///
/// Once the process ends, the worker that sees it leaves the queue scheduled: nobody runs it again.
struct Queue {
    jobs: VecDeque<Job>,
    /// Whether the pool has this queue, or a worker is running it.
    scheduled: bool,
}

impl CallbackQueue {
    pub(crate) fn new(pool: Arc<Pool>) -> CallbackQueue {
        CallbackQueue {
            shared: Arc::new(Shared {
                pool,
                queue: Mutex::new(Queue {
                    jobs: VecDeque::new(),
                    scheduled: false,
                }),
                panics: AtomicU64::new(0),
            }),
        }
    }
}

impl Callbacks for CallbackQueue {
    fn push(&self, job: Job) {
        match self.shared.pool.is_forked() {
            true => std::mem::forget(job),
            false => lock(&self.shared.queue).jobs.push_back(job),
        }
    }

    fn start(&self) {
        if self.shared.pool.is_forked() {
            return;
        }
        let mut queue = lock(&self.shared.queue);
        if queue.jobs.is_empty() || std::mem::replace(&mut queue.scheduled, true) {
            return;
        }
        drop(queue);
        self.shared.pool.push(self.shared.clone());
    }

    fn panics(&self) -> u64 {
        self.shared.panics.load(Ordering::Relaxed)
    }
}

impl Task for Shared {
    fn run(self: Arc<Self>, worker: &Arc<dyn Blocking>) {
        deadlock::enter(None, worker, || {
            loop {
                let mut queue = lock(&self.queue);
                let Some(job) = queue.jobs.pop_front() else {
                    queue.scheduled = false;
                    return;
                };
                drop(queue);
                if exit::has_begun() {
                    // Exit handlers let markers complete that are pending. Their callbacks, and
                    // what those hold, are the user's and never run from here on.
                    return std::mem::forget(job);
                }
                let ended = catch_unwind(AssertUnwindSafe(job));
                if self.pool.is_forked() {
                    // A child that was forked in the callback.
                    return std::mem::forget(ended);
                }
                if let Err(payload) = ended {
                    self.panics.fetch_add(1, Ordering::Relaxed);
                    diagnostics::callback_panicked(&text_of(&*payload));
                    discard(payload);
                }
            }
        });
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use crate::sync::{AtomicUsize, thread};

    #[test]
    fn whatever_is_queued_runs_once_in_order_whoever_starts() {
        loom::model(|| {
            let pool = Arc::new(Pool::with_max_threads(1, 1));
            pool.start().unwrap();
            let queue = Arc::new(CallbackQueue::new(pool.clone()));
            let ran = Arc::new(AtomicUsize::new(0));
            let job = |number| {
                let ran = ran.clone();
                move || assert_eq!(ran.fetch_add(1, Ordering::SeqCst), number)
            };
            queue.push(Box::new(job(0)));
            queue.push(Box::new(job(1)));
            let other = {
                let queue = queue.clone();
                thread::spawn(move || queue.start())
            };
            queue.start();
            // Were one never run, this would never end, which loom reports.
            while ran.load(Ordering::SeqCst) != 2 {
                thread::yield_now();
            }
            other.join().unwrap();
            queue.call(Box::new(job(2)));
            while ran.load(Ordering::SeqCst) != 3 {
                thread::yield_now();
            }
            assert_eq!(queue.panics(), 0);
            drop(pool);
        });
    }
}
