//! The work that tests put on Vulkan streams: kernels that write to memory the host sees.
#![allow(unsafe_code)]

mod bytes;
mod dispatch;
mod kernels;
mod log;
mod memory;

use std::sync::{Arc, OnceLock};

use dispatch::{Dispatch, dispatch};
pub use kernels::KERNELS;
use kernels::Kernels;
use memory::{Bound, for_kernels};

use super::{
    bytes::ByteCounterImpl,
    test_work::{Gate, Log, TestWork},
};
use crate::{
    contract::{DeviceImpl, StreamImpl},
    device::Device,
    error::{Cause, Result},
    host_gate::HostGated,
    place::Place,
    sync::{Mutex, lock},
    vulkan::{
        Features,
        device::{as_vulkan, stream_as_vulkan},
        gpu::Gpu,
        loader::LISTENER,
        open::make,
    },
};

/// What the validation layer has said since the first call of this function. That one gives no
/// message: make it before a device is opened.
///
/// ```
/// assert!(fencepost::testing::vulkan::validation_messages().is_empty());
/// ```
pub fn validation_messages() -> Vec<String> {
    static MESSAGES: Mutex<Vec<String>> = Mutex::new(Vec::new());
    LISTENER.get_or_init(|| |text| lock(&MESSAGES).push(text));
    lock(&MESSAGES).clone()
}

/// A new `VkDevice` on the device of this index, with `only` these optional features at most.
///
/// # Errors
/// As [`Device::open`].
///
/// ```no_run
/// use fencepost::{testing, vulkan::Features};
/// let device = testing::vulkan::fresh(0, Some(Features::default()))?;
/// # Ok::<(), fencepost::Error>(())
/// ```
pub fn fresh(index: usize, only: Option<Features>) -> Result<Device> {
    make(index, only).map(Device::new)
}

/// The work of a device, where it is one of Vulkan.
pub(super) fn work_of(device: &dyn DeviceImpl) -> Option<Arc<dyn TestWork>> {
    let device = as_vulkan(device).ok()?;
    let new = || Arc::new(VkWork::new(&device.gpu)) as _;
    let kept = device.test_work.get_or_init(new).clone();
    Some(kept.downcast::<VkWork>().ok()?)
}

/// The work of one device.
struct VkWork {
    gpu: Arc<Gpu>,
    kernels: OnceLock<Result<Arc<Kernels>>>,
}

impl VkWork {
    fn new(gpu: &Arc<Gpu>) -> VkWork {
        VkWork {
            gpu: gpu.clone(),
            kernels: OnceLock::new(),
        }
    }

    /// Makes the kernels, once.
    fn kernels(&self) -> Result<&Arc<Kernels>> {
        let made = self.kernels.get_or_init(|| match Kernels::new(&self.gpu) {
            Ok(kernels) => Ok(Arc::new(kernels)),
            Err(fault) => Err(self.gpu.failed(fault)),
        });
        made.as_ref().map_err(Clone::clone)
    }
}

impl TestWork for VkWork {
    fn new_log(&self) -> Result<Log> {
        log::new(self.kernels()?)
    }

    fn gate(&self, stream: &dyn StreamImpl, _at: Place) -> Result<Gate> {
        let gate = stream_as_vulkan(stream)?.wait_for_gate(|_, _| ())?;
        Ok(Gate::new(move || {
            // Behind a failure there is nothing to hold back.
            if let Some(gate) = gate {
                gate.open();
            }
        }))
    }

    fn append(&self, stream: &dyn StreamImpl, log: &Log, token: u32) -> Result<()> {
        match log::append(stream_as_vulkan(stream)?, log, token)? {
            true => Ok(()),
            // What is submitted behind a failure never runs.
            false => stream.failure().map_or(Ok(()), Err),
        }
    }

    /// `amount` is the number of rounds of a loop.
    fn spin(&self, stream: &dyn StreamImpl, amount: u64) -> Result<()> {
        let kernels = self.kernels()?;
        let bound = Bound::new(kernels, vec![for_kernels(&self.gpu, 4)?])?;
        let work = Dispatch {
            pipeline: kernels.spin,
            groups: 1,
            word: amount.try_into().unwrap_or(u32::MAX),
            zeroed: None,
        };
        dispatch(stream_as_vulkan(stream)?, &bound, &work).map(drop)
    }

    /// Fails the stream in the way in which the backend fails one behind a failed wait. A real
    /// fault would lose the whole device.
    fn fail(&self, stream: &dyn StreamImpl, text: &str) -> Result<()> {
        stream_as_vulkan(stream)?.fail_from_here(&Cause::new(text));
        Ok(())
    }

    fn shares_order(&self, one: &dyn StreamImpl, two: &dyn StreamImpl) -> bool {
        match (stream_as_vulkan(one), stream_as_vulkan(two)) {
            (Ok(one), Ok(two)) => Arc::ptr_eq(&one.queue, &two.queue),
            _ => false,
        }
    }

    fn byte_counter(&self, capacity: usize) -> Result<Arc<dyn ByteCounterImpl>> {
        bytes::new(self.kernels()?, capacity)
    }
}
