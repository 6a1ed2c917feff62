//! Memory that host and device see.

use std::sync::{Arc, atomic::AtomicU64};

use ash::vk;

use super::{fault::Fault, gpu::Gpu};

/// A buffer that host and device see without flushes, zeroed and mapped for its whole life.
pub(crate) struct Memory {
    gpu: Arc<Gpu>,
    pub(crate) buffer: vk::Buffer,
    memory: vk::DeviceMemory,
    /// Where the host sees it.
    pub(crate) at: usize,
    pub(crate) bytes: usize,
}

impl Memory {
    /// Room for `bytes`, in whole words of 64 bits, for `usage`.
    pub(crate) fn new(
        gpu: &Arc<Gpu>,
        bytes: usize,
        usage: vk::BufferUsageFlags,
    ) -> Result<Arc<Memory>, Fault> {
        let bytes = bytes.next_multiple_of(8).max(8);
        let device = &gpu.device;
        let info = vk::BufferCreateInfo::default()
            .size(bytes as u64)
            .usage(usage);
        // SAFETY: the device is alive, here and below.
        let buffer =
            unsafe { device.create_buffer(&info, None) }.map_err(Fault::of("vkCreateBuffer"))?;
        let mapped = map(gpu, buffer, bytes);
        let (memory, at) = mapped.inspect_err(|_| {
            // SAFETY: made just now, and used by nobody.
            unsafe { device.destroy_buffer(buffer, None) };
        })?;
        Ok(Arc::new(Memory {
            gpu: gpu.clone(),
            buffer,
            memory,
            at,
            bytes,
        }))
    }

    /// One of its words of 64 bits; `None` behind its end.
    pub(crate) fn long(&self, index: usize) -> Option<&AtomicU64> {
        // SAFETY: within memory that is mapped as long as `self` lives, aligned, and read and
        // written as whole words.
        (index < self.bytes / 8)
            .then(|| unsafe { AtomicU64::from_ptr((self.at + index * 8) as *mut u64) })
    }
}

/// Allocates memory for `buffer`, binds it, and maps it.
fn map(gpu: &Gpu, buffer: vk::Buffer, bytes: usize) -> Result<(vk::DeviceMemory, usize), Fault> {
    let device = &gpu.device;
    // SAFETY: the buffer is of this device, which is alive, here and below.
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
    // SAFETY: as above.
    let memory =
        unsafe { device.allocate_memory(&info, None) }.map_err(Fault::of("vkAllocateMemory"))?;
    // SAFETY: the memory is bound to the buffer that it was sized for, and mapped once.
    let mapped = unsafe {
        device
            .bind_buffer_memory(buffer, memory, 0)
            .map_err(Fault::of("vkBindBufferMemory"))
            .and_then(|()| {
                let whole = vk::WHOLE_SIZE;
                device
                    .map_memory(memory, 0, whole, vk::MemoryMapFlags::empty())
                    .map_err(Fault::of("vkMapMemory"))
            })
    };
    match mapped {
        Ok(at) => {
            // SAFETY: mapped, with room for so many bytes; the device does not use it yet.
            unsafe { at.cast::<u8>().write_bytes(0, bytes) };
            Ok((memory, at as usize))
        }
        Err(fault) => {
            // SAFETY: allocated just now, and used by nobody.
            unsafe { device.free_memory(memory, None) };
            Err(fault)
        }
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
