//! Faults that a test plans.

/// Something that will go wrong, given to [`SimDevice::inject`](crate::SimDevice::inject). Each
/// happens once.
///
/// `queue` is the queue's place in the order of creation on its device (see
/// [`QueueId`](crate::QueueId)), and may name one that does not exist yet; `None` counts the
/// submits of all queues. Counting starts when the fault is injected, and the next one is number 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The `nth` submit fails and nothing of it runs.
    Submit {
        /// Which queue.
        queue: Option<usize>,
        /// Which submit.
        nth: u64,
    },
    /// The batch of the `nth` accepted submit fails while it runs.
    Batch {
        /// Which queue.
        queue: Option<usize>,
        /// Which submit.
        nth: u64,
        /// How many of its commands run before it fails; as many as it has, or more, means at its
        /// end.
        after: usize,
    },
    /// The `nth` creation of an object fails with out of memory.
    OutOfMemory {
        /// Which creation.
        nth: u64,
    },
    /// The device is lost after so many more steps.
    LoseDevice {
        /// How many.
        after_steps: u64,
    },
}

/// The faults of one device that have not happened yet.
#[derive(Debug, Default)]
pub(crate) struct Plan(Vec<Fault>);

impl Plan {
    pub(crate) fn add(&mut self, fault: Fault) {
        self.0.push(fault);
    }

    /// Whether this submit is to fail.
    pub(crate) fn submit(&mut self, index: usize) -> bool {
        self.hit(|fault| match fault {
            Fault::Submit { queue, nth } if queue.is_none_or(|q| q == index) => Some(nth),
            _ => None,
        })
        .is_some()
    }

    /// After how many commands the batch of this accepted submit is to fail.
    pub(crate) fn batch(&mut self, index: usize) -> Option<usize> {
        let hit = self.hit(|fault| match fault {
            Fault::Batch { queue, nth, .. } if queue.is_none_or(|q| q == index) => Some(nth),
            _ => None,
        });
        match hit {
            Some(Fault::Batch { after, .. }) => Some(after),
            _ => None,
        }
    }

    /// Whether this creation is to fail.
    pub(crate) fn creation(&mut self) -> bool {
        self.hit(|fault| {
            if let Fault::OutOfMemory { nth } = fault {
                Some(nth)
            } else {
                None
            }
        })
        .is_some()
    }

    /// Whether the device is to be lost in this step.
    pub(crate) fn step(&mut self) -> bool {
        self.hit(|fault| {
            if let Fault::LoseDevice { after_steps } = fault {
                Some(after_steps)
            } else {
                None
            }
        })
        .is_some()
    }

    /// Counts down every fault that `counter` picks; takes out one that is due.
    fn hit(&mut self, mut counter: impl FnMut(&mut Fault) -> Option<&mut u64>) -> Option<Fault> {
        let mut due = None;
        for (place, fault) in self.0.iter_mut().enumerate() {
            if let Some(left) = counter(fault) {
                *left = left.saturating_sub(1);
                if *left == 0 && due.is_none() {
                    due = Some(place);
                }
            }
        }
        due.map(|place| self.0.remove(place))
    }
}
