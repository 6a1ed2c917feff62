//! Markers of Vulkan streams.

use super::{native::Native, queue::SemaphoreValue};
use crate::{contract::MarkerImpl, epochs::CountedMarker};
#[cfg(all(feature = "wgpu30", not(target_vendor = "apple")))]
use crate::{core::StreamCore, epochs::Epoch, error::Result, timeline::Awaited};

pub(super) type VkMarker = CountedMarker<Native>;

/// The semaphore and the value that it has once `marker` is complete, also of a marker that is only
/// reserved. `None` for markers of other backends and those behind a failure.
pub(super) fn semaphore_value(marker: &dyn MarkerImpl) -> Option<SemaphoreValue> {
    let marker = VkMarker::of_reserved(marker)?;
    Some((marker.counter.marker_timeline, marker.native()?))
}

/// What a queue of the same `VkDevice` that is not ours, as wgpu's, can wait for.
#[cfg(all(feature = "wgpu30", not(target_vendor = "apple")))]
pub(crate) struct Awaitable {
    pub(crate) semaphore: ash::vk::Semaphore,
    pub(crate) epoch: std::sync::Arc<Epoch>,
    /// Keeps the semaphore.
    pub(crate) keep: std::sync::Arc<dyn std::any::Any + Send + Sync>,
}

/// `None` for a marker of another device, and for one whose signal depends on a signal of the host
/// that may not be made yet.
#[cfg(all(feature = "wgpu30", not(target_vendor = "apple")))]
pub(crate) fn awaitable(
    marker: &dyn MarkerImpl,
    device: ash::vk::Device,
) -> Option<Result<Awaitable>> {
    let marker = match VkMarker::of(marker)? {
        Ok(marker) => marker,
        Err(error) => return Some(Err(error)),
    };
    let point = marker.point();
    let stream: &StreamCore = &point.timeline.stream;
    let is_held = marker.epoch.may_fail() || !stream.waits_in_front_of(point.value).is_empty();
    if marker.counter.gpu.device.handle() != device || is_held {
        return None;
    }
    Some(Ok(Awaitable {
        semaphore: marker.counter.marker_timeline,
        epoch: marker.epoch.clone(),
        keep: marker.counter.clone(),
    }))
}
