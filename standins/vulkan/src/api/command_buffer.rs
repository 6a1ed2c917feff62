//! Command pools, and the lifecycle of command buffers:
//! <https://docs.vulkan.org/spec/latest/chapters/cmdbuffers.html>.

use crate::command_buffer::{CommandBuffer, CommandPool, Recorded, State};
use crate::driver::{Driver, with_driver};
use crate::entry::{call, call_void};
use crate::ffi::{Allocator, Array, In, Out};
use crate::usage::{VkResult, invalid_usage};
use ash::vk::{self, Handle};

impl Driver {
    fn buffers_of(&self, pool: vk::CommandPool) -> Vec<vk::CommandBuffer> {
        let own = self.command_buffers.iter().filter(|(_, b)| b.pool == pool);
        own.map(|(handle, _)| handle).collect()
    }

    fn not_pending(&self, buffer: vk::CommandBuffer) -> VkResult {
        if self.in_use(buffer.as_raw()) {
            return Err(invalid_usage("a command buffer is pending"));
        }
        Ok(())
    }

    fn reset_buffer(&mut self, buffer: vk::CommandBuffer) -> VkResult {
        self.not_pending(buffer)?;
        let pool = self.command_buffers.find(buffer)?.pool;
        if !self.command_pools.find(pool)?.resets {
            return Err(invalid_usage(
                "the pool was created without RESET_COMMAND_BUFFER",
            ));
        }
        self.command_buffers.find_mut(buffer)?.recorded = Recorded::default();
        Ok(())
    }
}

/// The handles of a command buffer and its pool, both of which need external synchronization.
pub(crate) fn with_pool(buffer: vk::CommandBuffer) -> [u64; 2] {
    let pool = with_driver(|driver| Some(driver.command_buffers.peek(buffer)?.pool.as_raw()));
    [buffer.as_raw(), pool.ok().flatten().unwrap_or(0)]
}

pub(crate) extern "system" fn vkCreateCommandPool(
    device: vk::Device,
    info: In<'_, vk::CommandPoolCreateInfo<'_>>,
    _: Allocator<'_>,
    pool: Out<'_, vk::CommandPool>,
) -> vk::Result {
    call("vkCreateCommandPool", device, &[], |driver| {
        let (info, out) = (info.required()?, pool.required()?);
        let family = info.queue_family_index;
        driver.device(device)?;
        if !driver
            .queues
            .iter()
            .any(|(_, q)| (q.device, q.family) == (device, family))
        {
            return Err(invalid_usage(&format!(
                "the device was created without queue family {family}"
            )));
        }
        let resets = vk::CommandPoolCreateFlags::RESET_COMMAND_BUFFER;
        out.put(driver.command_pools.insert(CommandPool {
            device,
            family,
            resets: info.flags.contains(resets),
        }));
        Ok(())
    })
}

pub(crate) extern "system" fn vkDestroyCommandPool(
    device: vk::Device,
    pool: vk::CommandPool,
    _: Allocator<'_>,
) {
    if pool.is_null() {
        return;
    }
    call_void("vkDestroyCommandPool", device, &[pool.as_raw()], |driver| {
        driver.command_pools.get(device, pool)?;
        for buffer in driver.buffers_of(pool) {
            driver.check_unused(buffer);
        }
        driver.command_buffers.remove_all(pool);
        driver.command_pools.remove(device, pool).map(drop)
    });
}

pub(crate) extern "system" fn vkResetCommandPool(
    device: vk::Device,
    pool: vk::CommandPool,
    _: vk::CommandPoolResetFlags,
) -> vk::Result {
    call("vkResetCommandPool", device, &[pool.as_raw()], |driver| {
        driver.command_pools.get(device, pool)?;
        for buffer in driver.buffers_of(pool) {
            driver.not_pending(buffer)?;
            driver.command_buffers.find_mut(buffer)?.recorded = Recorded::default();
        }
        Ok(())
    })
}

pub(crate) extern "system" fn vkTrimCommandPool(
    device: vk::Device,
    pool: vk::CommandPool,
    _: vk::CommandPoolTrimFlags,
) {
    call_void("vkTrimCommandPool", device, &[pool.as_raw()], |driver| {
        driver.command_pools.get(device, pool).map(drop)
    });
}

pub(crate) extern "system" fn vkAllocateCommandBuffers(
    device: vk::Device,
    info: In<'_, vk::CommandBufferAllocateInfo<'_>>,
    buffers: Out<'_, vk::CommandBuffer>,
) -> vk::Result {
    let pool = info.peek().map_or(0, |info| info.command_pool.as_raw());
    call("vkAllocateCommandBuffers", device, &[pool], |driver| {
        let (info, out) = (info.required()?, buffers.required()?);
        driver.command_pools.get(device, info.command_pool)?;
        if info.level != vk::CommandBufferLevel::PRIMARY {
            return Err(invalid_usage(
                "the stand-in has primary command buffers only",
            ));
        }
        let count = info.command_buffer_count as usize;
        let made = (0..count).map(|_| {
            driver.command_buffers.insert(CommandBuffer {
                device,
                pool: info.command_pool,
                recorded: Recorded::default(),
            })
        });
        out.many(count).fill(made);
        Ok(())
    })
}

pub(crate) extern "system" fn vkFreeCommandBuffers(
    device: vk::Device,
    pool: vk::CommandPool,
    count: u32,
    buffers: Array<'_, vk::CommandBuffer>,
) {
    let buffers = buffers.of(count);
    let mut exclusive: Vec<u64> = buffers.iter().map(|buffer| buffer.as_raw()).collect();
    exclusive.push(pool.as_raw());
    call_void("vkFreeCommandBuffers", device, &exclusive, |driver| {
        driver.command_pools.get(device, pool)?;
        for buffer in buffers.iter().filter(|buffer| !buffer.is_null()) {
            driver.command_buffers.get(pool, *buffer)?;
            driver.check_unused(*buffer);
            driver.command_buffers.remove(pool, *buffer)?;
        }
        Ok(())
    });
}

pub(crate) extern "system" fn vkBeginCommandBuffer(
    buffer: vk::CommandBuffer,
    info: In<'_, vk::CommandBufferBeginInfo<'_>>,
) -> vk::Result {
    call(
        "vkBeginCommandBuffer",
        buffer,
        &with_pool(buffer),
        |driver| {
            let info = info.required()?;
            driver.not_pending(buffer)?;
            match driver.command_buffers.find(buffer)?.recorded.state {
                State::Initial => {}
                State::Recording => {
                    return Err(invalid_usage(
                        "the command buffer is already being recorded",
                    ));
                }
                State::Executable | State::Invalid => driver.reset_buffer(buffer)?,
            }
            driver.command_buffers.find_mut(buffer)?.recorded = Recorded {
                state: State::Recording,
                usage: info.flags,
                ..Recorded::default()
            };
            Ok(())
        },
    )
}

pub(crate) extern "system" fn vkEndCommandBuffer(buffer: vk::CommandBuffer) -> vk::Result {
    call("vkEndCommandBuffer", buffer, &with_pool(buffer), |driver| {
        let recorded = &mut driver.command_buffers.find_mut(buffer)?.recorded;
        if recorded.state != State::Recording {
            return Err(invalid_usage("the command buffer is not being recorded"));
        }
        recorded.state = State::Executable;
        Ok(())
    })
}

pub(crate) extern "system" fn vkResetCommandBuffer(
    buffer: vk::CommandBuffer,
    _: vk::CommandBufferResetFlags,
) -> vk::Result {
    call(
        "vkResetCommandBuffer",
        buffer,
        &with_pool(buffer),
        |driver| driver.reset_buffer(buffer),
    )
}
