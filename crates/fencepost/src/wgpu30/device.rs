//! The wgpu backend: streams on the queue of a device of the caller's.
//!
//! - **A marker is a value on its stream's counter** (`epochs`): a timeline semaphore, a shared
//!   event, or a number that wgpu's done callbacks raise (`signal.rs`).
//! - **No lock of ours is held while wgpu submits or polls**, since both run callbacks of the
//!   user's, which may call this library. Values are handed out before the submit (`counter.rs`).
//! - **No thread of ours waits inside wgpu's `poll`**, which holds a lock that `present` and
//!   `destroy` wait for. The watcher waits for our semaphore, or polls with pauses (`watcher.rs`).
//! - **No drop waits.** The last owner of a wgpu queue waits until that is idle: the watcher's
//!   thread is that owner (`queue.rs`).

use std::{
    any::Any,
    sync::{Arc, Weak},
};

#[cfg(target_vendor = "apple")]
use super::metal as native;
#[cfg(not(target_vendor = "apple"))]
use super::vulkan as native;
use super::{gpu::Gpu, queue::SharedQueue, stream::WgpuStream};
use crate::{
    bracket,
    contract::{Backend, DeviceImpl, DeviceRef, Look, Sample, StreamImpl},
    core::DeviceCore,
    error::{Error, Result},
    fork::PerProcess,
    place::Place,
    sync::{Mutex, lock},
};

pub(crate) struct WgpuDevice {
    pub(crate) gpu: Arc<Gpu>,
    default: Arc<WgpuStream>,
    /// What the conformance suite keeps with the device, and destroys with it.
    #[cfg(feature = "conformance")]
    #[cfg_attr(target_vendor = "apple", allow(dead_code))]
    pub(crate) test_work: std::sync::OnceLock<Arc<dyn Any + Send + Sync>>,
}

/// The devices that are alive.
static ALL: PerProcess<Mutex<Vec<Weak<WgpuDevice>>>> = PerProcess::new();

/// The device with this queue, and its stream.
pub(super) fn wrap(
    device: &wgpu::Device,
    queue: &wgpu::Queue,
) -> Result<(DeviceRef, Arc<dyn StreamImpl>)> {
    // Dropped behind the lock: by then each may be the last owner, whose drop calls wgpu, and that
    // the user's callbacks.
    let alive: Vec<_>;
    let mut all = lock(ALL.get_or_make(|_| Mutex::new(Vec::new())));
    all.retain(|known| known.strong_count() > 0);
    alive = all.iter().filter_map(Weak::upgrade).collect();
    let known = alive.iter().find(|known| known.is_of(device, queue));
    let found = match known {
        Some(found) => found.clone(),
        None => {
            let fresh = Arc::new(WgpuDevice::new(device, queue, false)?);
            all.push(Arc::downgrade(&fresh));
            fresh
        }
    };
    drop(all);
    let stream = found.default.clone();
    Ok((DeviceRef::Counted(found), stream))
}

/// A device of its own that goes without signals of ours, as on APIs that have none.
#[cfg(all(feature = "conformance", not(target_vendor = "apple")))]
pub(crate) fn polled(device: &wgpu::Device, queue: &wgpu::Queue) -> Result<DeviceRef> {
    WgpuDevice::new(device, queue, true).map(DeviceRef::new)
}

impl WgpuDevice {
    fn new(device: &wgpu::Device, queue: &wgpu::Queue, polls: bool) -> Result<WgpuDevice> {
        let gpu = Gpu::new(device, queue, polls)?;
        let queue = SharedQueue::new(&gpu, queue.clone());
        let default = WgpuStream::new(&gpu, queue)?;
        Ok(WgpuDevice {
            gpu,
            default,
            #[cfg(feature = "conformance")]
            test_work: std::sync::OnceLock::new(),
        })
    }

    fn is_of(&self, device: &wgpu::Device, queue: &wgpu::Queue) -> bool {
        // wgpu compares the numbers that its instances give: two instances give the same ones.
        *self.gpu.device == *device && native::is_one(&self.default.queue.raw, queue)
    }
}

/// The wgpu side of a device.
pub(crate) fn as_wgpu(device: &dyn DeviceImpl) -> Result<&WgpuDevice> {
    (device as &dyn Any)
        .downcast_ref()
        .ok_or_else(|| Error::Unsupported {
            what: "a call of wgpu".into(),
            device: device.core().name.clone(),
            remedy: "pass the device of a stream that fencepost::wgpu30::stream gave".into(),
        })
}

/// The wgpu side of a stream.
#[cfg(feature = "conformance")]
#[cfg_attr(target_vendor = "apple", allow(dead_code))]
pub(crate) fn stream_as_wgpu(stream: &dyn StreamImpl) -> Result<&WgpuStream> {
    (stream as &dyn Any)
        .downcast_ref()
        .ok_or_else(|| Error::Unsupported {
            what: "a call of wgpu".into(),
            device: stream.core().device.name.clone(),
            remedy: "pass a stream that fencepost::wgpu30::stream gave".into(),
        })
}

impl DeviceImpl for WgpuDevice {
    fn core(&self) -> &Arc<DeviceCore> {
        &self.gpu.core
    }

    fn backend(&self) -> Backend {
        Backend::Wgpu30
    }

    fn check_can_hold(&self) -> Result<()> {
        Err(self.gpu.cannot_hold())
    }

    fn default_stream(&self) -> Arc<dyn StreamImpl> {
        self.default.clone()
    }

    fn new_stream(&self) -> Result<Arc<dyn StreamImpl>> {
        let stream = WgpuStream::new(&self.gpu, self.default.queue.clone())?;
        Ok(stream)
    }

    fn streams(&self) -> Vec<Arc<dyn StreamImpl>> {
        let streams = self.gpu.streams().into_iter();
        streams.map(|stream| stream as _).collect()
    }

    fn correlate(&self, at: Place, look: Look<'_>) -> Result<Sample> {
        let stream = WgpuStream::new(&self.gpu, self.default.queue.clone())?;
        bracket::sample(&*stream, at, look)
    }
}
