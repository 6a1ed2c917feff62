//! Markers on Metal streams, and how to recognise one among the markers of all backends.

use std::any::Any;

use super::{native::Native, objects::Event};
use crate::{
    contract::MarkerImpl,
    epochs::{CountedMarker, ReservedMarker},
    error::Result,
};

pub(super) type MtlMarker = CountedMarker<Native>;

/// The Metal marker behind a marker of any backend. An error for one whose reservation was not told
/// of its submission.
pub(super) fn as_metal(marker: &dyn MarkerImpl) -> Option<Result<&MtlMarker>> {
    let any: &dyn Any = marker;
    match any.downcast_ref::<ReservedMarker<Native>>() {
        Some(reserved) => Some(reserved.submitted()),
        None => any.downcast_ref().map(Ok),
    }
}

/// The shared event of a marker, and the value that it has once the marker is complete. `None`
/// behind a failure.
pub(super) fn event_and_value(marker: &MtlMarker) -> Option<(&Event, u64)> {
    let _completes = marker.native()?;
    Some((&marker.counter.event, marker.submitted()?.ordinal))
}

/// As [`event_and_value`], for a marker of any backend, and also for one that is only reserved.
pub(super) fn as_raw(marker: &dyn MarkerImpl) -> Option<(&Event, u64)> {
    let any: &dyn Any = marker;
    match any.downcast_ref::<ReservedMarker<Native>>() {
        Some(reserved) => event_and_value(&reserved.inner),
        None => event_and_value(any.downcast_ref()?),
    }
}
