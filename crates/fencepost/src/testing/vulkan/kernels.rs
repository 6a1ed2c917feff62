//! The suite's kernels on Vulkan.

use std::{ffi::CStr, sync::Arc};

use ash::vk;

use crate::{
    sync::{Mutex, lock},
    vulkan::{fault::Fault, gpu::Gpu},
};

/// The suite's kernels in SPIR-V, as bytes of little-endian words.
///
/// ```
/// assert_eq!(fencepost::testing::vulkan::KERNELS[..4], 0x0723_0203_u32.to_le_bytes());
/// ```
pub const KERNELS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/kernels.spv"));

/// The kernels of one device.
///
/// Pending work keeps them alive, and they keep the device alive. So they are destroyed when none
/// of them runs any more, and before the device.
pub(super) struct Kernels {
    pub(super) gpu: Arc<Gpu>,
    module: vk::ShaderModule,
    pub(super) set_layout: vk::DescriptorSetLayout,
    pub(super) layout: vk::PipelineLayout,
    pub(super) append: vk::Pipeline,
    pub(super) histogram: vk::Pipeline,
    pub(super) reduce: vk::Pipeline,
    pub(super) spin: vk::Pipeline,
    /// Command buffers that nothing uses now.
    pub(super) free: Mutex<Vec<Recorder>>,
}

/// A pipeline of the module's entry point of this name.
fn pipeline(
    device: &ash::Device,
    module: vk::ShaderModule,
    layout: vk::PipelineLayout,
    name: &CStr,
) -> Result<vk::Pipeline, Fault> {
    let stage = vk::PipelineShaderStageCreateInfo::default()
        .stage(vk::ShaderStageFlags::COMPUTE)
        .module(module)
        .name(name);
    let info = [vk::ComputePipelineCreateInfo::default()
        .stage(stage)
        .layout(layout)];
    // SAFETY: the device is alive, module and layout are its own, and the module has an entry point
    // of this name.
    let made = unsafe { device.create_compute_pipelines(vk::PipelineCache::null(), &info, None) };
    made.map(|pipelines| pipelines[0])
        .map_err(|(_, result)| Fault::of("vkCreateComputePipelines")(result))
}

impl Kernels {
    pub(super) fn new(gpu: &Arc<Gpu>) -> Result<Kernels, Fault> {
        let device = &gpu.device;
        let words: Vec<u32> = KERNELS
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
        let pipeline = |name| pipeline(device, module, layout, name);
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
    pub(super) fn recorder(&self, family: u32) -> Result<Recorder, Fault> {
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
pub(super) struct Recorder {
    family: u32,
    pool: vk::CommandPool,
    pub(super) buffer: vk::CommandBuffer,
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
