//! wgpu 30: a stream on a `Device` and `Queue` of the caller's own.
//!
//! With the feature `wgpu30`, [`stream`] gives the [`Stream`] of a [`wgpu::Queue`]; its
//! [`device`](Stream::device) has the events. The module has the major version in its name, since
//! wgpu's types are in its interface. wgpu is re-exported here. It is built with its backends for
//! Vulkan and Metal; whoever needs others enables them in a dependency of their own.
//!
//! # What to know of wgpu's queue
//! - A device has one queue. Streams of one device share its order, so what delays one delays the
//!   others. A marker covers everything that was submitted to the *queue* before it, by any stream
//!   or by the caller. What was recorded into encoders and not submitted is not covered.
//! - Recording is one `Queue::submit`. That calls the done callbacks that are due, on the thread
//!   that records, as each submit of the caller's does.
//! - Nobody needs to poll. On Vulkan and Metal, a semaphore or a shared event of this crate rides
//!   along with each submit that marks, and a thread of this crate waits for that, so that it holds
//!   no lock of wgpu's. On other backends that thread polls, without waiting, at growing pauses of
//!   1 ms at most.
//! - A stream waits on the device for markers of the same device only, which its order keeps by
//!   itself. A host stream can wait for a marker of wgpu's. For a pending marker of another
//!   backend, a wait is [`Error::ForeignWait`]: wgpu chains its submits by binary semaphores, and
//!   one that waits for a signal that is not submitted yet is invalid.
//! - After `Device::destroy`, markers that are recorded fail, and earlier ones complete.
#![allow(unsafe_code)]

mod counter;
mod device;
mod exit;
mod gpu;
#[cfg(target_vendor = "apple")]
mod metal;
mod queue;
mod signal;
mod stream;
mod time;
#[cfg(not(target_vendor = "apple"))]
mod vulkan;
mod watcher;

use crate::{device::Device, error::Result, stream::Stream};

#[allow(unused_imports)] // Named in the documentation.
use crate::error::Error;

pub use wgpu;

/// The stream of a queue, for events on it. The same one each time, while anything of it is alive.
/// Never blocks.
///
/// It keeps clones of `device` and `queue`. The last owner of a wgpu queue waits until that is
/// idle: if that is this crate, a thread of its own does.
///
/// # Errors
/// [`Error::DeviceMismatch`] for a queue of another device, where that can be told (Vulkan);
/// [`Error::Backend`] where the driver refuses a call.
///
/// # References
/// - [`Queue::submit`](https://docs.rs/wgpu/30.0.2/wgpu/struct.Queue.html#method.submit)
/// - wgpu-hal's [`add_signal_semaphore`][1]
///
/// [1]: https://docs.rs/wgpu-hal/30.0.2/wgpu_hal/vulkan/struct.Queue.html#method.add_signal_semaphore
///
/// ```no_run
/// # fn f(device: &wgpu::Device, queue: &wgpu::Queue) -> fencepost::Result<()> {
/// # use fencepost::wgpu30::wgpu;
/// let stream = fencepost::wgpu30::stream(device, queue)?;
/// queue.submit([/* … */]);
/// let marker = stream.record()?;
/// marker.on_complete(|result| println!("the work is over: {result:?}"))?;
/// # Ok(())
/// # }
/// ```
pub fn stream(device: &wgpu::Device, queue: &wgpu::Queue) -> Result<Stream> {
    let (device, stream) = device::wrap(device, queue)?;
    Ok(Stream::new(stream, Device::new(device)))
}
