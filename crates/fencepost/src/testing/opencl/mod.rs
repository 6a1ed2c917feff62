//! The work that tests put on OpenCL streams: gates, and kernels that write to logs.
#![allow(unsafe_code)]

mod bytes;
mod kernels;
mod log;

use std::sync::Arc;

use kernels::{Argument, Kernels};

use super::{
    TestWork,
    bytes::ByteCounterImpl,
    work::{Gate, Log},
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
        device::{new_device, of_device},
        loader::{MemoryHandle, QueueHandle},
        stream::of_stream,
    },
    place::Place,
    sync::{Mutex, lock},
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

/// What a context keeps for tests. Never released, as the context itself.
struct State {
    kernels: Kernels,
    /// For what the host reads and writes, so that no stream of a test holds it up.
    queue: QueueHandle,
    /// What `spin` writes to.
    word: MemoryHandle,
}

fn state(context: &'static Context) -> Result<&'static State> {
    static STATES: Mutex<Vec<(&'static Context, &'static State)>> = Mutex::new(Vec::new());
    let mut states = lock(&STATES);
    let known = states.iter().find(|(of, _)| std::ptr::eq(*of, context));
    if let Some((_, state)) = known {
        return Ok(state);
    }
    let failed = |fault| context.failed(fault);
    let state = &*Box::leak(Box::new(State {
        kernels: Kernels::build(context)?,
        queue: context.new_queue().map_err(failed)?,
        word: context.new_memory(4).map_err(failed)?,
    }));
    states.push((context, state));
    Ok(state)
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
