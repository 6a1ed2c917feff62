//! Timestamps: where a queue family has them, how one is written, and how it is read.

use std::sync::atomic::Ordering;

use ash::vk;

use super::{
    fault::Fault,
    gpu::{Gpu, has_query_commands},
    memory::Memory,
};
use crate::error::{Error, Result};

/// The valid bits of timestamps on queues of `family`; an error where they cannot be written there.
/// `in_queue` says that queries are reset in the queue, even if the host may reset them.
pub(super) fn valid_bits(gpu: &Gpu, family: u32, in_queue: bool) -> Result<u32> {
    let none = vk::QueueFamilyProperties::default();
    let facts = gpu.families.get(family as usize).unwrap_or(&none);
    let reset = match (in_queue, gpu.host_reset) {
        (true, _) => Reset::InTheQueue,
        (false, true) => Reset::ByTheHost,
        (false, false) => Reset::NotByTheHost,
    };
    supported(&gpu.name, family, facts, reset)
}

/// How queries are reset.
#[derive(Clone, Copy, PartialEq)]
enum Reset {
    ByTheHost,
    /// In the queue, since the device was made without `hostQueryReset`.
    NotByTheHost,
    /// In the queue, even if the host may reset them.
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
    if reset != Reset::ByTheHost && !has_query_commands(facts) {
        return Err(unsupported(
            format!("resetting timestamps on queue family {family}, which only transfers"),
            match reset {
                Reset::InTheQueue => {
                    "record on a stream of that queue, or use a graphics or compute queue"
                }
                _ => {
                    "enable hostQueryReset when making the device, or use a graphics or compute \
                     queue"
                }
            },
        ));
    }
    Ok(facts.timestamp_valid_bits)
}

/// Writes the time at which everything before it is complete, and copies it into the word of `copy`
/// with the query's index. Resets the query first where the host cannot, or where the caller may
/// submit the buffer more than once (`again`).
///
/// # Safety
/// The buffer is being recorded, outside a render pass; the query is alive, and so is `copy` until
/// the buffer has run, on a queue that can copy queries.
pub(super) unsafe fn write(
    gpu: &Gpu,
    buffer: vk::CommandBuffer,
    (pool, index): (vk::QueryPool, u32),
    copy: Option<&Memory>,
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
        let Some(copy) = copy else {
            return;
        };
        // The copy waits for the query on the device, not on the host.
        let flags = vk::QueryResultFlags::TYPE_64 | vk::QueryResultFlags::WAIT;
        let at = u64::from(index) * 8;
        device.cmd_copy_query_pool_results(buffer, pool, index, 1, copy.buffer, at, 8, flags);
        // A semaphore's signal does not make device writes visible to the host:
        // https://registry.khronos.org/vulkan/specs/latest/html/vkspec.html#synchronization-submission-host-writes
        let written = vk::MemoryBarrier::default()
            .src_access_mask(vk::AccessFlags::TRANSFER_WRITE)
            .dst_access_mask(vk::AccessFlags::HOST_READ);
        device.cmd_pipeline_barrier(
            buffer,
            vk::PipelineStageFlags::TRANSFER,
            vk::PipelineStageFlags::HOST,
            vk::DependencyFlags::empty(),
            &[written],
            &[],
            &[],
        );
    }
}

/// Reads the timestamp of a complete marker, from `copy` where it has one; `None` while the query
/// is not written.
pub(super) fn read(
    gpu: &Gpu,
    (pool, index): (vk::QueryPool, u32),
    copy: Option<&Memory>,
) -> Result<Option<u64>> {
    gpu.check_fork()?;
    if let Some(copy) = copy {
        // Written before the marker was complete.
        let word = copy.long(index as usize);
        return Ok(word.map(|word| word.load(Ordering::Acquire)));
    }
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

/// The lowest `bits` bits.
pub(super) fn mask(bits: u32) -> u64 {
    match bits {
        0..64 => (1 << bits) - 1,
        _ => u64::MAX,
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
