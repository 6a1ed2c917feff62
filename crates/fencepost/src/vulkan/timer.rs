//! The query slots of one stream: query pools, and for each query a command buffer that writes it.
//!
//! The buffers are recorded once, when the ring grows, so that a timed record is still one submit.
//! If the host may reset queries, it does so before each submit. Otherwise the buffer resets its
//! query first.

use std::sync::Arc;

use ash::{Device as Table, vk};

use super::{
    fault::Fault,
    gpu::Gpu,
    memory::Memory,
    slots::{Ring, Slot},
    timestamp,
};
use crate::{
    error::Result,
    sync::{Mutex, lock},
};

pub(crate) struct Timer {
    pub(super) ring: Ring,
    queries: Mutex<Queries>,
    /// The valid bits of its timestamps.
    pub(super) bits: u32,
    /// Whether times are copied into host memory, to be read there.
    copies: bool,
}

struct Queries {
    commands: vk::CommandPool,
    pools: Vec<vk::QueryPool>,
    /// By the index of their slots in the ring.
    slots: Vec<Query>,
}

/// A query and the buffer that writes it.
#[derive(Clone)]
pub(super) struct Query {
    pub(super) pool: vk::QueryPool,
    pub(super) index: u32,
    pub(super) buffer: vk::CommandBuffer,
    /// Where the time is copied to, at the word with the query's index.
    pub(super) copy: Option<Arc<Memory>>,
}

/// The number of queries in the first pool. Each further pool doubles the sum, and has `MOST` at
/// most.
const FIRST: u32 = 64;
const MOST: u32 = 4096;

impl Timer {
    /// For a stream on queues of `family`.
    pub(super) fn new(gpu: &Arc<Gpu>, family: u32) -> Result<Timer> {
        let bits = timestamp::valid_bits(gpu, family, false)?;
        gpu.writes_bits(bits);
        let info = vk::CommandPoolCreateInfo::default().queue_family_index(family);
        // SAFETY: the device is alive and has the family.
        let commands = unsafe { gpu.device.create_command_pool(&info, None) }
            .map_err(|result| gpu.failed(Fault::of("vkCreateCommandPool")(result)))?;
        Ok(Timer {
            ring: Ring::new(),
            queries: Mutex::new(Queries {
                commands,
                pools: Vec::new(),
                slots: Vec::new(),
            }),
            bits,
            copies: gpu.copies_times(family),
        })
    }

    /// One query, which a command buffer of the caller's, for queues of `family`, writes.
    pub(super) fn single(gpu: &Arc<Gpu>, family: u32, bits: u32) -> Result<Timer, Fault> {
        gpu.writes_bits(bits);
        let copies = gpu.copies_times(family);
        let copy = copies.then(|| times(gpu, 1)).transpose()?;
        let info = vk::QueryPoolCreateInfo::default()
            .query_type(vk::QueryType::TIMESTAMP)
            .query_count(1);
        // SAFETY: the device is alive.
        let pool = unsafe { gpu.device.create_query_pool(&info, None) }
            .map_err(Fault::of("vkCreateQueryPool"))?;
        Ok(Timer {
            ring: Ring::new(),
            queries: Mutex::new(Queries {
                commands: vk::CommandPool::null(),
                pools: vec![pool],
                slots: vec![Query {
                    pool,
                    index: 0,
                    buffer: vk::CommandBuffer::null(),
                    copy,
                }],
            }),
            bits,
            copies,
        })
    }

    /// The only query of a [`single`](Timer::single). Called once.
    pub(super) fn only(&self) -> Option<(Slot, Query)> {
        let query = lock(&self.queries).slots.first()?.clone();
        Some((self.ring.grow(1), query))
    }

    /// A query that is ready to be written. `counter` reads the stream's marker timeline. Called
    /// under the submit lock.
    pub(super) fn take(
        &self,
        gpu: &Arc<Gpu>,
        counter: impl FnOnce() -> u64,
    ) -> Result<(Slot, Query), Fault> {
        let taken = self.ring.take(counter);
        let mut queries = lock(&self.queries);
        let slot = match taken {
            Some(slot) => slot,
            None => {
                let more = (queries.slots.len() as u32).clamp(FIRST, MOST);
                let copy = self.copies.then(|| times(gpu, more)).transpose()?;
                queries.grow(gpu, more, copy)?;
                self.ring.grow(more)
            }
        };
        let Some(query) = queries.slots.get(slot.index as usize).cloned() else {
            return Err(Fault {
                call: "vkCreateQueryPool",
                result: vk::Result::ERROR_UNKNOWN,
            });
        };
        drop(queries);
        if gpu.host_reset {
            // SAFETY: the pool is alive; no submitted work uses the query, and nobody else reads it
            // (slots.rs).
            unsafe { gpu.device.reset_query_pool(query.pool, query.index, 1) };
        }
        Ok((slot, query))
    }

    /// Called when nothing is pending any more.
    pub(super) fn destroy(self, device: &Table) {
        let queries = lock(&self.queries);
        for &pool in &queries.pools {
            // SAFETY: made by us; nothing pending writes it, and no marker is left to read it.
            unsafe { device.destroy_query_pool(pool, None) };
        }
        // SAFETY: as above; its buffers go with it.
        unsafe { device.destroy_command_pool(queries.commands, None) };
    }
}

impl Queries {
    fn grow(&mut self, gpu: &Gpu, more: u32, copy: Option<Arc<Memory>>) -> Result<(), Fault> {
        let (pool, buffers) = queries(gpu, self.commands, more, copy.as_deref())?;
        self.pools.push(pool);
        self.slots
            .extend((0..).zip(buffers).map(|(index, buffer)| Query {
                pool,
                index,
                buffer,
                copy: copy.clone(),
            }));
        Ok(())
    }
}

/// Host memory for `count` times.
fn times(gpu: &Arc<Gpu>, count: u32) -> Result<Arc<Memory>, Fault> {
    Memory::new(gpu, count as usize * 8, vk::BufferUsageFlags::TRANSFER_DST)
}

/// A pool of timestamp queries, and for each the buffer that writes it.
fn queries(
    gpu: &Gpu,
    commands: vk::CommandPool,
    count: u32,
    copy: Option<&Memory>,
) -> Result<(vk::QueryPool, Vec<vk::CommandBuffer>), Fault> {
    let info = vk::QueryPoolCreateInfo::default()
        .query_type(vk::QueryType::TIMESTAMP)
        .query_count(count);
    let device = &gpu.device;
    // SAFETY: the device is alive.
    let pool =
        unsafe { device.create_query_pool(&info, None) }.map_err(Fault::of("vkCreateQueryPool"))?;
    let info = vk::CommandBufferAllocateInfo::default()
        .command_pool(commands)
        .level(vk::CommandBufferLevel::PRIMARY)
        .command_buffer_count(count);
    // SAFETY: the command pool is alive and used by nobody else: the submit lock is held.
    let buffers = unsafe { device.allocate_command_buffers(&info) };
    let buffers = buffers.map_err(Fault::of("vkAllocateCommandBuffers"));
    let recorded = buffers.and_then(|buffers| {
        let recorded = (0..)
            .zip(&buffers)
            .try_for_each(|(index, &buffer)| record_write(gpu, buffer, pool, index, copy));
        if recorded.is_err() {
            // SAFETY: of this pool, which nobody else uses; never submitted.
            unsafe { device.free_command_buffers(commands, &buffers) };
        }
        recorded.map(|()| buffers)
    });
    match recorded {
        Ok(buffers) => Ok((pool, buffers)),
        Err(fault) => {
            // SAFETY: made just now; no buffer that names it is left.
            unsafe { device.destroy_query_pool(pool, None) };
            Err(fault)
        }
    }
}

/// Records the buffer that writes a timestamp into the query `index`.
fn record_write(
    gpu: &Gpu,
    buffer: vk::CommandBuffer,
    pool: vk::QueryPool,
    index: u32,
    copy: Option<&Memory>,
) -> Result<(), Fault> {
    let device = &gpu.device;
    let info = vk::CommandBufferBeginInfo::default();
    // SAFETY: a new buffer of a pool that nobody else uses; recorded once.
    unsafe {
        device
            .begin_command_buffer(buffer, &info)
            .map_err(Fault::of("vkBeginCommandBuffer"))?;
        timestamp::write(gpu, buffer, (pool, index), copy, false);
        device
            .end_command_buffer(buffer)
            .map_err(Fault::of("vkEndCommandBuffer"))
    }
}
