//! The work that tests put on CUDA streams: gates, and kernels that write to logs.
//!
//! **Nothing here frees memory or loads a module while a gate is closed**: both would block until
//! it opens, and the thread that blocks may be the one that opens it
//! (docs/measurements/cuda-stalls.md). So logs are page-locked memory that is used again and never
//! freed, and the module is loaded before the first gate closes.
#![allow(unsafe_code)]

mod bytes;
mod kernels;
mod log;
mod state;

use std::sync::Arc;

use state::state;

use super::{
    bytes::ByteCounterImpl,
    test_work::{Gate, Log, TestWork},
};
#[cfg(doc)]
use crate::error::Error;
use crate::{
    contract::{DeviceImpl, DeviceRef, StreamImpl},
    cuda::{
        context::Context,
        device::{new_device, of_device},
        stream::of_stream,
    },
    device::Device,
    error::{Cause, Result},
    host_gate::HostGated,
    place::Place,
    stream::Stream,
};

/// Submits a kernel that faults. That ends the context, so call it in a process of its own.
///
/// # Errors
/// [`Error::Unsupported`] for a stream of another backend; the driver's error.
///
/// ```no_run
/// use fencepost::{Device, Error, testing::cuda};
/// let stream = Device::open("cuda:0")?.new_stream()?;
/// cuda::trap(&stream)?;
/// assert!(matches!(stream.synchronize(), Err(Error::DeviceLost { .. })));
/// # Ok::<(), fencepost::Error>(())
/// ```
pub fn trap(stream: &Stream) -> Result<()> {
    let stream = of_stream(stream.imp())?;
    state(stream.context).kernels(stream.context)?.trap(stream)
}

/// Another device in the context of `device`, with streams of its own, so that tests at the same
/// time do not wait for each other's streams.
///
/// # Errors
/// [`Error::Unsupported`] for a device of another backend.
///
/// ```no_run
/// use fencepost::{Device, testing::cuda};
/// let device = Device::open("cuda:0")?;
/// assert_ne!(cuda::fresh(&device)?, device);
/// # Ok::<(), fencepost::Error>(())
/// ```
pub fn fresh(device: &Device) -> Result<Device> {
    let context = of_device(device.imp())?.context;
    Ok(Device::new(DeviceRef::new(new_device(context))))
}

/// Records an anchor now, as the thread of [`Device::keep_time`] does each 200 ms: for tests in
/// which hours pass on a simulated clock. Does nothing while no time is kept. Blocks until the
/// anchor before it is complete.
///
/// # Errors
/// [`Error::Unsupported`] for a device of another backend; [`Error::Forked`]; the driver's error.
///
/// ```no_run
/// let device = fencepost::Device::open("cuda:0")?;
/// let _keeper = device.keep_time()?;
/// fencepost::testing::cuda::anchor_now(&device)?;
/// # Ok::<(), fencepost::Error>(())
/// ```
pub fn anchor_now(device: &Device) -> Result<()> {
    of_device(device.imp())?.context.anchor_now()
}

/// The test work of a device, if it is one of CUDA.
pub(super) fn work_of(device: &dyn DeviceImpl) -> Option<Arc<dyn TestWork>> {
    let context = of_device(device).ok()?.context;
    Some(Arc::new(CudaWork { context }))
}

/// The test work of the devices of one context.
struct CudaWork {
    context: &'static Context,
}

impl TestWork for CudaWork {
    fn new_log(&self) -> Result<Log> {
        log::new(self.context)
    }

    fn gate(&self, stream: &dyn StreamImpl, _at: Place) -> Result<Gate> {
        let stream = of_stream(stream)?;
        let context = stream.context;
        if stream.live_timeline().is_none() {
            // Behind a failure there is nothing to hold back. The gate would hold the driver's
            // stream, and with it the work after clear_error.
            return Ok(Gate::new(|| ()));
        }
        state(context).kernels(context)?;
        let word = context
            .gates
            .take()
            .map_err(|fault| context.failed(fault, None))?;
        match stream.native.call(|raw| context.gates.block(raw, word)) {
            Ok(()) => Ok(Gate::new(move || context.gates.open(word))),
            Err(fault) => {
                context.gates.open(word);
                Err(context.failed(fault, None))
            }
        }
    }

    fn append(&self, stream: &dyn StreamImpl, log: &Log, token: u32) -> Result<()> {
        let stream = of_stream(stream)?;
        match stream.live_timeline() {
            Some(_) => log::append(stream, log, token),
            // What is submitted behind a failure never runs.
            None => stream.failure().map_or(Ok(()), Err),
        }
    }

    /// For `amount` nanoseconds.
    fn spin(&self, stream: &dyn StreamImpl, amount: u64) -> Result<()> {
        let stream = of_stream(stream)?;
        state(stream.context)
            .kernels(stream.context)?
            .spin(stream, amount)
    }

    /// Fails the stream in the backend's own way, with nothing submitted.
    ///
    /// A real fault of a kernel ends the whole context, and this process cannot use the device
    /// again. So it cannot show the cases about streams that fail and go on. What a real fault does
    /// is tested apart, in a process of its own.
    fn fail(&self, stream: &dyn StreamImpl, text: &str) -> Result<()> {
        of_stream(stream)?.fail_from_here(&Cause::new(text));
        Ok(())
    }

    fn byte_counter(&self, capacity: usize) -> Result<Arc<dyn ByteCounterImpl>> {
        bytes::new(self.context, capacity)
    }
}
