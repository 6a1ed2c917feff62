//! The delivery of callbacks: handlers of command buffers, and blocks of listeners.

use crate::dispatch::{Work, Worker};
use fencepost_sim::lock;
use std::io;
use std::sync::Mutex;

/// Sends blocks to the threads that call them.
pub(crate) struct Callbacks {
    completion: Worker,
    /// The callbacks that were due since a test has paused them; `None` while they are not paused.
    paused: Mutex<Option<Vec<(Worker, Work)>>>,
}

impl Callbacks {
    pub(crate) fn new() -> io::Result<Callbacks> {
        Ok(Callbacks {
            completion: Worker::serial("Metal completion handlers (stand-in)")?,
            paused: Mutex::new(None),
        })
    }

    /// Calls a command buffer's handler.
    pub(crate) fn complete(&self, work: Work) {
        self.deliver(&self.completion, work);
    }

    /// Calls a block on a dispatch queue.
    pub(crate) fn deliver(&self, worker: &Worker, work: Work) {
        let mut paused = lock(&self.paused);
        match &mut *paused {
            Some(paused) => paused.push((worker.clone(), work)),
            None => {
                drop(paused);
                worker.send(work);
            }
        }
    }

    pub(crate) fn pause(&self) {
        lock(&self.paused).get_or_insert_default();
    }

    pub(crate) fn resume(&self) {
        let paused = lock(&self.paused).take();
        for (worker, work) in paused.into_iter().flatten() {
            worker.send(work);
        }
    }

    pub(crate) fn paused(&self) -> usize {
        lock(&self.paused).as_ref().map_or(0, Vec::len)
    }
}
