//! Faults that a test plans.

use crate::Planned;

/// Something that will go wrong once, planned with
/// [`SimDevice::inject`](crate::SimDevice::inject).
///
/// `queue` is the queue's index in the order of creation on its device (see
/// [`QueueId`](crate::QueueId)). It may be the index of a queue that does not exist yet; `None`
/// counts the submits of all queues. Counting starts when the fault is planned, with 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The `nth` submit fails, and none of its commands run.
    Submit {
        /// The queue.
        queue: Option<usize>,
        /// The number of the submit.
        nth: u64,
    },
    /// The batch of the `nth` accepted submit fails while it runs.
    Batch {
        /// The queue.
        queue: Option<usize>,
        /// The number of the submit.
        nth: u64,
        /// How many of its commands run before it fails. A batch with no more commands fails at its
        /// end.
        after: usize,
    },
    /// The `nth` creation of an object fails with out of memory.
    OutOfMemory {
        /// The number of the creation.
        nth: u64,
    },
    /// The device is lost after this many more steps.
    LoseDevice {
        /// The number of steps.
        after_steps: u64,
    },
}

/// The planned faults of one device.
#[derive(Debug, Default)]
pub(crate) struct FaultPlan {
    /// By queue.
    submits: Planned<Option<usize>>,
    /// By queue, each with the number of commands that run before the failure.
    batches: Planned<(Option<usize>, usize)>,
    creations: Planned<()>,
    steps: Planned<()>,
}

impl FaultPlan {
    pub(crate) fn add(&mut self, fault: Fault) {
        match fault {
            Fault::Submit { queue, nth } => self.submits.add(nth, queue),
            Fault::Batch { queue, nth, after } => self.batches.add(nth, (queue, after)),
            Fault::OutOfMemory { nth } => self.creations.add(nth, ()),
            Fault::LoseDevice { after_steps } => self.steps.add(after_steps, ()),
        }
    }

    /// Counts a submit, and returns whether it fails.
    pub(crate) fn submit(&mut self, index: usize) -> bool {
        let counts = |queue: &Option<usize>| queue.is_none_or(|queue| queue == index);
        self.submits.occur_if(counts).is_some()
    }

    /// Counts an accepted submit, and returns after how many commands its batch fails.
    pub(crate) fn batch(&mut self, index: usize) -> Option<usize> {
        let counts = |(queue, _): &(Option<usize>, usize)| queue.is_none_or(|q| q == index);
        self.batches.occur_if(counts).map(|(_, after)| after)
    }

    /// Counts a creation, and returns whether it fails.
    pub(crate) fn creation(&mut self) -> bool {
        self.creations.occur().is_some()
    }

    /// Counts a step, and returns whether the device is lost in it.
    pub(crate) fn step(&mut self) -> bool {
        self.steps.occur().is_some()
    }
}
