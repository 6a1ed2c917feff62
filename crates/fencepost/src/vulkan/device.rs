//! The Vulkan backend: streams on the queues of Vulkan 1.2 devices, ours or the caller's.
//!
//! - **A marker is a value on its stream's timeline semaphore** (`epochs`). Recording is one submit
//!   that signals it. A timed record submits a command buffer with it, which writes a timestamp.
//! - **A stream has the order of its queue.** Streams may outnumber queues. Streams that share a
//!   queue share its order, so what delays one delays the others.
//! - **No drop waits, and nothing is destroyed while the device may use it.** What is pending is
//!   destroyed by the watcher, once it is complete (`native.rs`).
//! - **The driver is not called in a forked child, nor while the process ends.** In a child, calls
//!   are errors, by one atomic load ([`fork`](crate::fork)); drops destroy nothing.
//! - **One thread per device waits for all who asked to be told** (`watcher.rs`). It reads, awaits
//!   and signals semaphores; it never takes a queue's lock.
//! - **The time between two markers is the difference of their ticks**, masked by the valid bits of
//!   their queue families (`time.rs`). A query slot is used again only once the device no longer
//!   writes it (`slots.rs`).
//!
//! What drivers do, and what we do about it:
//! - *No `synchronization2`*: `vkQueueSubmit` and `vkCmdWriteTimestamp` (at the bottom of the pipe)
//!   are called instead.
//! - *No `hostQueryReset`*: the buffer that writes a query resets it first. A queue that only
//!   transfers cannot do that.
//! - *No timestamps in a queue family*: timing is refused there, and the error names the family.
//! - *Submits block while the queue is full* (NVIDIA's, from some 6,550 submits on), and the device
//!   counts as lost after ten seconds of that: [`crate::vulkan`] says so. The queue's lock is held
//!   meanwhile.
//! - *The end of the process waits for all queues to be idle* (NVIDIA's): all host gates are opened
//!   before (`exit.rs`).
//! - *The counter of a lost device* reads as all bits set (NVIDIA's), as its last value, or as an
//!   error. The first and the last count as a loss. For the second, a wait in the driver reports
//!   it.
//! - *A driver does not conform* (MoltenVK): the loader is asked for such drivers, and
//!   `VK_KHR_portability_subset` is enabled.
//! - *The driver computes on the processor*: it is used only if it is asked for by name.
//! - *`vkWaitSemaphores` spins if it waits for any of several* (Mesa's llvmpipe): the watcher
//!   looks, and pauses in between.
//! - *`vkGetQueryPoolResults` waits until the whole device is idle*, also without
//!   `VK_QUERY_RESULT_WAIT_BIT` (Mesa's llvmpipe, seen in 22.3.6): the buffer that writes a time
//!   copies it into host memory too, and it is read there (`timestamp.rs`). On a queue that only
//!   transfers, which cannot copy queries, reading a time still waits there.
//! - *No calibrated timestamps* (SwiftShader): the device's clock is read by a stamp on a stream of
//!   our own, which waits for what is on its queue (`calibrated.rs`).

use std::{any::Any, sync::Arc};

use ash::vk;

use super::{
    calibrated, exit,
    gpu::Gpu,
    parts::{Features, Parts},
    queue::{Queue, QueueLock},
    stream::VkStream,
    watcher::DeviceWatcher,
};
use crate::{
    contract::{Backend, DeviceImpl, DeviceRef, Look, Sample, StreamImpl},
    core::DeviceCore,
    error::{Error, Result},
    place::Place,
};

pub(crate) struct VkDevice {
    pub(super) core: Arc<DeviceCore>,
    pub(crate) gpu: Arc<Gpu>,
    pub(super) watcher: Arc<DeviceWatcher>,
    default: Arc<VkStream>,
    /// What the conformance suite keeps with the device, and destroys with it.
    #[cfg(feature = "conformance")]
    pub(crate) test_work: std::sync::OnceLock<Arc<dyn Any + Send + Sync>>,
}

impl VkDevice {
    /// A device with the queues that were added to `gpu`.
    pub(super) fn new(gpu: Arc<Gpu>) -> Result<VkDevice> {
        let watcher = DeviceWatcher::new(gpu.clone())?;
        exit::leave_at_exit(&watcher);
        let core = gpu.device_core();
        let Some(queue) = gpu.quietest_queue() else {
            return Err(Error::Unavailable {
                device: gpu.name.clone(),
                why: "it was made without queues; name at least one".into(),
            });
        };
        Ok(VkDevice {
            default: VkStream::new(core.clone(), &watcher, queue, None)?,
            core,
            gpu,
            watcher,
            #[cfg(feature = "conformance")]
            test_work: std::sync::OnceLock::new(),
        })
    }
}

impl VkDevice {
    /// A stream on the quietest queue.
    fn make_stream(&self) -> Result<Arc<VkStream>> {
        let queue = self.gpu.quietest_queue();
        let queue = queue.unwrap_or_else(|| self.default.queue.clone());
        VkStream::new(self.core.clone(), &self.watcher, queue, None)
    }
}

/// A device of the caller's, with its first queue.
///
/// # Safety
/// As [`crate::vulkan::device_from_raw`], which passes it on.
pub(super) unsafe fn wrap(
    instance: ash::Instance,
    physical: vk::PhysicalDevice,
    device: ash::Device,
    features: Features,
    queue: (vk::Queue, u32, Arc<dyn QueueLock>),
    keep_alive: Arc<dyn Any + Send + Sync>,
) -> Result<DeviceRef> {
    let name = format!("vulkan ({:?})", device.handle());
    // SAFETY: passed on to the caller.
    let gpu = unsafe {
        Gpu::new(Parts {
            instance,
            physical,
            device,
            features,
            name,
            keep_alive: Some(keep_alive),
        })
    }?;
    let (raw, family, guard) = queue;
    gpu.add_queue(Queue::new(raw, family, Some(guard)));
    VkDevice::new(gpu).map(DeviceRef::new)
}

/// A stream on a queue of the caller's.
///
/// # Safety
/// As [`crate::vulkan::stream_from_raw`], which passes it on.
pub(super) unsafe fn stream_on(
    device: &dyn DeviceImpl,
    raw: vk::Queue,
    family: u32,
    guard: Arc<dyn QueueLock>,
    keep_alive: Arc<dyn Any + Send + Sync>,
) -> Result<Arc<VkStream>> {
    let vulkan = as_vulkan(device)?;
    let queue = vulkan.gpu.wrapped_queue(raw, family, guard);
    VkStream::new(
        vulkan.core.clone(),
        &vulkan.watcher,
        queue,
        Some(keep_alive),
    )
}

/// The Vulkan side of a device.
pub(crate) fn as_vulkan(device: &dyn DeviceImpl) -> Result<&VkDevice> {
    (device as &dyn Any)
        .downcast_ref()
        .ok_or_else(|| Error::Unsupported {
            what: "a call of Vulkan".into(),
            device: device.core().name.clone(),
            remedy: "open a device whose name begins with vulkan".into(),
        })
}

/// The Vulkan side of a stream.
pub(crate) fn stream_as_vulkan(stream: &dyn StreamImpl) -> Result<&VkStream> {
    (stream as &dyn Any)
        .downcast_ref()
        .ok_or_else(|| Error::Unsupported {
            what: "a call of Vulkan".into(),
            device: stream.core().device.name.clone(),
            remedy: "use a stream of a Vulkan device".into(),
        })
}

impl DeviceImpl for VkDevice {
    fn core(&self) -> &Arc<DeviceCore> {
        &self.core
    }

    fn backend(&self) -> Backend {
        Backend::Vulkan
    }

    fn uuid(&self) -> Option<[u8; 16]> {
        Some(self.gpu.uuid).filter(|uuid| *uuid != [0; 16])
    }

    fn default_stream(&self) -> Arc<dyn StreamImpl> {
        self.default.clone()
    }

    fn new_stream(&self) -> Result<Arc<dyn StreamImpl>> {
        Ok(self.make_stream()?)
    }

    fn streams(&self) -> Vec<Arc<dyn StreamImpl>> {
        self.gpu
            .streams()
            .into_iter()
            .filter(|stream| stream.core().device.id == self.core.id)
            .map(|stream| stream as Arc<dyn StreamImpl>)
            .collect()
    }

    fn correlate(&self, at: Place, look: Look<'_>) -> Result<Sample> {
        self.gpu.check_fork()?;
        if let Some(lost) = self.gpu.lost() {
            return Err(lost);
        }
        calibrated::sample(
            &self.gpu,
            self.default.queue.family,
            || self.make_stream(),
            at,
            look,
        )
    }
}
