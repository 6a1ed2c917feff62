//! Completed handlers of command buffers.

use std::ptr::NonNull;

use block2::RcBlock;
use objc2::rc::autoreleasepool;
use objc2_metal::{MTLCommandBuffer, MTLCommandBufferError, MTLCommandBufferStatus};

use super::{
    objects::{CommandBuffer, Event},
    time,
};
use crate::error::Cause;

/// How a command buffer ended.
pub(super) struct Ended {
    /// `GPUEndTime` in nanoseconds; 0 where there is none.
    pub(super) ticks: u64,
    pub(super) failure: Option<Failure>,
}

/// Why a command buffer failed.
pub(super) struct Failure {
    pub(super) cause: Cause,
    /// Whether the device was lost with it.
    pub(super) is_device_lost: bool,
}

impl Ended {
    fn of(buffer: &CommandBuffer) -> Ended {
        Ended {
            ticks: time::ticks(buffer.GPUEndTime()),
            failure: Failure::of(buffer),
        }
    }
}

impl Failure {
    fn of(buffer: &CommandBuffer) -> Option<Failure> {
        let Some(error) = buffer.error() else {
            let failed = buffer.status() == MTLCommandBufferStatus::Error;
            return failed.then(|| Failure {
                cause: Cause::new("a command buffer failed, and Metal gave no error for it"),
                is_device_lost: false,
            });
        };
        let code = MTLCommandBufferError(error.code().cast_unsigned());
        let text = format!(
            "a command buffer failed with {} {}: {}",
            error.domain(),
            code.0,
            error.localizedDescription()
        );
        let lost = [
            MTLCommandBufferError::DeviceRemoved,
            MTLCommandBufferError::AccessRevoked,
        ];
        Some(Failure {
            cause: Cause::new(text),
            is_device_lost: lost.contains(&code),
        })
    }
}

/// Calls `handler` when the buffer, which is not committed yet, has completed or failed: on one of
/// Metal's threads, in an autorelease pool.
pub(super) fn on_completed(
    buffer: &CommandBuffer,
    handler: impl Fn(Ended) + Send + Sync + 'static,
) {
    let block = RcBlock::new(move |buffer: NonNull<CommandBuffer>| {
        // SAFETY: Metal keeps the buffer alive while it calls the handler.
        autoreleasepool(|_| handler(Ended::of(unsafe { buffer.as_ref() })));
    });
    // SAFETY: a block of the right type, which Metal copies. It may be called on any thread, since
    // its closure is `Send` and `Sync`.
    // https://developer.apple.com/documentation/metal/mtlcommandbuffer/addcompletedhandler(_:)
    unsafe { buffer.addCompletedHandler(RcBlock::as_ptr(&block)) };
}

/// Keeps an event alive until the buffer has completed. Metal does not promise that, and a buffer
/// with unretained references does not do it. The buffer must not be committed, nor have an open
/// encoder.
pub(super) fn keep_alive(buffer: &CommandBuffer, event: &Event) {
    let event = event.clone();
    let block = RcBlock::new(move |_: NonNull<CommandBuffer>| {
        let _kept = &event;
    });
    // SAFETY: as in `on_completed`. The closure owns the event, which any thread may drop.
    unsafe { buffer.addCompletedHandler(RcBlock::as_ptr(&block)) };
}
