//! Metal devices, and what this backend does about each of Metal's peculiarities.
//!
//! The names in brackets are the tests that show it.
//!
//! - **Command buffers of a queue start in order and may overlap.** A stream makes its own run one
//!   after the other, by a shared event ([`native`](super::native)). On a queue of the caller's it
//!   refuses plain records; [`reserve`](super::reserve) marks the caller's command buffers.
//!   (`command_buffers_of_a_stream_run_in_its_order`,
//!   `a_plain_mark_on_the_callers_queue_names_what_to_do_instead`)
//! - **An event may have its value before the command buffer has a status or an end time.** The
//!   host never reads the value: it learns of completion from completed handlers alone.
//!   (`a_complete_marker_has_its_time_in_the_order_of_the_stream`)
//! - **Completed handlers run late, in any order, on Metal's threads.**
//!   [`completion_order`](super::completion_order) restores the stream's order, and a handler keeps
//!   alive what it uses.
//!   (`a_complete_marker_means_that_those_its_stream_waited_for_are_complete`,
//!   `a_handler_may_come_after_everything_was_dropped`)
//! - **A failed command buffer leaves its events unsignalled.** The host signals them once all
//!   earlier command buffers are over. Later ones still run, but their markers fail.
//!   (`a_buffer_that_fails_without_its_signals_fails_its_stream_and_releases_everyone`,
//!   `a_later_buffer_that_fails_first_releases_nobody_too_early`)
//! - **`commandBuffer` blocks where the queue is full**, even the thread whose commit the queue
//!   waits for. The streams' queues have room for many command buffers. The library counts those
//!   that are not completed, and returns [`Error::WouldBlock`] where there is no room.
//!   (`a_full_queue_is_an_error_and_never_blocks`)
//! - **Metal's host-side waiters may miss a signal from the host.** Threads, futures and host
//!   streams wait on the timeline, with any deadline. (Nothing here calls those waiters.)
//! - **Metal promises no time for an empty command buffer, and the time is 0 until completion.** A
//!   timed marker fills four bytes, and a time of 0 is an error. The host's clock never stands in.
//!   (`a_timed_marker_has_a_command_buffer_with_work_in_it`, `no_time_is_told_from_a_time`)
//! - **A command buffer keeps resources alive; for events, Metal does not say.** Every command
//!   buffer that waits for an event or signals it has a handler that keeps the event alive.
//!   (`an_event_lives_as_long_as_a_command_buffer_that_uses_it`)
//! - **Encoding while another encoder is open ends the process.** So the end of a command buffer
//!   that others encode into is marked by its completed handler, and the host signals the event.
//!   (`the_end_of_a_command_buffer_is_marked_while_others_encode`)
//! - **A second commit ends the process.** The commit consumes the `PlacedBuffer`.
//!   (`many_threads_use_one_stream`)
//! - **Metal returns nil for every failure**, and some sandboxes have no shared events. Each nil
//!   becomes an error with a remedy. (`a_sandbox_without_shared_events_says_so`,
//!   `a_refused_record_leaves_the_event_and_the_stream_as_they_were`)
//! - **Returned objects are autoreleased.** Each call and each handler has a pool of its own. (All
//!   tests on the stand-in, which counts objects and pools.)
//! - **A device can be unplugged.** Its streams fail, with the first cause.
//!   (`a_removed_device_releases_everyone_who_waits`)

use std::{any::Any, sync::Arc};

use objc2::{
    Message,
    runtime::{NSObjectProtocol, ProtocolObject},
    sel,
};
use objc2_metal::{MTLCommandQueue, MTLCopyAllDevices, MTLCreateSystemDefaultDevice, MTLDevice};

use super::{
    gpu::{Gpu, is_same_device},
    objects::{Object, pooled},
    stream::MtlStream,
    time,
};
use crate::{
    contract::{Backend, DeviceImpl, DeviceRef, Look, Missing, Sample, StreamImpl},
    core::{DeviceCore, Streams},
    error::{Error, Result},
    fork::{Lasting, Process},
    place::Place,
    sync::{Mutex, lock},
};

// MTLCreateSystemDefaultDevice gives nil in a process that has not linked this framework:
// https://developer.apple.com/documentation/metal/mtlcreatesystemdefaultdevice()
#[cfg(target_os = "macos")]
#[link(name = "CoreGraphics", kind = "framework")]
unsafe extern "C" {}

pub(crate) struct MtlDevice {
    pub(crate) gpu: Arc<Gpu>,
    default: Arc<MtlStream>,
    /// The streams on queues of our own. Those on queues of the caller's cannot be recorded on, and
    /// so not be waited for.
    streams: Streams<MtlStream>,
}

/// The Metal device behind a device of any backend.
pub(crate) fn of(device: &dyn DeviceImpl) -> Result<&MtlDevice> {
    let any: &dyn Any = device;
    any.downcast_ref().ok_or_else(|| Error::Unsupported {
        what: "a call of Metal".into(),
        device: device.core().name.clone(),
        remedy: "open a device whose name begins with metal".into(),
    })
}

/// An error in a process that was forked after the first use of Metal: the Objective-C runtime ends
/// such a process when it is called.
fn check_fork() -> Result<()> {
    static CALLER: Lasting<Process> = Lasting::new();
    match CALLER.get_or_make(Process::this).is_this() {
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

/// How many devices there are.
pub(crate) fn count() -> Result<usize, Missing> {
    match devices().map_err(Missing::Failed)?.len() {
        0 => Err(Missing::Absent(
            "Metal is there, and has no device; run on a Mac with a GPU, outside of sandboxes \
             that hide it"
                .into(),
        )),
        count => Ok(count),
    }
}

pub(crate) fn name(index: usize) -> String {
    match index {
        0 => "metal".into(),
        _ => format!("metal:{index}"),
    }
}

/// The devices that were opened.
static OPENED: Mutex<Vec<DeviceRef>> = Mutex::new(Vec::new());

/// The device of this index; the same one each time, as long as the system lists it there.
pub(crate) fn open(index: usize) -> Result<DeviceRef> {
    open_once(&find(index)?, name(index))
}

/// See [`crate::metal::device_from_raw`].
pub(super) fn from_raw(raw: &ProtocolObject<dyn MTLDevice>) -> Result<DeviceRef> {
    let index = devices()?
        .iter()
        .position(|known| is_same_device(known, raw));
    let raw = Object::new(raw.retain());
    // A device that the system does not list has no number.
    let name = index.map_or_else(|| pooled(|| format!("metal ({})", raw.name())), name);
    open_once(&raw, name)
}

pub(crate) fn find(index: usize) -> Result<Object<dyn MTLDevice>> {
    devices()?
        .into_iter()
        .nth(index)
        .ok_or_else(|| Error::Unavailable {
            device: name(index),
            why: "the system no longer lists it; list the devices again".into(),
        })
}

fn open_once(raw: &Object<dyn MTLDevice>, name: String) -> Result<DeviceRef> {
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

pub(crate) fn make(raw: Object<dyn MTLDevice>, name: String) -> Result<DeviceRef> {
    // A message that an object does not know ends the process. `GPUEndTime` is the latest addition
    // to Metal that is used here. It came with macOS 10.15, as `supportsFamily` did, which a device
    // can be asked for. Devices that are simulated for virtual machines lack more.
    let lacks = |selector| !raw.respondsToSelector(selector);
    if lacks(sel!(newSharedEvent)) || lacks(sel!(supportsFamily:)) {
        return Err(Error::Unavailable {
            device: name,
            why: "it has no shared events or no times, which need macOS 10.15 and a GPU that the \
                  system supports; run on such a system"
                .into(),
        });
    }
    let gpu = Gpu::new(name, raw);
    let default = MtlStream::new(&gpu, None)?;
    let streams = Streams::new();
    streams.add(&default);
    Ok(DeviceRef::new(MtlDevice {
        gpu,
        default,
        streams,
    }))
}

/// See [`crate::metal::stream_from_raw`].
pub(super) fn stream_from_raw(
    queue: &ProtocolObject<dyn MTLCommandQueue>,
) -> Result<(Arc<MtlStream>, DeviceRef)> {
    check_fork()?;
    let device = pooled(|| from_raw(&queue.device()))?;
    let queue = Object::new(queue.retain());
    let stream = MtlStream::new(&of(&*device)?.gpu, Some(queue))?;
    Ok((stream, device))
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
        let stream = MtlStream::new(&self.gpu, None)?;
        self.streams.add(&stream);
        Ok(stream)
    }

    fn streams(&self) -> Vec<Arc<dyn StreamImpl>> {
        let streams = self.streams.alive().into_iter();
        streams
            .map(|stream| stream as Arc<dyn StreamImpl>)
            .collect()
    }

    fn correlate(&self, _: Place, _: Look<'_>) -> Result<Sample> {
        self.gpu.check()?;
        match self.gpu.lost() {
            Some(lost) => Err(lost),
            None => Ok(time::sample(&self.gpu.device, &self.gpu.core.clock)),
        }
    }
}
