//! Mapped buffers.

use super::gpu::{Gpu, Made};
use ash::vk;
use std::sync::atomic::{AtomicU32, Ordering};

impl Gpu {
    /// A mapped buffer in memory of this type.
    pub(crate) fn words(&self, count: usize, kind: u32) -> Words<'_> {
        let info = vk::BufferCreateInfo::default()
            .size(4 * count as u64)
            .usage(
                vk::BufferUsageFlags::STORAGE_BUFFER
                    | vk::BufferUsageFlags::TRANSFER_SRC
                    | vk::BufferUsageFlags::TRANSFER_DST,
            );
        let d = &self.device;
        // SAFETY: as `Gpu` says
        let buffer = unsafe { d.create_buffer(&info, None) }.unwrap();
        // SAFETY: as `Gpu` says
        let needs = unsafe { d.get_buffer_memory_requirements(buffer) };
        let info = vk::MemoryAllocateInfo::default()
            .allocation_size(needs.size)
            .memory_type_index(kind);
        // SAFETY: as `Gpu` says
        let memory = unsafe { d.allocate_memory(&info, None) }.unwrap();
        // `destroy` frees the memory after it has destroyed the buffer
        self.keep(Made::Memory(memory));
        self.keep(Made::Buffer(buffer));
        // SAFETY: as `Gpu` says
        unsafe { d.bind_buffer_memory(buffer, memory, 0) }.unwrap();
        let flags = vk::MemoryMapFlags::empty();
        // SAFETY: as `Gpu` says
        let mapped = unsafe { d.map_memory(memory, 0, vk::WHOLE_SIZE, flags) }.unwrap();
        let words = Words {
            gpu: self,
            buffer,
            memory,
            count,
            address: mapped.expose_provenance(),
        };
        (0..count).for_each(|index| words.set(index, 0));
        words
    }
}

/// Words in a mapped buffer.
pub(crate) struct Words<'a> {
    gpu: &'a Gpu,
    pub(crate) buffer: vk::Buffer,
    pub(crate) memory: vk::DeviceMemory,
    count: usize,
    address: usize,
}

impl Words<'_> {
    fn word(&self, index: usize) -> &AtomicU32 {
        assert!(index < self.count);
        let first: *mut u32 = std::ptr::with_exposed_provenance_mut(self.address);
        // SAFETY: in bounds, aligned, and mapped until the device is destroyed
        unsafe { AtomicU32::from_ptr(first.add(index)) }
    }

    pub(crate) fn get(&self, index: usize) -> u32 {
        self.word(index).load(Ordering::SeqCst)
    }

    pub(crate) fn set(&self, index: usize, value: u32) {
        self.word(index).store(value, Ordering::SeqCst);
    }

    /// The tokens of a log of `fencepost_append`.
    pub(crate) fn tokens(&self) -> Vec<u32> {
        (0..self.get(0) as usize)
            .map(|index| self.get(1 + index))
            .collect()
    }

    fn range(&self) -> [vk::MappedMemoryRange<'static>; 1] {
        [vk::MappedMemoryRange::default()
            .memory(self.memory)
            .size(vk::WHOLE_SIZE)]
    }

    pub(crate) fn flush(&self) {
        // SAFETY: the memory is mapped
        unsafe { self.gpu.device.flush_mapped_memory_ranges(&self.range()) }.unwrap();
    }

    pub(crate) fn invalidate(&self) {
        // SAFETY: the memory is mapped
        unsafe {
            self.gpu
                .device
                .invalidate_mapped_memory_ranges(&self.range())
        }
        .unwrap();
    }
}
