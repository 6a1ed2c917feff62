//! One `MTLDevice`: its clock, the streams on it, and the loss that ended it.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use objc2::{rc::autoreleasepool, runtime::ProtocolObject};
use objc2_metal::MTLDevice;

use super::{
    completion_order,
    objects::{Event, Object, nil},
    stream::MtlStream,
};
use crate::{
    clock::{Clock, HOST_RESOLUTION},
    core::DeviceCore,
    error::{Cause, Error, Result},
};
use crate::{
    core::Streams,
    workers::{CallbackQueue, Pool},
};

pub(crate) struct Gpu {
    pub(super) device: Object<dyn MTLDevice>,
    pub(super) core: Arc<DeviceCore>,
    streams: Streams<MtlStream>,
    dead: OnceLock<Cause>,
    owner: u32,
    #[cfg(feature = "conformance")]
    pub(super) kernels: OnceLock<Result<super::work::Kernels>>,
}

impl Gpu {
    pub(super) fn new(name: String, device: Object<dyn MTLDevice>) -> Arc<Gpu> {
        let model = autoreleasepool(|_| device.name().to_string());
        let callbacks = Arc::new(CallbackQueue::new(Arc::new(Pool::new(1))));
        Arc::new(Gpu {
            core: DeviceCore::new(name, clock(&model), callbacks),
            device,
            streams: Streams::new(),
            dead: OnceLock::new(),
            owner: std::process::id(),
            #[cfg(feature = "conformance")]
            kernels: OnceLock::new(),
        })
    }

    pub(super) fn is(&self, device: &ProtocolObject<dyn MTLDevice>) -> bool {
        super::device::is_same_device(&self.device, device)
    }

    pub(super) fn is_forked(&self) -> bool {
        self.owner != std::process::id()
    }

    /// Whether Metal may be called: not in a forked child.
    pub(super) fn check(&self) -> Result<()> {
        self.core.check_fork()
    }

    pub(super) fn event(&self) -> Result<Event> {
        let event = self.device.newSharedEvent().ok_or_else(|| {
            nil(
                "MTLDevice.newSharedEvent",
                "some sandboxes have no shared events, on which everything here rests: run outside of one",
            )
        })?;
        Ok(Object::new(event))
    }

    pub(super) fn add_stream(&self, stream: &Arc<MtlStream>) {
        self.streams.add(stream);
    }

    pub(super) fn streams(&self) -> Vec<Arc<MtlStream>> {
        self.streams.alive()
    }

    pub(super) fn lost(&self) -> Option<Error> {
        self.dead.get().map(|cause| Error::DeviceLost {
            device: self.core.name.clone(),
            cause: cause.clone(),
        })
    }

    /// The device is gone: every stream fails, with the first cause. Call it without any lock.
    pub(super) fn lose(&self, cause: &Cause) {
        let cause = self.dead.get_or_init(|| cause.clone());
        // All of them first: whoever is told would else fail those that waited, by a wait.
        let streams = self.streams();
        completion_order::fire(streams.iter().map(|stream| stream.lose(cause)).collect());
    }
}

/// The clock names the device, so that every report tells what it was measured on: a stand-in's
/// name says that it is one. `GPUEndTime` is in seconds on the host's time base, and is kept in
/// nanoseconds; nothing says how fine it is, so it is taken to be no finer than that time base.
fn clock(model: &str) -> Clock {
    let resolution = HOST_RESOLUTION.max(Duration::from_nanos(1));
    Clock::new(format!("GPUEndTime of {model}"), 1.0, 64, resolution)
}
