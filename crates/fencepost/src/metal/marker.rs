//! Markers on Metal streams.

use super::{native::Native, objects::Event};
use crate::{contract::MarkerImpl, epochs::CountedMarker};

pub(super) type MtlMarker = CountedMarker<Native>;

/// The shared event of a marker, and the value that it has once the marker is complete. `None`
/// behind a failure.
pub(super) fn event_and_value(marker: &MtlMarker) -> Option<(&Event, u64)> {
    let _completes = marker.native()?;
    Some((&marker.counter.event, marker.submitted()?.ordinal))
}

/// As [`event_and_value`], for a marker of any backend, and also for one that is only reserved.
pub(super) fn as_raw(marker: &dyn MarkerImpl) -> Option<(&Event, u64)> {
    event_and_value(MtlMarker::of_reserved(marker)?)
}
