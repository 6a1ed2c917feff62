//! The Vulkan backend: streams on the queues of Vulkan 1.2 devices, ours or the caller's.
//!
//! - **A marker is a value on its stream's timeline semaphore** ([`counted`](super::counted)).
//!   Recording is one submit that signals it; a command buffer that writes a timestamp goes along
//!   only when timing was asked for.
//! - **The order of a stream is the order of its queue.** Streams may outnumber queues: those that
//!   share a queue share its order, and what holds one up holds up the others.
//! - **Nothing of a stream is destroyed while the device may use it**, and no drop waits: what is
//!   pending is buried by the waiter ([`native`]).
//! - **A forked child, and the end of the process, are out of the driver's reach**: calls of a
//!   child are errors, by one atomic load ([`fork`]); drops leave everything where it is.
//! - **One thread per device waits for all** who asked to be told (`watcher.rs`). It reads and waits
//!   for semaphores, and signals those that the host holds streams with; it never takes a queue's
//!   lock.
//! - **The time between two markers is taken on the ticks they wrote**, masked by the valid bits of
//!   their queue families ([`timer`]); the slots they are in are used again behind the device only
//!   ([`slots`]).
//!
//! | the driver | so we |
//! |---|---|
//! | has no `synchronization2` | call `vkQueueSubmit` and `vkCmdWriteTimestamp` (at the bottom of the pipe) |
//! | has no `hostQueryReset` | reset each query in the buffer that writes it, which a transfer-only queue cannot |
//! | writes no timestamps in a queue family | refuse timing there, and name the family |
//! | blocks a submit while its queue is full (NVIDIA's, from some 6,550 submits on), and takes the device for lost after ten seconds of that | say so in [`crate::vulkan`]; the submit lock of that queue is held meanwhile |
//! | waits at the process's end for queues to come to rest (NVIDIA's) | let go of what the host holds before |
//! | reads a lost device's counters as all bits set (NVIDIA's), as what they were at, or as an error | take each for a loss: a wait that says so tells everyone |
//! | does not conform (MoltenVK) | ask the loader for it, and enable `VK_KHR_portability_subset` |
//! | computes on the processor | take it only when it is asked for by name |
//! | spins in `vkWaitSemaphores` for any of several (Mesa's llvmpipe) | look, and pause in between |

use std::{
    any::Any,
    panic::Location,
    sync::{Arc, OnceLock},
};

use ash::vk;

use crate::{
    contract::{Backend, DeviceImpl, DeviceRef, MarkerImpl, StreamImpl},
    core::DeviceCore,
    epochs::Reserved,
    error::{Error, Result},
    sync::{Mutex, lock},
    vulkan::{Features, QueueLock},
};

use super::gpu::{Gpu, Parts};
use super::loader::Loader;
#[cfg(feature = "conformance")]
pub(crate) use super::loader::validation_messages;
use super::queue::Queue;
pub(crate) use super::stream::VkStream;

pub(crate) struct VkDevice {
    pub(super) core: Arc<DeviceCore>,
    pub(crate) gpu: Arc<Gpu>,
    default: Arc<VkStream>,
}

/// How many devices there are.
pub(crate) fn count() -> Result<usize, String> {
    Loader::get().map(|loader| loader.devices.len())
}

/// Whether the first device is hardware, to be preferred to the host.
pub(crate) fn is_hardware() -> bool {
    Loader::get().is_ok_and(|loader| loader.devices.first().is_some_and(|first| !first.software))
}

/// The device of this index; the same one each time, until it is lost.
pub(crate) fn open(index: usize) -> Result<DeviceRef> {
    static DEVICES: OnceLock<Mutex<Vec<(usize, DeviceRef)>>> = OnceLock::new();
    let mut devices = lock(DEVICES.get_or_init(|| Mutex::new(Vec::new())));
    if let Some((_, device)) = devices.iter().find(|(known, _)| *known == index)
        && of(&**device)?.gpu.lost().is_none()
    {
        return Ok(device.clone());
    }
    let device = make(index, None)?;
    let lost: Vec<_> = devices
        .extract_if(.., |(known, _)| *known == index)
        .collect();
    devices.push((index, device.clone()));
    drop(devices);
    // Without the lock: it may be the last owner.
    drop(lost);
    Ok(device)
}

/// A `VkDevice` of our own, with the optional features that it has; or with those of `only` at
/// most.
pub(crate) fn make(index: usize, only: Option<Features>) -> Result<DeviceRef> {
    let name = format!("vulkan:{index}");
    let unavailable = |why: String| Error::Unavailable {
        device: name.clone(),
        why,
    };
    let loader = Loader::get().map_err(unavailable)?;
    let Some(found) = loader.devices.get(index) else {
        return Err(unavailable(format!(
            "there are {} Vulkan devices, counted from 0",
            loader.devices.len()
        )));
    };
    let instance = &loader.instance;
    // SAFETY: a device of this instance, here and below.
    let facts = unsafe { instance.get_physical_device_properties(found.raw) };
    // A device is as new as its instance at most:
    // https://registry.khronos.org/vulkan/specs/latest/html/vkspec.html#extendingvulkan-coreversions
    let one_three = facts.api_version.min(loader.version) >= vk::API_VERSION_1_3;
    // SAFETY: as above.
    let extensions = unsafe { instance.enumerate_device_extension_properties(found.raw) };
    let extensions = extensions.unwrap_or_default();
    let has = |name| {
        extensions
            .iter()
            .any(|one| super::loader::is_named(one, name))
    };
    let extension = has(ash::khr::synchronization2::NAME);
    let mut two = vk::PhysicalDeviceSynchronization2Features::default();
    let mut reset = vk::PhysicalDeviceHostQueryResetFeatures::default();
    let mut all = vk::PhysicalDeviceFeatures2::default().push_next(&mut reset);
    if one_three || extension {
        all = all.push_next(&mut two);
    }
    // SAFETY: as above; the chain is alive during the call.
    unsafe { instance.get_physical_device_features2(found.raw, &mut all) };
    let only = only.unwrap_or(Features {
        synchronization2: true,
        host_query_reset: true,
    });
    let synchronization2 = two.synchronization2 == vk::TRUE && only.synchronization2;
    let host_reset = reset.host_query_reset == vk::TRUE && only.host_query_reset;
    // SAFETY: as above.
    let families = unsafe { instance.get_physical_device_queue_family_properties(found.raw) };
    let (family, queues) = best_family(&families)
        .ok_or_else(|| unavailable(format!("{} has no queue that computes", found.name)))?;

    let priorities = vec![1.0; queues as usize];
    let queue = [vk::DeviceQueueCreateInfo::default()
        .queue_family_index(family)
        .queue_priorities(&priorities)];
    let mut timeline =
        vk::PhysicalDeviceTimelineSemaphoreFeatures::default().timeline_semaphore(true);
    let mut two = vk::PhysicalDeviceSynchronization2Features::default().synchronization2(true);
    let mut reset = vk::PhysicalDeviceHostQueryResetFeatures::default().host_query_reset(true);
    let mut names = Vec::new();
    if has(ash::khr::portability_subset::NAME) {
        // To be enabled where it is there: VUID-VkDeviceCreateInfo-pProperties-04451.
        names.push(ash::khr::portability_subset::NAME.as_ptr());
    }
    let mut info = vk::DeviceCreateInfo::default()
        .queue_create_infos(&queue)
        .push_next(&mut timeline);
    if synchronization2 {
        info = info.push_next(&mut two);
        if !one_three {
            names.push(ash::khr::synchronization2::NAME.as_ptr());
        }
    }
    if host_reset {
        info = info.push_next(&mut reset);
    }
    info = info.enabled_extension_names(&names);
    // SAFETY: the features and extensions were asked for above; the chain is alive during the call.
    let device = unsafe { instance.create_device(found.raw, &info, None) }.map_err(|error| {
        unavailable(format!(
            "vkCreateDevice failed: {error}; close other users of {}, or update its driver",
            found.name
        ))
    })?;
    let table = device.clone();
    // SAFETY: the device was just made, with these features; the instance lives as long as the
    // process.
    let gpu = unsafe {
        Gpu::new(Parts {
            instance: instance.clone(),
            physical: found.raw,
            device,
            synchronization2,
            host_reset,
            name,
            keep_alive: None,
        })
    };
    let gpu = gpu.inspect_err(|_| {
        // SAFETY: made just now; nothing was made of it that is still there.
        unsafe { table.destroy_device(None) }
    })?;
    for index in 0..queues {
        // SAFETY: the device was made with that many queues of the family.
        let raw = unsafe { gpu.device.get_device_queue(family, index) };
        lock(&gpu.queues).push(Arc::new(Queue::new(raw, family, None)));
    }
    device_of(gpu)
}

/// The family for our streams, and how many of its queues: it computes, has timestamps rather than
/// not, and then as many queues as can be. One family only, so that all times are of one kind.
fn best_family(families: &[vk::QueueFamilyProperties]) -> Option<(u32, u32)> {
    const MOST: u32 = 16;
    (0..)
        .zip(families)
        .filter(|(_, family)| family.queue_flags.contains(vk::QueueFlags::COMPUTE))
        .max_by_key(|(index, family)| {
            let timed = family.timestamp_valid_bits > 0;
            (
                timed,
                family.queue_count.min(MOST),
                std::cmp::Reverse(*index),
            )
        })
        .map(|(index, family)| (index, family.queue_count.min(MOST)))
}

fn device_of(gpu: Arc<Gpu>) -> Result<DeviceRef> {
    let core = gpu.device_core();
    let Some(queue) = gpu.quietest_queue() else {
        return Err(Error::Unavailable {
            device: gpu.name.clone(),
            why: "it was made without queues; name at least one".into(),
        });
    };
    let default = VkStream::new(core.clone(), &gpu, queue, None)?;
    Ok(DeviceRef::new(VkDevice { core, gpu, default }))
}

/// A device of the caller's, with its first queue.
///
/// # Safety
/// As [`crate::vulkan::device_from_raw`], which passes it on.
pub(crate) unsafe fn wrap(
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
            synchronization2: features.synchronization2,
            host_reset: features.host_query_reset,
            name,
            keep_alive: Some(keep_alive),
        })
    }?;
    let (raw, family, guard) = queue;
    lock(&gpu.queues).push(Arc::new(Queue::new(raw, family, Some(guard))));
    device_of(gpu)
}

/// A stream on a queue of the caller's.
///
/// # Safety
/// As [`crate::vulkan::stream_from_raw`], which passes it on.
pub(crate) unsafe fn stream_on(
    device: &dyn DeviceImpl,
    raw: vk::Queue,
    family: u32,
    guard: Arc<dyn QueueLock>,
    keep_alive: Arc<dyn Any + Send + Sync>,
) -> Result<Arc<VkStream>> {
    let vulkan = of(device)?;
    let queue = vulkan.gpu.wrapped(raw, family, guard);
    VkStream::new(vulkan.core.clone(), &vulkan.gpu, queue, Some(keep_alive))
}

/// The Vulkan side of a device.
pub(crate) fn of(device: &dyn DeviceImpl) -> Result<&VkDevice> {
    (device as &dyn Any)
        .downcast_ref()
        .ok_or_else(|| Error::Unsupported {
            what: "a call of Vulkan".into(),
            device: device.core().name.clone(),
            remedy: "open a device whose name begins with vulkan".into(),
        })
}

/// The Vulkan side of a stream.
pub(crate) fn of_stream(stream: &dyn StreamImpl) -> Result<&VkStream> {
    (stream as &dyn Any)
        .downcast_ref()
        .ok_or_else(|| Error::Unsupported {
            what: "a call of Vulkan".into(),
            device: stream.core().device.name.clone(),
            remedy: "use a stream of a Vulkan device".into(),
        })
}

/// See [`crate::vulkan::reserve`].
pub(crate) fn reserve(device: &dyn DeviceImpl, at: &'static Location<'static>) -> Result<Reserved> {
    // SAFETY: without a buffer, nothing is asked of the caller.
    unsafe { super::reserve::reserve(of(device)?, None, at) }
}

/// See [`crate::vulkan::record_into`].
///
/// # Safety
/// As there.
pub(crate) unsafe fn record_into(
    device: &dyn DeviceImpl,
    buffer: vk::CommandBuffer,
    family: u32,
    at: &'static Location<'static>,
) -> Result<Reserved> {
    // SAFETY: passed on to the caller.
    unsafe { super::reserve::reserve(of(device)?, Some((buffer, family)), at) }
}

/// See [`crate::vulkan::native`].
pub(crate) fn native(marker: &dyn MarkerImpl) -> Option<(vk::Semaphore, u64)> {
    super::reserve::native(marker)
}

impl VkStream {
    /// Calls `submit` with the queue and its family, and nobody else at the queue.
    pub(crate) fn with_queue<R>(&self, submit: impl FnOnce(vk::Queue, u32) -> R) -> Option<R> {
        self.queue.locked(|raw| submit(raw, self.queue.family))
    }
}

impl DeviceImpl for VkDevice {
    fn core(&self) -> &Arc<DeviceCore> {
        &self.core
    }

    fn backend(&self) -> Backend {
        Backend::Vulkan
    }

    fn default_stream(&self) -> Arc<dyn StreamImpl> {
        self.default.clone()
    }

    fn new_stream(&self) -> Result<Arc<dyn StreamImpl>> {
        let queue = self.gpu.quietest_queue();
        let queue = queue.unwrap_or_else(|| self.default.queue.clone());
        Ok(VkStream::new(self.core.clone(), &self.gpu, queue, None)?)
    }

    fn streams(&self) -> Vec<Arc<dyn StreamImpl>> {
        let streams = self.gpu.streams().into_iter();
        streams
            .filter(|stream| stream.core().device.id == self.core.id)
            .map(|stream| stream as Arc<dyn StreamImpl>)
            .collect()
    }

    #[cfg(feature = "conformance")]
    fn test_work(&self) -> Arc<dyn crate::testing::TestWork> {
        Arc::new(super::work::VkWork {
            gpu: self.gpu.clone(),
        })
    }
}

/// See [`crate::vulkan::spin`].
#[cfg(feature = "conformance")]
pub(crate) fn spin(stream: &dyn StreamImpl, rounds: u32) -> Result<()> {
    super::work::spin(of_stream(stream)?, rounds)
}
