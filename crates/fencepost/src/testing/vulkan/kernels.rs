//! The suite's kernels on Vulkan.
//!
//! Each piece of work is a command buffer of its own, between two barriers: one that puts it behind
//! everything submitted to the queue before it, and one that shows the host what it wrote. A
//! semaphore does the second for the device only ([host
//! access](https://registry.khronos.org/vulkan/specs/latest/html/vkspec.html#synchronization-submission-host-writes)).

use std::{any::Any, ffi::CStr, sync::Arc};

use ash::vk;

use super::memory::Bound;
use crate::{
    error::Result,
    sync::{Mutex, lock},
    vulkan::{fault::Fault, gpu::Gpu, stream::VkStream},
};

/// The kernels of one device.
///
/// Work that is pending holds them, and they hold the device; so they are destroyed when nothing of
/// them runs any more, and in front of the device.
pub(super) struct Kernels {
    pub(super) gpu: Arc<Gpu>,
    module: vk::ShaderModule,
    pub(super) set_layout: vk::DescriptorSetLayout,
    layout: vk::PipelineLayout,
    pub(super) append: vk::Pipeline,
    pub(super) histogram: vk::Pipeline,
    pub(super) reduce: vk::Pipeline,
    pub(super) spin: vk::Pipeline,
    /// Command buffers that nothing uses now.
    free: Mutex<Vec<Recorder>>,
}

impl Kernels {
    pub(super) fn new(gpu: &Arc<Gpu>) -> Result<Kernels, Fault> {
        let device = &gpu.device;
        let words: Vec<u32> = super::KERNELS
            .chunks_exact(4)
            .map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]]))
            .collect();
        let info = vk::ShaderModuleCreateInfo::default().code(&words);
        // SAFETY: valid SPIR-V, checked by naga when it was made. Here and below, the device is
        // alive, and what the structures point to is alive during the call. What a failure leaves
        // behind goes with the device.
        let module = unsafe { device.create_shader_module(&info, None) }
            .map_err(Fault::of("vkCreateShaderModule"))?;
        let binding = |binding| {
            vk::DescriptorSetLayoutBinding::default()
                .binding(binding)
                .descriptor_type(vk::DescriptorType::STORAGE_BUFFER)
                .descriptor_count(1)
                .stage_flags(vk::ShaderStageFlags::COMPUTE)
        };
        let bindings = [binding(0), binding(1)];
        let info = vk::DescriptorSetLayoutCreateInfo::default().bindings(&bindings);
        // SAFETY: as above.
        let set_layout = unsafe { device.create_descriptor_set_layout(&info, None) }
            .map_err(Fault::of("vkCreateDescriptorSetLayout"))?;
        let (layouts, ranges) = (
            [set_layout],
            [vk::PushConstantRange::default()
                .stage_flags(vk::ShaderStageFlags::COMPUTE)
                .size(4)],
        );
        let info = vk::PipelineLayoutCreateInfo::default()
            .set_layouts(&layouts)
            .push_constant_ranges(&ranges);
        // SAFETY: as above.
        let layout = unsafe { device.create_pipeline_layout(&info, None) }
            .map_err(Fault::of("vkCreatePipelineLayout"))?;
        let pipeline = |name: &CStr| {
            let stage = vk::PipelineShaderStageCreateInfo::default()
                .stage(vk::ShaderStageFlags::COMPUTE)
                .module(module)
                .name(name);
            let info = [vk::ComputePipelineCreateInfo::default()
                .stage(stage)
                .layout(layout)];
            // SAFETY: as above; the module has an entry point of this name.
            let made =
                unsafe { device.create_compute_pipelines(vk::PipelineCache::null(), &info, None) };
            made.map(|pipelines| pipelines[0])
                .map_err(|(_, result)| Fault::of("vkCreateComputePipelines")(result))
        };
        Ok(Kernels {
            gpu: gpu.clone(),
            module,
            set_layout,
            layout,
            append: pipeline(c"fencepost_append")?,
            histogram: pipeline(c"fencepost_histogram")?,
            reduce: pipeline(c"fencepost_reduce")?,
            spin: pipeline(c"fencepost_spin")?,
            free: Mutex::new(Vec::new()),
        })
    }

    /// A command buffer for queues of this family.
    fn recorder(&self, family: u32) -> Result<Recorder, Fault> {
        let mut free = lock(&self.free);
        let known = free.iter().position(|known| known.family == family);
        match known {
            Some(index) => Ok(free.swap_remove(index)),
            None => Recorder::new(&self.gpu, family),
        }
    }
}

impl Drop for Kernels {
    fn drop(&mut self) {
        if self.gpu.is_gone() {
            return;
        }
        let device = &self.gpu.device;
        let free = std::mem::take(&mut *lock(&self.free));
        // SAFETY: made by us of this device; nothing of it runs any more, since what is pending
        // holds it.
        unsafe {
            for recorder in free {
                device.destroy_command_pool(recorder.pool, None);
            }
            for pipeline in [self.append, self.histogram, self.reduce, self.spin] {
                device.destroy_pipeline(pipeline, None);
            }
            device.destroy_pipeline_layout(self.layout, None);
            device.destroy_descriptor_set_layout(self.set_layout, None);
            device.destroy_shader_module(self.module, None);
        }
    }
}

/// A command buffer in a pool of its own, so that no two threads ever share one.
struct Recorder {
    family: u32,
    pool: vk::CommandPool,
    buffer: vk::CommandBuffer,
}

impl Recorder {
    fn new(gpu: &Gpu, family: u32) -> Result<Recorder, Fault> {
        let info = vk::CommandPoolCreateInfo::default()
            .queue_family_index(family)
            .flags(vk::CommandPoolCreateFlags::RESET_COMMAND_BUFFER);
        // SAFETY: the device is alive and has the family.
        let pool = unsafe { gpu.device.create_command_pool(&info, None) }
            .map_err(Fault::of("vkCreateCommandPool"))?;
        let info = vk::CommandBufferAllocateInfo::default()
            .command_pool(pool)
            .level(vk::CommandBufferLevel::PRIMARY)
            .command_buffer_count(1);
        // SAFETY: the pool is alive, and nobody else has it.
        let buffers = unsafe { gpu.device.allocate_command_buffers(&info) };
        match buffers {
            Ok(buffers) => Ok(Recorder {
                family,
                pool,
                buffer: buffers[0],
            }),
            Err(result) => {
                // SAFETY: made above, and nothing was allocated from it.
                unsafe { gpu.device.destroy_command_pool(pool, None) };
                Err(Fault::of("vkAllocateCommandBuffers")(result))
            }
        }
    }
}

/// What one piece of work uses until it is done.
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

/// One kernel, `groups` workgroups of it, with `word` to push; in front of it, `zeroed` is filled
/// with zeroes.
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
