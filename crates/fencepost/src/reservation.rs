//! A marker in work that the caller submits.

use std::{fmt, sync::Arc};

use crate::{
    device::Device,
    epochs::{Reserved, State},
    marker::Marker,
};

/// A marker in work that the caller submits: in a Metal command buffer, a submit to a Vulkan queue,
/// or an encoder of wgpu's.
///
/// The marker exists from the start. Call [`submitted`](Reservation::submitted) once its work is
/// submitted. Until then the marker is pending, and a wait for it is
/// [`Error::NotSubmitted`](crate::Error::NotSubmitted) instead of a hang. If the reservation is
/// dropped without that call, its marker is [`Error::Abandoned`](crate::Error::Abandoned).
///
/// Made by `vulkan::reserve`, `metal::record_into`, `metal::record_end`, `wgpu30::reserve`,
/// `wgpu30::record_into` and `wgpu30::PassTimes`. Reservations may be submitted in any order: each
/// has a native event or a counter of its own. So their markers belong to no
/// [`Stream`](crate::Stream). On Vulkan and Metal a stream that waits for one always does so on the
/// device; on wgpu the order of the queue suffices.
///
/// ```no_run
/// # fn submit() {}
/// # let device = fencepost::Device::open("vulkan:0")?;
/// # #[cfg(feature = "vulkan")] {
/// let reservation = fencepost::vulkan::reserve(&device)?;
/// // … submit work that signals the semaphore of reservation.marker() …
/// let marker = reservation.submitted();
/// marker.synchronize()?;
/// # }
/// # Ok::<(), fencepost::Error>(())
/// ```
#[must_use = "a reservation that is dropped abandons its marker"]
pub struct Reservation {
    marker: Marker,
    state: Arc<State>,
    /// Releases what the work would have used.
    abandon: Option<Box<dyn FnOnce() + Send + Sync>>,
}

impl Reservation {
    #[cfg_attr(any(loom, not(any(feature = "vulkan", has_metal))), allow(dead_code))]
    pub(crate) fn new(reserved: Reserved, device: &Device) -> Reservation {
        Reservation {
            marker: Marker::new(reserved.marker, device.clone()),
            state: reserved.state,
            abandon: Some(reserved.abandon),
        }
    }

    /// The marker, pending until its work is submitted and complete.
    ///
    /// ```no_run
    /// # fn of(reservation: &fencepost::Reservation) {
    /// assert!(!reservation.marker().query().unwrap());
    /// # }
    /// ```
    pub fn marker(&self) -> Marker {
        self.marker.clone()
    }

    /// Declares that the work is submitted. From now on the marker is like any other. Never blocks.
    ///
    /// Call this after the submit has succeeded. If the work is never submitted after all, the
    /// marker stays pending for ever.
    ///
    /// ```no_run
    /// # fn of(reservation: fencepost::Reservation) -> fencepost::Result<()> {
    /// reservation.submitted().synchronize()
    /// # }
    /// ```
    pub fn submitted(self) -> Marker {
        self.state.submitted();
        self.marker.clone()
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if !self.state.is_submitted() {
            self.state.abandoned();
            if let Some(abandon) = self.abandon.take() {
                abandon();
            }
        }
    }
}

impl fmt::Debug for Reservation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Reservation").field(&self.marker).finish()
    }
}
