//! Submits.

use super::gpu::Gpu;
use ash::vk;

/// One batch: semaphores with values and command buffers.
#[derive(Default)]
pub(crate) struct Batch<'a> {
    pub(crate) waits: &'a [(vk::Semaphore, u64)],
    pub(crate) buffers: &'a [vk::CommandBuffer],
    pub(crate) signals: &'a [(vk::Semaphore, u64)],
    pub(crate) fence: vk::Fence,
}

impl Gpu {
    /// With `vkQueueSubmit`.
    pub(crate) fn submit(&self, queue: vk::Queue, batch: &Batch<'_>) -> Result<(), vk::Result> {
        let (waits, wait_values): (Vec<_>, Vec<_>) = batch.waits.iter().copied().unzip();
        let (signals, signal_values): (Vec<_>, Vec<_>) = batch.signals.iter().copied().unzip();
        let stages = vec![vk::PipelineStageFlags::ALL_COMMANDS; waits.len()];
        let mut values = vk::TimelineSemaphoreSubmitInfo::default()
            .wait_semaphore_values(&wait_values)
            .signal_semaphore_values(&signal_values);
        let info = vk::SubmitInfo::default()
            .wait_semaphores(&waits)
            .wait_dst_stage_mask(&stages)
            .command_buffers(batch.buffers)
            .signal_semaphores(&signals)
            .push_next(&mut values);
        // SAFETY: as `Gpu` says
        unsafe { self.device.queue_submit(queue, &[info], batch.fence) }
    }

    /// With `vkQueueSubmit2`, and these stages for waits and signals.
    pub(crate) fn submit_2(
        &self,
        queue: vk::Queue,
        batch: &Batch<'_>,
        stages: vk::PipelineStageFlags2,
    ) -> Result<(), vk::Result> {
        let named = |&(semaphore, value): &(vk::Semaphore, u64)| {
            vk::SemaphoreSubmitInfo::default()
                .semaphore(semaphore)
                .value(value)
                .stage_mask(stages)
        };
        let waits: Vec<_> = batch.waits.iter().map(named).collect();
        let signals: Vec<_> = batch.signals.iter().map(named).collect();
        let buffer =
            |&it: &vk::CommandBuffer| vk::CommandBufferSubmitInfo::default().command_buffer(it);
        let buffers: Vec<_> = batch.buffers.iter().map(buffer).collect();
        let info = vk::SubmitInfo2::default()
            .wait_semaphore_infos(&waits)
            .command_buffer_infos(&buffers)
            .signal_semaphore_infos(&signals);
        // SAFETY: as `Gpu` says
        unsafe { self.device.queue_submit2(queue, &[info], batch.fence) }
    }

    pub(crate) fn queue_wait_idle(&self, queue: vk::Queue) -> Result<(), vk::Result> {
        // SAFETY: as `Gpu` says
        unsafe { self.device.queue_wait_idle(queue) }
    }
}
