//! Running a kernel on a stream.
//!
//! Each piece of work is a command buffer of its own, between two barriers: one that puts it behind
//! everything submitted to the queue before it, and one that makes what it wrote visible to the
//! host. A semaphore does the second for the device only ([host access][1]).
//!
//! [1]: https://registry.khronos.org/vulkan/specs/latest/html/vkspec.html#synchronization-submission-host-writes

use std::{any::Any, sync::Arc};

use ash::vk;

use super::{kernels::Recorder, memory::Bound};
use crate::{
    error::Result,
    sync::lock,
    vulkan::{fault::Fault, gpu::Gpu, stream::VkStream},
};

/// What one piece of work uses until it is complete.
struct Submission {
    recorder: Option<Recorder>,
    bound: Arc<Bound>,
}

impl Drop for Submission {
    fn drop(&mut self) {
        if let Some(recorder) = self.recorder.take() {
            lock(&self.bound.kernels.free).push(recorder);
        }
    }
}

/// One run of a kernel: `groups` workgroups, with `word` as its push constant. Before it, `zeroed`
/// is filled with zeroes.
pub(super) struct Dispatch {
    pub(super) pipeline: vk::Pipeline,
    pub(super) groups: u32,
    pub(super) word: u32,
    pub(super) zeroed: Option<vk::Buffer>,
}

/// Submits a kernel to `stream`; `Ok(false)` where it lies behind a failure.
pub(super) fn dispatch(stream: &VkStream, bound: &Arc<Bound>, dispatch: &Dispatch) -> Result<bool> {
    let kernels = &bound.kernels;
    let gpu = &kernels.gpu;
    let submitted = stream.values.submit(|_| {
        let recorder = kernels.recorder(stream.queue.family)?;
        let buffer = recorder.buffer;
        let uses: Arc<dyn Any + Send + Sync> = Arc::new(Submission {
            recorder: Some(recorder),
            bound: bound.clone(),
        });
        // SAFETY: the buffer is new or no longer pending, and nobody else has its pool.
        unsafe { record(gpu, buffer, kernels.layout, bound.set, dispatch) }?;
        stream.submit_work(uses, None, Some(buffer))
    });
    match submitted {
        Ok(submitted) => Ok(submitted.is_some()),
        Err(fault) => stream.refused(fault).map(|()| false),
    }
}

/// # Safety
/// The buffer is not pending, and nobody else uses its pool; the set fits the layout.
unsafe fn record(
    gpu: &Gpu,
    buffer: vk::CommandBuffer,
    layout: vk::PipelineLayout,
    set: vk::DescriptorSet,
    dispatch: &Dispatch,
) -> Result<(), Fault> {
    use vk::{AccessFlags as Access, PipelineStageFlags as Stage};
    let device = &gpu.device;
    let barrier = |from: (Stage, Access), to: (Stage, Access)| {
        let barrier = [vk::MemoryBarrier::default()
            .src_access_mask(from.1)
            .dst_access_mask(to.1)];
        // SAFETY: passed on to the caller.
        unsafe {
            let none = vk::DependencyFlags::empty();
            device.cmd_pipeline_barrier(buffer, from.0, to.0, none, &barrier, &[], &[]);
        }
    };
    let kernel = (
        Stage::COMPUTE_SHADER,
        Access::SHADER_READ | Access::SHADER_WRITE,
    );
    let before = (Stage::ALL_COMMANDS, Access::MEMORY_WRITE);
    let fill = (Stage::TRANSFER, Access::TRANSFER_WRITE);
    let info =
        vk::CommandBufferBeginInfo::default().flags(vk::CommandBufferUsageFlags::ONE_TIME_SUBMIT);
    // SAFETY: passed on to the caller.
    unsafe {
        device
            .begin_command_buffer(buffer, &info)
            .map_err(Fault::of("vkBeginCommandBuffer"))?;
        match dispatch.zeroed {
            None => barrier(before, kernel),
            Some(zeroed) => {
                barrier(before, (fill.0 | kernel.0, fill.1 | kernel.1));
                device.cmd_fill_buffer(buffer, zeroed, 0, vk::WHOLE_SIZE, 0);
                barrier(fill, kernel);
            }
        }
        let point = vk::PipelineBindPoint::COMPUTE;
        device.cmd_bind_pipeline(buffer, point, dispatch.pipeline);
        device.cmd_bind_descriptor_sets(buffer, point, layout, 0, &[set], &[]);
        let word = dispatch.word.to_ne_bytes();
        device.cmd_push_constants(buffer, layout, vk::ShaderStageFlags::COMPUTE, 0, &word);
        device.cmd_dispatch(buffer, dispatch.groups, 1, 1);
        barrier(
            (kernel.0, Access::SHADER_WRITE),
            (Stage::HOST, Access::HOST_READ),
        );
        device
            .end_command_buffer(buffer)
            .map_err(Fault::of("vkEndCommandBuffer"))
    }
}
