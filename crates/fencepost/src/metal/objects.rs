//! Metal's objects as this backend holds them.

use std::{
    mem::ManuallyDrop,
    ops::Deref,
    ptr::NonNull,
    sync::atomic::{AtomicU64, Ordering},
};

use block2::RcBlock;
use objc2::{
    rc::{Retained, autoreleasepool},
    runtime::ProtocolObject,
};
use objc2_metal::{
    MTLCommandBuffer, MTLCommandBufferError, MTLCommandBufferStatus, MTLEvent, MTLSharedEvent,
};

use crate::error::{Cause, Error};

pub(super) type CommandBuffer = ProtocolObject<dyn MTLCommandBuffer>;

/// A retained object that any thread may use, let go within an autorelease pool, and never in a
/// forked child: Metal did not come along there.
pub(crate) struct Object<P: ?Sized> {
    retained: ManuallyDrop<Retained<ProtocolObject<P>>>,
    owner: u32,
}

// SAFETY: devices, queues, events, buffers, libraries and pipelines are made by `Object::new` only,
// and Metal lets any thread call them; encoders and command buffers, which it does not, are never
// put into one.
// https://developer.apple.com/library/archive/documentation/3DDrawing/Conceptual/MTLBestPracticesGuide/CommandBuffers.html
unsafe impl<P: ?Sized> Send for Object<P> {}
// SAFETY: as above.
unsafe impl<P: ?Sized> Sync for Object<P> {}

impl<P: ?Sized> Object<P> {
    pub(super) fn new(retained: Retained<ProtocolObject<P>>) -> Object<P> {
        Object {
            retained: ManuallyDrop::new(retained),
            owner: std::process::id(),
        }
    }

    pub(super) fn retained(&self) -> &Retained<ProtocolObject<P>> {
        &self.retained
    }

    /// Whether both are one object.
    pub(super) fn is(&self, other: &ProtocolObject<P>) -> bool {
        std::ptr::addr_eq(Retained::as_ptr(&self.retained), other)
    }
}

impl<P: ?Sized> Clone for Object<P> {
    fn clone(&self) -> Object<P> {
        Object {
            retained: self.retained.clone(),
            owner: self.owner,
        }
    }
}

impl<P: ?Sized> Deref for Object<P> {
    type Target = ProtocolObject<P>;

    fn deref(&self) -> &ProtocolObject<P> {
        &self.retained
    }
}

impl<P: ?Sized> Drop for Object<P> {
    fn drop(&mut self) {
        if self.owner == std::process::id() {
            // SAFETY: dropped once, here, and not used after.
            autoreleasepool(|_| unsafe { ManuallyDrop::drop(&mut self.retained) });
        }
    }
}

/// A shared event, whose value only grows: Metal does not say what lowering it does to those who
/// wait.
pub(crate) type Event = Object<dyn MTLSharedEvent>;

impl Event {
    fn as_event(&self) -> &ProtocolObject<dyn MTLEvent> {
        ProtocolObject::from_ref(&**self)
    }

    pub(super) fn wait_in(&self, buffer: &CommandBuffer, value: u64) {
        buffer.encodeWaitForEvent_value(self.as_event(), value);
    }

    pub(super) fn signal_in(&self, buffer: &CommandBuffer, value: u64) {
        buffer.encodeSignalEvent_value(self.as_event(), value);
    }

    /// Raises the value from the host, for those who wait on the device. Metal's own host-side
    /// waiters may miss it, so nobody here uses them.
    pub(super) fn raise(&self, value: u64) {
        autoreleasepool(|_| {
            if self.signaledValue() < value {
                self.setSignaledValue(value);
            }
        });
    }
}

/// How a command buffer ended.
pub(super) struct Ended {
    /// `GPUEndTime` in nanoseconds; 0 where there is none.
    pub(super) ticks: u64,
    /// Why it failed, and whether the device is gone with it.
    pub(super) failure: Option<(Cause, bool)>,
}

impl Ended {
    fn of(buffer: &CommandBuffer) -> Ended {
        let seconds = buffer.GPUEndTime();
        let failed = buffer.status() == MTLCommandBufferStatus::Error;
        let error = buffer.error();
        let failure = (failed || error.is_some()).then(|| match error {
            None => (Cause::new("a command buffer failed without a word"), false),
            Some(error) => {
                let code = MTLCommandBufferError(error.code().cast_unsigned());
                let text = format!(
                    "a command buffer failed with {} {}: {}",
                    error.domain(),
                    code.0,
                    error.localizedDescription()
                );
                let gone = [
                    MTLCommandBufferError::DeviceRemoved,
                    MTLCommandBufferError::AccessRevoked,
                ];
                (Cause::new(text), gone.contains(&code))
            }
        });
        Ended {
            ticks: ticks(seconds),
            failure,
        }
    }
}

/// Nanoseconds; 0 for what is no time. The seconds count from the start of the system: after a year
/// an f64 still tells 4 ns apart.
fn ticks(seconds: f64) -> u64 {
    // The cast takes what is negative or not a number to 0.
    (seconds * 1e9) as u64
}

/// Calls `handler` when the buffer has completed or failed, which it has not been committed for
/// yet: on a thread of Metal's, in an autorelease pool.
pub(super) fn on_completed(
    buffer: &CommandBuffer,
    handler: impl Fn(Ended) + Send + Sync + 'static,
) {
    let block = RcBlock::new(move |buffer: NonNull<CommandBuffer>| {
        // SAFETY: Metal keeps the buffer while it calls its handler.
        autoreleasepool(|_| handler(Ended::of(unsafe { buffer.as_ref() })));
    });
    // SAFETY: a block of the right type, which Metal copies; it may be called on any thread, as its
    // closure is `Send` and `Sync`.
    // https://developer.apple.com/documentation/metal/mtlcommandbuffer/addcompletedhandler(_:)
    unsafe { buffer.addCompletedHandler(RcBlock::as_ptr(&block)) };
}

/// Keeps an event alive until the buffer, which has no open encoder and is not committed, has
/// completed: nothing says that Metal does, and a buffer without retained references does not.
pub(super) fn keep(buffer: &CommandBuffer, event: &Event) {
    let event = event.clone();
    let block = RcBlock::new(move |_: NonNull<CommandBuffer>| {
        let _kept = &event;
    });
    // SAFETY: as in `on_completed`; what the closure holds may be dropped on any thread.
    unsafe { buffer.addCompletedHandler(RcBlock::as_ptr(&block)) };
}

/// Where a handler leaves the time of its buffer, and several the latest of theirs. Each record has
/// its own, so one that comes late stamps nothing that was recorded since.
#[derive(Default)]
pub(crate) struct Time(AtomicU64);

impl Time {
    pub(super) fn set(&self, ticks: u64) {
        self.0.fetch_max(ticks, Ordering::AcqRel);
    }

    pub(super) fn get(&self) -> Option<u64> {
        Some(self.0.load(Ordering::Acquire)).filter(|&ticks| ticks > 0)
    }
}

/// What nil means, which is all that Metal says.
pub(super) fn nil(call: &'static str, remedy: &str) -> Error {
    Error::Backend {
        call,
        code: 0,
        text: format!("it gave nil; {remedy}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_time_is_told_from_a_time() {
        let time = Time::default();
        assert_eq!(time.get(), None, "no handler has come");
        for none in [0.0, -1.0, f64::NAN] {
            time.set(ticks(none));
            assert_eq!(time.get(), None, "{none} s");
        }
        time.set(ticks(86_400.000_000_042));
        assert_eq!(time.get(), Some(86_400_000_000_042));
        time.set(ticks(86_399.0));
        assert_eq!(time.get(), Some(86_400_000_000_042), "the latest counts");
    }
}
