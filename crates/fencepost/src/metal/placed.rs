//! Command buffers that a stream makes for the caller.

use objc2::rc::Retained;
use objc2_metal::MTLCommandBuffer;

use super::{
    native::PendingStep,
    objects::{CommandBuffer, pooled},
};

/// A command buffer that has its place in the stream's order and is not committed.
pub(super) struct PlacedBuffer {
    buffer: Retained<CommandBuffer>,
    ordinal: u64,
    step: PendingStep,
}

impl PlacedBuffer {
    pub(super) fn new(
        buffer: Retained<CommandBuffer>,
        ordinal: u64,
        step: PendingStep,
    ) -> PlacedBuffer {
        // This reserves its place in the queue: a command buffer that waits for it must not come
        // before it there.
        buffer.enqueue();
        step.native.begin_encoding(&buffer, ordinal);
        PlacedBuffer {
            buffer,
            ordinal,
            step,
        }
    }

    pub(super) fn buffer(&self) -> &CommandBuffer {
        &self.buffer
    }

    /// Encodes the signal of its ordinal, and commits it.
    pub(super) fn commit(self) {
        if self.step.native.gpu.is_forked() {
            // Metal must not be called in a forked child, not even to release the buffer.
            return std::mem::forget(self);
        }
        pooled(|| {
            let native = self.step.native.clone();
            native.end_encoding(self.ordinal);
            native.end_buffer(&self.buffer, self.ordinal, self.step, None);
            self.buffer.commit();
            drop(self.buffer);
        });
    }
}
