//! Vulkan: devices and queues of the caller's own, marks inside the caller's submits, and the
//! native semaphores.
//!
//! With the feature `vulkan`, [`Device::open`]`("vulkan:0")` makes a `VkDevice` of our own on the
//! first device with Vulkan 1.2 and timeline semaphores. [`device_from_raw`] takes one that the
//! caller made with [ash], which is re-exported here, and [`stream_from_raw`] takes further queues
//! of it. [`device_as_raw`], [`stream_as_raw`] and [`marker_as_raw`] give the native objects.
//!
//! # What to know of Vulkan's semaphores
//! - A [`Stream`] is an order on a hardware queue. Streams may outnumber queues: those that share a
//!   queue share its order, so what holds one up holds up the others. [`Device::new_stream`] takes
//!   the queue with the fewest.
//! - Recording is one submit to the queue, under its lock. It covers everything submitted to the
//!   *queue* before, by whomever.
//! - A marker orders the device's work, and makes its writes visible to later work that waits for
//!   it. It does *not* make them visible to the host: that takes a barrier to
//!   `VK_PIPELINE_STAGE_HOST_BIT` in the work itself ([host
//!   access](https://registry.khronos.org/vulkan/specs/latest/html/vkspec.html#synchronization-pipeline-barriers)).
//! - A stream waits for markers of the same `VkDevice` on the device. Semaphores of another
//!   `VkDevice` mean nothing to it, so the host stands in between: the queue is held until the host
//!   has seen the marker.
//! - [`Stream::wait_foreign`] holds the whole hardware queue until the host has seen the marker.
//!   The queue comes to such waits in their order.
//! - A driver may block a submit while its queue is full, and with it whoever submits to that
//!   queue: on an H200 with driver 580 from some 6,550 pending submits on. When none of them has
//!   completed after some ten seconds, that driver takes the device for lost.
//! - When the process ends, queues that the host holds go on, since a driver may wait for them. The
//!   work behind such a wait may still run.
//! - Timestamps are compared by the bits that are valid in both queue families. The specification
//!   promises meaning only for those of one queue
//!   ([vkCmdWriteTimestamp](https://registry.khronos.org/vulkan/specs/latest/man/html/vkCmdWriteTimestamp.html));
//!   all known devices have one counter.
//! - `FENCEPOST_VULKAN_LIBRARY` names a loader in place of the system's;
//!   `FENCEPOST_VULKAN_VALIDATION=1` turns on the validation layer for devices of our own, with
//!   synchronization validation, and prints what it says.
#![allow(unsafe_code)]

mod counter;
pub(crate) mod device;
mod exit;
pub(crate) mod fault;
mod fork;
pub(crate) mod gate;
pub(crate) mod gpu;
pub(crate) mod loader;
mod marker;
pub(crate) mod native;
pub(crate) mod open;
mod parts;
pub(crate) mod queue;
mod reserve;
mod slots;
pub(crate) mod stream;
mod time;
mod timer;
mod timestamp;
mod watcher;

use std::{any::Any, panic::Location, sync::Arc};

use ash::vk;

use crate::{
    device::Device,
    error::{Error, Result},
    marker::Marker,
    reservation::Reservation,
    stream::Stream,
};

pub use ash;
pub use parts::Features;
pub use queue::QueueLock;

/// A device that the caller made with ash, with one of its queues, on which its default stream is.
/// Never blocks; the device is not destroyed by us.
///
/// # Safety
/// - The handles belong together and are alive; `keep_alive` keeps the device and its instance
///   alive until dropped, which happens when the last stream and marker is gone *and* the device is
///   through with their work: perhaps a while later, on a thread of the library. Destroy the device
///   in its drop, or after it.
/// - The device was made for Vulkan 1.2 or later, with `timelineSemaphore`, and with the features
///   that `features` says.
/// - `queue` is a queue of the device, of the family `family`; whoever submits to it, presents on
///   it or waits for it to be idle does so under `lock`.
/// - Nothing that streams or markers of it export is destroyed by the caller.
///
/// # Errors
/// [`Error::Unavailable`] for a device that lacks a function of Vulkan 1.2; what the driver says.
///
/// ```no_run
/// # use std::sync::{Arc, Mutex};
/// # fn f(instance: ash::Instance, physical: ash::vk::PhysicalDevice, device: ash::Device, owner: Arc<()>)
/// # -> fencepost::Result<()> {
/// use fencepost::vulkan::{self, Features};
/// # unsafe {
/// let queue = device.get_device_queue(0, 0);
/// let lock = Arc::new(Mutex::new(()));
/// let features = Features::default();
/// let device = vulkan::device_from_raw(instance, physical, device, features, queue, 0, lock, owner)?;
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

/// A stream on a queue of `device`'s `VkDevice`. Wrapping a queue again gives another stream in the
/// same order. Never blocks.
///
/// # Safety
/// - `queue` is a queue of that device, of the family `family`, and alive while `keep_alive` is.
/// - Whoever submits to it does so under `lock`. Where this crate knows the queue already, the lock
///   that was given first is the one it takes.
///
/// # Errors
/// [`Error::Unsupported`] for a device of another backend; what the driver says.
///
/// ```no_run
/// # use std::sync::{Arc, Mutex};
/// # fn f(device: fencepost::Device, queue: ash::vk::Queue, owner: Arc<()>) -> fencepost::Result<()> {
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

/// The `VkDevice` of a device, with its functions, for making what a stream's work needs. It is
/// good while the [`Device`] is alive.
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

/// The physical device of a device, and the instance that knows it, for asking what they can do:
/// which memory there is, for one. Good while the [`Device`] is alive.
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
/// A closure gets the queue, since Vulkan forbids two threads to be at a queue at once: outside of
/// the lock there is nothing to do with it. `submit` must call no stream of that queue.
///
/// # Errors
/// [`Error::Unsupported`] for a stream of another backend, or a [`QueueLock`] that calls nothing.
///
/// ```no_run
/// let stream = fencepost::Device::open("vulkan:0")?.new_stream()?;
/// let family = fencepost::vulkan::stream_as_raw(&stream, |_queue, family| family)?;
/// # Ok::<(), fencepost::Error>(())
/// ```
pub fn stream_as_raw<R>(stream: &Stream, submit: impl FnOnce(vk::Queue, u32) -> R) -> Result<R> {
    let called = device::stream_as_vulkan(stream.imp())?.with_queue(submit);
    called.ok_or_else(|| Error::Unsupported {
        what: "submitting under a lock that calls nothing".into(),
        device: stream.device().name().into(),
        remedy: "let QueueLock::locked call what it is given".into(),
    })
}

/// The timeline semaphore of a marker and the value that it has once the marker is complete, for
/// waiting in the caller's own submits; `None` for markers of other backends and those behind a
/// failure. Of a reserved marker: what the caller's submit is to signal.
///
/// The semaphore is good while the marker is alive: keep it until what waits is complete.
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
/// The submit signals the semaphore behind its work, by `VkSemaphoreSubmitInfo` or
/// `VkTimelineSemaphoreSubmitInfo`. Signalled twice, the second signal is not valid usage; so work
/// that is submitted again needs another reservation.
///
/// The semaphore is destroyed with the marker once it is signalled, or at once where the
/// reservation was dropped without [`submitted`](Reservation::submitted): so nothing that signals
/// it may then be pending.
///
/// # Errors
/// [`Error::Unsupported`] for a device of another backend; what the driver says.
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
    let reserved = reserve::reserve(&vulkan.watcher, &vulkan.core, Location::caller())?;
    Ok(Reservation::new(reserved, device))
}

/// As [`reserve`], with timing: writes the time at which everything before in `buffer`, and before
/// it on its queue, is done.
///
/// # Safety
/// - `buffer` is a command buffer of that `VkDevice` in the recording state, outside a render pass,
///   of a pool for the family `family`; nobody else records into it meanwhile.
/// - Once the reservation is dropped without [`submitted`](Reservation::submitted), the buffer is
///   not pending, and not submitted again; otherwise not once the marker is dropped.
///
/// # Errors
/// [`Error::Unsupported`] where the family has no timestamps, or cannot reset them; what the driver
/// says.
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
    let (vulkan, at) = (device::as_vulkan(device.imp())?, Location::caller());
    // SAFETY: passed on to the caller.
    let reserved =
        unsafe { reserve::record_into(&vulkan.watcher, &vulkan.core, buffer, family, at) }?;
    Ok(Reservation::new(reserved, device))
}
