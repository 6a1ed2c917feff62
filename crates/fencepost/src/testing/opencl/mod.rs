//! The work that tests put on OpenCL streams: gates, and kernels that write to logs.
#![allow(unsafe_code)]

mod bytes;
mod kernels;
mod log;
mod state;

use std::{ffi::c_void, sync::Arc};

use kernels::Argument;
use state::state;

use super::{
    bytes::ByteCounterImpl,
    test_work::{Gate, Log, TestWork},
};
#[cfg(doc)]
use crate::error::Error;
use crate::{
    contract::{DeviceImpl, DeviceRef, StreamImpl},
    device::Device,
    error::{Cause, Result},
    host_gate::HostGated,
    opencl::{
        context::Context,
        device::{new_context, new_device, of_device},
        loader::DeviceHandle,
        stream::of_stream,
    },
    place::Place,
    stream::Stream,
};

/// Another device in the context of `device`, with streams of its own, so that tests at the same
/// time do not wait for each other's streams.
///
/// # Errors
/// [`Error::Unsupported`] for a device of another backend; the driver's error.
///
/// ```no_run
/// use fencepost::{Device, testing::opencl};
/// let device = Device::open("opencl:0")?;
/// assert_ne!(opencl::fresh(&device)?, device);
/// # Ok::<(), fencepost::Error>(())
/// ```
pub fn fresh(device: &Device) -> Result<Device> {
    let context = of_device(device.imp())?.context;
    Ok(Device::new(DeviceRef::new(new_device(context)?)))
}

/// The test work of a device, if it is one of OpenCL.
pub(super) fn work_of(device: &dyn DeviceImpl) -> Option<Arc<dyn TestWork>> {
    let context = of_device(device).ok()?.context;
    Some(Arc::new(ClWork { context }))
}

/// The test work of the devices of one context.
struct ClWork {
    context: &'static Context,
}

impl TestWork for ClWork {
    fn new_log(&self) -> Result<Log> {
        log::new(self.context)
    }

    fn gate(&self, stream: &dyn StreamImpl, _at: Place) -> Result<Gate> {
        let stream = of_stream(stream)?;
        let context = stream.context;
        if !stream.is_alive() {
            // Behind a failure there is nothing to hold back. The gate would hold the queue, and
            // with it the work after clear_error.
            return Ok(Gate::new(|| ()));
        }
        let gate = stream.close_gate()?;
        Ok(Gate::new(move || context.open_gate(gate)))
    }

    fn append(&self, stream: &dyn StreamImpl, log: &Log, token: u32) -> Result<()> {
        let stream = of_stream(stream)?;
        match stream.is_alive() {
            true => log::append(stream, log, token),
            // What is submitted behind a failure never runs.
            false => stream.failure().map_or(Ok(()), Err),
        }
    }

    /// Fails the stream in the backend's own way. What a failure of the driver's does is tested
    /// apart.
    fn fail(&self, stream: &dyn StreamImpl, text: &str) -> Result<()> {
        of_stream(stream)?.fail_from_here(&Cause::new(text));
        Ok(())
    }

    fn spin(&self, stream: &dyn StreamImpl, amount: u64) -> Result<()> {
        let stream = of_stream(stream)?;
        let state = state(stream.context)?;
        let arguments = [Argument::Memory(state.word), Argument::Long(amount)];
        let (context, name) = (stream.context, c"fencepost_spin");
        let launched = state
            .kernels
            .launch(context, stream.queue, name, (1, 1), &arguments);
        launched.map_err(|fault| context.failed(fault))
    }

    fn byte_counter(&self, capacity: usize) -> Result<Arc<dyn ByteCounterImpl>> {
        bytes::new(self.context, capacity)
    }
}

/// Work on `stream` that is pending until the result is called with a status, which is negative:
/// then it fails with that, as the driver tells it.
///
/// # Errors
/// [`Error::Unsupported`] for a stream of another backend; the driver's error.
///
/// ```no_run
/// use fencepost::{Device, testing::opencl};
/// let stream = Device::open("opencl:0")?.new_stream()?;
/// let fail = opencl::work_that_fails(&stream)?;
/// let marker = stream.record()?;
/// fail(-42);
/// assert!(marker.synchronize().is_err());
/// # Ok::<(), fencepost::Error>(())
/// ```
pub fn work_that_fails(stream: &Stream) -> Result<impl FnOnce(i32) + Send + use<>> {
    let stream = of_stream(stream.imp())?;
    let context = stream.context;
    let fail = context
        .pending_work(stream.queue)
        .map_err(|fault| context.failed(fault))?;
    Ok(fail)
}

/// A queue of its own in the context of `device`, as a caller may have one, with these bits of
/// `cl_command_queue_properties`. It is never released.
///
/// # Errors
/// [`Error::Unsupported`] for a device of another backend; the driver's error.
///
/// ```no_run
/// use fencepost::{Device, testing};
/// let queue = testing::opencl::queue(&Device::open("opencl:0")?, 0)?;
/// // SAFETY: a queue that is never released.
/// let stream = unsafe { fencepost::opencl::stream_from_raw(queue) }?;
/// assert!(stream.record_timed().is_err(), "it has no profiling");
/// # Ok::<(), fencepost::Error>(())
/// ```
pub fn queue(device: &Device, properties: u64) -> Result<*mut c_void> {
    let context = of_device(device.imp())?.context;
    let queue = context.queue_with(properties);
    Ok(queue.map_err(|fault| context.failed(fault))?.0)
}

/// Another context for the device behind `device`, as a caller may have one. It is never released.
///
/// # Errors
/// [`Error::Unsupported`] for a device of another backend; the driver's error.
///
/// ```no_run
/// use fencepost::{Device, testing};
/// let other = testing::opencl::elsewhere(&Device::open("opencl:0")?)?;
/// other.new_stream()?.synchronize()?;
/// # Ok::<(), fencepost::Error>(())
/// ```
pub fn elsewhere(device: &Device) -> Result<Device> {
    let context = of_device(device.imp())?.context;
    let raw = new_context(context.loader, &[context.device]);
    let raw = raw.map_err(|fault| context.failed(fault))?;
    // SAFETY: made just now, and never released.
    unsafe { crate::opencl::device_from_raw(raw.0, context.device.0) }
}

/// One context for all that is behind `devices`, which are of one platform, as a caller may have
/// one: the devices in it, in the same order. It is never released.
///
/// # Errors
/// [`Error::Unsupported`] for a device of another backend; the driver's error.
///
/// ```no_run
/// use fencepost::{Device, testing};
/// let devices = [Device::open("opencl:0")?, Device::open("opencl:1")?];
/// let together = testing::opencl::together(&devices)?;
/// together[1].new_stream()?.wait(&together[0].new_stream()?.record()?)?;
/// # Ok::<(), fencepost::Error>(())
/// ```
pub fn together(devices: &[Device]) -> Result<Vec<Device>> {
    let contexts = devices
        .iter()
        .map(|device| Ok(of_device(device.imp())?.context));
    let contexts = contexts.collect::<Result<Vec<_>>>()?;
    let Some(first) = contexts.first() else {
        return Ok(Vec::new());
    };
    let handles: Vec<_> = contexts.iter().map(|context| context.device).collect();
    let raw = new_context(first.loader, &handles).map_err(|fault| first.failed(fault))?;
    // SAFETY: made just now, and never released.
    let wrap = |device: &DeviceHandle| unsafe { crate::opencl::device_from_raw(raw.0, device.0) };
    handles.iter().map(wrap).collect()
}
