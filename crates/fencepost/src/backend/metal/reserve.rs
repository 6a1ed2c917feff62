//! Markers in command buffers that the caller makes and commits.

use std::{any::Any, panic::Location, sync::Arc};

use objc2_metal::{MTLCommandBuffer, MTLCommandBufferStatus, MTLDevice};

use super::{
    gpu::Gpu,
    ledger,
    native::{Native, pooled},
    objects::{CommandBuffer, Event, Time, keep},
    stream::{MtlMarker, MtlStream},
};
use crate::{
    backend::{
        MarkerImpl,
        counted::{Account, ReservedMarker, State},
    },
    error::{Error, Result},
    marker::Marker,
    reservation::Reservation,
    sync::lock,
    timeline::StreamCore,
};

/// Reserves a marker with an event of its own, which `buffer` signals with 1 behind what is encoded so far.
pub(super) fn record_into(
    gpu: &Arc<Gpu>,
    buffer: &CommandBuffer,
    at: &'static Location<'static>,
) -> Result<Reservation> {
    gpu.check()?;
    is_open(gpu, buffer)?;
    let theirs = pooled(|| buffer.device());
    if !gpu.is(&theirs) {
        return Err(Error::DeviceMismatch {
            call: "record_into",
            left: gpu.core.name.clone(),
            right: pooled(|| theirs.name().to_string()),
        });
    }
    let native = pooled(|| Native::single(gpu))?;
    let account = Account::new(StreamCore::new(gpu.core.clone()));
    let time = Arc::<Time>::default();
    let mut wakes = Vec::new();
    let place = account.record(|value| {
        let segment = account.now();
        let before = segment.before(value);
        let (ordinal, turn) = native.take(&mut lock(&native.tail), &segment, before);
        wakes = native.value(&segment, value);
        let left = Some(time.clone());
        pooled(|| native.finish_buffer(buffer, ordinal, turn, left));
        Ok::<_, Error>(Some(native.stamp(ordinal, Some(time))))
    })?;
    ledger::fire(wakes);
    let state = State::reserved();
    let marker = MtlMarker::new(native, place, true, at);
    let marker = Arc::new(ReservedMarker::new(marker, state.clone()));
    Ok(Reservation::new(Marker::new(marker), state, || {}))
}

/// Lets what is encoded into `buffer` from now on wait for `marker`.
pub(super) fn wait_into(marker: &Marker, buffer: &CommandBuffer) -> Result<()> {
    let Some(imp) = MtlStream::metal(marker.imp()).transpose()? else {
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
