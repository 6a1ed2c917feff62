//! Descriptor sets, their layouts and their pools.

use crate::buffer::BufferRange;
use crate::table::Child;
use ash::vk::{self, Handle};
use std::collections::BTreeMap;

#[derive(Debug)]
pub(crate) struct SetLayout {
    pub(crate) device: vk::Device,
    /// The numbers of its bindings.
    pub(crate) bindings: Vec<u32>,
}

impl Child for SetLayout {
    fn parent(&self) -> u64 {
        self.device.as_raw()
    }
}

#[derive(Debug)]
pub(crate) struct DescriptorPool {
    pub(crate) device: vk::Device,
    pub(crate) frees: bool,
    pub(crate) max_sets: u32,
    pub(crate) max_buffers: u32,
}

impl Child for DescriptorPool {
    fn parent(&self) -> u64 {
        self.device.as_raw()
    }
}

#[derive(Debug)]
pub(crate) struct DescriptorSet {
    pub(crate) pool: vk::DescriptorPool,
    pub(crate) bindings: Vec<u32>,
    pub(crate) buffers: BTreeMap<u32, BufferRange>,
    /// Incremented by each update, which invalidates the command buffers that bind the set.
    pub(crate) version: u64,
}

impl Child for DescriptorSet {
    fn parent(&self) -> u64 {
        self.pool.as_raw()
    }
}
