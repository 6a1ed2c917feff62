//! What backends with a counter share: Vulkan's timeline semaphore and Metal's shared event are
//! both a number on the device that only grows. Nothing in here knows either API.
//!
//! - **One counter per stream, and a marker is a value on it** ([`values`]). Values are handed out
//!   under the stream's submit lock, and only for a submit that succeeded.
//! - **A query reads the counter** and tells the stream's timeline how far it has come
//!   ([`Epoch::settle`]). A backend whose API calls back instead calls the same function from
//!   there.
//! - **A failure ends an epoch** ([`epoch`]): what lies in front of the failure point completes,
//!   what lies behind it fails, whatever the counter says later.
//! - **A stream that waits for a host gate may fail** until it is known how the awaited marker ends
//!   ([`epoch`]). If that fails, all that wait behind the gate fail before it opens. Where one
//!   event serves all gates of a stream (Metal), they open in their order.
//!
//! What differs is in [`Counter`] and [`Time`]: how the counter is read and waited for, who watches
//! it, and where a marker's time comes from. A time may come from the device's memory (Vulkan) or
//! from the handler that completes the marker, which then must write it before it settles the epoch
//! (Metal).

#![cfg_attr(loom, allow(unused_imports))]
// Metal records nothing in place, and tells of failures by its completion_order.
#![cfg_attr(not(feature = "vulkan"), allow(dead_code))]

use std::{sync::Arc, time::Instant};

use crate::{
    clock::{Elapsed, Timestamp},
    error::Result,
};

mod epoch;
#[cfg(any(has_metal, loom))]
mod host_gates;
mod marker;
mod reserve;
mod values;

pub(crate) use epoch::{Epoch, Outlook};
#[cfg(any(has_metal, loom))]
pub(crate) use host_gates::HostGates;
pub(crate) use marker::CountedMarker;
pub(crate) use reserve::{Reserved, ReservedMarker, State};
pub(crate) use values::ValueAllocator;

/// A stream's native counter.
pub(crate) trait Counter: Send + Sync + 'static {
    /// What a timed marker keeps until its time is asked for.
    type Time: Time;

    /// The counter's value. Never blocks. An error has been told to every stream it concerns.
    fn read(&self) -> Result<u64>;

    /// Blocks until the counter has reached `native`, or until `deadline`; it may also come back
    /// early, for the caller looks again. `epoch` is where whoever completes markers by callbacks
    /// would wait.
    fn wait(&self, epoch: &Epoch, native: u64, deadline: Option<Instant>) -> Result<()>;

    /// Makes sure that somebody settles `epoch` once the counter has reached `native`.
    fn watch(self: &Arc<Self>, epoch: &Arc<Epoch>, native: u64) -> Result<()>;
}

/// Where the time of a complete marker comes from.
pub(crate) trait Time: Send + Sync + 'static {
    /// Called for a complete marker only.
    fn timestamp(&self) -> Result<Timestamp>;

    /// The time to `end`, both complete and of one device.
    fn elapsed(&self, end: &Self) -> Result<Elapsed> {
        self.timestamp()?.elapsed(&end.timestamp()?)
    }
}
