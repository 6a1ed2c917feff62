//! Buffers: <https://docs.vulkan.org/spec/latest/chapters/resources.html>.

use crate::boundary::{Allocator, Array, Done, In, Out};
use crate::calls::{call, misuse, void};
use crate::face::Face;
use crate::memory::Span;
use crate::table::Child;
use ash::vk::{self, Handle};

const ALIGNMENT: u64 = 64;

#[derive(Debug)]
pub(crate) struct Buffer {
    pub(crate) device: vk::Device,
    pub(crate) size: u64,
    usage: vk::BufferUsageFlags,
    pub(crate) bound: Option<(vk::DeviceMemory, u64)>,
}

impl Child for Buffer {
    fn parent(&self) -> u64 {
        self.device.as_raw()
    }
}

impl Buffer {
    fn requirements(&self) -> vk::MemoryRequirements {
        vk::MemoryRequirements {
            // more than asked for, as drivers may need
            size: self.size.next_multiple_of(ALIGNMENT) + ALIGNMENT,
            alignment: ALIGNMENT,
            memory_type_bits: 0b111,
        }
    }

    pub(crate) fn check_usage(&self, usage: vk::BufferUsageFlags) -> Done {
        if self.usage.contains(usage) {
            return Ok(());
        }
        Err(misuse(&format!("a buffer was made without {usage:?}")))
    }

    /// A range in words that lies in the buffer; `WHOLE_SIZE` reaches to its end.
    pub(crate) fn range(&self, offset: u64, size: u64) -> Done<(u64, u64)> {
        let size = match size {
            vk::WHOLE_SIZE => self.size.saturating_sub(offset) & !3,
            size => size,
        };
        if size == 0 || offset.checked_add(size).is_none_or(|end| end > self.size) {
            return Err(misuse("a range beyond the buffer's end"));
        }
        if !offset.is_multiple_of(4) || !size.is_multiple_of(4) {
            return Err(misuse("a range that is no multiple of four bytes"));
        }
        Ok((offset, size))
    }
}

impl Face {
    /// The memory of a range that was checked before, and what it belongs to.
    pub(crate) fn span(
        &self,
        buffer: vk::Buffer,
        range: (u64, u64),
    ) -> Done<(Span, vk::DeviceMemory)> {
        let it = self.buffers.find(buffer)?;
        let Some((memory, offset)) = it.bound else {
            return Err(misuse("a buffer has no memory"));
        };
        let whole = Span {
            block: self.memories.get(it.device, memory)?.block.clone(),
            first: offset as usize / 4,
            count: it.size as usize / 4,
        };
        Ok((whole.part(range.0, range.1), memory))
    }

    fn bind(
        &mut self,
        device: vk::Device,
        buffer: vk::Buffer,
        memory: vk::DeviceMemory,
        offset: u64,
    ) -> Done {
        let have = self.memories.get(device, memory)?.size;
        let it = self.buffers.get_mut(device, buffer)?;
        let needs = it.requirements();
        if it.bound.is_some() {
            return Err(misuse("a buffer is bound a second time"));
        }
        if !offset.is_multiple_of(needs.alignment) {
            return Err(misuse("the offset is not aligned as the buffer requires"));
        }
        if offset.checked_add(needs.size).is_none_or(|end| end > have) {
            return Err(misuse(
                "the memory is too small for what the buffer requires",
            ));
        }
        it.bound = Some((memory, offset));
        Ok(())
    }
}

pub(crate) extern "system" fn vkCreateBuffer(
    device: vk::Device,
    info: In<'_, vk::BufferCreateInfo<'_>>,
    _: Allocator<'_>,
    buffer: Out<'_, vk::Buffer>,
) -> vk::Result {
    call("vkCreateBuffer", device, &[], |face| {
        let (info, out) = (info.needed()?, buffer.needed()?);
        face.device(device)?;
        if info.size == 0 || info.usage.is_empty() {
            return Err(misuse("a buffer must have a size and a usage"));
        }
        out.put(face.buffers.insert(Buffer {
            device,
            size: info.size,
            usage: info.usage,
            bound: None,
        }));
        Ok(())
    })
}

pub(crate) extern "system" fn vkDestroyBuffer(
    device: vk::Device,
    buffer: vk::Buffer,
    _: Allocator<'_>,
) {
    if buffer.is_null() {
        return;
    }
    void("vkDestroyBuffer", device, &[buffer.as_raw()], |face| {
        face.buffers.get(device, buffer)?;
        face.retire(buffer);
        face.buffers.remove(device, buffer).map(drop)
    });
}

pub(crate) extern "system" fn vkGetBufferMemoryRequirements(
    device: vk::Device,
    buffer: vk::Buffer,
    requirements: Out<'_, vk::MemoryRequirements>,
) {
    void("vkGetBufferMemoryRequirements", device, &[], |face| {
        let requirements = requirements.needed()?;
        requirements.put(face.buffers.get(device, buffer)?.requirements());
        Ok(())
    });
}

pub(crate) extern "system" fn vkGetBufferMemoryRequirements2(
    device: vk::Device,
    info: In<'_, vk::BufferMemoryRequirementsInfo2<'_>>,
    requirements: *mut vk::MemoryRequirements2<'_>,
) {
    void("vkGetBufferMemoryRequirements2", device, &[], |face| {
        let buffer = info.needed()?.buffer;
        // SAFETY: `pMemoryRequirements` must be a valid pointer to this structure
        match unsafe { requirements.as_mut() } {
            Some(all) => {
                all.memory_requirements = face.buffers.get(device, buffer)?.requirements();
                Ok(())
            }
            None => Err(misuse("a place for a result is null")),
        }
    });
}

pub(crate) extern "system" fn vkBindBufferMemory(
    device: vk::Device,
    buffer: vk::Buffer,
    memory: vk::DeviceMemory,
    offset: u64,
) -> vk::Result {
    call("vkBindBufferMemory", device, &[buffer.as_raw()], |face| {
        face.bind(device, buffer, memory, offset)
    })
}

pub(crate) extern "system" fn vkBindBufferMemory2(
    device: vk::Device,
    count: u32,
    infos: Array<'_, vk::BindBufferMemoryInfo<'_>>,
) -> vk::Result {
    call("vkBindBufferMemory2", device, &[], |face| {
        for info in infos.of(count) {
            face.bind(device, info.buffer, info.memory, info.memory_offset)?;
        }
        Ok(())
    })
}
