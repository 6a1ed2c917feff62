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
};
use crate::{
    core::DeviceCore,
    epochs::ValueAllocator,
    error::{Cause, Error, Result},
    lost::Lost,
    workers::{CallbackQueue, Pool},
};

pub(crate) struct Gpu {
    pub(crate) device: Object<dyn MTLDevice>,
    pub(crate) core: Arc<DeviceCore>,
    /// The values of its streams fail when the device is lost.
    lost: Lost<ValueAllocator>,
}

impl Gpu {
    pub(super) fn new(name: String, device: Object<dyn MTLDevice>) -> Arc<Gpu> {
        let model = pooled(|| device.name().to_string());
        let callbacks = Arc::new(CallbackQueue::new(Arc::new(Pool::new(1))));
        Arc::new(Gpu {
            lost: Lost::new(name.clone()),
            core: DeviceCore::new(name, time::clock(&model), callbacks),
            device,
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

    /// See [`Lost::add`].
    pub(super) fn add_stream(&self, values: &Arc<ValueAllocator>) {
        self.lost.add(values);
    }

    /// The error for a device that is lost.
    pub(super) fn lost(&self) -> Option<Error> {
        self.lost.error()
    }

    /// See [`Lost::check`].
    pub(super) fn check_loss(&self, values: &ValueAllocator) -> Result<()> {
        self.lost.check(values)
    }

    /// Fails every stream, since the device is lost. All get the first cause. Call it without any
    /// lock held.
    pub(super) fn lose(&self, cause: &Cause) {
        self.lost.declare(|| cause.clone());
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
