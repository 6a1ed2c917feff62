//! OpenCL: queues of the caller's own, and the native handles behind ours.
//!
//! With the feature `opencl`, [`Device::open`]`("opencl:0")` gives the first device of the first
//! platform, in a context of its own. Numbers go on from platform to platform, in the order of the
//! system's loader; [`platform`] names the platform of a device. [`stream_from_raw`] wraps a queue
//! of the caller's. Its [`device`](Stream::device) stands for the queue's context and makes more
//! streams of it.
//!
//! # What to know of OpenCL's events
//! - Every stream that this library makes is an in-order queue with profiling. A queue without
//!   `CL_QUEUE_PROFILING_ENABLE` has no times: a timed record there is [`Error::Unsupported`].
//! - Every record makes a `cl_event` (`clEnqueueMarkerWithWaitList`) and submits it (`clFlush`).
//!   OpenCL cannot record an event again. A record waits for the device only if the driver does.
//! - A marker's time is `CL_PROFILING_COMMAND_END`. By the specification a marker may start before
//!   what is in front of it has ended, so its start proves nothing. On PoCL and Intel's runtime for
//!   CPUs, the two are 0.1 to 2 µs apart.
//! - An event belongs to one context. Streams of one context wait for each other on the device,
//!   also where the context is of the caller's and has several devices. Waiting for a marker of
//!   another context, also of the same device, goes through the host: a user event holds the queue
//!   until the host has seen the marker complete.
//! - Each [`Stream::wait`] submits a barrier (`clEnqueueBarrierWithWaitList`) and, in front of it,
//!   a marker that tells when the work before the wait is over.
//! - Drivers say little of work that fails: an event has a negative status at best. Intel's CPU
//!   runtime calls a marker complete, by its status and by a wait, behind work that a failure has
//!   kept from running, so such a failure is not seen. Elsewhere a failure is seen if a marker was
//!   recorded behind the work before it failed. The failure then sticks to the stream. This library
//!   passes it on to whoever waits, not the driver.
//! - [`Stream::clear_error`] cannot mend a queue: on Mesa's rusticl all that is submitted to one
//!   fails once a failure has gone through it. Make a new stream there.
//! - Work that faults may take its whole context along. All streams and markers of the device then
//!   report the first cause as [`Error::DeviceLost`], and [`Device::open`] makes another context.
//!   The other devices of that context are tried, and are lost with it if they refuse their work.
//!   OpenCL has no code for that: after one that may mean it, the library tries the context with a
//!   new queue. A thread that waits without a deadline is inside of the driver, and returns when
//!   that does. No GPU has lost a context under this library: stand-ins have.
//! - On a queue of the caller's that runs out of order, a marker is complete once everything
//!   submitted before it is, and later work does not wait for it: [`Stream::wait`] for a marker of
//!   the same stream is a barrier there. A driver may list all that is pending for each such
//!   marker: then the cost of a record grows with what is pending.
//!
//! # What implementations do
//! The tests named here run on PoCL 3.1 in CI. The whole conformance suite was run by hand on
//! PoCL 6.0 and 7.1, on Mesa's rusticl 25.0 and 26.2 with llvmpipe, and on Intel's CPU runtime
//! 2026.2, and on an H200 with NVIDIA's driver 580, whose column was seen with bare calls there.
//!
//! | what | PoCL | rusticl | Intel's CPU runtime | NVIDIA | so | test |
//! |---|---|---|---|---|---|---|
//! | status of what waited for a failed event | -1 | that of the failed event | 0: complete, though it never ran | that of the failed event | causes are worked out by this library, never taken from a status | `a_failure_of_the_drivers_is_told_with_its_first_cause` |
//! | `clWaitForEvents` for that event | -14 | -14 | -14 | -14 | what is complete by its status is waited for, which returns at once, and has failed if the wait fails | `an_event_that_is_called_complete_and_fails_a_wait_has_failed` |
//! | a command fails whose event nobody holds | 3.1 ends the process; later ones fail | fails | fails | fails | every command of this library's has an event, which is held until it is over | `a_failure_of_the_drivers_is_told_with_its_first_cause` |
//! | a command fails while it waits for another one, and its event is released | 3.1 ends the process when the other one is over | not run | not run | not run | the event of a wait that has failed is never released | `a_stream_may_fail_while_it_waits` |
//! | callback of a failed event | 3.1, 6.0: never called; 7.1: called, with "complete" | called | called | called | a callback's status is not read, and the watcher also asks | `a_failure_that_no_callback_tells_is_told` |
//! | a failure spreads to | what is queued behind it then | what is queued behind it, then and later; wait lists, and what is behind those | wait lists only | wait lists | each marker's event is asked, in order | `a_failure_between_markers_is_not_passed_over` |
//! | what is submitted to that queue afterwards | runs | fails, for as long as the queue lives | runs | runs | [`Stream::clear_error`] makes the stream usable where its queue is; a new stream is | `a_stream_is_usable_again_after_a_failure_of_the_drivers`, `a_queue_that_fails_for_good_fails_its_stream_each_time` |
//! | callbacks run on | a thread of the driver | a thread of the driver | the thread that sets the user event, or waits | a thread of the driver | a callback wakes the watcher, and does nothing else; no lock that it takes is held across a call | `callbacks_may_run_inside_of_every_call` |
//! | where the event is complete already | the thread that asks for the callback | the same | not run | a thread of the driver | the same | the same |
//! | clock of profiling | `CLOCK_MONOTONIC_RAW` | `CLOCK_MONOTONIC` | `CLOCK_MONOTONIC` | the GPU's | it counts as a clock of the device's own | `host_times_of_two_devices_are_in_order` |
//! | `clGetDeviceAndHostTimer` | 3.1: -59; later ones work | works | works | works | a marker's time between two reads of the host's clock, where it fails or counts on another clock | `a_host_time_lies_between_reads_of_the_hosts_clock`, `the_timer_of_a_device_is_read_where_it_counts_on_the_clock_of_times` |
//! | `QUEUED`, `SUBMIT` of a marker | there | there | 0, with success | there | `END` alone is read, and 0 is an error | `a_marker_has_a_time_where_only_its_end_has_one`, `a_time_that_the_driver_does_not_have_is_an_error` |
//! | times of a queue without profiling | -7 | 25.0: 0, with success; 26.2: -7 | not run | -7 | the property of the queue is asked for | `a_queue_without_profiling_has_no_times_and_names_the_property` |
//! | `START`, `END` of a pending command | -7 | 0, with success (25.0) | -7 | not run | 0 is an error | `a_time_that_the_driver_does_not_have_is_an_error` |
//! | a queue made to run out of order | does so | runs in order | does so | runs in order | nothing depends on it | `a_queue_that_runs_out_of_order_is_ordered_by_waits` |
//! | a barrier of one device for an event of another one, in one context | waits | not run: one device | waits (sub-devices) | waits | the driver waits, as between two queues of one device | `streams_of_two_devices_of_one_context_wait_for_each_other_on_the_device` |
//!
//! Two drivers do not work with this backend, since no stream can be held there. The `clFlush` of
//! Oclgrind 21.10 does not return while work waits for a user event. On PoCL 3.1's device `basic`,
//! which `POCL_DEVICES` may name, `clSetUserEventStatus` does not return if work waits for the
//! event. PoCL 6.0 has mended that.
#![allow(unsafe_code)]

mod account;
pub(crate) mod context;
pub(crate) mod device;
mod event;
pub(crate) mod exit;
pub(crate) mod fault;
pub(crate) mod gates;
pub(crate) mod loader;
mod loss;
mod marker;
pub(crate) mod stream;
mod watched;

use std::ffi::c_void;

use self::{device::of_device, marker::ClMarker, stream::of_stream};
#[cfg(doc)]
use crate::error::Error;
use crate::{device::Device, error::Result, marker::Marker, stream::Stream};

/// The device behind a `cl_context` of the caller's and a `cl_device_id` that it was made for. The
/// same two give an equal [`Device`] each time. Never blocks on the device's work.
///
/// Each device of a context is a [`Device`] of its own, with a clock of its own. Their streams wait
/// for each other on the device. Their names tell them apart: `opencl (context 0x55d0c0ffee00,
/// device 1 of 2)`.
///
/// The library retains the context for as long as the process lives.
///
/// # Safety
/// Both are handles of the library that this crate has loaded (`libOpenCL.so.1`, or what
/// `FENCEPOST_OPENCL_LIBRARY` names), and are alive in this call.
///
/// # Errors
/// [`Error::Unsupported`] for a null handle; [`Error::Backend`] where the driver refuses, as for a
/// context that it finds to be invalid; [`Error::DeviceLost`] for a lost one;
/// [`Error::Unavailable`] without a loader or a driver; [`Error::Forked`].
///
/// # References
/// - [`clRetainContext`](https://registry.khronos.org/OpenCL/specs/3.0-unified/html/OpenCL_API.html#clRetainContext)
///
/// ```no_run
/// # let (context, id) = (std::ptr::null_mut(), std::ptr::null_mut());
/// // SAFETY: a context that is alive, and its device.
/// let device = unsafe { fencepost::opencl::device_from_raw(context, id) }?;
/// device.new_stream()?.record()?.synchronize()?;
/// # Ok::<(), fencepost::Error>(())
/// ```
pub unsafe fn device_from_raw(context: *mut c_void, device: *mut c_void) -> Result<Device> {
    // SAFETY: passed on to the caller.
    let device = unsafe { device::device_from_raw(context, device) }?;
    Ok(Device::new(device))
}

/// The stream on a `cl_command_queue` of the caller's: of `opencl3`, `ocl`, pyopencl or anybody
/// else. The same queue gives an equal [`Stream`] while one of them is alive. Never blocks.
///
/// The library retains the queue while the [`Stream`] or a clone of it is alive, and its context
/// for as long as the process lives. The [`Device`] of the stream is that of [`device_from_raw`].
///
/// # Safety
/// `queue` is a queue of the library that this crate has loaded (`libOpenCL.so.1`, or what
/// `FENCEPOST_OPENCL_LIBRARY` names), and is alive in this call.
///
/// Any thread may use the queue at any time: OpenCL's calls are thread-safe.
///
/// # Errors
/// [`Error::Unsupported`] for a null handle, and for a queue on the device (`CL_QUEUE_ON_DEVICE`);
/// [`Error::Backend`] for a handle that the driver finds to be invalid; [`Error::DeviceLost`] for a
/// queue of a lost context; [`Error::Unavailable`] without a loader or a driver; [`Error::Forked`].
///
/// # References
/// - [`clGetCommandQueueInfo`](https://registry.khronos.org/OpenCL/specs/3.0-unified/html/OpenCL_API.html#clGetCommandQueueInfo)
/// - [`clRetainCommandQueue`](https://registry.khronos.org/OpenCL/specs/3.0-unified/html/OpenCL_API.html#clRetainCommandQueue)
///
/// ```no_run
/// # let queue = std::ptr::null_mut();
/// // SAFETY: a queue that is alive.
/// let stream = unsafe { fencepost::opencl::stream_from_raw(queue) }?;
/// stream.record()?.synchronize()?;
/// # Ok::<(), fencepost::Error>(())
/// ```
pub unsafe fn stream_from_raw(queue: *mut c_void) -> Result<Stream> {
    // SAFETY: passed on to the caller.
    let (stream, device) = unsafe { device::stream_from_raw(queue) }?;
    Ok(Stream::new(stream, Device::new(device)))
}

/// The `cl_context` and the `cl_device_id` of a device, for making what work on its streams needs.
/// They are alive as long as the process. `None` for a device of another backend.
///
/// ```no_run
/// let device = fencepost::Device::open("opencl:0")?;
/// let (context, id) = fencepost::opencl::device_as_raw(&device).unwrap();
/// # Ok::<(), fencepost::Error>(())
/// ```
pub fn device_as_raw(device: &Device) -> Option<(*mut c_void, *mut c_void)> {
    let context = of_device(device.imp()).ok()?.context;
    Some((context.raw.0, context.device.0))
}

/// The `cl_command_queue` of a stream, for submitting work to it; `None` for a stream of another
/// backend. It is alive while the [`Stream`] or a clone of it is, and whoever retains it keeps it
/// for longer.
///
/// ```no_run
/// let stream = fencepost::Device::open("opencl:0")?.new_stream()?;
/// let queue = fencepost::opencl::stream_as_raw(&stream).unwrap();
/// # Ok::<(), fencepost::Error>(())
/// ```
pub fn stream_as_raw(stream: &Stream) -> Option<*mut c_void> {
    Some(of_stream(stream.imp()).ok()?.queue.0)
}

/// The `cl_event` of a marker, for the wait lists of the caller's own calls; `None` for markers of
/// other backends, and where the stream had failed and the driver refused the record. It is alive
/// while the marker is, and whoever retains it keeps it for longer.
///
/// A command that waits for it does not learn of a failure that this library knows of: the event
/// completes all the same.
///
/// ```no_run
/// let marker = fencepost::Device::open("opencl:0")?.default_stream().record()?;
/// let event = fencepost::opencl::marker_as_raw(&marker).unwrap();
/// # Ok::<(), fencepost::Error>(())
/// ```
pub fn marker_as_raw(marker: &Marker) -> Option<*mut c_void> {
    let event = ClMarker::of(&**marker.imp())?.event.as_ref()?;
    Some(event.raw.0)
}

/// The device's name, such as `NVIDIA H200`.
///
/// # Errors
/// [`Error::Unsupported`] for a device of another backend.
///
/// ```no_run
/// println!("{}", fencepost::opencl::model(&fencepost::Device::open("opencl:0")?)?);
/// # Ok::<(), fencepost::Error>(())
/// ```
pub fn model(device: &Device) -> Result<String> {
    Ok(of_device(device.imp())?.context.model.clone())
}

/// The platform of a device and its version, such as `NVIDIA CUDA (OpenCL 3.0 CUDA 12.9.40)`.
///
/// # Errors
/// [`Error::Unsupported`] for a device of another backend; [`Error::Forked`].
///
/// # References
/// - [`clGetPlatformInfo`](https://registry.khronos.org/OpenCL/specs/3.0-unified/html/OpenCL_API.html#clGetPlatformInfo)
///
/// ```no_run
/// println!("{}", fencepost::opencl::platform(&fencepost::Device::open("opencl:0")?)?);
/// # Ok::<(), fencepost::Error>(())
/// ```
pub fn platform(device: &Device) -> Result<String> {
    let context = of_device(device.imp())?.context;
    context.check_fork()?;
    Ok(context.loader.platform_of(context.device))
}
