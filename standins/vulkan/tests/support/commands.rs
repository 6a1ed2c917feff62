//! Command buffers, queries and barriers.

use super::gpu::{Gpu, Made};
use ash::vk;

impl Gpu {
    pub(crate) fn pool(&self, family: u32) -> vk::CommandPool {
        let flags = vk::CommandPoolCreateFlags::RESET_COMMAND_BUFFER;
        let info = vk::CommandPoolCreateInfo::default()
            .queue_family_index(family)
            .flags(flags);
        // SAFETY: as `Gpu` says
        let made = unsafe { self.device.create_command_pool(&info, None) }.unwrap();
        self.keep(Made::CommandPool(made));
        made
    }

    pub(crate) fn buffer_of(&self, pool: vk::CommandPool) -> vk::CommandBuffer {
        let info = vk::CommandBufferAllocateInfo::default()
            .command_pool(pool)
            .command_buffer_count(1);
        // SAFETY: as `Gpu` says
        unsafe { self.device.allocate_command_buffers(&info) }.unwrap()[0]
    }

    pub(crate) fn begin(
        &self,
        buffer: vk::CommandBuffer,
        flags: vk::CommandBufferUsageFlags,
    ) -> Result<(), vk::Result> {
        let info = vk::CommandBufferBeginInfo::default().flags(flags);
        // SAFETY: as `Gpu` says
        unsafe { self.device.begin_command_buffer(buffer, &info) }
    }

    pub(crate) fn end(&self, buffer: vk::CommandBuffer) -> Result<(), vk::Result> {
        // SAFETY: as `Gpu` says
        unsafe { self.device.end_command_buffer(buffer) }
    }

    /// A command buffer with what `body` records.
    pub(crate) fn record(
        &self,
        pool: vk::CommandPool,
        flags: vk::CommandBufferUsageFlags,
        body: impl FnOnce(vk::CommandBuffer),
    ) -> vk::CommandBuffer {
        let buffer = self.buffer_of(pool);
        self.begin(buffer, flags).unwrap();
        body(buffer);
        self.end(buffer).unwrap();
        buffer
    }

    pub(crate) fn queries(&self, count: u32) -> vk::QueryPool {
        let info = vk::QueryPoolCreateInfo::default()
            .query_type(vk::QueryType::TIMESTAMP)
            .query_count(count);
        // SAFETY: as `Gpu` says
        let made = unsafe { self.device.create_query_pool(&info, None) }.unwrap();
        self.keep(Made::QueryPool(made));
        made
    }

    pub(crate) fn host_reset(&self, pool: vk::QueryPool, first: u32, count: u32) {
        // SAFETY: as `Gpu` says
        unsafe { self.device.reset_query_pool(pool, first, count) }
    }

    pub(crate) fn cmd_reset(&self, buffer: vk::CommandBuffer, pool: vk::QueryPool, count: u32) {
        // SAFETY: as `Gpu` says
        unsafe { self.device.cmd_reset_query_pool(buffer, pool, 0, count) }
    }

    pub(crate) fn cmd_timestamp(&self, buffer: vk::CommandBuffer, pool: vk::QueryPool, index: u32) {
        let stage = vk::PipelineStageFlags::BOTTOM_OF_PIPE;
        // SAFETY: as `Gpu` says
        unsafe { self.device.cmd_write_timestamp(buffer, stage, pool, index) }
    }

    /// Queries from 0 on, as numbers of 64 bits.
    pub(crate) fn results(
        &self,
        pool: vk::QueryPool,
        count: usize,
        flags: vk::QueryResultFlags,
    ) -> Result<Vec<u64>, vk::Result> {
        let mut data = vec![0_u64; count];
        let flags = flags | vk::QueryResultFlags::TYPE_64;
        // SAFETY: as `Gpu` says
        unsafe {
            self.device
                .get_query_pool_results(pool, 0, &mut data, flags)
        }?;
        Ok(data)
    }

    /// Orders all earlier commands before all later ones.
    pub(crate) fn cmd_barrier(&self, buffer: vk::CommandBuffer) {
        let all = vk::PipelineStageFlags::ALL_COMMANDS;
        self.cmd_barrier_with(buffer, all, all);
    }

    pub(crate) fn cmd_barrier_with(
        &self,
        buffer: vk::CommandBuffer,
        before: vk::PipelineStageFlags,
        after: vk::PipelineStageFlags,
    ) {
        let flags = vk::DependencyFlags::empty();
        let memory = vk::MemoryBarrier::default()
            .src_access_mask(vk::AccessFlags::MEMORY_WRITE)
            .dst_access_mask(vk::AccessFlags::MEMORY_READ | vk::AccessFlags::MEMORY_WRITE);
        let d = &self.device;
        // SAFETY: as `Gpu` says
        unsafe { d.cmd_pipeline_barrier(buffer, before, after, flags, &[memory], &[], &[]) }
    }
}
