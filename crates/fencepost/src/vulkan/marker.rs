//! Markers of Vulkan streams.

use super::{native::Native, queue::SemaphoreValue};
use crate::{contract::MarkerImpl, epochs::CountedMarker};

pub(super) type VkMarker = CountedMarker<Native>;

/// The semaphore and the value that it has once `marker` is complete, also of a marker that is only
/// reserved. `None` for markers of other backends and those behind a failure.
pub(super) fn semaphore_value(marker: &dyn MarkerImpl) -> Option<SemaphoreValue> {
    let marker = VkMarker::of_reserved(marker)?;
    Some((marker.counter.marker_timeline, marker.native()?))
}
