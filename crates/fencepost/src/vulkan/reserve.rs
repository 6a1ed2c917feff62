//! Markers in command buffers that the caller submits.

use std::{any::Any, panic::Location, sync::Arc};

use ash::vk;

use super::{
    device::VkDevice,
    gpu::Gpu,
    native::Native,
    stream::{VkMarker, VkStream},
    timer::{self, Timer},
};
use crate::{
    contract::MarkerImpl,
    core::StreamCore,
    epochs::{Reserved, ReservedMarker, State, ValueAllocator},
    error::{Error, Result},
};

/// Reserves a marker with a semaphore of its own, which the caller's submit signals with 1. With a
/// buffer, its time is written there.
///
/// # Safety
/// With a buffer: it is being recorded, outside a render pass, for queues of the family that is
/// named with it.
pub(super) unsafe fn reserve(
    device: &VkDevice,
    timed: Option<(vk::CommandBuffer, u32)>,
    at: &'static Location<'static>,
) -> Result<Reserved> {
    let gpu = &device.gpu;
    gpu.check_fork()?;
    let failed = |fault| gpu.failed(fault);
    let native = Native::new(gpu).map_err(failed)?;
    // As if it were submitted: what the work uses stays until that is known not to be so.
    native.was_submitted(1);
    let core = StreamCore::new(device.core.clone());
    let time = match timed {
        None => None,
        Some((buffer, family)) => Some(write(gpu, &native, buffer, family)?),
    };
    let timing = time.is_some();
    let place = ValueAllocator::new(core).record(|_| Ok::<_, Error>(time))?;
    let state = State::reserved();
    let marker = VkMarker::new(native.clone(), place, timing, at);
    let marker = Arc::new(ReservedMarker::new(marker, state.clone()));
    let abandon = move || native.was_submitted(0);
    Ok(Reserved::new(marker, state, abandon))
}

fn write(
    gpu: &Gpu,
    native: &Arc<Native>,
    buffer: vk::CommandBuffer,
    family: u32,
) -> Result<timer::SlotTime> {
    let bits = Timer::supported(gpu, family, true)?;
    let timer = Timer::single(gpu, bits).map_err(|fault| gpu.failed(fault))?;
    let timer = native.timer.get_or_init(|| timer);
    let Some((time, pool)) = timer.only(native) else {
        return Err(Error::NotRecorded { which: "held" });
    };
    // SAFETY: the caller's promise about the buffer; the query was just made.
    unsafe { timer::write(gpu, buffer, pool, 0, true) };
    Ok(time)
}

/// The semaphore and the value that it has once `marker` is complete: also of a marker that is
/// reserved only.
pub(super) fn native(marker: &dyn MarkerImpl) -> Option<(vk::Semaphore, u64)> {
    let any: &dyn Any = marker;
    let imp = match any.downcast_ref::<ReservedMarker<Native>>() {
        Some(reserved) => &reserved.inner,
        None => VkStream::vulkan(marker)?.ok()?,
    };
    Some((imp.counter.marker_timeline, imp.native()?))
}
