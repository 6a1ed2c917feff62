//! Vulkan: devices and queues of the caller's own, markers inside the caller's submits, and native
//! handles.
//!
//! With the feature `vulkan`, [`Device::open`]`("vulkan:0")` makes a `VkDevice` on the first
//! physical device that has Vulkan 1.2 and timeline semaphores. [`device_from_raw`] wraps one that
//! the caller made with [ash], which is re-exported here, and [`stream_from_raw`] wraps further
//! queues of it. [`device_as_raw`], [`stream_as_raw`] and [`marker_as_raw`] give the native
//! handles.
//!
//! # What to know of Vulkan's semaphores
//! - A [`Stream`] is in order on one hardware queue. Streams may outnumber queues. Streams that
//!   share a queue share its order, so what delays one delays the others. [`Device::new_stream`]
//!   takes the queue with the fewest streams.
//! - Recording is one submit to the queue, under its lock. A marker covers everything that was
//!   submitted to the *queue* before it, by any stream or by the caller.
//! - A marker orders the device's work, and makes its writes visible to later work that waits for
//!   it. It does *not* make them visible to the host: that takes a barrier to
//!   `VK_PIPELINE_STAGE_HOST_BIT` in the work itself ([host access][1]).
//! - A stream waits on the device for markers of the same `VkDevice`. A `VkDevice` cannot wait for
//!   a semaphore of another one, so for such markers the queue is held until the host has seen the
//!   marker complete.
//! - [`Stream::wait_foreign`] holds the whole hardware queue until the host has seen the marker
//!   complete. A queue comes to several such waits in the order in which they were submitted.
//! - A driver may block a submit while its queue is full, and with it every thread that submits to
//!   that queue. NVIDIA's driver 580 on an H200 does so from some 6,550 pending submits on. If none
//!   of them completes within some ten seconds, it reports the device as lost.
//! - NVIDIA's driver tells that a device is lost by a submit alone: until then waits time out, and
//!   counters read as pending. So a wait of this crate whose marker has not come submits nothing to
//!   the queues that are guarded by locks of its own, once a second at most. On a device whose
//!   queues all have the caller's locks, the next submit tells. A loop of queries needs a record,
//!   or a wait, to learn of a loss.
//! - When the process ends, queues that are held for the host go on, since a driver may wait for
//!   them to be idle. So the work behind such a wait may still run.
//! - Where timestamps have fewer than 64 valid bits, they wrap. How often they did between two
//!   markers is told by the host's times: before each submit, and when somebody first saw it
//!   complete (a query, a wait, a callback). A marker that nobody looks at for longer than the
//!   counter runs has no time any more: [`Error::Ambiguous`].
//! - Timestamps are compared by the bits that are valid in both queue families. The specification
//!   lets only timestamps of one queue be compared ([vkCmdWriteTimestamp][2]); all known devices
//!   have one counter for all queues.
//! - `FENCEPOST_VULKAN_LIBRARY` names a loader in place of the system's;
//!   `FENCEPOST_VULKAN_VALIDATION=1` turns on the validation layer, with synchronization
//!   validation, for devices that [`Device::open`] makes, and prints its messages to stderr.
//!
//! [1]: https://registry.khronos.org/vulkan/specs/latest/html/vkspec.html#synchronization-pipeline-barriers
//! [2]: https://registry.khronos.org/vulkan/specs/latest/man/html/vkCmdWriteTimestamp.html
#![allow(unsafe_code)]

mod calibrated;
mod counter;
pub(crate) mod device;
pub(crate) mod exit;
pub(crate) mod fault;
pub(crate) mod gate;
pub(crate) mod gpu;
pub(crate) mod loader;
pub(crate) mod marker;
pub(crate) mod memory;
pub(crate) mod native;
pub(crate) mod open;
mod parts;
pub(crate) mod queue;
mod reserve;
mod sightings;
mod slots;
pub(crate) mod stream;
mod time;
mod timer;
mod timestamp;
mod watcher;

use std::{any::Any, sync::Arc};

use ash::vk;

use crate::{
    device::Device,
    error::{Error, Result},
    marker::Marker,
    place::Place,
    reservation::Reservation,
    stream::Stream,
};

pub use ash;
pub use parts::Features;
pub use queue::QueueLock;

/// Wraps a device that the caller made with ash. The default stream is on `queue`. Never blocks,
/// and never destroys the `VkDevice`.
///
/// # Safety
/// - The handles belong together. The device and its instance are alive until `keep_alive` is
///   dropped. That happens once the last stream and marker is dropped *and* their work is complete:
///   perhaps later, and on a thread of the library. Destroy the device in that drop, or after it.
/// - The device was made for Vulkan 1.2 or later, with `timelineSemaphore` and what `features`
///   names enabled.
/// - `queue` is a queue of the device, of the family `family`; whoever submits to it, presents on
///   it or waits for it to be idle does so under `lock`.
/// - The caller destroys no handle that is given for a stream or marker of the device.
///
/// # Errors
/// [`Error::Unavailable`] for a device that lacks a function of Vulkan 1.2; [`Error::Backend`]
/// where the driver refuses a call.
///
/// # References
/// - [`VkDevice`](https://registry.khronos.org/vulkan/specs/latest/man/html/VkDevice.html)
/// - [`VkPhysicalDeviceTimelineSemaphoreFeatures`](https://registry.khronos.org/vulkan/specs/latest/man/html/VkPhysicalDeviceTimelineSemaphoreFeatures.html)
///
/// ```no_run
/// # use std::sync::{Arc, Mutex};
/// # fn f(
/// #     instance: ash::Instance,
/// #     physical: ash::vk::PhysicalDevice,
/// #     device: ash::Device,
/// #     owner: Arc<()>,
/// # ) -> fencepost::Result<()> {
/// use fencepost::vulkan::{Features, device_from_raw};
/// # unsafe {
/// let queue = device.get_device_queue(0, 0);
/// let lock = Arc::new(Mutex::new(()));
/// let features = Features::default();
/// let device =
///     device_from_raw(instance, physical, device, features, queue, 0, lock, owner)?;
/// # device.default_stream().synchronize()
/// # }}
/// ```
#[allow(clippy::too_many_arguments)]
pub unsafe fn device_from_raw(
    instance: ash::Instance,
    physical_device: vk::PhysicalDevice,
    device: ash::Device,
    features: Features,
    queue: vk::Queue,
    family: u32,
    lock: Arc<dyn QueueLock>,
    keep_alive: Arc<dyn Any + Send + Sync>,
) -> Result<Device> {
    let queue = (queue, family, lock);
    // SAFETY: passed on to the caller.
    unsafe {
        device::wrap(
            instance,
            physical_device,
            device,
            features,
            queue,
            keep_alive,
        )
    }
    .map(Device::new)
}

/// Makes a stream on a queue of the `VkDevice` of `device`. Streams on the same queue share its
/// order. Never blocks.
///
/// # Safety
/// - `queue` is a queue of that device, of the family `family`, and alive while `keep_alive` is.
/// - Whoever submits to it does so under `lock`. If the queue was wrapped before, this crate takes
///   the lock that was given then.
///
/// # Errors
/// [`Error::Unsupported`] for a device of another backend; [`Error::Backend`] where the driver
/// refuses a call.
///
/// # References
/// - [`VkQueue`](https://registry.khronos.org/vulkan/specs/latest/man/html/VkQueue.html)
/// - [`vkCreateSemaphore`](https://registry.khronos.org/vulkan/specs/latest/man/html/vkCreateSemaphore.html), a timeline
///
/// ```no_run
/// # use std::sync::{Arc, Mutex};
/// # use fencepost::{Device, Result};
/// # fn f(device: Device, queue: ash::vk::Queue, owner: Arc<()>) -> Result<()> {
/// // SAFETY: a queue of family 1, which is used under this lock only.
/// let stream = unsafe {
///     fencepost::vulkan::stream_from_raw(&device, queue, 1, Arc::new(Mutex::new(())), owner)
/// }?;
/// stream.synchronize()
/// # }
/// ```
pub unsafe fn stream_from_raw(
    device: &Device,
    queue: vk::Queue,
    family: u32,
    lock: Arc<dyn QueueLock>,
    keep_alive: Arc<dyn Any + Send + Sync>,
) -> Result<Stream> {
    // SAFETY: passed on to the caller.
    let stream = unsafe { device::stream_on(device.imp(), queue, family, lock, keep_alive) }?;
    Ok(Stream::new(stream, device.clone()))
}

/// The `VkDevice` of a device, with its functions, for making the objects that work on its streams
/// needs. It is valid while the [`Device`] is alive.
///
/// # Errors
/// [`Error::Unsupported`] for a device of another backend.
///
/// ```no_run
/// let device = fencepost::Device::open("vulkan:0")?;
/// println!("{:?}", fencepost::vulkan::device_as_raw(&device)?.handle());
/// # Ok::<(), fencepost::Error>(())
/// ```
pub fn device_as_raw(device: &Device) -> Result<ash::Device> {
    Ok((*device::as_vulkan(device.imp())?.gpu.device).clone())
}

/// The `VkPhysicalDevice` of a device, and its instance, for asking what the device has: its types
/// of memory, for example. Both are valid while the [`Device`] is alive.
///
/// # Errors
/// [`Error::Unsupported`] for a device of another backend.
///
/// ```no_run
/// let device = fencepost::Device::open("vulkan:0")?;
/// let (instance, physical) = fencepost::vulkan::physical_device_as_raw(&device)?;
/// // SAFETY: a device of this instance.
/// let memory = unsafe { instance.get_physical_device_memory_properties(physical) };
/// println!("{} types of memory", memory.memory_type_count);
/// # Ok::<(), fencepost::Error>(())
/// ```
pub fn physical_device_as_raw(device: &Device) -> Result<(ash::Instance, vk::PhysicalDevice)> {
    let gpu = &device::as_vulkan(device.imp())?.gpu;
    Ok((gpu.instance.clone(), gpu.physical))
}

/// Calls `submit` with the queue of a stream and its family, under the queue's lock: for submitting
/// work to the stream.
///
/// Vulkan lets one thread at a time use a queue, so only a closure under the lock gets it. `submit`
/// must not use a stream of that queue.
///
/// # Errors
/// [`Error::Unsupported`] for a stream of another backend, and for a [`QueueLock`] that does not
/// call the closure that it is given.
///
/// ```no_run
/// let stream = fencepost::Device::open("vulkan:0")?.new_stream()?;
/// let family = fencepost::vulkan::stream_as_raw(&stream, |_queue, family| family)?;
/// # Ok::<(), fencepost::Error>(())
/// ```
pub fn stream_as_raw<R>(stream: &Stream, submit: impl FnOnce(vk::Queue, u32) -> R) -> Result<R> {
    let called = device::stream_as_vulkan(stream.imp())?.with_queue(submit);
    called.ok_or_else(|| Error::Unsupported {
        what: "submitting under a QueueLock that does not call its closure".into(),
        device: stream.device().name().into(),
        remedy: "let QueueLock::locked call what it is given".into(),
    })
}

/// The timeline semaphore of a marker and the value that it has once the marker is complete, for
/// waiting in the caller's own submits. For a reserved marker, that is what the caller's submit is
/// to signal. `None` for a marker of another backend, and for one that is behind a failure.
///
/// The semaphore is valid while the marker is alive: keep the marker until the work that waits is
/// complete.
///
/// ```no_run
/// let marker = fencepost::Device::open("vulkan:0")?.new_stream()?.record()?;
/// let (semaphore, value) = fencepost::vulkan::marker_as_raw(&marker).unwrap();
/// # Ok::<(), fencepost::Error>(())
/// ```
pub fn marker_as_raw(marker: &Marker) -> Option<(vk::Semaphore, u64)> {
    marker::semaphore_value(&**marker.imp())
}

/// Reserves a marker for a submit of the caller's, which is to signal what [`marker_as_raw`] says
/// of it. Never blocks.
///
/// The submit signals the semaphore after its work, by `VkSemaphoreSubmitInfo` or
/// `VkTimelineSemaphoreSubmitInfo`. To signal the value twice is invalid usage, so work that is
/// submitted again needs another reservation.
///
/// Once the semaphore is signalled and the marker dropped, a later reservation may have the same
/// semaphore, with a higher value. If the reservation was dropped without
/// [`submitted`](Reservation::submitted), the semaphore is destroyed at once: then no work that
/// signals it may be pending.
///
/// # Errors
/// [`Error::Unsupported`] for a device of another backend; [`Error::Backend`] where the driver
/// refuses a call; [`Error::DeviceLost`]; [`Error::Forked`].
///
/// # References
/// - [`VkTimelineSemaphoreSubmitInfo`](https://registry.khronos.org/vulkan/specs/latest/man/html/VkTimelineSemaphoreSubmitInfo.html)
///
/// ```no_run
/// # fn submit(_: (ash::vk::Semaphore, u64)) {}
/// use fencepost::{Device, vulkan};
/// let reservation = vulkan::reserve(&Device::open("vulkan:0")?)?;
/// submit(vulkan::marker_as_raw(&reservation.marker()).unwrap());
/// reservation.submitted().synchronize()?;
/// # Ok::<(), fencepost::Error>(())
/// ```
#[track_caller]
pub fn reserve(device: &Device) -> Result<Reservation> {
    let vulkan = device::as_vulkan(device.imp())?;
    let reserved = reserve::reserve(&vulkan.watcher, &vulkan.core, Place::caller())?;
    Ok(Reservation::new(reserved, device))
}

/// As [`reserve`], with timing. Records a command into `buffer` that writes the time at which all
/// work before it is complete: what is in front of it in `buffer`, and what was submitted to its
/// queue earlier.
///
/// # Safety
/// - `buffer` is a command buffer of that `VkDevice` in the recording state, outside a render pass,
///   of a pool for the family `family`; nobody else records into it meanwhile.
/// - If the reservation is dropped without [`submitted`](Reservation::submitted), the buffer is not
///   pending then, and not submitted later. Otherwise it is not submitted again once the marker is
///   dropped.
///
/// # Errors
/// Those of [`reserve`]; [`Error::Unsupported`] where the family has no timestamps, or cannot reset
/// them.
///
/// # References
/// - [`vkCmdWriteTimestamp2`](https://registry.khronos.org/vulkan/specs/latest/man/html/vkCmdWriteTimestamp2.html)
///
/// ```no_run
/// # fn f(device: fencepost::Device, buffer: ash::vk::CommandBuffer) -> fencepost::Result<()> {
/// // SAFETY: the buffer is being recorded, for queues of family 0.
/// let start = unsafe { fencepost::vulkan::record_into(&device, buffer, 0) }?;
/// // … the work …
/// # drop(start); Ok(())
/// # }
/// ```
#[track_caller]
pub unsafe fn record_into(
    device: &Device,
    buffer: vk::CommandBuffer,
    family: u32,
) -> Result<Reservation> {
    let (vulkan, at) = (device::as_vulkan(device.imp())?, Place::caller());
    // SAFETY: passed on to the caller.
    let reserved =
        unsafe { reserve::record_into(&vulkan.watcher, &vulkan.core, buffer, family, at) }?;
    Ok(Reservation::new(reserved, device))
}
