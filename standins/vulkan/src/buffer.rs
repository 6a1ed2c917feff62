//! Buffers.

use crate::table::Child;
use crate::usage::{VkResult, invalid_usage};
use ash::vk::{self, Handle};

const ALIGNMENT: u64 = 64;

/// A buffer, and the offset and size of a range in it.
pub(crate) type BufferRange = (vk::Buffer, (u64, u64));

#[derive(Debug)]
pub(crate) struct Buffer {
    pub(crate) device: vk::Device,
    pub(crate) size: u64,
    pub(crate) usage: vk::BufferUsageFlags,
    pub(crate) bound: Option<(vk::DeviceMemory, u64)>,
}

impl Child for Buffer {
    fn parent(&self) -> u64 {
        self.device.as_raw()
    }
}

impl Buffer {
    pub(crate) fn requirements(&self) -> vk::MemoryRequirements {
        vk::MemoryRequirements {
            // larger than the buffer, which the specification permits
            size: self.size.next_multiple_of(ALIGNMENT) + ALIGNMENT,
            alignment: ALIGNMENT,
            memory_type_bits: 0b111,
        }
    }

    pub(crate) fn check_usage(&self, usage: vk::BufferUsageFlags) -> VkResult {
        if self.usage.contains(usage) {
            return Ok(());
        }
        Err(invalid_usage(&format!(
            "a buffer was created without {usage:?}"
        )))
    }

    /// Checks that a range consists of whole words and lies in the buffer. `WHOLE_SIZE` extends to
    /// its end.
    pub(crate) fn range(&self, offset: u64, size: u64) -> VkResult<(u64, u64)> {
        let size = match size {
            vk::WHOLE_SIZE => self.size.saturating_sub(offset) & !3,
            size => size,
        };
        if size == 0 || offset.checked_add(size).is_none_or(|end| end > self.size) {
            return Err(invalid_usage("a range beyond the buffer's end"));
        }
        if !offset.is_multiple_of(4) || !size.is_multiple_of(4) {
            return Err(invalid_usage(
                "a range that is not a multiple of four bytes",
            ));
        }
        Ok((offset, size))
    }
}
