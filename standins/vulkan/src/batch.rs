//! Submitted batches, and the faults that tests plan for submits.

use crate::device::Shared;
use fencepost_sim::Flag;
use std::sync::Arc;

/// A submitted batch. The objects that it uses are in use until it is over.
///
/// `done` is set before the batch's signals run. So a host that has seen a signal may destroy and
/// reset the objects.
#[derive(Debug)]
pub(crate) struct SubmittedBatch {
    pub(crate) done: Flag,
    pub(crate) device: Arc<Shared>,
}

impl SubmittedBatch {
    /// Whether it is complete, or its device is lost.
    pub(crate) fn over(&self) -> bool {
        self.done.is_set() || self.device.lost()
    }
}

/// A fault that a test plans for a submit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SubmitFault {
    /// Its work runs until the test releases it.
    Hang,
    /// Its work runs; its semaphores and its fence are never signalled.
    Silent,
    /// Its work fails and the device is lost.
    Lose,
}
