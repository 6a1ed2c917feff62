//! Markers in command buffers that the caller makes and commits.

use std::{any::Any, panic::Location, sync::Arc};

use objc2_metal::{MTLCommandBuffer, MTLCommandBufferStatus, MTLDevice};

use super::{
    completion_order::{self, Step},
    gpu::Gpu,
    native::{Native, pooled},
    objects::{CommandBuffer, Event, Time, keep},
    stream::{MtlMarker, MtlStream},
};
use crate::{
    contract::MarkerImpl,
    core::StreamCore,
    epochs::{Epoch, Reserved, ReservedMarker, State, ValueAllocator},
    error::{Cause, Error, Result},
    sync::lock,
    timeline::Waiter,
};

/// Reserves a marker with an event of its own, which `buffer` signals with 1 behind what is encoded
/// so far.
pub(super) fn record_into(
    gpu: &Arc<Gpu>,
    buffer: &CommandBuffer,
    at: &'static Location<'static>,
) -> Result<Reserved> {
    gpu.check()?;
    is_open(gpu, buffer)?;
    is_of(gpu, buffer, "record_into")?;
    reserve(gpu, at, |native, epoch, before, time| {
        let (ordinal, turn) = native.take(&mut lock(&native.tail), epoch, before);
        native.finish_buffer(buffer, ordinal, turn, Some(time.clone()));
        ordinal
    })
}

/// Reserves a marker with an event of its own, which the host raises when all of `buffers` are
/// over, and `after` is.
pub(super) fn record_end(
    gpu: &Arc<Gpu>,
    buffers: &[&CommandBuffer],
    after: Option<&Arc<dyn MarkerImpl>>,
    at: &'static Location<'static>,
) -> Result<Reserved> {
    gpu.check()?;
    if buffers.is_empty() {
        return Err(Error::Unsupported {
            what: "the end of no command buffer".into(),
            device: gpu.core.name.clone(),
            remedy: "name one at least".into(),
        });
    }
    for buffer in buffers {
        is_open(gpu, buffer)?;
        is_of(gpu, buffer, "record_end")?;
    }
    if let Some(after) = after {
        after.query()?;
        // Of a reserved one nobody knows yet.
        MtlStream::metal(&**after).transpose()?;
    }
    let mut behind = None;
    let reservation = reserve(gpu, at, |native, epoch, before, time| {
        let turn = after.map(|_| native.push(epoch, Step::Wait { before }));
        let (ordinal, raise) = native.follow_buffers(buffers, epoch, before, time);
        behind = turn.map(|turn| (turn, raise, time.clone()));
        ordinal
    })?;
    if let (Some(after), Some((turn, raise, time))) = (after, behind) {
        let (text, earlier) = (after.to_string(), after.clone());
        let call = Waiter::Call(Box::new(move |result: Result<()>| {
            if let Ok(stamp) = earlier.timestamp() {
                time.set(stamp.ticks());
            }
            drop(raise);
            turn.finish(result.map_err(|error| Cause::of(&error).through(text)));
        }));
        // Refused: the turn is dropped, which fails the marker.
        after.notify(call)?;
    }
    Ok(reservation)
}

/// An error for a buffer of another device.
fn is_of(gpu: &Gpu, buffer: &CommandBuffer, call: &'static str) -> Result<()> {
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

/// A reserved marker at the ordinal that `submit` gives, which is called in an autorelease pool.
fn reserve(
    gpu: &Arc<Gpu>,
    at: &'static Location<'static>,
    submit: impl FnOnce(&Arc<Native>, &Arc<Epoch>, u64, &Arc<Time>) -> u64,
) -> Result<Reserved> {
    let native = pooled(|| Native::single(gpu))?;
    let values = ValueAllocator::new(StreamCore::new(gpu.core.clone()));
    let time = Arc::<Time>::default();
    let mut wakes = Vec::new();
    let place = values.record(|value| {
        let epoch = values.now();
        let before = epoch.before(value);
        let ordinal = pooled(|| submit(&native, &epoch, before, &time));
        wakes = native.value(&epoch, value);
        Ok::<_, Error>(Some(native.stamp(ordinal, Some(time.clone()))))
    })?;
    completion_order::fire(wakes);
    let state = State::reserved();
    let marker = MtlMarker::new(native, place, true, at);
    let marker = Arc::new(ReservedMarker::new(marker, state.clone()));
    Ok(Reserved::new(marker, state, || {}))
}

/// Lets what is encoded into `buffer` from now on wait for `marker`.
pub(super) fn wait_into(marker: &Arc<dyn MarkerImpl>, buffer: &CommandBuffer) -> Result<()> {
    let Some(imp) = MtlStream::metal(&**marker).transpose()? else {
        return match marker.query()? {
            true => Ok(()),
            false => Err(Error::ForeignWait {
                stream: "a command buffer".into(),
                marker: marker.to_string(),
            }),
        };
    };
    let gpu = &imp.counter.gpu;
    gpu.check()?;
    is_open(gpu, buffer)?;
    if marker.query()? {
        return Ok(());
    }
    match point(imp) {
        Some((_, value)) if imp.counter.is_behind(value, buffer) => Err(Error::Unsupported {
            what: format!(
                "a wait for {marker}, which lies behind the very command buffer and would never end,"
            ),
            device: gpu.core.name.clone(),
            remedy: "record the marker before you ask its stream for the command buffer".into(),
        }),
        Some((event, value)) => {
            pooled(|| {
                event.wait_in(buffer, value);
                keep(buffer, event);
            });
            Ok(())
        }
        // Behind a failure: what it fails with is known when its stream has come there.
        None => Err(Error::Unsupported {
            what: format!("a wait for {marker}, which comes behind a failure and"),
            device: gpu.core.name.clone(),
            remedy: "synchronize() on it to see the failure, and call clear_error() on its stream"
                .into(),
        }),
    }
}

fn is_open(gpu: &Gpu, buffer: &CommandBuffer) -> Result<()> {
    match buffer.status() < MTLCommandBufferStatus::Committed {
        true => Ok(()),
        false => Err(Error::Unsupported {
            what: "a mark in a command buffer that is committed".into(),
            device: gpu.core.name.clone(),
            remedy: "mark it before you commit it".into(),
        }),
    }
}

/// The event, and the value that it has once the marker is complete.
fn point(imp: &MtlMarker) -> Option<(&Event, u64)> {
    let _completes = imp.native()?;
    Some((&imp.counter.event, imp.submitted()?.ordinal))
}

/// As [`point`], for a marker of any backend: also of one that is reserved only.
pub(super) fn native(marker: &dyn MarkerImpl) -> Option<(&Event, u64)> {
    let any: &dyn Any = marker;
    match any.downcast_ref::<ReservedMarker<Native>>() {
        Some(reserved) => point(&reserved.inner),
        None => point(MtlStream::metal(marker)?.ok()?),
    }
}
