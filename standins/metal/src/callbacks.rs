//! The delivery of callbacks: handlers of command buffers, and blocks of listeners.

use crate::dispatch::{Work, Worker};
use fencepost_sim::lock;
use std::io;
use std::sync::Mutex;

/// Sends blocks to the threads that call them.
pub(crate) struct Callbacks {
    completion: Worker,
    /// The callbacks that a test delays.
    held: Mutex<Option<Vec<(Worker, Work)>>>,
}

impl Callbacks {
    pub(crate) fn new() -> io::Result<Callbacks> {
        Ok(Callbacks {
            completion: Worker::serial("Metal completion handlers (stand-in)")?,
            held: Mutex::new(None),
        })
    }

    /// Calls a command buffer's handler.
    pub(crate) fn complete(&self, work: Work) {
        self.deliver(&self.completion, work);
    }

    /// Calls a block on a dispatch queue.
    pub(crate) fn deliver(&self, worker: &Worker, work: Work) {
        let mut held = lock(&self.held);
        match &mut *held {
            Some(held) => held.push((worker.clone(), work)),
            None => {
                drop(held);
                worker.send(work);
            }
        }
    }

    pub(crate) fn hold(&self) {
        lock(&self.held).get_or_insert_default();
    }

    pub(crate) fn release(&self) {
        let held = lock(&self.held).take();
        for (worker, work) in held.into_iter().flatten() {
            worker.send(work);
        }
    }

    pub(crate) fn held(&self) -> usize {
        lock(&self.held).as_ref().map_or(0, Vec::len)
    }
}
