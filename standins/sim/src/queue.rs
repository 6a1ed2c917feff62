//! Queues, and the batches that they have accepted.

use crate::lifecycle::Refused;
use crate::machine::Machine;
use crate::object::Object;
use crate::status::{HostView, View};
use crate::{Error, Order, QueueId, Status, Submission, Waited};
use std::sync::Arc;
use std::time::Duration;

/// A batch that a queue has accepted. Dropping it does not affect the device. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Batch {
    machine: Arc<Machine>,
    id: u64,
    view: HostView,
}

impl Batch {
    /// Its number, as in the trace. Later submits have greater numbers.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Its state. Never blocks.
    pub fn status(&self) -> Status {
        self.view.lock().status.clone()
    }

    /// Blocks until the batch is complete or failed, or the timeout runs out. Its handlers may not
    /// have run. Another thread must step the device meanwhile.
    pub fn wait(&self, timeout: Option<Duration>) -> Waited {
        self.wait_for(timeout, |view| matches!(view.status, Status::Ended(_)))
    }

    /// As [`Batch::wait`], but also waits until the batch's handlers have returned, as Metal's
    /// `waitUntilCompleted` does.
    pub fn wait_with_handlers(&self, timeout: Option<Duration>) -> Waited {
        self.wait_for(timeout, |view| {
            matches!(view.status, Status::Ended(_)) && view.handlers_left == 0
        })
    }

    fn wait_for(&self, timeout: Option<Duration>, over: impl Fn(&View) -> bool) -> Waited {
        let ended = self
            .machine
            .host_wait(timeout, |_| over(&self.view.lock()).then_some(Ok(())));
        // this wait never fails: a lost or closed device ends its batches
        ended.unwrap_or(Waited::Reached)
    }
}

/// A queue of a simulated device. Cheap to clone. Pending work still runs after the last clone is
/// dropped.
#[derive(Clone, Debug)]
pub struct Queue(pub(crate) Arc<QueueHandle>);

#[derive(Debug)]
pub(crate) struct QueueHandle {
    pub(crate) machine: Arc<Machine>,
    pub(crate) id: QueueId,
    /// Held for the count of live queues.
    pub(crate) _object: Arc<Object>,
}

impl Queue {
    /// Its device and index.
    pub fn id(&self) -> QueueId {
        self.0.id
    }

    /// How it orders its batches.
    pub fn order(&self) -> Result<Order, Error> {
        self.0
            .machine
            .with(|state| state.queue(self.0.id).map(|queue| queue.order))
    }

    /// Submits a batch. Blocks only while the queue is full, and only if the configuration says
    /// so.
    ///
    /// # Errors
    /// The batch is dropped and none of its commands run: `DeviceLost`, `DeviceClosed`,
    /// `QueueFailed`, `QueueFull`, `SubmitFailed` (a planned fault), `Destroyed` or `OtherDevice`
    /// for an object that it names, `AlreadySubmitted`.
    pub fn submit(&self, submission: Submission) -> Result<Batch, Error> {
        let QueueHandle { machine, id, .. } = &*self.0;
        let mut submission = Some(submission);
        loop {
            match machine.with(|state| state.submit(*id, &mut submission, &machine.tracker)) {
                Ok((batch, view)) => {
                    return Ok(Batch {
                        machine: machine.clone(),
                        id: batch,
                        view,
                    });
                }
                Err(Refused::Error(error)) => return Err(error),
                Err(Refused::Block) => {}
            }
            // another thread may fill the queue first, so the loop submits again under the lock
            let _ = machine.host_wait(None, |state| match state.has_room(*id) {
                Ok(true) => Some(Ok(())),
                Ok(false) => None,
                Err(error) => Some(Err(error)),
            })?;
        }
    }

    /// How many batches are pending, which means not reported complete or failed. Never blocks.
    pub fn pending(&self) -> usize {
        self.0
            .machine
            .with(|state| state.queue(self.0.id).map_or(0, |queue| queue.pending()))
    }

    /// Blocks until no batch is pending or the timeout runs out. Another thread must step the
    /// device meanwhile.
    ///
    /// # Errors
    /// `DeviceLost`, `DeviceClosed`. `QueueFailed` if an earlier failure sticks to the queue.
    pub fn wait_idle(&self, timeout: Option<Duration>) -> Result<Waited, Error> {
        let id = self.0.id;
        self.0.machine.host_wait(timeout, |state| {
            if let Some(error) = state.device_error(id.device) {
                return Some(Err(error));
            }
            match state.queue(id) {
                Err(error) => Some(Err(error)),
                Ok(queue) if queue.pending() > 0 => None,
                Ok(queue) => Some(
                    queue
                        .error
                        .clone()
                        .map_or(Ok(()), |why| Err(Error::QueueFailed(why))),
                ),
            }
        })
    }

    /// The failure that sticks to the queue, if there is one. Never blocks.
    pub fn error(&self) -> Option<String> {
        self.0.machine.with(|state| {
            state
                .queue(self.0.id)
                .ok()
                .and_then(|queue| queue.error.clone())
        })
    }

    /// Makes a failed queue usable again. Never blocks.
    pub fn clear_error(&self) {
        self.0.machine.with(|state| {
            if let Some(queue) = state.queues.get_mut(&self.0.id) {
                queue.error = None;
            }
        });
    }
}

impl Drop for QueueHandle {
    fn drop(&mut self) {
        self.machine.with(|state| {
            if let Some(queue) = state.queues.get_mut(&self.id) {
                queue.handle_dropped = true;
            }
            state.remove_if_done(self.id);
        });
    }
}
