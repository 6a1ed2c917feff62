//! Memory: <https://docs.vulkan.org/spec/latest/chapters/memory.html>.

use crate::entry::{call, call_void};
use crate::ffi::{Allocator, Array, In, Out};
use crate::memory::{Block, Memory};
use crate::usage::invalid_usage;
use ash::vk::{self, Handle};
use std::ffi::c_void;
use std::sync::Arc;

/// `nonCoherentAtomSize`.
const ATOM: u64 = 64;

pub(crate) extern "system" fn vkAllocateMemory(
    device: vk::Device,
    info: In<'_, vk::MemoryAllocateInfo<'_>>,
    _: Allocator<'_>,
    memory: Out<'_, vk::DeviceMemory>,
) -> vk::Result {
    call("vkAllocateMemory", device, &[], |driver| {
        let (info, out) = (info.required()?, memory.required()?);
        driver.device(device)?;
        let (size, kind) = (info.allocation_size, info.memory_type_index);
        if size == 0 || kind > 2 {
            return Err(invalid_usage(
                "a size of 0, or a memory type that does not exist",
            ));
        }
        let same_heap = |(_, m): &(vk::DeviceMemory, &Memory)| {
            m.device == device && (m.kind == 0) == (kind == 0)
        };
        let used: u64 = driver
            .memories
            .iter()
            .filter(same_heap)
            .map(|(_, m)| m.size)
            .sum();
        if size > driver.options.heap.saturating_sub(used) {
            return Err(vk::Result::ERROR_OUT_OF_DEVICE_MEMORY);
        }
        let count = driver
            .memories
            .iter()
            .filter(|(_, m)| m.device == device)
            .count() as u64;
        if count >= driver.options.max_allocations {
            return Err(vk::Result::ERROR_TOO_MANY_OBJECTS);
        }
        let block = Arc::new(Block::new(size, kind != 2));
        out.put(driver.memories.insert(Memory {
            device,
            size,
            kind,
            block,
            mapped: None,
        }));
        Ok(())
    })
}

pub(crate) extern "system" fn vkFreeMemory(
    device: vk::Device,
    memory: vk::DeviceMemory,
    _: Allocator<'_>,
) {
    if memory.is_null() {
        return;
    }
    call_void("vkFreeMemory", device, &[memory.as_raw()], |driver| {
        driver.memories.get(device, memory)?;
        driver.check_unused(memory);
        driver.memories.remove(device, memory).map(drop)
    });
}

pub(crate) extern "system" fn vkMapMemory(
    device: vk::Device,
    memory: vk::DeviceMemory,
    offset: u64,
    size: u64,
    _: vk::MemoryMapFlags,
    data: Out<'_, *mut c_void>,
) -> vk::Result {
    call("vkMapMemory", device, &[memory.as_raw()], |driver| {
        let data = data.required()?;
        let memory = driver.memories.get_mut(device, memory)?;
        if memory.kind == 0 {
            return Err(invalid_usage(
                "the mapped memory is not visible to the host",
            ));
        }
        if memory.mapped.is_some() {
            return Err(invalid_usage("the memory is already mapped"));
        }
        let size = match size {
            vk::WHOLE_SIZE => memory.size.saturating_sub(offset),
            size => size,
        };
        if size == 0 || offset.checked_add(size).is_none_or(|end| end > memory.size) {
            return Err(invalid_usage("the mapped range is beyond the memory's end"));
        }
        memory.mapped = Some((offset, size));
        data.put(
            memory
                .block
                .host_pointer()
                .wrapping_byte_add(offset as usize),
        );
        Ok(())
    })
}

pub(crate) extern "system" fn vkUnmapMemory(device: vk::Device, memory: vk::DeviceMemory) {
    call_void("vkUnmapMemory", device, &[memory.as_raw()], |driver| {
        let memory = driver.memories.get_mut(device, memory)?;
        match memory.mapped.take() {
            Some(_) => Ok(()),
            None => Err(invalid_usage("the memory is not mapped")),
        }
    });
}

fn ranges(
    name: &'static str,
    device: vk::Device,
    ranges: &[vk::MappedMemoryRange<'_>],
    transfer: fn(&Block, u64, u64),
) -> vk::Result {
    call(name, device, &[], |driver| {
        for range in ranges {
            let memory = driver.memories.get(device, range.memory)?;
            let Some((start, mapped)) = memory.mapped else {
                return Err(invalid_usage("the memory is not mapped"));
            };
            let size = match range.size {
                vk::WHOLE_SIZE => (start + mapped).saturating_sub(range.offset),
                size => size,
            };
            let end = range.offset.saturating_add(size);
            if range.offset < start || end > start + mapped {
                return Err(invalid_usage("the range is not mapped"));
            }
            let whole = range.size == vk::WHOLE_SIZE || end == memory.size;
            if !range.offset.is_multiple_of(ATOM) || !whole && !size.is_multiple_of(ATOM) {
                return Err(invalid_usage(
                    "the range is not a multiple of nonCoherentAtomSize",
                ));
            }
            transfer(&memory.block, range.offset, size);
        }
        Ok(())
    })
}

pub(crate) extern "system" fn vkFlushMappedMemoryRanges(
    device: vk::Device,
    count: u32,
    all: Array<'_, vk::MappedMemoryRange<'_>>,
) -> vk::Result {
    ranges(
        "vkFlushMappedMemoryRanges",
        device,
        all.of(count),
        Block::flush,
    )
}

pub(crate) extern "system" fn vkInvalidateMappedMemoryRanges(
    device: vk::Device,
    count: u32,
    all: Array<'_, vk::MappedMemoryRange<'_>>,
) -> vk::Result {
    ranges(
        "vkInvalidateMappedMemoryRanges",
        device,
        all.of(count),
        Block::invalidate,
    )
}
