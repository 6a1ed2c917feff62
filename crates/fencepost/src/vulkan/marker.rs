//! Markers of Vulkan streams.

use std::any::Any;

use super::{native::Native, queue::SemaphoreValue};
use crate::{
    contract::MarkerImpl,
    epochs::{CountedMarker, ReservedMarker},
    error::Result,
};

pub(super) type VkMarker = CountedMarker<Native>;

/// The Vulkan marker behind a marker of any backend; an error where it is reserved, and nobody has
/// said that it is submitted.
pub(super) fn as_vulkan(marker: &dyn MarkerImpl) -> Option<Result<&VkMarker>> {
    let any: &dyn Any = marker;
    match any.downcast_ref::<ReservedMarker<Native>>() {
        Some(reserved) => Some(reserved.submitted()),
        None => any.downcast_ref().map(Ok),
    }
}

/// The semaphore and the value that it has once `marker` is complete, also of a marker that is only
/// reserved. `None` for markers of other backends and those behind a failure.
pub(super) fn semaphore_value(marker: &dyn MarkerImpl) -> Option<SemaphoreValue> {
    let any: &dyn Any = marker;
    let imp = match any.downcast_ref::<ReservedMarker<Native>>() {
        Some(reserved) => &reserved.inner,
        None => any.downcast_ref::<VkMarker>()?,
    };
    Some((imp.counter.marker_timeline, imp.native()?))
}
