//! One `MTLDevice`: its identity, the loss that ended it, and the streams that fail with it.

use std::sync::Arc;

use objc2::{
    runtime::{NSObjectProtocol, ProtocolObject},
    sel,
};
use objc2_metal::MTLDevice;

use super::{
    objects::{Event, Object, nil, pooled},
    time,
    wakes::fire_all,
};
use crate::{
    core::{DeviceCore, Loss, Streams},
    epochs::ValueAllocator,
    error::{Cause, Error, Result},
    workers::{CallbackQueue, Pool},
};

pub(crate) struct Gpu {
    pub(crate) device: Object<dyn MTLDevice>,
    pub(crate) core: Arc<DeviceCore>,
    /// The values of its streams, which fail when the device is lost.
    streams: Streams<ValueAllocator>,
    loss: Loss,
}

impl Gpu {
    pub(super) fn new(name: String, device: Object<dyn MTLDevice>) -> Arc<Gpu> {
        let model = pooled(|| device.name().to_string());
        let callbacks = Arc::new(CallbackQueue::new(Arc::new(Pool::new(1))));
        Arc::new(Gpu {
            core: DeviceCore::new(name, time::clock(&model), callbacks),
            device,
            streams: Streams::new(),
            loss: Loss::new(),
        })
    }

    pub(super) fn is(&self, device: &ProtocolObject<dyn MTLDevice>) -> bool {
        is_same_device(&self.device, device)
    }

    pub(super) fn is_forked(&self) -> bool {
        !self.core.process.is_this()
    }

    /// An error in a forked child, where Metal must not be called.
    pub(crate) fn check(&self) -> Result<()> {
        self.core.check_fork()
    }

    pub(super) fn new_event(&self) -> Result<Event> {
        let event = self.device.newSharedEvent().ok_or_else(|| {
            nil(
                "MTLDevice.newSharedEvent",
                "some sandboxes have no shared events, which every stream needs; run outside of \
                 one",
            )
        })?;
        Ok(Object::new(event))
    }

    /// Makes the stream of these values fail when the device is lost.
    pub(super) fn add_stream(&self, values: &Arc<ValueAllocator>) {
        self.streams.add(values);
    }

    /// The error for a device that is lost.
    pub(super) fn lost(&self) -> Option<Error> {
        self.loss.error(&self.core.name)
    }

    /// Fails every stream, since the device is lost. All get the first cause. Call it without any
    /// lock held.
    pub(super) fn lose(&self, cause: &Cause) {
        let name = &self.core.name;
        self.loss.declare(
            name,
            || cause.clone(),
            |cause| {
                // All fail before any waiter is fired. Else a stream that waits for another would
                // report the failure of that one, and not the loss of its device.
                let streams = self.streams.alive();
                let fail = |values: &Arc<ValueAllocator>| {
                    values.current_epoch().timeline.fail(cause, true)
                };
                fire_all(streams.iter().map(fail).collect());
            },
        );
    }
}

/// Compares by registry ID: Metal does not promise the same object for a device each time.
pub(super) fn is_same_device(
    one: &ProtocolObject<dyn MTLDevice>,
    other: &ProtocolObject<dyn MTLDevice>,
) -> bool {
    // Systems before macOS 10.13 have no registry IDs, so this asks for the method first. Devices
    // of such systems are refused when they are opened.
    std::ptr::addr_eq(one, other)
        || (one.respondsToSelector(sel!(registryID)) && one.registryID() == other.registryID())
}
