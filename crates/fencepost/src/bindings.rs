//! For the Python package of this repository alone: no promise of stability is made for anything
//! in here, and any release may change it.
//!
//! Bindings hold a lock of their own, Python's GIL, and must know whether a call may block before
//! they make it. And they make errors of the library's types, whose variants only this crate can
//! construct.

#[cfg(all(feature = "cuda", not(loom)))]
use crate::cuda::RawEvent;
#[cfg(all(feature = "cuda", not(loom)))]
pub use crate::cuda::device::stream_number;
use crate::{Device, Error, Event, Marker, Result, Stream};

/// [`Event::record`], where that makes no new marker and drops none: at most when the event was
/// last recorded on the same stream, of CUDA or Vulkan, and nobody else holds that marker.
/// Otherwise, and if the driver refuses, it records nothing and returns `false`: `record` tells
/// why.
///
/// It drops no object of the caller's, so the caller may have released the GIL by hand. It runs
/// code of the caller's only where a lock of the caller's guards a Vulkan queue.
#[inline]
#[track_caller]
#[must_use = "where it returns false, nothing was recorded"]
pub fn record_in_place(event: &Event, stream: &Stream) -> bool {
    event.record_in_place(stream)
}

/// What [`Event::query`] can tell by a few atomic loads; `None` where it would take a lock or ask
/// a driver.
#[inline]
pub fn peek(event: &Event) -> Option<bool> {
    event.peek()
}

/// A marker behind everything submitted so far on each live stream of `device`, for waits that
/// look for signals now and then. Never waits for the device. Each has the errors of
/// [`Stream::record`].
#[track_caller]
pub fn record_all(device: &Device) -> Vec<Result<Marker>> {
    device.record_all()
}

/// The event of a CUDA marker, which holds that marker's recording until it is recorded again;
/// `None` for markers of other backends, and of streams that have failed. From then on it is never
/// used for another marker; recording it again changes what that marker tells while it is pending.
#[cfg(all(feature = "cuda", not(loom)))]
pub fn raw_event_of(marker: &Marker) -> Option<RawEvent> {
    RawEvent::of_marker(marker)
}

/// [`Error::DeviceMismatch`].
pub fn device_mismatch(call: &'static str, left: String, right: String) -> Error {
    Error::DeviceMismatch { call, left, right }
}

/// [`Error::NotRecorded`].
pub fn not_recorded(which: &'static str) -> Error {
    Error::NotRecorded { which }
}

/// [`Error::TimingDisabled`].
pub fn timing_disabled(which: &'static str) -> Error {
    Error::TimingDisabled { which }
}

/// [`Error::Unsupported`].
pub fn unsupported(what: &str, device: &str, remedy: &str) -> Error {
    Error::Unsupported {
        what: what.into(),
        device: device.into(),
        remedy: remedy.into(),
    }
}
