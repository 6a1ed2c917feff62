//! The Metal backend: streams on command queues of our own or of the caller's.
//!
//! - **A stream has one `MTLSharedEvent`, and a marker is a value on it.** Each command buffer of
//!   the stream waits for the value of the one before it first, and signals its own last
//!   ([`native`]).
//! - **The host hears of completion from completed handlers alone**, and takes the news in the
//!   stream's order ([`completion_order`]). A blocked thread, a future and a host stream wait on
//!   the timeline, with any deadline.
//! - **A time is the `GPUEndTime` of the command buffer that marks**, read in its handler. Never
//!   the host's clock.
//! - **Waits cost no command buffer**: the stream's next one begins with them. Nor do markers
//!   without timing behind which nothing was submitted: they are the last buffer's.
//! - **What the caller's own queue and command buffers do is marked inside of those**
//!   ([`reserve`]).
//!
//! | Metal | so we | shown by |
//! |---|---|---|
//! | starts the buffers of a queue in order, and lets them overlap | chain them by the event; offer no plain record on a queue that is not ours | `command_buffers_of_a_stream_run_in_its_order`, `a_plain_mark_on_the_callers_queue_names_what_to_do_instead` |
//! | may show an event's value before its buffer has a status or an end time | never look at the value | `a_complete_marker_has_its_time_in_the_order_of_the_stream` |
//! | calls handlers in any order, late, on its own threads | put them in order in the completion_order; a handler keeps alive what it uses | `a_complete_marker_means_that_those_its_stream_waited_for_are_complete`, `a_handler_may_come_after_everything_was_dropped` |
//! | leaves the events of a buffer that failed unsignalled | raise the value from the host, in the buffer's turn; what was committed behind it runs, and its markers have failed | `a_buffer_that_fails_without_its_signals_fails_its_stream_and_releases_everyone`, `a_later_buffer_that_fails_first_releases_nobody_too_early` |
//! | blocks in `commandBuffer` when a queue has as many uncompleted ones as it may have, be it the thread that would commit what they wait for | make queues with room for many, count, and give `WouldBlock` | `a_full_queue_is_an_error_and_never_blocks` |
//! | may not wake its own host-side waiters for a value that the host sets | wait on the timeline, never in Metal | nothing here calls those waiters |
//! | promises no time for an empty buffer, and 0 until it has completed | encode a small fill; take 0 for an error | `a_timed_marker_has_a_command_buffer_with_work_in_it`, `no_time_is_told_from_a_time` |
//! | keeps resources alive that a command buffer uses, and says nothing of events | keep an event in a handler of each buffer that waits for it or signals it | `an_event_lives_as_long_as_a_command_buffer_that_uses_it` |
//! | ends the process when anything is encoded beside an open encoder | mark the end of buffers that others encode into by their handlers, and raise the event from the host | `the_end_of_a_command_buffer_is_marked_while_others_encode` |
//! | ends the process at a second commit | let the one who took a buffer's ordinal commit it, which uses it up | `many_threads_use_one_stream` |
//! | gives nil for events in some sandboxes, and for anything when it cannot | say so in an error | `a_sandbox_without_shared_events_says_so`, `a_refused_record_leaves_the_event_and_the_stream_as_they_were` |
//! | autoreleases what it returns | open a pool around each call and in each handler | all tests of the stand-in: it counts objects and pools |
//! | loses a device that is unplugged | fail its streams, with the first cause | `a_removed_device_releases_everyone_who_waits` |

use std::{
    panic::Location,
    sync::{Arc, OnceLock},
};

use objc2::{
    rc::Retained,
    runtime::{NSObjectProtocol, ProtocolObject},
    sel,
};
use objc2_metal::{
    MTLCommandQueue, MTLCopyAllDevices, MTLCreateSystemDefaultDevice, MTLDevice, MTLSharedEvent,
};

use crate::{
    contract::{Backend, DeviceImpl, DeviceRef, MarkerImpl, StreamImpl},
    core::DeviceCore,
    epochs::Reserved,
    error::{Error, Result},
    sync::{Mutex, lock},
};

use super::gpu::Gpu;
use super::native::pooled;
use super::objects::{CommandBuffer, Object};
pub(crate) use super::stream::{MtlStream, Taken};

// MTLCreateSystemDefaultDevice gives nil in a process that has not linked it:
// https://developer.apple.com/documentation/metal/mtlcreatesystemdefaultdevice()
#[cfg(target_os = "macos")]
#[link(name = "CoreGraphics", kind = "framework")]
unsafe extern "C" {}

pub(crate) struct MtlDevice {
    pub(super) gpu: Arc<Gpu>,
    default: Arc<MtlStream>,
}

/// An error in a child forked behind the first look at Metal: Objective-C ends one that calls it.
fn check_fork() -> Result<()> {
    static CALLER: OnceLock<u32> = OnceLock::new();
    let here = std::process::id();
    match *CALLER.get_or_init(|| here) == here {
        true => Ok(()),
        false => Err(Error::Forked {
            device: "metal".into(),
        }),
    }
}

/// The system's devices, its default first.
fn devices() -> Result<Vec<Object<dyn MTLDevice>>> {
    check_fork()?;
    Ok(pooled(|| {
        let mut all: Vec<Object<dyn MTLDevice>> = Vec::new();
        for device in MTLCreateSystemDefaultDevice()
            .into_iter()
            .chain(&MTLCopyAllDevices())
        {
            if !all.iter().any(|known| is_same_device(known, &device)) {
                all.push(Object::new(device));
            }
        }
        all
    }))
}

/// By its number in the system: nothing says that a device is the same object each time.
pub(super) fn is_same_device(
    one: &ProtocolObject<dyn MTLDevice>,
    other: &ProtocolObject<dyn MTLDevice>,
) -> bool {
    // Asked for first: a system before macOS 10.13 has no such number, and no device of it gets
    // further than `make`.
    std::ptr::addr_eq(one, other)
        || (one.respondsToSelector(sel!(registryID)) && one.registryID() == other.registryID())
}

/// How many devices there are.
pub(crate) fn count() -> Result<usize, String> {
    match devices().map_err(|error| error.to_string())?.len() {
        0 => Err("Metal is there, and has no device; run on a Mac with a GPU, outside of sandboxes that hide it".into()),
        count => Ok(count),
    }
}

fn name(index: usize) -> String {
    match index {
        0 => "metal".into(),
        _ => format!("metal:{index}"),
    }
}

/// The devices that were opened.
static OPENED: Mutex<Vec<DeviceRef>> = Mutex::new(Vec::new());

/// The device of this index; the same one each time, as long as the system has it there.
pub(crate) fn open(index: usize) -> Result<DeviceRef> {
    known(&find(index)?, name(index))
}

fn find(index: usize) -> Result<Object<dyn MTLDevice>> {
    devices()?
        .into_iter()
        .nth(index)
        .ok_or_else(|| Error::Unavailable {
            device: name(index),
            why: "it is not there any more; list the devices again".into(),
        })
}

fn known(raw: &Object<dyn MTLDevice>, name: String) -> Result<DeviceRef> {
    let mut opened = lock(&OPENED);
    for device in opened.iter() {
        if of(&**device)?.gpu.is(raw) {
            return Ok(device.clone());
        }
    }
    let device = make(raw.clone(), name)?;
    opened.push(device.clone());
    Ok(device)
}

fn make(raw: Object<dyn MTLDevice>, name: String) -> Result<DeviceRef> {
    // A message that an object does not know ends the process. The second came with the last that
    // is called here, GPUEndTime; devices that are simulated for virtual machines lack more.
    let lacks = |selector| !raw.respondsToSelector(selector);
    if lacks(sel!(newSharedEvent)) || lacks(sel!(supportsFamily:)) {
        return Err(Error::Unavailable {
            device: name,
            why: "it has no shared events or no times, which came with macOS 10.15; run on that or a newer system, \
                  and on a GPU that the system knows"
                .into(),
        });
    }
    let gpu = Gpu::new(name, raw);
    let default = MtlStream::new(&gpu, None)?;
    Ok(DeviceRef::new(MtlDevice { gpu, default }))
}

/// The device of this index once more, with streams and a clock of its own.
#[cfg(feature = "conformance")]
pub(crate) fn fresh(index: usize) -> Result<DeviceRef> {
    make(find(index)?, name(index))
}

/// The Metal side of a device.
pub(super) fn of(device: &dyn DeviceImpl) -> Result<&MtlDevice> {
    let any: &dyn std::any::Any = device;
    any.downcast_ref().ok_or_else(|| Error::Unsupported {
        what: "a call of Metal".into(),
        device: device.core().name.clone(),
        remedy: "open a device whose name begins with metal".into(),
    })
}

/// The Metal side of a stream.
pub(super) fn of_stream(stream: &dyn StreamImpl) -> Result<&MtlStream> {
    let any: &dyn std::any::Any = stream;
    any.downcast_ref().ok_or_else(|| Error::Unsupported {
        what: "a call of Metal".into(),
        device: stream.core().device.name.clone(),
        remedy: "use a stream of a Metal device".into(),
    })
}

/// See [`crate::metal::stream_from_queue`].
pub(crate) fn stream_from_queue(
    queue: &ProtocolObject<dyn MTLCommandQueue>,
) -> Result<(Arc<MtlStream>, DeviceRef)> {
    check_fork()?;
    let queue = Object::new(pooled(|| objc2::Message::retain(queue)));
    let raw = Object::new(pooled(|| queue.device()));
    let index = devices()?
        .iter()
        .position(|known| is_same_device(known, &raw));
    // One that the system does not list has no number.
    let name = index.map_or_else(|| pooled(|| format!("metal ({})", raw.name())), name);
    let device = known(&raw, name)?;
    let stream = MtlStream::new(&of(&*device)?.gpu, Some(queue))?;
    Ok((stream, device))
}

/// See [`crate::metal::raw_device`].
pub(crate) fn raw_device(
    device: &dyn DeviceImpl,
) -> Result<Retained<ProtocolObject<dyn MTLDevice>>> {
    Ok(of(device)?.gpu.device.retained().clone())
}

/// See [`crate::metal::command_buffer`].
pub(crate) fn command_buffer(stream: &dyn StreamImpl) -> Result<Taken> {
    let taken = pooled(|| of_stream(stream)?.command_buffer())?;
    taken.ok_or_else(|| match stream.failure() {
        Some(error) => error,
        None => Error::Unsupported {
            what: "work on a stream that is about to fail".into(),
            device: stream.core().device.name.clone(),
            remedy: "synchronize() the stream to see the failure, and call clear_error()".into(),
        },
    })
}

/// See [`crate::metal::record_into`].
pub(crate) fn record_into(
    device: &dyn DeviceImpl,
    buffer: &CommandBuffer,
    at: &'static Location<'static>,
) -> Result<Reserved> {
    super::reserve::record_into(&of(device)?.gpu, buffer, at)
}

/// See [`crate::metal::record_end`].
pub(crate) fn record_end(
    device: &dyn DeviceImpl,
    buffers: &[&CommandBuffer],
    after: Option<&Arc<dyn MarkerImpl>>,
    at: &'static Location<'static>,
) -> Result<Reserved> {
    super::reserve::record_end(&of(device)?.gpu, buffers, after, at)
}

/// See [`crate::metal::wait_into`].
pub(crate) fn wait_into(marker: &Arc<dyn MarkerImpl>, buffer: &CommandBuffer) -> Result<()> {
    super::reserve::wait_into(marker, buffer)
}

/// See [`crate::metal::native`].
pub(crate) fn native(
    marker: &Arc<dyn MarkerImpl>,
) -> Option<(Retained<ProtocolObject<dyn MTLSharedEvent>>, u64)> {
    let (event, value) = super::reserve::native(&**marker)?;
    Some((event.retained().clone(), value))
}

/// See [`crate::metal::spin`].
#[cfg(feature = "conformance")]
pub(crate) fn spin(stream: &dyn StreamImpl, rounds: u32) -> Result<()> {
    super::work::spin(of_stream(stream)?, rounds)
}

impl DeviceImpl for MtlDevice {
    fn core(&self) -> &Arc<DeviceCore> {
        &self.gpu.core
    }

    fn backend(&self) -> Backend {
        Backend::Metal
    }

    fn default_stream(&self) -> Arc<dyn StreamImpl> {
        self.default.clone()
    }

    fn new_stream(&self) -> Result<Arc<dyn StreamImpl>> {
        Ok(MtlStream::new(&self.gpu, None)?)
    }

    /// Without those on queues of the caller's, which nobody can record on.
    fn streams(&self) -> Vec<Arc<dyn StreamImpl>> {
        let streams = self.gpu.streams().into_iter();
        streams
            .filter(|stream| !stream.is_wrapped())
            .map(|stream| stream as Arc<dyn StreamImpl>)
            .collect()
    }

    #[cfg(feature = "conformance")]
    fn new_log(&self) -> Result<crate::testing::work::Log> {
        super::work::new_log(&self.gpu)
    }

    #[cfg(feature = "conformance")]
    fn byte_counter(
        &self,
        capacity: usize,
    ) -> Result<Arc<dyn crate::testing::bytes::ByteCounterImpl>> {
        super::bytes::new(&self.gpu, capacity)
    }
}
