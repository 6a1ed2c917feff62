//! Kernels and their descriptor sets.

use super::gpu::{Gpu, Made};
use ash::vk;
use std::ffi::CStr;

/// A pipeline, and a descriptor set with its buffers.
pub(crate) struct Kernel {
    pipeline: vk::Pipeline,
    layout: vk::PipelineLayout,
    pub(crate) set: vk::DescriptorSet,
}

/// A module with nothing but the entry points of the kernels.
fn spirv() -> Vec<u32> {
    let mut words = vec![0x0723_0203, 0x0001_0300, 0, 10, 0];
    for name in ["append", "histogram", "reduce", "spin"] {
        let mut bytes = format!("fencepost_{name}\0").into_bytes();
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        words.extend([(3 + bytes.len() as u32 / 4) << 16 | 15, 5, 1]);
        let word = |four: &[u8]| u32::from_le_bytes([four[0], four[1], four[2], four[3]]);
        words.extend(bytes.chunks(4).map(word));
    }
    words
}

impl Gpu {
    /// A kernel, and a descriptor set with these buffers.
    pub(crate) fn kernel(&self, name: &CStr, buffers: &[vk::Buffer]) -> Kernel {
        let (set_layout, set) = self.descriptor_set(buffers.len() as u32);
        for (binding, buffer) in buffers.iter().enumerate() {
            self.update(set, binding as u32, *buffer);
        }
        let layout = self.pipeline_layout(set_layout);
        Kernel {
            pipeline: self.pipeline(name, layout),
            layout,
            set,
        }
    }

    /// A descriptor set for this many storage buffers, and its layout.
    fn descriptor_set(&self, count: u32) -> (vk::DescriptorSetLayout, vk::DescriptorSet) {
        let d = &self.device;
        let bindings: Vec<_> = (0..count)
            .map(|binding| {
                vk::DescriptorSetLayoutBinding::default()
                    .binding(binding)
                    .descriptor_type(vk::DescriptorType::STORAGE_BUFFER)
                    .descriptor_count(1)
                    .stage_flags(vk::ShaderStageFlags::COMPUTE)
            })
            .collect();
        let info = vk::DescriptorSetLayoutCreateInfo::default().bindings(&bindings);
        // SAFETY: as `Gpu` says
        let layout = unsafe { d.create_descriptor_set_layout(&info, None) }.unwrap();
        self.keep(Made::SetLayout(layout));
        let sizes = [vk::DescriptorPoolSize::default()
            .ty(vk::DescriptorType::STORAGE_BUFFER)
            .descriptor_count(count)];
        let info = vk::DescriptorPoolCreateInfo::default()
            .max_sets(1)
            .pool_sizes(&sizes);
        // SAFETY: as `Gpu` says
        let pool = unsafe { d.create_descriptor_pool(&info, None) }.unwrap();
        self.keep(Made::DescriptorPool(pool));
        let layouts = [layout];
        let info = vk::DescriptorSetAllocateInfo::default()
            .descriptor_pool(pool)
            .set_layouts(&layouts);
        // SAFETY: as `Gpu` says
        let set = unsafe { d.allocate_descriptor_sets(&info) }.unwrap()[0];
        (layout, set)
    }

    /// A layout with one descriptor set and one push constant.
    fn pipeline_layout(&self, set_layout: vk::DescriptorSetLayout) -> vk::PipelineLayout {
        let layouts = [set_layout];
        let push = [vk::PushConstantRange::default()
            .stage_flags(vk::ShaderStageFlags::COMPUTE)
            .size(4)];
        let info = vk::PipelineLayoutCreateInfo::default()
            .set_layouts(&layouts)
            .push_constant_ranges(&push);
        // SAFETY: as `Gpu` says
        let layout = unsafe { self.device.create_pipeline_layout(&info, None) }.unwrap();
        self.keep(Made::PipelineLayout(layout));
        layout
    }

    fn pipeline(&self, name: &CStr, layout: vk::PipelineLayout) -> vk::Pipeline {
        let d = &self.device;
        let code = spirv();
        let info = vk::ShaderModuleCreateInfo::default().code(&code);
        // SAFETY: as `Gpu` says
        let module = unsafe { d.create_shader_module(&info, None) }.unwrap();
        self.keep(Made::Module(module));
        let stage = vk::PipelineShaderStageCreateInfo::default()
            .stage(vk::ShaderStageFlags::COMPUTE)
            .module(module)
            .name(name);
        let info = vk::ComputePipelineCreateInfo::default()
            .stage(stage)
            .layout(layout);
        let cache = vk::PipelineCache::null();
        // SAFETY: as `Gpu` says
        let made = unsafe { d.create_compute_pipelines(cache, &[info], None) };
        let pipeline = made.map_err(|(_, code)| code).unwrap()[0];
        self.keep(Made::Pipeline(pipeline));
        pipeline
    }

    pub(crate) fn update(&self, set: vk::DescriptorSet, binding: u32, buffer: vk::Buffer) {
        let info = [vk::DescriptorBufferInfo::default()
            .buffer(buffer)
            .range(vk::WHOLE_SIZE)];
        let write = vk::WriteDescriptorSet::default()
            .dst_set(set)
            .dst_binding(binding)
            .descriptor_type(vk::DescriptorType::STORAGE_BUFFER)
            .buffer_info(&info);
        // SAFETY: as `Gpu` says
        unsafe { self.device.update_descriptor_sets(&[write], &[]) }
    }

    pub(crate) fn cmd_run(&self, buffer: vk::CommandBuffer, kernel: &Kernel, push: u32) {
        let (d, point) = (&self.device, vk::PipelineBindPoint::COMPUTE);
        let (layout, stage) = (kernel.layout, vk::ShaderStageFlags::COMPUTE);
        // SAFETY: as `Gpu` says
        unsafe {
            d.cmd_bind_pipeline(buffer, point, kernel.pipeline);
            d.cmd_bind_descriptor_sets(buffer, point, layout, 0, &[kernel.set], &[]);
            d.cmd_push_constants(buffer, layout, stage, 0, &push.to_le_bytes());
            d.cmd_dispatch(buffer, 1, 1, 1);
        }
    }
}
