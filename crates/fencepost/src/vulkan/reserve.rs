//! Markers in command buffers that the caller submits.

use std::sync::Arc;

use ash::vk;

use super::{
    marker::VkMarker, native::Native, time::SlotTime, timer::Timer, timestamp,
    watcher::DeviceWatcher,
};
use crate::{
    core::{DeviceCore, StreamCore},
    epochs::{Reserved, ReservedMarker, State, ValueAllocator},
    error::{Error, Result},
    place::Place,
};

/// Reserves a marker with a semaphore of its own, which the caller's submit signals.
pub(super) fn reserve(
    watcher: &Arc<DeviceWatcher>,
    core: &Arc<DeviceCore>,
    at: Place,
) -> Result<Reserved> {
    watcher.gpu.check_fork()?;
    let reserved = Native::reserved(watcher).map_err(|fault| watcher.gpu.failed(fault))?;
    reserve_on(reserved, None, core, at)
}

/// As [`reserve`], with the time written by `buffer`.
///
/// # Safety
/// The buffer is being recorded, outside a render pass, for queues of `family`.
pub(super) unsafe fn record_into(
    watcher: &Arc<DeviceWatcher>,
    core: &Arc<DeviceCore>,
    buffer: vk::CommandBuffer,
    family: u32,
    at: Place,
) -> Result<Reserved> {
    let gpu = &watcher.gpu;
    gpu.check_fork()?;
    let (native, value) = Native::reserved(watcher).map_err(|fault| gpu.failed(fault))?;
    let bits = timestamp::valid_bits(gpu, family, true)?;
    let timer = Timer::single(gpu, family, bits).map_err(|fault| gpu.failed(fault))?;
    let timer = native.timer.get_or_init(|| timer);
    let Some((time, query)) = SlotTime::only(&native, timer, value) else {
        return Err(Error::not_recorded("held"));
    };
    let copy = query.copy.as_deref();
    // SAFETY: the caller's promise about the buffer; the query and its copy were just made, and
    // live until the semaphore is signalled.
    unsafe { timestamp::write(gpu, buffer, (query.pool, query.index), copy, true) };
    reserve_on((native.clone(), value), Some(time), core, at)
}

fn reserve_on(
    (native, value): (Arc<Native>, u64),
    time: Option<SlotTime>,
    core: &Arc<DeviceCore>,
    at: Place,
) -> Result<Reserved> {
    // Counts as submitted, so that the objects live until the semaphore is signalled, or until the
    // reservation is dropped.
    native.was_submitted(value);
    let timing = time.is_some();
    let values = ValueAllocator::with_offset(StreamCore::new(core.clone()), value - 1);
    let place = values.record(|_| Ok::<_, Error>(time))?;
    let state = State::reserved();
    let marker = VkMarker::new(native.clone(), place, timing, at);
    let marker = Arc::new(ReservedMarker::new(marker, state.clone()));
    let abandon = move || native.was_submitted(0);
    Ok(Reserved::new(marker, state, abandon))
}
