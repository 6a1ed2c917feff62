//! Metal: command buffers in a stream's order, marks inside the caller's own, and raw handles.
//!
//! With the feature `metal`, which is on by default, [`Device::open`]`("metal")` opens the system's
//! default device, and `metal:1` and so on the others. [`device_from_raw`] takes an `MTLDevice` of
//! yours. Both need macOS 10.15 or newer. Metal's types are those of [`objc2_metal`], which is
//! re-exported here together with [`objc2`].
//!
//! # Order, completion and time
//! - **A stream chains its command buffers.** Metal starts the command buffers of one
//!   `MTLCommandQueue` in the order of their commits, but they may overlap. So a signal at the end
//!   of one does not show that the earlier ones are complete. A [`Stream`] makes its command
//!   buffers run one after the other, by an `MTLSharedEvent`. Put work into that order with
//!   [`command_buffer`].
//! - **Your own queue is not chained.** Mark positions inside your command buffers with
//!   [`record_into`] and [`wait_into`], or their ends with [`record_end`]. A stream of
//!   [`stream_from_raw`] gives [`Error::Unsupported`] for a plain record or wait.
//! - **A marker completes with its command buffer.** The host learns of it in the completed
//!   handler, which may run a little after the device has gone on.
//! - **A time is the `GPUEndTime` of a command buffer**: of one of the stream's own behind the work
//!   for [`Stream::record_timed`], of yours for [`record_into`]. Its resolution is a whole command
//!   buffer. The time between two markers includes the time for which the GPU is idle.
//! - **[`Stream::record`] and [`Stream::wait`] never block**, and need no command buffer of their
//!   own in most cases. A queue has room for a limited number of uncompleted command buffers. Where
//!   it is full, Metal would block; these calls return [`Error::WouldBlock`] instead.
//! - **A failed command buffer fails its stream.** Command buffers that were committed later still
//!   run, but their markers fail.
//! - **[`Stream::wait_foreign`] blocks the stream's queue** until the host has seen the marker
//!   complete. Metal documents neither how many queues are independent of each other, nor how long
//!   a command buffer may wait.
//!
//! No part of this has run on Apple hardware yet. It is compiled and linted for Apple's targets,
//! and its tests run on a stand-in for Metal.

#![allow(unsafe_code)]

mod completion_order;
pub(crate) mod device;
pub(crate) mod gpu;
mod handlers;
mod marker;
pub(crate) mod native;
pub(crate) mod objects;
mod placed;
mod reserve;
pub(crate) mod stream;
mod time;
mod wakes;

use std::{fmt, mem::ManuallyDrop, ops::Deref};

pub use objc2;
pub use objc2_metal;

use objc2::{rc::Retained, runtime::ProtocolObject};
use objc2_metal::{MTLCommandBuffer, MTLCommandQueue, MTLDevice, MTLSharedEvent};

use placed::PlacedBuffer;
use stream::of_stream;

#[allow(unused_imports, reason = "for the documentation")]
use crate::error::Error;
use crate::{
    device::Device, error::Result, marker::Marker, place::Place, reservation::Reservation,
    stream::Stream,
};

/// A command buffer with a place in a stream's order: it begins after everything submitted before
/// it, and what is submitted later begins after it. Made by [`command_buffer`].
///
/// Encode work into it and [`commit`](CommandBuffer::commit) it soon, since later work waits for
/// it. If it is dropped instead, it is committed with what is encoded so far: else later work of
/// the stream would never run. Metal ends the process if an encoder is still open then.
///
/// It stays on the thread that made it, since Metal demands that one thread encodes. Do not commit
/// or enqueue it by Metal's own methods, and keep no reference to it after the commit: Metal ends
/// the process at a second commit.
pub struct CommandBuffer {
    placed: ManuallyDrop<PlacedBuffer>,
}

impl CommandBuffer {
    /// Commits the command buffer. Never blocks. All its encoders must have ended.
    ///
    /// # References
    /// - [`MTLCommandBuffer.commit`](https://developer.apple.com/documentation/metal/mtlcommandbuffer/commit())
    ///
    /// ```no_run
    /// let stream = fencepost::Device::open("metal")?.new_stream()?;
    /// let buffer = fencepost::metal::command_buffer(&stream)?;
    /// // … encode work …
    /// buffer.commit();
    /// stream.record_timed()?.synchronize()?;
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn commit(self) {}
}

impl Drop for CommandBuffer {
    fn drop(&mut self) {
        // SAFETY: taken once, here, and not used after.
        unsafe { ManuallyDrop::take(&mut self.placed) }.commit();
    }
}

impl Deref for CommandBuffer {
    type Target = ProtocolObject<dyn MTLCommandBuffer>;

    fn deref(&self) -> &Self::Target {
        self.placed.buffer()
    }
}

impl fmt::Debug for CommandBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CommandBuffer")
    }
}

/// Makes a command buffer that comes next in the order of `stream`. Never blocks.
///
/// # Errors
/// [`Error::WouldBlock`] where the stream has too many uncompleted command buffers; the stream's
/// failure; [`Error::Unsupported`] for a stream of another backend; [`Error::Backend`] where Metal
/// gives no command buffer.
///
/// # References
/// - [`makeCommandBuffer`](https://developer.apple.com/documentation/metal/mtlcommandqueue/makecommandbuffer())
/// - [`encodeWaitForEvent`](https://developer.apple.com/documentation/metal/mtlcommandbuffer/encodewaitforevent(_:value:))
///
/// ```no_run
/// use fencepost::metal::{
///     objc2::runtime::ProtocolObject,
///     objc2_metal::{MTLBlitCommandEncoder, MTLBuffer, MTLCommandBuffer, MTLCommandEncoder},
/// };
/// # fn f(memory: &ProtocolObject<dyn MTLBuffer>) -> fencepost::Result<()> {
/// let stream = fencepost::Device::open("metal")?.new_stream()?;
/// let start = stream.record_timed()?;
/// let buffer = fencepost::metal::command_buffer(&stream)?;
/// let encoder = buffer.blitCommandEncoder().expect("an encoder");
/// encoder.fillBuffer_range_value(memory, (0..memory.length()).into(), 7);
/// encoder.endEncoding();
/// buffer.commit();
/// let end = stream.record_timed()?;
/// end.synchronize()?;
/// println!("{}", start.elapsed(&end)?);
/// # Ok(())
/// # }
/// ```
pub fn command_buffer(stream: &Stream) -> Result<CommandBuffer> {
    Ok(CommandBuffer {
        placed: ManuallyDrop::new(of_stream(stream.imp())?.command_buffer()?),
    })
}

/// The device behind an `MTLDevice` of the caller's. Never waits for the device's work.
///
/// It equals the device that [`Device::open`] gives for the same GPU. So events, markers and
/// streams of the two can be used together.
///
/// # Errors
/// [`Error::Unavailable`] for a device without shared events or times, which need macOS 10.15;
/// [`Error::Backend`] where Metal gives no command queue or shared event; [`Error::Forked`].
///
/// # References
/// - [`MTLDevice.registryID`](https://developer.apple.com/documentation/metal/mtldevice/registryid)
///
/// ```no_run
/// use fencepost::{Device, metal::objc2_metal::MTLCreateSystemDefaultDevice};
/// let raw = MTLCreateSystemDefaultDevice().expect("a GPU");
/// assert_eq!(fencepost::metal::device_from_raw(&raw)?, Device::open("metal")?);
/// # Ok::<(), fencepost::Error>(())
/// ```
pub fn device_from_raw(device: &ProtocolObject<dyn MTLDevice>) -> Result<Device> {
    device::from_raw(device).map(Device::new)
}

/// The `MTLDevice` of a device.
///
/// # Errors
/// [`Error::Unsupported`] for a device of another backend.
///
/// ```no_run
/// use fencepost::metal::objc2_metal::MTLDevice;
/// let device = fencepost::Device::open("metal")?;
/// println!("{}", fencepost::metal::device_as_raw(&device)?.name());
/// # Ok::<(), fencepost::Error>(())
/// ```
pub fn device_as_raw(device: &Device) -> Result<Retained<ProtocolObject<dyn MTLDevice>>> {
    Ok(device::of(device.imp())?.gpu.device.retained().clone())
}

/// A stream on a queue of the caller's, for [`command_buffer`]. Command buffers that the stream
/// makes are in order among themselves and unordered against the caller's own. Each call gives
/// another stream. Never blocks.
///
/// Plain records and waits on it are [`Error::Unsupported`]: mark your command buffers with
/// [`record_into`] and [`wait_into`].
///
/// A command buffer that the stream has made keeps its place in the queue: those that you commit
/// later start after it. So commit it before you wait for one of them. A queue has room for 64
/// uncompleted command buffers by default. Where yours have filled it, [`command_buffer`] blocks in
/// Metal.
///
/// # Errors
/// Those of [`device_from_raw`]; [`Error::Backend`] where Metal gives no shared event;
/// [`Error::DeviceLost`].
///
/// ```no_run
/// use fencepost::metal::objc2_metal::{MTLCreateSystemDefaultDevice, MTLDevice};
/// let queue = MTLCreateSystemDefaultDevice().unwrap().newCommandQueue().unwrap();
/// let stream = fencepost::metal::stream_from_raw(&queue)?;
/// assert!(stream.record().is_err());
/// # Ok::<(), fencepost::Error>(())
/// ```
pub fn stream_from_raw(queue: &ProtocolObject<dyn MTLCommandQueue>) -> Result<Stream> {
    let (stream, device) = device::stream_from_raw(queue)?;
    Ok(Stream::new(stream, Device::new(device)))
}

/// The command queue of a stream: the caller's own for a stream of [`stream_from_raw`].
///
/// Use it to label the queue, to capture its work, or to add residency sets. Command buffers that
/// you make on it yourself are outside of the stream's order, as on any queue of yours:
/// - They may overlap with those of the stream. Order them with [`wait_into`] and [`record_into`],
///   or ask the stream for them by [`command_buffer`].
/// - They start in the order of all commits to the queue. If one waits for an event that a later
///   command buffer signals, the stream may never go on.
/// - They take up room. The queue of [`Device::new_stream`] has room for 64 command buffers beside
///   the stream's own. Beyond that, calls of the stream may block in Metal.
///
/// # Errors
/// [`Error::Unsupported`] for a stream of another backend.
///
/// # References
/// - [`MTLCommandQueue`](https://developer.apple.com/documentation/metal/mtlcommandqueue)
///
/// ```no_run
/// use fencepost::metal::objc2_metal::{MTLCommandQueue, MTLDevice};
/// let stream = fencepost::Device::open("metal")?.new_stream()?;
/// let queue = fencepost::metal::stream_as_raw(&stream)?;
/// println!("a queue of {}", queue.device().name());
/// # Ok::<(), fencepost::Error>(())
/// ```
pub fn stream_as_raw(stream: &Stream) -> Result<Retained<ProtocolObject<dyn MTLCommandQueue>>> {
    Ok(of_stream(stream.imp())?.queue.retained().clone())
}

/// The shared event of a marker, and the value that it has once the marker is complete, for waiting
/// in the caller's own command buffers. `None` for a marker of another backend, and for one behind
/// a failure.
///
/// - A larger value says the same as this one.
/// - The event may have the value a little before the marker is complete.
/// - The host signals the value where a command buffer has failed. Ask the marker whether its work
///   succeeded.
/// - Only read the event and wait for it: signalling it breaks the order of its stream.
/// - Keep the event until the command buffers that you encode it into have completed: Metal does
///   not promise to keep it.
///
/// # References
/// - [`MTLSharedEvent`](https://developer.apple.com/documentation/metal/mtlsharedevent)
///
/// ```no_run
/// let marker = fencepost::Device::open("metal")?.new_stream()?.record()?;
/// let (event, value) = fencepost::metal::marker_as_raw(&marker).unwrap();
/// # Ok::<(), fencepost::Error>(())
/// ```
pub fn marker_as_raw(
    marker: &Marker,
) -> Option<(Retained<ProtocolObject<dyn MTLSharedEvent>>, u64)> {
    let (event, value) = marker::as_raw(&**marker.imp())?;
    Some((event.retained().clone(), value))
}

/// Makes what is encoded into `buffer` from now on wait for `marker`, on the device. The marker may
/// be of another Metal device. Does nothing where the marker is complete. Never blocks.
///
/// `buffer` must have no open encoder, or Metal ends the process.
///
/// This wait does not pass a failure on: the command buffer runs once the marker has completed or
/// failed. Ask the marker which of the two it was.
///
/// # Errors
/// [`Error::Unsupported`] for a committed buffer, and for one that the marker's own stream has made
/// before the marker was recorded; [`Error::ForeignWait`] for a pending marker of another backend;
/// [`Error::NotSubmitted`] for a reserved one; the marker's failure.
///
/// # References
/// - [`encodeWaitForEvent`](https://developer.apple.com/documentation/metal/mtlcommandbuffer/encodewaitforevent(_:value:))
///
/// ```no_run
/// use fencepost::metal::{
///     objc2::runtime::ProtocolObject,
///     objc2_metal::{MTLCommandBuffer, MTLCommandQueue},
/// };
/// # fn f(queue: &ProtocolObject<dyn MTLCommandQueue>, loaded: fencepost::Marker)
/// # -> fencepost::Result<()> {
/// let buffer = queue.commandBuffer().expect("a command buffer");
/// fencepost::metal::wait_into(&loaded, &buffer)?;
/// // … encode work that uses what was loaded …
/// buffer.commit();
/// # Ok(())
/// # }
/// ```
pub fn wait_into(marker: &Marker, buffer: &ProtocolObject<dyn MTLCommandBuffer>) -> Result<()> {
    reserve::wait_into(marker.imp(), buffer)
}

/// Reserves a marker in a command buffer of the caller's, behind what is encoded into it so far.
/// Never blocks.
///
/// Command buffers and streams that wait for the marker go on when the device reaches that point.
/// For the host, the marker completes with the whole command buffer, and its time is that of the
/// command buffer. Call [`submitted`](Reservation::submitted) once the buffer is committed.
///
/// `buffer` must have no open encoder, or Metal ends the process.
///
/// Metal promises no time for a command buffer without work in it: its marker completes, and
/// reading the time may be an error.
///
/// # Errors
/// [`Error::Unsupported`] for a committed buffer, or a device of another backend;
/// [`Error::DeviceMismatch`] for a buffer of another device; [`Error::Backend`] where Metal gives
/// no shared event.
///
/// # References
/// - [`encodeSignalEvent`](https://developer.apple.com/documentation/metal/mtlcommandbuffer/encodesignalevent(_:value:))
/// - [`gpuEndTime`](https://developer.apple.com/documentation/metal/mtlcommandbuffer/gpuendtime)
///
/// ```no_run
/// use fencepost::metal::{
///     objc2::runtime::ProtocolObject,
///     objc2_metal::{MTLCommandBuffer, MTLCommandQueue},
/// };
/// # fn f(queue: &ProtocolObject<dyn MTLCommandQueue>) -> fencepost::Result<()> {
/// let device = fencepost::Device::open("metal")?;
/// let buffer = queue.commandBuffer().expect("a command buffer");
/// // … encode work …
/// let reservation = fencepost::metal::record_into(&device, &buffer)?;
/// buffer.commit();
/// reservation.submitted().synchronize()?;
/// # Ok(())
/// # }
/// ```
#[track_caller]
pub fn record_into(
    device: &Device,
    buffer: &ProtocolObject<dyn MTLCommandBuffer>,
) -> Result<Reservation> {
    let gpu = &device::of(device.imp())?.gpu;
    let reserved = reserve::record_into(gpu, buffer, Place::caller())?;
    Ok(Reservation::new(reserved, device))
}

/// Reserves a marker for the end of command buffers of the caller's: it completes when all of them
/// have, and its time is the latest of theirs. Never blocks. Call
/// [`submitted`](Reservation::submitted) once they are committed.
///
/// Unlike [`record_into`] it encodes nothing, so encoders may be open: it is for command buffers
/// that others encode into. Everything that is encoded before the commit is in front of the marker.
/// Command buffers and streams that wait for the marker are released by the host, in the completed
/// handlers.
///
/// With `after`, the marker completes no sooner than `after`, has no earlier time, and fails if
/// `after` fails. Use it for several marks in work that its author takes for one order: command
/// buffers of one queue may overlap.
///
/// This adds completed handlers while encoders may be open, as PyTorch does too. macOS 26.4 is
/// [reported](https://github.com/ml-explore/mlx/pull/3714) to end the process then.
///
/// Metal promises no time for a command buffer without work. If yours may be empty, name a second
/// one that is not.
///
/// # Errors
/// [`Error::Unsupported`] for a committed buffer, none at all, or a device of another backend;
/// [`Error::DeviceMismatch`] for a buffer of another device; [`Error::NotSubmitted`] for a reserved
/// `after`, or its failure; [`Error::Backend`] where Metal gives no shared event.
///
/// # References
/// - [`addCompletedHandler`](https://developer.apple.com/documentation/metal/mtlcommandbuffer/addcompletedhandler(_:))
/// - [`gpuEndTime`](https://developer.apple.com/documentation/metal/mtlcommandbuffer/gpuendtime)
///
/// ```no_run
/// use fencepost::metal::{
///     objc2::runtime::ProtocolObject,
///     objc2_metal::{MTLCommandBuffer, MTLCommandEncoder, MTLCommandQueue},
/// };
/// # fn f(queue: &ProtocolObject<dyn MTLCommandQueue>) -> fencepost::Result<()> {
/// let device = fencepost::Device::open("metal")?;
/// let buffer = queue.commandBuffer().expect("a command buffer");
/// let encoder = buffer.computeCommandEncoder().expect("an encoder");
/// let reservation = fencepost::metal::record_end(&device, &[&buffer], None)?;
/// // … encode work …
/// encoder.endEncoding();
/// buffer.commit();
/// reservation.submitted().synchronize()?;
/// # Ok(())
/// # }
/// ```
#[track_caller]
pub fn record_end(
    device: &Device,
    buffers: &[&ProtocolObject<dyn MTLCommandBuffer>],
    after: Option<&Marker>,
) -> Result<Reservation> {
    record_end_at(device, buffers, after, Place::caller())
}

/// See [`crate::bindings::record_end_at`].
pub(crate) fn record_end_at(
    device: &Device,
    buffers: &[&ProtocolObject<dyn MTLCommandBuffer>],
    after: Option<&Marker>,
    at: Place,
) -> Result<Reservation> {
    let after = after.map(Marker::imp);
    let gpu = &device::of(device.imp())?.gpu;
    let reserved = reserve::record_end(gpu, buffers, after, at)?;
    Ok(Reservation::new(reserved, device))
}
