//! Memory: <https://docs.vulkan.org/spec/latest/chapters/memory.html>. Type 0 is the device's
//! alone, type 1 is coherent, and type 2 has two copies, of which the host sees one: only a flush
//! and an invalidation copy from one to the other.

use crate::boundary::{Allocator, Array, In, Out};
use crate::calls::{call, misuse, void};
use crate::face::Face;
use crate::table::Child;
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

/// What fresh memory holds: anything but zeros.
const GARBAGE: u32 = 0xcdcd_cdcd;

#[derive(Debug)]
pub(crate) struct Block {
    pages: Vec<Page>,
    /// What the host sees of memory that is not coherent.
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
    /// Words are whole: offsets and sizes are multiples of 64.
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
    /// Offset and size.
    mapped: Option<(u64, u64)>,
}

impl Child for Memory {
    fn parent(&self) -> u64 {
        self.device.as_raw()
    }
}

/// Mapped memory of machines that are gone: whoever holds a pointer to it must not crash.
static GHOSTS: Mutex<Vec<Arc<Block>>> = Mutex::new(Vec::new());

impl Face {
    pub(crate) fn keep_mapped(&self) {
        let mapped = self
            .memories
            .iter()
            .filter(|(_, memory)| memory.mapped.is_some());
        let mut ghosts = GHOSTS.lock().unwrap_or_else(PoisonError::into_inner);
        ghosts.extend(mapped.map(|(_, memory)| memory.block.clone()));
    }
}

pub(crate) extern "system" fn vkAllocateMemory(
    device: vk::Device,
    info: In<'_, vk::MemoryAllocateInfo<'_>>,
    _: Allocator<'_>,
    memory: Out<'_, vk::DeviceMemory>,
) -> vk::Result {
    call("vkAllocateMemory", device, &[], |face| {
        let (info, out) = (info.needed()?, memory.needed()?);
        face.device(device)?;
        let (size, kind) = (info.allocation_size, info.memory_type_index);
        if size == 0 || kind > 2 {
            return Err(misuse("no size, or a memory type that there is not"));
        }
        let same_heap = |(_, m): &(vk::DeviceMemory, &Memory)| {
            m.device == device && (m.kind == 0) == (kind == 0)
        };
        let used: u64 = face
            .memories
            .iter()
            .filter(same_heap)
            .map(|(_, m)| m.size)
            .sum();
        if size > face.options.heap.saturating_sub(used) {
            return Err(vk::Result::ERROR_OUT_OF_DEVICE_MEMORY);
        }
        let count = face
            .memories
            .iter()
            .filter(|(_, m)| m.device == device)
            .count() as u64;
        if count >= face.options.max_allocations {
            return Err(vk::Result::ERROR_TOO_MANY_OBJECTS);
        }
        let block = Arc::new(Block {
            pages: pages(size),
            host: (kind == 2).then(|| pages(size)),
        });
        out.put(face.memories.insert(Memory {
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
    void("vkFreeMemory", device, &[memory.as_raw()], |face| {
        face.memories.get(device, memory)?;
        face.retire(memory);
        face.memories.remove(device, memory).map(drop)
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
    call("vkMapMemory", device, &[memory.as_raw()], |face| {
        let data = data.needed()?;
        let memory = face.memories.get_mut(device, memory)?;
        if memory.kind == 0 {
            return Err(misuse("memory is mapped that the host cannot see"));
        }
        if memory.mapped.is_some() {
            return Err(misuse("memory is mapped that is mapped already"));
        }
        let size = match size {
            vk::WHOLE_SIZE => memory.size.saturating_sub(offset),
            size => size,
        };
        if size == 0 || offset.checked_add(size).is_none_or(|end| end > memory.size) {
            return Err(misuse("a range is mapped beyond the memory's end"));
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
    void("vkUnmapMemory", device, &[memory.as_raw()], |face| {
        let memory = face.memories.get_mut(device, memory)?;
        match memory.mapped.take() {
            Some(_) => Ok(()),
            None => Err(misuse("memory is unmapped that is not mapped")),
        }
    });
}

fn ranges(
    name: &'static str,
    device: vk::Device,
    ranges: &[vk::MappedMemoryRange<'_>],
    copy: fn(&Block, &[Page], u64, u64),
) -> vk::Result {
    call(name, device, &[], |face| {
        for range in ranges {
            let memory = face.memories.get(device, range.memory)?;
            let Some((start, mapped)) = memory.mapped else {
                return Err(misuse("the memory is not mapped"));
            };
            let size = match range.size {
                vk::WHOLE_SIZE => (start + mapped).saturating_sub(range.offset),
                size => size,
            };
            let end = range.offset.saturating_add(size);
            if range.offset < start || end > start + mapped {
                return Err(misuse("the range is not mapped"));
            }
            let whole = range.size == vk::WHOLE_SIZE || end == memory.size;
            if !range.offset.is_multiple_of(ATOM) || !whole && !size.is_multiple_of(ATOM) {
                return Err(misuse("the range is no multiple of nonCoherentAtomSize"));
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
