//! Memory that the suite's kernels read and write, and its bindings.

use std::sync::{Arc, atomic::AtomicU32};

use ash::vk;

use super::kernels::Kernels;
use crate::{
    error::Result,
    vulkan::{fault::Fault, gpu::Gpu, memory},
};

pub(super) use memory::Memory;

/// Memory for kernels, of `bytes`.
pub(super) fn for_kernels(gpu: &Arc<Gpu>, bytes: usize) -> Result<Arc<Memory>> {
    let usage = vk::BufferUsageFlags::STORAGE_BUFFER | vk::BufferUsageFlags::TRANSFER_DST;
    Memory::new(gpu, bytes, usage).map_err(|fault| gpu.failed(fault))
}

impl Memory {
    /// One of its words of 32 bits.
    pub(super) fn word(&self, index: usize) -> &AtomicU32 {
        assert!(index < self.bytes / 4);
        // SAFETY: within memory that is mapped as long as `self` lives, aligned, and read and
        // written as whole words.
        unsafe { AtomicU32::from_ptr((self.at + index * 4) as *mut u32) }
    }
}

/// Memory as a kernel's bindings.
pub(super) struct Bound {
    pub(super) kernels: Arc<Kernels>,
    pool: vk::DescriptorPool,
    pub(super) set: vk::DescriptorSet,
    pub(super) memory: Vec<Arc<Memory>>,
}

impl Bound {
    pub(super) fn new(kernels: &Arc<Kernels>, memory: Vec<Arc<Memory>>) -> Result<Arc<Bound>> {
        Bound::make(kernels, memory).map_err(|fault| kernels.gpu.failed(fault))
    }

    fn make(kernels: &Arc<Kernels>, memory: Vec<Arc<Memory>>) -> Result<Arc<Bound>, Fault> {
        let device = &kernels.gpu.device;
        let sizes = [vk::DescriptorPoolSize::default()
            .ty(vk::DescriptorType::STORAGE_BUFFER)
            .descriptor_count(2)];
        let info = vk::DescriptorPoolCreateInfo::default()
            .max_sets(1)
            .pool_sizes(&sizes);
        // SAFETY: the device is alive.
        let pool = unsafe { device.create_descriptor_pool(&info, None) }
            .map_err(Fault::of("vkCreateDescriptorPool"))?;
        let layouts = [kernels.set_layout];
        let info = vk::DescriptorSetAllocateInfo::default()
            .descriptor_pool(pool)
            .set_layouts(&layouts);
        // SAFETY: the pool is new and has room for it.
        let set = unsafe { device.allocate_descriptor_sets(&info) }
            .map_err(Fault::of("vkAllocateDescriptorSets"))?[0];
        for (binding, memory) in (0..).zip(&memory) {
            let buffer = [vk::DescriptorBufferInfo::default()
                .buffer(memory.buffer)
                .range(vk::WHOLE_SIZE)];
            let write = [vk::WriteDescriptorSet::default()
                .dst_set(set)
                .dst_binding(binding)
                .descriptor_type(vk::DescriptorType::STORAGE_BUFFER)
                .buffer_info(&buffer)];
            // SAFETY: no submitted work uses the set yet; the buffer lives as long as the set.
            unsafe { device.update_descriptor_sets(&write, &[]) };
        }
        Ok(Arc::new(Bound {
            kernels: kernels.clone(),
            pool,
            set,
            memory,
        }))
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        let gpu = &self.kernels.gpu;
        if !gpu.is_gone() {
            // SAFETY: made by us; work that uses its set holds it until it is done.
            unsafe { gpu.device.destroy_descriptor_pool(self.pool, None) };
        }
    }
}
