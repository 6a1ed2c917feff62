//! Memory that host and device see at the same time, which wgpu itself has not.

use std::sync::atomic::AtomicU32;

use ash::vk;
use wgpu::hal::{api::Vulkan, vulkan as hal};

use crate::error::{Error, Result};

/// A buffer of words, and where the host finds them.
pub(super) struct Shared {
    pub(super) buffer: wgpu::Buffer,
    words: *const AtomicU32,
    len: usize,
}

// SAFETY: the words are atomic, and live as long as the buffer.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    pub(super) fn new(device: &wgpu::Device, len: usize) -> Result<Shared> {
        let size = 4 * len as u64;
        // SAFETY: nothing is destroyed through it.
        let raw = unsafe { device.as_hal::<Vulkan>() }.ok_or_else(|| Error::Unsupported {
            what: "the work of the conformance suite".into(),
            device: device.adapter_info().name,
            remedy: "run it on wgpu's backend for Vulkan".into(),
        })?;
        let (bound, words) = allocate(&raw, size).map_err(|result| Error::Backend {
            call: "vkAllocateMemory",
            code: result.as_raw().into(),
            text: result.to_string(),
        })?;
        drop(raw);
        let described = wgpu::BufferDescriptor {
            label: Some("fencepost"),
            size,
            usage: wgpu::BufferUsages::STORAGE,
            mapped_at_creation: false,
        };
        // SAFETY: made of this device as described, and zeroed.
        let buffer = unsafe { device.create_buffer_from_hal::<Vulkan>(bound, &described) };
        Ok(Shared { buffer, words, len })
    }

    pub(super) fn words(&self) -> &[AtomicU32] {
        // SAFETY: mapped for as long as the buffer is alive, which `self` owns.
        unsafe { std::slice::from_raw_parts(self.words, self.len) }
    }
}

/// A buffer of zeros for kernels, with memory of its own, which it takes along.
fn allocate(
    device: &hal::Device,
    size: u64,
) -> std::result::Result<(hal::Buffer, *const AtomicU32), vk::Result> {
    let table = device.raw_device();
    let instance = device.shared_instance().raw_instance();
    let info = vk::BufferCreateInfo::default()
        .size(size)
        .usage(vk::BufferUsageFlags::STORAGE_BUFFER);
    // SAFETY: a device that is alive, here and below; each object is of this device.
    let buffer = unsafe { table.create_buffer(&info, None) }?;
    // SAFETY: as above.
    let needs = unsafe { table.get_buffer_memory_requirements(buffer) };
    // SAFETY: the device's own physical device.
    let has =
        unsafe { instance.get_physical_device_memory_properties(device.raw_physical_device()) };
    let visible = vk::MemoryPropertyFlags::HOST_VISIBLE | vk::MemoryPropertyFlags::HOST_COHERENT;
    let first_with = |wanted| {
        (0..has.memory_type_count).find(|&kind| {
            needs.memory_type_bits & (1 << kind) != 0
                && has.memory_types[kind as usize]
                    .property_flags
                    .contains(wanted)
        })
    };
    // A kernel on an H200 that runs while the host writes does not see that in the host's memory.
    let kind =
        first_with(visible | vk::MemoryPropertyFlags::DEVICE_LOCAL).or_else(|| first_with(visible));
    let kind = kind.ok_or(vk::Result::ERROR_FEATURE_NOT_PRESENT)?;
    let info = vk::MemoryAllocateInfo::default()
        .allocation_size(needs.size)
        .memory_type_index(kind);
    // SAFETY: as above.
    let memory = unsafe { table.allocate_memory(&info, None) }?;
    // SAFETY: the memory is large enough, and of a type that fits.
    unsafe { table.bind_buffer_memory(buffer, memory, 0) }?;
    // SAFETY: host-visible memory that nobody has mapped.
    let words = unsafe {
        let words = table.map_memory(memory, 0, vk::WHOLE_SIZE, vk::MemoryMapFlags::empty())?;
        std::ptr::write_bytes(words.cast::<u8>(), 0, size as usize);
        words.cast::<AtomicU32>().cast_const()
    };
    // SAFETY: the buffer and its memory are wgpu's from here on.
    let bound = unsafe { hal::Buffer::from_raw_managed(buffer, memory, 0, size) };
    Ok((bound, words))
}
