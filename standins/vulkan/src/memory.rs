//! Memory: <https://docs.vulkan.org/spec/latest/chapters/memory.html>. Type 0 is not visible to the
//! host, type 1 is coherent, and type 2 has two copies, one for the host and one for the device:
//! only a flush or an invalidation copies from one to the other.

use crate::driver::Driver;
use crate::entry::{call, call_void};
use crate::ffi::{Allocator, Array, In, Out};
use crate::table::Child;
use crate::usage::invalid_usage;
use ash::vk::{self, Handle};
use std::ffi::c_void;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

const ATOM: u64 = 64;
const WORDS: usize = 1024;

/// Aligned as `minMemoryMapAlignment` says.
#[derive(Debug)]
#[repr(align(4096))]
struct Page([AtomicU32; WORDS]);

/// What new memory is filled with, so that no test relies on zeros.
const GARBAGE: u32 = 0xcdcd_cdcd;

#[derive(Debug)]
pub(crate) struct Block {
    pages: Vec<Page>,
    /// The host's copy of memory that is not coherent.
    host: Option<Vec<Page>>,
}

fn pages(size: u64) -> Vec<Page> {
    let count = size.div_ceil(4 * WORDS as u64) as usize;
    let page = |_| Page([const { AtomicU32::new(GARBAGE) }; WORDS]);
    (0..count).map(page).collect()
}

fn word(pages: &[Page], index: usize) -> Option<&AtomicU32> {
    pages.get(index / WORDS).map(|page| &page.0[index % WORDS])
}

impl Block {
    /// Copies whole words; offsets and sizes are multiples of 64.
    fn copy(from: &[Page], to: &[Page], offset: u64, size: u64) {
        for index in offset / 4..(offset + size).div_ceil(4) {
            if let (Some(from), Some(to)) = (word(from, index as usize), word(to, index as usize)) {
                to.store(from.load(Ordering::Relaxed), Ordering::Relaxed);
            }
        }
    }

    fn host_pointer(&self) -> *mut c_void {
        let pages = self.host.as_ref().unwrap_or(&self.pages);
        pages.as_ptr().cast_mut().cast()
    }
}

/// A part of a block, in words. It keeps the block alive.
#[derive(Clone, Debug)]
pub(crate) struct Span {
    pub(crate) block: Arc<Block>,
    pub(crate) first: usize,
    pub(crate) count: usize,
}

impl Span {
    /// `None` beyond its end.
    pub(crate) fn word(&self, index: usize) -> Option<&AtomicU32> {
        let index = (index < self.count).then_some(self.first + index)?;
        word(&self.block.pages, index)
    }

    pub(crate) fn part(&self, offset: u64, size: u64) -> Span {
        Span {
            block: self.block.clone(),
            first: self.first + offset as usize / 4,
            count: size as usize / 4,
        }
    }
}

#[derive(Debug)]
pub(crate) struct Memory {
    device: vk::Device,
    pub(crate) size: u64,
    pub(crate) kind: u32,
    pub(crate) block: Arc<Block>,
    /// The offset and size of the mapped range.
    mapped: Option<(u64, u64)>,
}

impl Child for Memory {
    fn parent(&self) -> u64 {
        self.device.as_raw()
    }
}

/// Mapped memory of machines that are gone. A thread that still has a pointer to it must not crash.
static KEPT_ALIVE: Mutex<Vec<Arc<Block>>> = Mutex::new(Vec::new());

impl Driver {
    pub(crate) fn keep_mapped_memory(&self) {
        let mapped = self
            .memories
            .iter()
            .filter(|(_, memory)| memory.mapped.is_some());
        let mut kept_alive = KEPT_ALIVE.lock().unwrap_or_else(PoisonError::into_inner);
        kept_alive.extend(mapped.map(|(_, memory)| memory.block.clone()));
    }
}

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
            return Err(invalid_usage("no size, or a memory type that there is not"));
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
        let block = Arc::new(Block {
            pages: pages(size),
            host: (kind == 2).then(|| pages(size)),
        });
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
            return Err(invalid_usage("memory is mapped that the host cannot see"));
        }
        if memory.mapped.is_some() {
            return Err(invalid_usage("memory is mapped that is mapped already"));
        }
        let size = match size {
            vk::WHOLE_SIZE => memory.size.saturating_sub(offset),
            size => size,
        };
        if size == 0 || offset.checked_add(size).is_none_or(|end| end > memory.size) {
            return Err(invalid_usage("a range is mapped beyond the memory's end"));
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
            None => Err(invalid_usage("memory is unmapped that is not mapped")),
        }
    });
}

fn ranges(
    name: &'static str,
    device: vk::Device,
    ranges: &[vk::MappedMemoryRange<'_>],
    copy: fn(&Block, &[Page], u64, u64),
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
                    "the range is no multiple of nonCoherentAtomSize",
                ));
            }
            if let Some(host) = &memory.block.host {
                copy(&memory.block, host, range.offset, size);
            }
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
        |block, host, offset, size| {
            Block::copy(host, &block.pages, offset, size);
        },
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
        |block, host, offset, size| {
            Block::copy(&block.pages, host, offset, size);
        },
    )
}
