//! Timestamps of one stream's markers: query pools, and for each query a command buffer that writes
//! it.
//!
//! The buffers are recorded once, when the ring grows, so that a timed record is still one submit.
//! Where the host may reset queries it does so before each submit; elsewhere the buffer resets its
//! query first.

use std::sync::Arc;

use ash::{Device as Table, vk};

use super::{
    gpu::{Fault, Gpu},
    native::Native,
    slots::{Ring, Slot},
};
use crate::{
    clock::{Elapsed, Timestamp},
    epochs::Time,
    error::{Error, Result},
    sync::{Mutex, lock, spin_until},
};

pub(crate) struct Timer {
    ring: Ring,
    natives: Mutex<Natives>,
    /// The family's valid bits.
    bits: u32,
}

struct Natives {
    commands: vk::CommandPool,
    pools: Vec<vk::QueryPool>,
    slots: Vec<Query>,
}

#[derive(Clone, Copy)]
struct Query {
    pool: vk::QueryPool,
    index: u32,
    buffer: vk::CommandBuffer,
}

/// A marker's claim on a query.
pub(crate) struct SlotTime {
    native: Arc<Native>,
    slot: Slot,
    query: Query,
    /// The stream's value at which the device is through with the query.
    until: u64,
}

/// The first pool's queries. Each further one has as many as there are, up to the most.
const FIRST: u32 = 64;
const MOST: u32 = 4096;

impl Timer {
    /// The valid bits of timestamps on queues of `family`; an error where they cannot be written
    /// there. `in_queue` says that queries are reset in the queue, whatever the host may do.
    pub(super) fn supported(gpu: &Gpu, family: u32, in_queue: bool) -> Result<u32> {
        let none = vk::QueueFamilyProperties::default();
        let facts = gpu.families.get(family as usize).unwrap_or(&none);
        let reset = match (in_queue, gpu.host_reset) {
            (true, _) => Reset::InTheQueue,
            (false, true) => Reset::ByTheHost,
            (false, false) => Reset::NotByTheHost,
        };
        supported(&gpu.name, family, facts, reset)
    }

    /// For a stream on queues of `family`.
    pub(super) fn new(gpu: &Gpu, family: u32) -> Result<Timer> {
        let bits = Timer::supported(gpu, family, false)?;
        let info = vk::CommandPoolCreateInfo::default().queue_family_index(family);
        // SAFETY: the device is alive and has the family.
        let commands =
            unsafe { gpu.device.create_command_pool(&info, None) }.map_err(|result| {
                gpu.failed(Fault {
                    call: "vkCreateCommandPool",
                    result,
                })
            })?;
        Ok(Timer {
            ring: Ring::new(),
            natives: Mutex::new(Natives {
                commands,
                pools: Vec::new(),
                slots: Vec::new(),
            }),
            bits,
        })
    }

    /// One query, for work that its owner submits from queues of `family`: nothing here writes it.
    pub(super) fn single(gpu: &Gpu, bits: u32) -> Result<Timer, Fault> {
        let info = vk::QueryPoolCreateInfo::default()
            .query_type(vk::QueryType::TIMESTAMP)
            .query_count(1);
        // SAFETY: the device is alive.
        let made = unsafe { gpu.device.create_query_pool(&info, None) };
        let pool = made.map_err(|result| Fault {
            call: "vkCreateQueryPool",
            result,
        })?;
        Ok(Timer {
            ring: Ring::new(),
            natives: Mutex::new(Natives {
                commands: vk::CommandPool::null(),
                pools: vec![pool],
                slots: vec![Query {
                    pool,
                    index: 0,
                    buffer: vk::CommandBuffer::null(),
                }],
            }),
            bits,
        })
    }

    /// The only query of a [`single`](Timer::single).
    pub(super) fn only(&self, native: &Arc<Native>) -> Option<(SlotTime, vk::QueryPool)> {
        let query = *lock(&self.natives).slots.first()?;
        let time = SlotTime {
            native: native.clone(),
            slot: self.ring.grow(1),
            query,
            until: 1,
        };
        Some((time, query.pool))
    }

    /// A query for the marker whose native value is `until`, ready to be written, and the buffer
    /// that writes it. Called under the submit lock.
    pub(super) fn take(
        &self,
        native: &Arc<Native>,
        until: u64,
    ) -> Result<(SlotTime, vk::CommandBuffer), Fault> {
        let gpu = &native.gpu;
        let taken = self
            .ring
            .take(|| gpu.counter(native.marker_timeline).unwrap_or(0));
        let mut natives = lock(&self.natives);
        let slot = match taken {
            Some(slot) => slot,
            None => {
                let more = (natives.slots.len() as u32).clamp(FIRST, MOST);
                natives.grow(gpu, more)?;
                self.ring.grow(more)
            }
        };
        let Some(&query) = natives.slots.get(slot.index as usize) else {
            return Err(Fault {
                call: "vkCreateQueryPool",
                result: vk::Result::ERROR_UNKNOWN,
            });
        };
        drop(natives);
        if gpu.host_reset {
            // SAFETY: the pool is alive; no submitted work uses the query, and nobody else reads it
            // (slots.rs).
            unsafe { gpu.device.reset_query_pool(query.pool, query.index, 1) };
        }
        let time = SlotTime {
            native: native.clone(),
            slot,
            query,
            until,
        };
        Ok((time, query.buffer))
    }

    /// Nothing is pending any more.
    pub(super) fn destroy(self, device: &Table) {
        let natives = lock(&self.natives);
        for &pool in &natives.pools {
            // SAFETY: made by us; nothing pending writes it, and no marker is left to read it.
            unsafe { device.destroy_query_pool(pool, None) };
        }
        // SAFETY: as above; its buffers go with it.
        unsafe { device.destroy_command_pool(natives.commands, None) };
    }
}

/// How queries are reset.
#[derive(Clone, Copy, PartialEq)]
enum Reset {
    ByTheHost,
    /// In the queue, since the device was made without `hostQueryReset`.
    NotByTheHost,
    /// In the queue, whatever the host may do.
    InTheQueue,
}

fn supported(
    device: &str,
    family: u32,
    facts: &vk::QueueFamilyProperties,
    reset: Reset,
) -> Result<u32> {
    let unsupported = |what: String, remedy: &str| Error::Unsupported {
        what,
        device: device.into(),
        remedy: remedy.into(),
    };
    if facts.timestamp_valid_bits == 0 {
        return Err(unsupported(
            format!(
                "timestamps on queue family {family}, which has none (timestampValidBits is 0)"
            ),
            "record without timing there, or use a stream on a queue family that has them",
        ));
    }
    let computes = vk::QueueFlags::GRAPHICS | vk::QueueFlags::COMPUTE;
    if reset != Reset::ByTheHost && !facts.queue_flags.intersects(computes) {
        return Err(unsupported(
            format!("resetting timestamps on queue family {family}, which only transfers"),
            match reset {
                Reset::InTheQueue => {
                    "record on a stream of that queue, or use a graphics or compute queue"
                }
                _ => {
                    "enable hostQueryReset when making the device, or use a graphics or compute queue"
                }
            },
        ));
    }
    Ok(facts.timestamp_valid_bits)
}

impl Natives {
    fn grow(&mut self, gpu: &Gpu, more: u32) -> Result<(), Fault> {
        let (pool, buffers) = queries(gpu, self.commands, more)?;
        self.pools.push(pool);
        self.slots
            .extend((0..).zip(buffers).map(|(index, buffer)| Query {
                pool,
                index,
                buffer,
            }));
        Ok(())
    }
}

/// A pool of timestamp queries, and for each the buffer that writes it.
fn queries(
    gpu: &Gpu,
    commands: vk::CommandPool,
    count: u32,
) -> Result<(vk::QueryPool, Vec<vk::CommandBuffer>), Fault> {
    let fault = |call| move |result| Fault { call, result };
    let info = vk::QueryPoolCreateInfo::default()
        .query_type(vk::QueryType::TIMESTAMP)
        .query_count(count);
    let device = &gpu.device;
    // SAFETY: the device is alive.
    let pool =
        unsafe { device.create_query_pool(&info, None) }.map_err(fault("vkCreateQueryPool"))?;
    let info = vk::CommandBufferAllocateInfo::default()
        .command_pool(commands)
        .level(vk::CommandBufferLevel::PRIMARY)
        .command_buffer_count(count);
    // SAFETY: the command pool is alive and used by nobody else: the submit lock is held.
    let buffers = unsafe { device.allocate_command_buffers(&info) };
    let buffers = buffers.map_err(fault("vkAllocateCommandBuffers"));
    let recorded = buffers.and_then(|buffers| {
        let recorded = (0..).zip(&buffers).try_for_each(|(index, &buffer)| {
            let info = vk::CommandBufferBeginInfo::default();
            // SAFETY: a new buffer of a pool that nobody else uses; recorded once.
            unsafe {
                device
                    .begin_command_buffer(buffer, &info)
                    .map_err(fault("vkBeginCommandBuffer"))?;
                write(gpu, buffer, pool, index, false);
                device
                    .end_command_buffer(buffer)
                    .map_err(fault("vkEndCommandBuffer"))
            }
        });
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

/// Writes the time at which everything before is done. Resets the query first where the host
/// cannot, or where the caller may submit more than once (`again`).
///
/// # Safety
/// The buffer is being recorded, outside a render pass; the query is alive.
pub(super) unsafe fn write(
    gpu: &Gpu,
    buffer: vk::CommandBuffer,
    pool: vk::QueryPool,
    index: u32,
    again: bool,
) {
    let device = &gpu.device;
    // SAFETY: passed on to the caller.
    unsafe {
        if again || !gpu.host_reset {
            device.cmd_reset_query_pool(buffer, pool, index, 1);
        }
        match gpu.write2 {
            Some(write) => write(buffer, vk::PipelineStageFlags2::ALL_COMMANDS, pool, index),
            None => device.cmd_write_timestamp(
                buffer,
                vk::PipelineStageFlags::BOTTOM_OF_PIPE,
                pool,
                index,
            ),
        }
    }
}

/// Reads a timestamp, if it is there.
pub(super) fn read(gpu: &Gpu, pool: vk::QueryPool, index: u32) -> Result<Option<u64>> {
    gpu.check_fork()?;
    let mut result = [[0_u64; 2]];
    let flags = vk::QueryResultFlags::TYPE_64 | vk::QueryResultFlags::WITH_AVAILABILITY;
    // SAFETY: the pool is alive and the query in it was reset before; room for its value and
    // availability.
    match unsafe {
        gpu.device
            .get_query_pool_results(pool, index, &mut result, flags)
    } {
        Ok(()) if result[0][1] != 0 => Ok(Some(result[0][0])),
        Ok(()) | Err(vk::Result::NOT_READY) => Ok(None),
        Err(result) => Err(gpu.failed(Fault {
            call: "vkGetQueryPoolResults",
            result,
        })),
    }
}

impl SlotTime {
    /// The ticks, of as many bits as are valid.
    fn ticks(&self) -> Result<u64> {
        let gpu = &self.native.gpu;
        let mut ticks = Ok(None);
        // The marker is complete, so the time is there. A driver that makes it visible a moment
        // later gets that.
        spin_until(None, || {
            ticks = read(gpu, self.query.pool, self.query.index);
            !matches!(ticks, Ok(None))
        });
        let current = self
            .native
            .timer
            .get()
            .is_some_and(|timer| timer.ring.is_current(self.slot));
        match ticks? {
            Some(ticks) if current => Ok(ticks & mask(self.bits())),
            _ => Err(Error::NotReady {
                which: "held",
                marker: format!("its time on {} is not readable yet", gpu.name),
            }),
        }
    }

    fn bits(&self) -> u32 {
        self.native.timer.get().map_or(64, |timer| timer.bits)
    }
}

pub(super) fn mask(bits: u32) -> u64 {
    match bits {
        0..64 => (1 << bits) - 1,
        _ => u64::MAX,
    }
}

impl Time for SlotTime {
    fn timestamp(&self) -> Result<Timestamp> {
        Ok(Timestamp::new(self.ticks()?, self.native.gpu.clock.clone()))
    }

    fn elapsed(&self, end: &SlotTime) -> Result<Elapsed> {
        let bits = self.bits().min(end.bits());
        let clock = &self.native.gpu.clock;
        Ok(clock.between(bits, self.ticks()?, end.ticks()?))
    }
}

impl Drop for SlotTime {
    fn drop(&mut self) {
        if let Some(timer) = self.native.timer.get() {
            let forked = || self.native.gpu.is_gone();
            timer.ring.give(self.slot, self.until, forked);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn family(bits: u32, flags: vk::QueueFlags) -> vk::QueueFamilyProperties {
        vk::QueueFamilyProperties::default()
            .timestamp_valid_bits(bits)
            .queue_flags(flags)
    }

    #[test]
    fn bits_that_are_not_valid_are_masked() {
        assert_eq!(mask(64), u64::MAX);
        assert_eq!(mask(36), 0xf_ffff_ffff);
        assert_eq!(mask(32), 0xffff_ffff);
        assert_eq!(mask(0), 0);
    }

    #[test]
    fn a_family_without_timestamps_is_named() {
        let none = family(0, vk::QueueFlags::COMPUTE);
        let error = supported("vulkan:0", 3, &none, Reset::ByTheHost).unwrap_err();
        assert!(matches!(error, Error::Unsupported { .. }), "{error:?}");
        assert!(error.to_string().contains("queue family 3"), "{error}");
        assert_eq!(
            supported(
                "",
                0,
                &family(36, vk::QueueFlags::COMPUTE),
                Reset::NotByTheHost
            )
            .unwrap(),
            36
        );
    }

    #[test]
    fn a_transfer_queue_has_timestamps_where_the_host_resets_them() {
        let transfers = family(64, vk::QueueFlags::TRANSFER);
        assert_eq!(supported("", 1, &transfers, Reset::ByTheHost).unwrap(), 64);
        let refused = |reset| supported("", 1, &transfers, reset).unwrap_err().to_string();
        let error = refused(Reset::NotByTheHost);
        assert!(error.contains("hostQueryReset"), "{error}");
        // Enabling it would not help a mark in the caller's buffer.
        let error = refused(Reset::InTheQueue);
        assert!(!error.contains("hostQueryReset"), "{error}");
    }
}
