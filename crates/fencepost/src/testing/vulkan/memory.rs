//! Memory that the suite's kernels read and write, and its bindings.

use std::sync::{Arc, atomic::AtomicU32};

use ash::vk;

use super::kernels::Kernels;
use crate::{
    error::Result,
    vulkan::{fault::Fault, gpu::Gpu},
};

/// Memory that host and device see, zeroed.
pub(super) struct Memory {
    gpu: Arc<Gpu>,
    pub(super) buffer: vk::Buffer,
    memory: vk::DeviceMemory,
    /// Where the host sees it.
    pub(super) at: usize,
    pub(super) bytes: usize,
}

impl Memory {
    /// Room for `bytes`, in whole words.
    pub(super) fn new(gpu: &Arc<Gpu>, bytes: usize) -> Result<Arc<Memory>> {
        Memory::make(gpu, bytes.next_multiple_of(4).max(4)).map_err(|fault| gpu.failed(fault))
    }

    fn make(gpu: &Arc<Gpu>, bytes: usize) -> Result<Arc<Memory>, Fault> {
        let device = &gpu.device;
        let usage = vk::BufferUsageFlags::STORAGE_BUFFER | vk::BufferUsageFlags::TRANSFER_DST;
        let info = vk::BufferCreateInfo::default()
            .size(bytes as u64)
            .usage(usage);
        // SAFETY: the device is alive, here and below. What a failure leaves behind goes with the
        // process.
        let buffer =
            unsafe { device.create_buffer(&info, None) }.map_err(Fault::of("vkCreateBuffer"))?;
        // SAFETY: the buffer was just made.
        let needs = unsafe { device.get_buffer_memory_requirements(buffer) };
        // SAFETY: the physical device is the instance's.
        let types = unsafe {
            gpu.instance
                .get_physical_device_memory_properties(gpu.physical)
        };
        let wanted = vk::MemoryPropertyFlags::HOST_VISIBLE | vk::MemoryPropertyFlags::HOST_COHERENT;
        // Every device has one such type for buffers:
        // https://registry.khronos.org/vulkan/specs/latest/html/vkspec.html#memory-device-properties
        let kind = (0..)
            .zip(types.memory_types_as_slice())
            .find(|(index, kind)| {
                needs.memory_type_bits & (1 << index) != 0 && kind.property_flags.contains(wanted)
            })
            .map_or(0, |(index, _)| index);
        let info = vk::MemoryAllocateInfo::default()
            .allocation_size(needs.size)
            .memory_type_index(kind);
        // SAFETY: the memory is bound to the buffer it was sized for, and mapped once for its whole
        // life.
        let (memory, at) = unsafe {
            let memory = device
                .allocate_memory(&info, None)
                .map_err(Fault::of("vkAllocateMemory"))?;
            device
                .bind_buffer_memory(buffer, memory, 0)
                .map_err(Fault::of("vkBindBufferMemory"))?;
            let at = device
                .map_memory(memory, 0, vk::WHOLE_SIZE, vk::MemoryMapFlags::empty())
                .map_err(Fault::of("vkMapMemory"))?;
            at.cast::<u8>().write_bytes(0, bytes);
            (memory, at)
        };
        Ok(Arc::new(Memory {
            gpu: gpu.clone(),
            buffer,
            memory,
            at: at as usize,
            bytes,
        }))
    }

    /// One word of it.
    pub(super) fn word(&self, index: usize) -> &AtomicU32 {
        assert!(index < self.bytes / 4);
        // SAFETY: within memory that is mapped as long as `self` lives, aligned, and read and
        // written as whole words.
        unsafe { AtomicU32::from_ptr((self.at + index * 4) as *mut u32) }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if self.gpu.is_gone() {
            return;
        }
        // SAFETY: made by us; work that uses it holds it until it is done.
        unsafe {
            self.gpu.device.destroy_buffer(self.buffer, None);
            self.gpu.device.free_memory(self.memory, None);
        }
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
