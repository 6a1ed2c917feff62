//! Submissions: their checks, and the steps that run them on the simulated queue.
//!
//! Each command is a batch on the simulated queue, so that commands without a barrier between them
//! run in any order, also across command buffers and submits. A barrier is a flag that is set after
//! everything earlier, and that everything later waits for.

mod check;
mod enqueue;
mod steps;

use crate::device::{Queue, Shared};
use crate::usage::VkResult;
use ash::vk::{self, PipelineStageFlags2 as Stages};
use fencepost_sim::{Command as Step, Submission};
use std::sync::Arc;

/// A wait for a semaphore, or a signal of one, in a submit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SemaphoreOp {
    pub(crate) semaphore: vk::Semaphore,
    pub(crate) value: u64,
    pub(crate) stages: Stages,
}

#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) waits: Vec<SemaphoreOp>,
    pub(crate) buffers: Vec<vk::CommandBuffer>,
    pub(crate) signals: Vec<SemaphoreOp>,
}

/// The queue of a submit: a copy of what is in the table.
pub(crate) struct TargetQueue {
    pub(crate) queue: vk::Queue,
    pub(crate) device: vk::Device,
    pub(crate) shared: Arc<Shared>,
    pub(crate) sim: fencepost_sim::Queue,
    pub(crate) family: u32,
    pub(crate) valid_bits: u32,
}

impl TargetQueue {
    pub(crate) fn of(handle: vk::Queue, queue: &Queue) -> TargetQueue {
        TargetQueue {
            queue: handle,
            device: queue.device,
            shared: queue.shared.clone(),
            sim: queue.sim.clone(),
            family: queue.family,
            valid_bits: queue.valid_bits,
        }
    }

    pub(crate) fn send(&self, steps: Vec<Step>) -> VkResult {
        let submission = steps.into_iter().fold(Submission::new(), Submission::then);
        let sent = self.sim.submit(submission);
        // the simulated device refuses a submit only when it is lost
        sent.map(drop).map_err(|_| vk::Result::ERROR_DEVICE_LOST)
    }

    pub(crate) fn mask(&self) -> u64 {
        match self.valid_bits {
            64.. => u64::MAX,
            bits => (1 << bits) - 1,
        }
    }
}
