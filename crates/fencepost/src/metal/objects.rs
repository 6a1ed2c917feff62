//! Metal's objects as this backend holds them.

use std::{mem::ManuallyDrop, ops::Deref};

use objc2::{
    rc::{Retained, autoreleasepool},
    runtime::ProtocolObject,
};
use objc2_metal::{MTLCommandBuffer, MTLEvent, MTLSharedEvent};

use crate::{error::Error, fork::Process};

pub(crate) type CommandBuffer = ProtocolObject<dyn MTLCommandBuffer>;

/// A retained object that any thread may use. It is released in an autorelease pool, and never in a
/// forked child, where Metal must not be called.
pub(crate) struct Object<P: ?Sized> {
    retained: ManuallyDrop<Retained<ProtocolObject<P>>>,
    process: Process,
}

// SAFETY: `Object::new` is given devices, queues, events, buffers, libraries and pipelines only,
// and Metal lets any thread call those. Encoders and command buffers, which belong to one thread,
// are never put into an `Object`.
// https://developer.apple.com/library/archive/documentation/3DDrawing/Conceptual/MTLBestPracticesGuide/CommandBuffers.html
unsafe impl<P: ?Sized> Send for Object<P> {}
// SAFETY: as above.
unsafe impl<P: ?Sized> Sync for Object<P> {}

impl<P: ?Sized> Object<P> {
    pub(crate) fn new(retained: Retained<ProtocolObject<P>>) -> Object<P> {
        Object {
            retained: ManuallyDrop::new(retained),
            process: Process::this(),
        }
    }

    pub(super) fn retained(&self) -> &Retained<ProtocolObject<P>> {
        &self.retained
    }

    /// Whether both are the same object.
    pub(super) fn is(&self, other: &ProtocolObject<P>) -> bool {
        std::ptr::addr_eq(Retained::as_ptr(&self.retained), other)
    }
}

impl<P: ?Sized> Clone for Object<P> {
    fn clone(&self) -> Object<P> {
        Object {
            retained: self.retained.clone(),
            process: self.process,
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
        if self.process.is_this() {
            // SAFETY: dropped once, here, and not used after.
            autoreleasepool(|_| unsafe { ManuallyDrop::drop(&mut self.retained) });
        }
    }
}

/// A shared event. Its value is only ever raised: Metal does not say what lowering it does to
/// waiters.
pub(crate) type Event = Object<dyn MTLSharedEvent>;

impl Event {
    fn as_event(&self) -> &ProtocolObject<dyn MTLEvent> {
        ProtocolObject::from_ref(&**self)
    }

    pub(super) fn encode_wait(&self, buffer: &CommandBuffer, value: u64) {
        buffer.encodeWaitForEvent_value(self.as_event(), value);
    }

    pub(super) fn encode_signal(&self, buffer: &CommandBuffer, value: u64) {
        buffer.encodeSignalEvent_value(self.as_event(), value);
    }

    /// Raises the value from the host, for command buffers that wait for it. Metal's own host-side
    /// waiters may miss such a signal, so nothing here uses them.
    pub(super) fn signal_from_host(&self, value: u64) {
        autoreleasepool(|_| {
            if self.signaledValue() < value {
                self.setSignaledValue(value);
            }
        });
    }
}

/// Runs `call` in an autorelease pool. Every call into Metal needs one around it.
pub(crate) fn pooled<R>(call: impl FnOnce() -> R) -> R {
    autoreleasepool(|_| call())
}

/// The error for a call that returned nil. Metal gives no reason for it.
pub(crate) fn nil(call: &'static str, remedy: &str) -> Error {
    Error::Backend {
        call,
        code: 0,
        text: format!("it returned nil; {remedy}"),
    }
}
