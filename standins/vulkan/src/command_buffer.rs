//! Command pools and command buffers.

use crate::command::{Bound, Command};
use crate::table::Child;
use ash::vk::{self, Handle};
use std::collections::BTreeSet;

#[derive(Debug)]
pub(crate) struct CommandPool {
    pub(crate) device: vk::Device,
    pub(crate) family: u32,
    /// Whether its buffers may be reset one by one.
    pub(crate) resets: bool,
}

impl Child for CommandPool {
    fn parent(&self) -> u64 {
        self.device.as_raw()
    }
}

/// The pending state is not here: it follows from the batches that use the buffer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum State {
    #[default]
    Initial,
    Recording,
    Executable,
    Invalid,
}

#[derive(Debug)]
pub(crate) struct CommandBuffer {
    pub(crate) device: vk::Device,
    pub(crate) pool: vk::CommandPool,
    pub(crate) recorded: Recorded,
}

/// The part of a command buffer that a reset clears.
#[derive(Debug, Default)]
pub(crate) struct Recorded {
    pub(crate) state: State,
    pub(crate) usage: vk::CommandBufferUsageFlags,
    pub(crate) commands: Vec<Command>,
    /// The objects that it names.
    pub(crate) uses: BTreeSet<u64>,
    /// The sets that it binds, and their versions at that time.
    pub(crate) sets: Vec<(vk::DescriptorSet, u64)>,
    pub(crate) bound: Bound,
    pub(crate) submitted: bool,
}

impl Child for CommandBuffer {
    fn parent(&self) -> u64 {
        self.pool.as_raw()
    }
}
