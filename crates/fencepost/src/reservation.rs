//! A promised point in work that the caller submits.

use std::{fmt, sync::Arc};

use crate::{
    device::Device,
    epochs::{Reserved, State},
    marker::Marker,
};

/// A place for a marker in work that the caller submits: in a command buffer of its own, at a time
/// that only the caller knows.
///
/// The marker is there from the start. Until [`submitted`](Reservation::submitted) says that its
/// work is on its way, the marker is pending, and whoever would wait for it gets
/// [`Error::NotSubmitted`](crate::Error::NotSubmitted) instead of a hang. A reservation that is
/// dropped leaves its marker with [`Error::Abandoned`](crate::Error::Abandoned).
///
/// With Metal, `metal::record_into` makes it.
///
/// Reservations may be submitted in any order: each has a native event of its own. So a reserved
/// marker belongs to no [`Stream`](crate::Stream): a stream that waits for it always does so on the
/// device.
///
/// ```no_run
/// # fn submit() {}
/// # let device = fencepost::Device::open("vulkan:0")?;
/// # #[cfg(feature = "vulkan")] {
/// let reservation = fencepost::vulkan::reserve(&device)?;
/// // … submit work that signals fencepost::vulkan::native(&reservation.marker()) …
/// let marker = reservation.submitted();
/// marker.synchronize()?;
/// # }
/// # Ok::<(), fencepost::Error>(())
/// ```
#[must_use = "its marker can never complete once it is dropped"]
pub struct Reservation {
    marker: Marker,
    state: Arc<State>,
    /// Lets the backend take back what the work would have used.
    abandon: Option<Box<dyn FnOnce() + Send + Sync>>,
}

impl Reservation {
    #[cfg_attr(loom, allow(dead_code))]
    pub(crate) fn new(reserved: Reserved, device: &Device) -> Reservation {
        Reservation {
            marker: Marker::new(reserved.marker, device.clone()),
            state: reserved.state,
            abandon: Some(reserved.abandon),
        }
    }

    /// The marker, for handing out before its work is submitted.
    ///
    /// ```no_run
    /// # fn of(reservation: &fencepost::Reservation) {
    /// assert!(!reservation.marker().query().unwrap());
    /// # }
    /// ```
    pub fn marker(&self) -> Marker {
        self.marker.clone()
    }

    /// Says that the work is submitted: from now on the marker is like any other. Never blocks.
    ///
    /// Say it once the submit has succeeded. Said of work that is never submitted, the marker stays
    /// pending for ever.
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
