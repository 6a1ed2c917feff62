//! Markers in command buffers that the caller makes and commits.

use std::sync::Arc;

use objc2_metal::{MTLCommandBuffer, MTLCommandBufferStatus, MTLDevice};

use super::{
    completion_order::Step,
    gpu::Gpu,
    handlers::keep_alive,
    marker::{MtlMarker, event_and_value},
    native::Native,
    objects::{CommandBuffer, pooled},
    time::EndTime,
    wakes::fire_all,
};
use crate::{
    contract::MarkerImpl,
    core::StreamCore,
    epochs::{Epoch, Reserved, ReservedMarker, State, ValueAllocator},
    error::{Error, Result},
    host_gate::{failed_wait, foreign_wait},
    place::Place,
    sync::lock,
    timeline::Waiter,
};

/// See [`crate::metal::record_into`].
pub(super) fn record_into(gpu: &Arc<Gpu>, buffer: &CommandBuffer, at: Place) -> Result<Reserved> {
    gpu.check()?;
    check_uncommitted(gpu, buffer)?;
    check_device(gpu, buffer, "record_into")?;
    reserve(gpu, at, |native, epoch, before, end_time| {
        let (ordinal, step) = native.place(&mut lock(&native.next), epoch, before);
        native.end_buffer(buffer, ordinal, step, Some(end_time.clone()));
        ordinal
    })
}

/// See [`crate::metal::record_end`].
pub(super) fn record_end(
    gpu: &Arc<Gpu>,
    buffers: &[&CommandBuffer],
    after: Option<&Arc<dyn MarkerImpl>>,
    at: Place,
) -> Result<Reserved> {
    gpu.check()?;
    if buffers.is_empty() {
        return Err(Error::Unsupported {
            what: "a mark at the end of no command buffer".into(),
            device: gpu.core.name.clone(),
            remedy: "pass at least one".into(),
        });
    }
    for buffer in buffers {
        check_uncommitted(gpu, buffer)?;
        check_device(gpu, buffer, "record_end")?;
    }
    if let Some(after) = after {
        after.query()?;
        // The work of a reserved marker may never be submitted.
        MtlMarker::of(&**after).transpose()?;
    }
    let mut rest = None;
    let reservation = reserve(gpu, at, |native, epoch, before, end_time| {
        let step = after.map(|_| native.push(epoch, Step::Wait { before }));
        let (ordinal, signal) = native.follow_buffers(buffers, epoch, before, end_time);
        rest = step.map(|step| (step, signal, end_time.clone()));
        ordinal
    })?;
    if let (Some(after), Some((step, signal, end_time))) = (after, rest) {
        let (text, earlier) = (after.to_string(), after.clone());
        let call = Waiter::Call(Box::new(move |result: Result<()>| {
            if let Ok(timestamp) = earlier.timestamp() {
                end_time.set(timestamp.ticks());
            }
            drop(signal);
            step.finish(result.map_err(|error| failed_wait(text, &error)));
        }));
        // On an error the step is dropped, so the marker fails.
        after.notify(call)?;
    }
    Ok(reservation)
}

/// An error for a command buffer of another device.
fn check_device(gpu: &Gpu, buffer: &CommandBuffer, call: &'static str) -> Result<()> {
    let theirs = pooled(|| buffer.device());
    if gpu.is(&theirs) {
        return Ok(());
    }
    Err(Error::DeviceMismatch {
        call,
        left: gpu.core.name.clone(),
        right: pooled(|| theirs.name().to_string()),
    })
}

/// An error for a command buffer that is committed.
fn check_uncommitted(gpu: &Gpu, buffer: &CommandBuffer) -> Result<()> {
    match buffer.status() < MTLCommandBufferStatus::Committed {
        true => Ok(()),
        false => Err(Error::Unsupported {
            what: "a mark or wait in a command buffer that is committed".into(),
            device: gpu.core.name.clone(),
            remedy: "make it before you commit the command buffer".into(),
        }),
    }
}

/// A reserved marker with a shared event of its own, at the ordinal that `submit` returns. `submit`
/// is called in an autorelease pool.
fn reserve(
    gpu: &Arc<Gpu>,
    at: Place,
    submit: impl FnOnce(&Arc<Native>, &Arc<Epoch>, u64, &Arc<EndTime>) -> u64,
) -> Result<Reserved> {
    let native = pooled(|| Native::new(gpu, None, 0))?;
    let values = ValueAllocator::new(StreamCore::new(gpu.core.clone()));
    let end_time = Arc::<EndTime>::default();
    let mut wakes = Vec::new();
    let place = values.record(|value| {
        let epoch = values.current_epoch();
        let before = epoch.before(value);
        let ordinal = pooled(|| submit(&native, &epoch, before, &end_time));
        wakes = native.push_value(&epoch, value);
        Ok::<_, Error>(Some(native.submission(ordinal, Some(end_time.clone()))))
    })?;
    fire_all(wakes);
    let state = State::reserved();
    let marker = MtlMarker::new(native, place, true, at);
    let marker = Arc::new(ReservedMarker::new(marker, state.clone()));
    Ok(Reserved::new(marker, state, || {}))
}

/// See [`crate::metal::wait_into`].
pub(super) fn wait_into(marker: &Arc<dyn MarkerImpl>, buffer: &CommandBuffer) -> Result<()> {
    let Some(imp) = MtlMarker::of(&**marker).transpose()? else {
        return match marker.query()? {
            true => Ok(()),
            false => Err(foreign_wait("a command buffer".into(), &**marker, false)),
        };
    };
    let gpu = &imp.counter.gpu;
    gpu.check()?;
    check_uncommitted(gpu, buffer)?;
    if marker.query()? {
        return Ok(());
    }
    match event_and_value(imp) {
        Some((_, value)) if imp.counter.is_behind(value, buffer) => Err(Error::Unsupported {
            what: format!(
                "a wait that would never end: for {marker}, in a command buffer that must complete \
                 before that marker"
            ),
            device: gpu.core.name.clone(),
            remedy: "record the marker before you ask its stream for the command buffer".into(),
        }),
        Some((event, value)) => {
            pooled(|| {
                event.encode_wait(buffer, value);
                keep_alive(buffer, event);
            });
            Ok(())
        }
        // The failure is not known yet: something in front of it is pending.
        None => Err(Error::Unsupported {
            what: format!("a wait for {marker}, which was recorded behind a failure"),
            device: gpu.core.name.clone(),
            remedy: "synchronize() on it to see the failure, and call clear_error() on its stream"
                .into(),
        }),
    }
}
