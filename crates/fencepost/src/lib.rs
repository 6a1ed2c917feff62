//! Device events: markers on the work queues of an accelerator that tell how far the device has
//! come, how long work took on the device's own clock, and in which order streams run.
//!
//! | noun | what it is |
//! |---|---|
//! | [`Device`] | an accelerator opened through one backend: `host`, `metal`, `cuda:0`, `vulkan:0` |
//! | [`Stream`] | an in-order queue of a device |
//! | [`Marker`] | one recorded point on a stream: immutable, cheap to clone, complete once all work submitted before it is |
//! | [`Event`] | a re-recordable slot that holds the latest marker: what torch and CUDA call an event |
//!
//! ```
//! use fencepost::{Device, Event};
//!
//! let device = Device::open_best()?;
//! let stream = device.default_stream();
//! let (start, end) = (Event::with_timing(&device), Event::with_timing(&device));
//!
//! start.record(&stream)?;
//! # if device.backend() == fencepost::Backend::Host {
//! stream.launch(|| println!("the work to time"))?;
//! # }
//! end.record(&stream)?;
//! println!("{:.3} ms", start.elapsed_time(&end)?);
//! # Ok::<(), fencepost::Error>(())
//! ```
//!
//! # What it does
//! - One meaning on every backend, written down as a conformance suite that ships with the library
//!   (feature `conformance`) and that `fencepost check` runs on your machine.
//! - Nothing is used up by looking: query, wait and read times in any order, from any thread.
//! - Every wait takes a deadline, and a [`Timeout`] explains what was awaited and how far it came.
//! - A failure is never a `false` and never a hang: it sticks to its stream, travels along waits,
//!   and names its first cause.
//!
//! # What it does not do
//! - It runs no kernels: submit those with the API you use, on the stream you wrap.
//! - It does not order memory between host and device beyond what each API promises at an event.
//! - The host clock never stands in for a device's.
//!
//! The [`guide`] has a page each on timing, ordering, failures and forks.
//!
//! # Features
//! - `metal`, on by default: Apple's Metal. It does nothing on other systems, and brings nothing in
//!   there.
//! - `cuda`: NVIDIA's driver, loaded at run time; building needs none.
//! - `vulkan`: Vulkan 1.2 and later, its loader loaded at run time; building needs none.
//! - `tracing`: events for [`tracing`](https://docs.rs/tracing) of what happens on threads of the
//!   library: a thread that cannot be started, a lost device, a callback that panicked.
//! - `conformance`: the conformance suite, as library code. `mutants`: devices that are wrong in one
//!   way each, to prove the suite on.
#![deny(missing_docs, unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg), doc(auto_cfg(hide(has_metal, loom))))]
#![cfg_attr(loom, allow(dead_code))]

#[doc(hidden)]
pub mod bindings;
mod clock;
mod contract;
mod core;
#[cfg(all(feature = "cuda", not(loom)))]
pub mod cuda;
/// The part of the CUDA backend that knows no driver, for its models.
#[cfg(loom)]
mod cuda {
    mod values;
}
mod deadlock;
mod device;
mod diagnostics;
#[cfg(any(feature = "vulkan", has_metal, loom))]
mod epochs;
mod error;
mod event;
pub mod guide;
mod host;
#[cfg(any(feature = "cuda", feature = "vulkan", has_metal))]
mod host_gate;
mod marker;
#[cfg(has_metal)]
#[cfg_attr(docsrs, doc(cfg(feature = "metal")))]
pub mod metal;
/// The parts of the Metal backend that know no Metal, for its models.
#[cfg(loom)]
mod metal {
    mod completion_order;
    mod wakes;
}
mod registry;
mod rerecord;
#[cfg(any(feature = "vulkan", has_metal, loom))]
mod reservation;
mod stream;
mod sync;
#[cfg(feature = "conformance")]
pub mod testing;
mod timeline;
#[cfg(all(feature = "vulkan", not(loom)))]
pub mod vulkan;
/// The part of the Vulkan backend that knows no driver, for its models.
#[cfg(loom)]
mod vulkan {
    mod slots;
}
#[cfg(any(feature = "cuda", feature = "vulkan", loom))]
mod watcher;
mod workers;

pub use clock::{Clock, Elapsed, Timestamp};
pub use contract::Backend;
pub use device::{Device, Found};
pub use error::{Cause, Error, Result, Timeout};
pub use event::Event;
pub use marker::{Marker, MarkerFuture, Status};
#[cfg(any(feature = "vulkan", has_metal, loom))]
#[cfg_attr(docsrs, doc(cfg(any(feature = "vulkan", feature = "metal"))))]
pub use reservation::Reservation;
pub use stream::{Progress, Stream};

// The README's examples run with the others.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

// No call leaves anything half-changed when a caller's code panics: that code runs under no lock of
// the library, and in no middle of a change.
macro_rules! unwind_safe {
    ($($name:ty),*) => {$(
        impl std::panic::UnwindSafe for $name {}
        impl std::panic::RefUnwindSafe for $name {}
    )*};
}
unwind_safe!(Device, Stream, Marker, Event, MarkerFuture);

// Every type is meant to be shared between threads.
const _: () = {
    const fn shared<T: Send + Sync + std::panic::UnwindSafe + std::panic::RefUnwindSafe>() {}
    shared::<Device>();
    shared::<Stream>();
    shared::<Marker>();
    shared::<Event>();
    shared::<MarkerFuture>();
    shared::<Error>();
    shared::<Elapsed>();
    shared::<Timestamp>();
};
