//! Command pools, and the life of command buffers:
//! <https://docs.vulkan.org/spec/latest/chapters/cmdbuffers.html>.

use crate::boundary::{Allocator, Array, Done, In, Out};
use crate::calls::{call, misuse, void};
use crate::command::{Bound, Command};
use crate::face::{Face, with_face};
use crate::table::Child;
use ash::vk::{self, Handle};
use std::collections::BTreeSet;

#[derive(Debug)]
pub(crate) struct CommandPool {
    device: vk::Device,
    pub(crate) family: u32,
    /// Whether its buffers may be reset one by one.
    resets: bool,
}

impl Child for CommandPool {
    fn parent(&self) -> u64 {
        self.device.as_raw()
    }
}

/// `Pending` is no state of its own: the batches that use the buffer tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum State {
    #[default]
    Initial,
    Recording,
    Executable,
    Invalid,
}

#[derive(Debug)]
pub(crate) struct CommandBuffer {
    pub(crate) device: vk::Device,
    pub(crate) pool: vk::CommandPool,
    pub(crate) recorded: Recorded,
}

/// What a reset takes away.
#[derive(Debug, Default)]
pub(crate) struct Recorded {
    pub(crate) state: State,
    pub(crate) usage: vk::CommandBufferUsageFlags,
    pub(crate) commands: Vec<Command>,
    /// What it names.
    pub(crate) uses: BTreeSet<u64>,
    /// The sets that it has bound, and their versions then.
    pub(crate) sets: Vec<(vk::DescriptorSet, u64)>,
    pub(crate) bound: Bound,
    pub(crate) submitted: bool,
}

impl Child for CommandBuffer {
    fn parent(&self) -> u64 {
        self.pool.as_raw()
    }
}

impl Face {
    fn buffers_of(&self, pool: vk::CommandPool) -> Vec<vk::CommandBuffer> {
        let own = self.command_buffers.iter().filter(|(_, b)| b.pool == pool);
        own.map(|(handle, _)| handle).collect()
    }

    fn not_pending(&self, buffer: vk::CommandBuffer) -> Done {
        if self.in_use(buffer.as_raw()) {
            return Err(misuse("a command buffer is pending"));
        }
        Ok(())
    }

    fn reset_buffer(&mut self, buffer: vk::CommandBuffer) -> Done {
        self.not_pending(buffer)?;
        let pool = self.command_buffers.find(buffer)?.pool;
        if !self.command_pools.find(pool)?.resets {
            return Err(misuse("the pool was made without RESET_COMMAND_BUFFER"));
        }
        self.command_buffers.find_mut(buffer)?.recorded = Recorded::default();
        Ok(())
    }
}

/// A command buffer and its pool, neither of which another thread may use meanwhile.
pub(crate) fn with_pool(buffer: vk::CommandBuffer) -> [u64; 2] {
    let pool = with_face(|face| Some(face.command_buffers.peek(buffer)?.pool.as_raw()));
    [buffer.as_raw(), pool.ok().flatten().unwrap_or(0)]
}

pub(crate) extern "system" fn vkCreateCommandPool(
    device: vk::Device,
    info: In<'_, vk::CommandPoolCreateInfo<'_>>,
    _: Allocator<'_>,
    pool: Out<'_, vk::CommandPool>,
) -> vk::Result {
    call("vkCreateCommandPool", device, &[], |face| {
        let (info, out) = (info.needed()?, pool.needed()?);
        let family = info.queue_family_index;
        face.device(device)?;
        if !face
            .queues
            .iter()
            .any(|(_, q)| (q.device, q.family) == (device, family))
        {
            return Err(misuse(&format!(
                "the device was made without queue family {family}"
            )));
        }
        let resets = vk::CommandPoolCreateFlags::RESET_COMMAND_BUFFER;
        out.put(face.command_pools.insert(CommandPool {
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
    void("vkDestroyCommandPool", device, &[pool.as_raw()], |face| {
        face.command_pools.get(device, pool)?;
        for buffer in face.buffers_of(pool) {
            face.retire(buffer);
        }
        face.command_buffers.remove_all(pool);
        face.command_pools.remove(device, pool).map(drop)
    });
}

pub(crate) extern "system" fn vkResetCommandPool(
    device: vk::Device,
    pool: vk::CommandPool,
    _: vk::CommandPoolResetFlags,
) -> vk::Result {
    call("vkResetCommandPool", device, &[pool.as_raw()], |face| {
        face.command_pools.get(device, pool)?;
        for buffer in face.buffers_of(pool) {
            face.not_pending(buffer)?;
            face.command_buffers.find_mut(buffer)?.recorded = Recorded::default();
        }
        Ok(())
    })
}

pub(crate) extern "system" fn vkTrimCommandPool(
    device: vk::Device,
    pool: vk::CommandPool,
    _: vk::CommandPoolTrimFlags,
) {
    void("vkTrimCommandPool", device, &[pool.as_raw()], |face| {
        face.command_pools.get(device, pool).map(drop)
    });
}

pub(crate) extern "system" fn vkAllocateCommandBuffers(
    device: vk::Device,
    info: In<'_, vk::CommandBufferAllocateInfo<'_>>,
    buffers: Out<'_, vk::CommandBuffer>,
) -> vk::Result {
    let pool = info.peek().map_or(0, |info| info.command_pool.as_raw());
    call("vkAllocateCommandBuffers", device, &[pool], |face| {
        let (info, out) = (info.needed()?, buffers.needed()?);
        face.command_pools.get(device, info.command_pool)?;
        if info.level != vk::CommandBufferLevel::PRIMARY {
            return Err(misuse("the stand-in has primary command buffers only"));
        }
        let count = info.command_buffer_count as usize;
        let made = (0..count).map(|_| {
            face.command_buffers.insert(CommandBuffer {
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
    void("vkFreeCommandBuffers", device, &exclusive, |face| {
        face.command_pools.get(device, pool)?;
        for buffer in buffers.iter().filter(|buffer| !buffer.is_null()) {
            face.command_buffers.get(pool, *buffer)?;
            face.retire(*buffer);
            face.command_buffers.remove(pool, *buffer)?;
        }
        Ok(())
    });
}

pub(crate) extern "system" fn vkBeginCommandBuffer(
    buffer: vk::CommandBuffer,
    info: In<'_, vk::CommandBufferBeginInfo<'_>>,
) -> vk::Result {
    call("vkBeginCommandBuffer", buffer, &with_pool(buffer), |face| {
        let info = info.needed()?;
        face.not_pending(buffer)?;
        match face.command_buffers.find(buffer)?.recorded.state {
            State::Initial => {}
            State::Recording => return Err(misuse("the command buffer is being recorded already")),
            State::Executable | State::Invalid => face.reset_buffer(buffer)?,
        }
        face.command_buffers.find_mut(buffer)?.recorded = Recorded {
            state: State::Recording,
            usage: info.flags,
            ..Recorded::default()
        };
        Ok(())
    })
}

pub(crate) extern "system" fn vkEndCommandBuffer(buffer: vk::CommandBuffer) -> vk::Result {
    call("vkEndCommandBuffer", buffer, &with_pool(buffer), |face| {
        let recorded = &mut face.command_buffers.find_mut(buffer)?.recorded;
        if recorded.state != State::Recording {
            return Err(misuse("the command buffer is not being recorded"));
        }
        recorded.state = State::Executable;
        Ok(())
    })
}

pub(crate) extern "system" fn vkResetCommandBuffer(
    buffer: vk::CommandBuffer,
    _: vk::CommandBufferResetFlags,
) -> vk::Result {
    call("vkResetCommandBuffer", buffer, &with_pool(buffer), |face| {
        face.reset_buffer(buffer)
    })
}
