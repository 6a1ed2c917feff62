//! Metal: command buffers in a stream's order, marks inside the caller's own, and the native shared
//! events.
//!
//! With the feature `metal`, which is on by default, [`Device::open`]`("metal")` opens the system's
//! default device, and `metal:1` and so on the others. It takes macOS 10.15 or newer. Types of
//! Metal are those of [objc2-metal](https://docs.rs/objc2-metal) 0.3.
//!
//! # What to know of Metal's order
//! - Command buffers of one `MTLCommandQueue` start in the order of their commits and may overlap:
//!   a signal in one says nothing about those before it. So a [`Stream`] chains its command buffers
//!   by an `MTLSharedEvent`. Put work into its order with [`command_buffer`].
//! - Nobody can chain what you commit to a queue of your own. There, mark inside your command
//!   buffers with [`record_into`] and [`wait_into`], or their ends with [`record_end`]; a stream of
//!   [`stream_from_queue`] gives [`Error::Unsupported`] for a plain record or wait.
//! - A marker completes with its command buffer: the host learns of it from the completed handler,
//!   perhaps a little later than the device goes on.
//! - A time is the `GPUEndTime` of a command buffer: of one of our own behind the work for
//!   [`Stream::record_timed`], of yours for [`record_into`]. It has the resolution of whole command
//!   buffers; what the GPU idles between two of them counts.
//! - [`Stream::record`] and [`Stream::wait`] never block, and cost no command buffer where none is
//!   needed. A queue has room for a limited number of uncompleted ones; beyond that Metal would
//!   block, and the call gives [`Error::WouldBlock`] instead.
//! - When a command buffer fails, its stream has failed. What was committed behind it still runs,
//!   and its markers have failed with it.
//! - [`Stream::wait_foreign`] holds the stream's queue until the host has seen the marker. Metal
//!   says of no number of queues that they never hold each other up, nor how long it lets a command
//!   buffer wait.
//!
//! No part of this has run on Apple hardware yet: it is checked for Apple's targets and runs on a
//! stand-in.

#![allow(unsafe_code)]

#[cfg(feature = "conformance")]
pub mod bare;
#[cfg(feature = "conformance")]
mod bytes;
mod completion_order;
pub(crate) mod device;
mod gpu;
mod handlers;
mod marker;
mod native;
mod objects;
mod placed;
mod reserve;
mod stream;
mod time;
mod wakes;
#[cfg(feature = "conformance")]
mod work;

use std::{fmt, mem::ManuallyDrop, ops::Deref, panic::Location};

use objc2::{rc::Retained, runtime::ProtocolObject};
use objc2_metal::{MTLCommandBuffer, MTLCommandQueue, MTLDevice, MTLSharedEvent};

use placed::PlacedBuffer;
use stream::of_stream;

#[allow(unused_imports, reason = "for the documentation")]
use crate::error::Error;
use crate::{
    device::Device, error::Result, marker::Marker, reservation::Reservation, stream::Stream,
};

/// A command buffer that has its place in a stream's order: it begins behind everything submitted
/// before, and what is submitted later begins behind it. Encode work into it and
/// [`commit`](CommandBuffer::commit) it.
///
/// What comes later waits for it, so commit it soon. Dropped, it is committed with what is encoded
/// so far: its place is taken, and would hold up the stream for ever. Metal ends the process when
/// an encoder is open then.
///
/// It stays on the thread that made it, as Metal wants of what encodes. Do not commit or enqueue it
/// by Metal's own methods, and let nothing keep it: Metal ends the process at a second commit.
pub struct CommandBuffer {
    placed: ManuallyDrop<PlacedBuffer>,
}

impl CommandBuffer {
    /// Commits it. Never blocks.
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

/// A command buffer that comes next in the order of `stream`. Never blocks.
///
/// # Errors
/// [`Error::WouldBlock`] where the stream has too many that are not complete; the stream's failure;
/// [`Error::Unsupported`] for a stream of another backend; [`Error::Backend`] where Metal gives
/// none.
///
/// # References
/// - [`makeCommandBuffer`](https://developer.apple.com/documentation/metal/mtlcommandqueue/makecommandbuffer())
/// - [`encodeWaitForEvent`](https://developer.apple.com/documentation/metal/mtlcommandbuffer/encodewaitforevent(_:value:))
///
/// ```no_run
/// use objc2_metal::{MTLBlitCommandEncoder, MTLBuffer, MTLCommandBuffer, MTLCommandEncoder};
/// # fn f(memory: &objc2::runtime::ProtocolObject<dyn MTLBuffer>) -> fencepost::Result<()> {
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

/// A stream on a queue of the caller's: for [`command_buffer`], whose buffers are in order among
/// themselves and unordered against the caller's own. Wrapping a queue again gives another stream.
/// Never blocks.
///
/// Plain records and waits on it are [`Error::Unsupported`]: mark your command buffers with
/// [`record_into`] and [`wait_into`]. A command buffer that the stream has made holds its place in
/// the queue: those that you commit later start behind it, so commit it before you wait for one of
/// them. Where you have filled the queue, which by default has room for 64 uncompleted command
/// buffers, [`command_buffer`] blocks in Metal.
///
/// # Errors
/// [`Error::Backend`] where Metal gives no shared event.
///
/// ```no_run
/// use objc2_metal::{MTLCreateSystemDefaultDevice, MTLDevice};
/// let queue = MTLCreateSystemDefaultDevice().unwrap().newCommandQueue().unwrap();
/// let stream = fencepost::metal::stream_from_queue(&queue)?;
/// assert!(stream.record().is_err());
/// # Ok::<(), fencepost::Error>(())
/// ```
pub fn stream_from_queue(queue: &ProtocolObject<dyn MTLCommandQueue>) -> Result<Stream> {
    let (stream, device) = device::stream_from_raw(queue)?;
    Ok(Stream::new(stream, Device::new(device)))
}

/// The `MTLDevice` of a device.
///
/// # Errors
/// [`Error::Unsupported`] for a device of another backend.
///
/// ```no_run
/// use objc2_metal::MTLDevice;
/// let device = fencepost::Device::open("metal")?;
/// println!("{}", fencepost::metal::raw_device(&device)?.name());
/// # Ok::<(), fencepost::Error>(())
/// ```
pub fn raw_device(device: &Device) -> Result<Retained<ProtocolObject<dyn MTLDevice>>> {
    Ok(device::of(device.imp())?.gpu.device.retained().clone())
}

/// The shared event of a marker and the value that it has once the marker is complete, for waiting
/// in the caller's own command buffers; `None` for markers of other backends and those behind a
/// failure.
///
/// A larger value says the same. The value may be seen a little before the marker says that it is
/// complete, and it is raised by the host where a command buffer has failed: whether the work went
/// well, the marker tells.
///
/// Keep the event until the command buffers that you encode it into have completed: nothing says
/// that Metal does.
///
/// # References
/// - [`MTLSharedEvent`](https://developer.apple.com/documentation/metal/mtlsharedevent)
///
/// ```no_run
/// let marker = fencepost::Device::open("metal")?.new_stream()?.record()?;
/// let (event, value) = fencepost::metal::native(&marker).unwrap();
/// # Ok::<(), fencepost::Error>(())
/// ```
pub fn native(marker: &Marker) -> Option<(Retained<ProtocolObject<dyn MTLSharedEvent>>, u64)> {
    let (event, value) = marker::as_raw(&**marker.imp())?;
    Some((event.retained().clone(), value))
}

/// Lets what is encoded into `buffer` from now on wait for `marker` on the device, also of another
/// Metal device. No-op where it is complete. Never blocks.
///
/// A failure does not travel along this wait: the buffer runs when the marker has completed or
/// failed, and which of the two, the marker tells.
///
/// `buffer` has no open encoder, or Metal ends the process.
///
/// # Errors
/// [`Error::Unsupported`] for a committed buffer, and for one that the marker's own stream has made
/// before it was recorded; [`Error::ForeignWait`] for a pending marker of another backend;
/// [`Error::NotSubmitted`] for a reserved one; the marker's failure.
///
/// # References
/// - [`encodeWaitForEvent`](https://developer.apple.com/documentation/metal/mtlcommandbuffer/encodewaitforevent(_:value:))
///
/// ```no_run
/// # fn f(queue: &objc2::runtime::ProtocolObject<dyn objc2_metal::MTLCommandQueue>, loaded: fencepost::Marker)
/// # -> fencepost::Result<()> {
/// use objc2_metal::{MTLCommandBuffer, MTLCommandQueue};
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
/// Other command buffers and streams that wait for it do so from that point on; for the host it
/// completes, with its time, when the whole buffer does. Say [`submitted`](Reservation::submitted)
/// once it is committed. Never blocks.
///
/// Metal promises no time for a command buffer without work in it: the marker completes, and its
/// time may be an error.
///
/// `buffer` has no open encoder, or Metal ends the process.
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
/// # fn f(queue: &objc2::runtime::ProtocolObject<dyn objc2_metal::MTLCommandQueue>) -> fencepost::Result<()> {
/// use objc2_metal::{MTLCommandBuffer, MTLCommandQueue};
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
    let reserved = reserve::record_into(gpu, buffer, Location::caller())?;
    Ok(Reservation::new(reserved, device))
}

/// Reserves a marker for the end of command buffers of the caller's: it completes when all of them
/// have, and its time is the latest of theirs. Say [`submitted`](Reservation::submitted) once they
/// are committed. Never blocks.
///
/// Unlike [`record_into`] it encodes nothing, so encoders may be open: for buffers that others
/// encode into. Whatever is encoded into them until they are committed counts. Command buffers and
/// streams that wait for the marker are let go by the host, in the completed handlers.
///
/// Buffers of one queue may overlap. With `after`, the marker completes no sooner than that one,
/// with no earlier time, and fails with it: for several marks of what is one order to those who
/// encode.
///
/// A handler is added while encoders may be open, as PyTorch does; macOS 26.4 is
/// [reported](https://github.com/ml-explore/mlx/pull/3714) to end the process then.
///
/// Metal promises no time for a buffer without work. Where that may come, give it a second one with
/// some behind it.
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
/// # fn f(queue: &objc2::runtime::ProtocolObject<dyn objc2_metal::MTLCommandQueue>) -> fencepost::Result<()> {
/// use objc2_metal::{MTLCommandBuffer, MTLCommandEncoder, MTLCommandQueue};
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
    let after = after.map(Marker::imp);
    let gpu = &device::of(device.imp())?.gpu;
    let reserved = reserve::record_end(gpu, buffers, after, Location::caller())?;
    Ok(Reservation::new(reserved, device))
}

/// A device of this index with streams and a clock of its own.
///
/// # Errors
/// As [`Device::open`].
#[cfg(feature = "conformance")]
#[doc(hidden)]
pub fn fresh(index: usize) -> Result<Device> {
    device::fresh(index).map(Device::new)
}

/// Submits a kernel that spins for so many rounds.
///
/// # Errors
/// [`Error::Unsupported`] for a stream of another backend; what Metal says.
#[cfg(feature = "conformance")]
#[doc(hidden)]
pub fn spin(stream: &Stream, rounds: u32) -> Result<()> {
    work::spin(of_stream(stream.imp())?, rounds)
}
