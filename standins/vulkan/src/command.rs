//! Recorded commands, and which stages order them.

use crate::buffer::BufferRange;
use crate::kernel::Kernel;
use ash::vk::{self, PipelineStageFlags2 as Stages};

#[derive(Clone, Debug)]
pub(crate) enum Command {
    ResetQueries {
        pool: vk::QueryPool,
        first: u32,
        count: u32,
    },
    /// If `early`, it does not wait for earlier commands.
    Timestamp {
        pool: vk::QueryPool,
        index: u32,
        early: bool,
    },
    /// Orders earlier work of the queue before later work.
    Barrier,
    Fill {
        to: BufferRange,
        value: u32,
    },
    Update {
        to: BufferRange,
        words: Vec<u32>,
    },
    Copy {
        from: BufferRange,
        to: BufferRange,
    },
    Dispatch {
        kernel: Kernel,
        ranges: Vec<BufferRange>,
        push: u32,
        groups: u32,
    },
}

/// The pipeline, descriptor set and push constant of the next dispatch.
#[derive(Debug, Default)]
pub(crate) struct Bound {
    pub(crate) pipeline: Option<vk::Pipeline>,
    pub(crate) set: Option<vk::DescriptorSet>,
    pub(crate) push: Option<u32>,
}

/// The stages in which the stand-in's work runs.
fn work_stages() -> Stages {
    Stages::COMPUTE_SHADER
        | Stages::ALL_TRANSFER
        | Stages::COPY
        | Stages::CLEAR
        | Stages::ALL_COMMANDS
}

/// Whether a dependency with these source stages waits for work.
pub(crate) fn waits_for_work(stages: Stages) -> bool {
    stages.intersects(work_stages() | Stages::BOTTOM_OF_PIPE)
}

/// Whether a dependency with these destination stages blocks work.
pub(crate) fn blocks_work(stages: Stages) -> bool {
    stages.intersects(work_stages() | Stages::TOP_OF_PIPE)
}

/// The stages of synchronization2 for those of Vulkan 1.0, which have the same values.
pub(crate) fn new_stages(old: vk::PipelineStageFlags) -> Stages {
    Stages::from_raw(old.as_raw().into())
}
