//! What Vulkan, Metal and wgpu share: a timeline semaphore and a shared event are both a number on
//! the device that only grows, here called a counter. Nothing in here knows any of these APIs.
//!
//! - **One counter per stream, and a marker is a value on it** ([`values`]). Values are handed out
//!   under the stream's submit lock, and only for a submit that succeeded.
//! - **A query reads the counter** and tells the stream's timeline how far it has come
//!   ([`Epoch::settle`]). A backend whose API calls back instead calls the same function from
//!   there.
//! - **A failure ends an epoch** ([`epoch`]): what lies in front of the failure point completes,
//!   what lies behind it fails, whatever the counter says later.
//! - **A stream that waits for a host gate may fail** until it is known how the awaited marker ends
//!   ([`epoch`]). If that fails, all that wait behind the gate fail before it opens. One semaphore
//!   or event serves all gates of a stream, which open in their order ([`host_gates`]).
//!
//! What differs is in [`Counter`] and [`Time`]: how the counter is read and waited for, who watches
//! it, and where a marker's time comes from. A time may come from the device's memory (Vulkan) or
//! from the handler that completes the marker, which then must write it before it settles the epoch
//! (Metal).

#![cfg_attr(loom, allow(unused_imports))]
// Metal records nothing in place, and wgpu only by what Vulkan needs too.
#![cfg_attr(not(feature = "vulkan"), allow(dead_code))]

mod counter;
mod epoch;
#[cfg(any(feature = "vulkan", has_metal, loom))]
mod host_gates;
mod marker;
mod reserve;
mod values;

pub(crate) use counter::{Counter, Time};
pub(crate) use epoch::{Epoch, Expected};
#[cfg(any(feature = "vulkan", has_metal, loom))]
pub(crate) use host_gates::HostGates;
pub(crate) use marker::{CountedMarker, ReservedMarker};
pub(crate) use reserve::{Reserved, State};
pub(crate) use values::ValueAllocator;
