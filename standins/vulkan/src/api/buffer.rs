//! Buffers: <https://docs.vulkan.org/spec/latest/chapters/resources.html>.

use crate::buffer::Buffer;
use crate::driver::Driver;
use crate::entry::{call, call_void};
use crate::ffi::{Allocator, Array, In, Out};
use crate::usage::{VkResult, invalid_usage};
use ash::vk::{self, Handle};

impl Driver {
    fn bind(
        &mut self,
        device: vk::Device,
        buffer: vk::Buffer,
        memory: vk::DeviceMemory,
        offset: u64,
    ) -> VkResult {
        let have = self.memories.get(device, memory)?.size;
        let it = self.buffers.get_mut(device, buffer)?;
        let needs = it.requirements();
        if it.bound.is_some() {
            return Err(invalid_usage("a buffer is bound a second time"));
        }
        if !offset.is_multiple_of(needs.alignment) {
            return Err(invalid_usage(
                "the offset is not aligned as the buffer requires",
            ));
        }
        if offset.checked_add(needs.size).is_none_or(|end| end > have) {
            return Err(invalid_usage(
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
    call("vkCreateBuffer", device, &[], |driver| {
        let (info, out) = (info.required()?, buffer.required()?);
        driver.device(device)?;
        if info.size == 0 || info.usage.is_empty() {
            return Err(invalid_usage("a buffer must have a size and a usage"));
        }
        out.put(driver.buffers.insert(Buffer {
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
    call_void("vkDestroyBuffer", device, &[buffer.as_raw()], |driver| {
        driver.buffers.get(device, buffer)?;
        driver.check_unused(buffer);
        driver.buffers.remove(device, buffer).map(drop)
    });
}

pub(crate) extern "system" fn vkGetBufferMemoryRequirements(
    device: vk::Device,
    buffer: vk::Buffer,
    requirements: Out<'_, vk::MemoryRequirements>,
) {
    call_void("vkGetBufferMemoryRequirements", device, &[], |driver| {
        let requirements = requirements.required()?;
        requirements.put(driver.buffers.get(device, buffer)?.requirements());
        Ok(())
    });
}

pub(crate) extern "system" fn vkGetBufferMemoryRequirements2(
    device: vk::Device,
    info: In<'_, vk::BufferMemoryRequirementsInfo2<'_>>,
    requirements: *mut vk::MemoryRequirements2<'_>,
) {
    call_void("vkGetBufferMemoryRequirements2", device, &[], |driver| {
        let buffer = info.required()?.buffer;
        // SAFETY: `pMemoryRequirements` must be a valid pointer to this structure
        match unsafe { requirements.as_mut() } {
            Some(all) => {
                all.memory_requirements = driver.buffers.get(device, buffer)?.requirements();
                Ok(())
            }
            None => Err(invalid_usage("a pointer to a result is null")),
        }
    });
}

pub(crate) extern "system" fn vkBindBufferMemory(
    device: vk::Device,
    buffer: vk::Buffer,
    memory: vk::DeviceMemory,
    offset: u64,
) -> vk::Result {
    call("vkBindBufferMemory", device, &[buffer.as_raw()], |driver| {
        driver.bind(device, buffer, memory, offset)
    })
}

pub(crate) extern "system" fn vkBindBufferMemory2(
    device: vk::Device,
    count: u32,
    infos: Array<'_, vk::BindBufferMemoryInfo<'_>>,
) -> vk::Result {
    call("vkBindBufferMemory2", device, &[], |driver| {
        for info in infos.of(count) {
            driver.bind(device, info.buffer, info.memory, info.memory_offset)?;
        }
        Ok(())
    })
}
