//! Device events: markers on the work queues of an accelerator. They tell how far the device has
//! come and how long work took on the device's own clock, and they order streams.
//!
//! | noun | what it is |
//! |---|---|
//! | [`Device`] | an accelerator, opened through one backend: `host`, `cuda:0`, `metal` |
//! | [`Stream`] | an in-order queue of a device |
//! | [`Marker`] | one recorded point on a stream, complete once all work before it is |
//! | [`Event`] | a slot that holds the latest of its markers: an event of PyTorch's and CUDA's |
//! | [`Gate`] | a point that the host opens, for streams to wait for |
//!
//! ```
//! use fencepost::{Device, Event};
//!
//! let device = Device::open("host")?; // or "cuda:0", or the best there is: Device::open_best()
//! let stream = device.default_stream();
//! let (start, end) = (Event::with_timing(&device), Event::with_timing(&device));
//!
//! start.record(&stream)?;
//! // On a GPU, submit to the stream by the GPU's own API in place of this.
//! stream.launch(|| println!("the work to time"))?;
//! end.record(&stream)?;
//! println!("{:.3} ms", start.elapsed_time(&end)?);
//! # Ok::<(), fencepost::Error>(())
//! ```
//!
//! # What it does
//! - **One meaning on every backend.** It is written down as a conformance suite, which is part of
//!   the library (feature `conformance`). `fencepost check` runs it on your machine.
//! - **Reading consumes nothing.** Query, wait and read times as often as you like, in any order.
//! - **Every wait can have a limit.** A [`Timeout`] says what was awaited and how far it came.
//! - **A failure is an error**, never a `false` and never a hang. It sticks to its stream, travels
//!   along waits, and names its first cause.
//!
//! # What it does not do
//! - It runs no kernels; only the conformance suite, a feature, brings its own. Submit yours with
//!   the API that you use, on the stream that you wrap.
//! - It does not order memory between host and device beyond what each API promises at an event.
//! - It never reports the host's clock as a device's.
//!
//! # Threads
//! All types are `Send` and `Sync`, and every function may be called from any thread. A wait that
//! blocks one thread stops no other thread's calls. In a process forked from one that uses a
//! device, calls that need its threads or its driver return [`Error::Forked`]; the host can be
//! opened anew there.
//!
//! The [`guide`] has a page each on timing, traces, ordering, failures and forks.
//!
//! # Features
//! - `metal`, on by default: Apple's Metal. On other systems it does nothing and adds no
//!   dependency.
//! - `cuda`: NVIDIA's CUDA. The driver is loaded at run time; building needs none.
//! - `opencl`: OpenCL 1.2 and later. The loader is loaded at run time; building needs none.
//! - `vulkan`: Vulkan 1.2 and later. The loader is loaded at run time; building needs none.
//! - `wgpu30`: events on the queue of a wgpu 30 device of the caller's.
//! - `tracing`: events for [`tracing`](https://docs.rs/tracing) of what happens on threads of the
//!   library: a thread that cannot be started, a lost device, a callback that panicked.
//! - `trace`: spans of streams and of threads on one axis, and arrows for waits: see [`trace`].
//! - `tracing-layer`: a layer that puts spans of `tracing` into a trace; brings
//!   `tracing-subscriber`.
//! - `conformance`: the conformance suite, as library code.
//! - `mutants`: devices that are wrong in one way each, which the suite must notice.
#![deny(missing_docs, unsafe_code)]
#![cfg_attr(
    docsrs,
    feature(doc_cfg),
    doc(auto_cfg(hide(has_gpu, has_metal, loom)))
)]
#![cfg_attr(loom, allow(dead_code))]

#[doc(hidden)]
pub mod bindings;
#[cfg(any(
    feature = "cuda",
    feature = "opencl",
    feature = "vulkan",
    feature = "wgpu30"
))]
mod bracket;
mod clock;
mod contract;
mod core;
mod correlation;
#[cfg(all(feature = "cuda", not(loom)))]
pub mod cuda;
/// The part of the CUDA backend that knows no driver, for its models.
#[cfg(loom)]
mod cuda {
    mod ticker;
    mod values;
}
mod deadlock;
mod device;
mod diagnostics;
#[cfg(any(feature = "vulkan", feature = "wgpu30", has_metal, loom))]
mod epochs;
mod error;
mod event;
mod exit;
mod explain;
mod fork;
mod gate;
pub mod guide;
mod host;
#[cfg(any(has_gpu, loom))]
mod host_gate;
#[cfg(any(has_gpu, loom))]
mod lost;
mod marker;
pub mod measure;
#[cfg(has_metal)]
#[cfg_attr(docsrs, doc(cfg(feature = "metal")))]
pub mod metal;
/// The parts of the Metal backend that know no Metal, for its models.
#[cfg(loom)]
mod metal {
    mod completion_order;
    mod wakes;
}
mod name;
#[cfg(all(feature = "trace", not(loom)))]
mod observe;
#[cfg(all(feature = "opencl", not(loom)))]
pub mod opencl;
/// The parts of the OpenCL backend that know no OpenCL, for its models.
#[cfg(loom)]
mod opencl {
    mod account;
    mod watched;
}
#[cfg(any(feature = "opencl", loom))]
mod ordered;
mod panics;
mod place;
mod registry;
mod rerecord;
#[cfg(any(feature = "vulkan", feature = "wgpu30", has_metal, loom))]
mod reservation;
mod root;
mod steps;
mod stream;
mod sync;
#[cfg(feature = "conformance")]
pub mod testing;
mod time_keeper;
mod timeline;
#[cfg(all(feature = "trace", not(loom)))]
pub mod trace;
/// The parts of a trace that know no device, for their models.
#[cfg(loom)]
mod trace {
    mod alarm;
    mod pending;
    mod text;
    mod value;
}
mod unobserved;
#[cfg(all(feature = "vulkan", not(loom)))]
pub mod vulkan;
/// The part of the Vulkan backend that knows no driver, for its models.
#[cfg(loom)]
mod vulkan {
    mod slots;
}
mod wait;
mod waits;
#[cfg(any(
    feature = "cuda",
    feature = "opencl",
    feature = "vulkan",
    feature = "wgpu30",
    loom
))]
mod watcher;
#[cfg(all(feature = "wgpu30", not(loom)))]
pub mod wgpu30;
/// The part of the wgpu backend that knows no wgpu, for its models.
#[cfg(loom)]
mod wgpu30 {
    mod staging;
}
mod workers;
mod wraps;

pub use clock::{Clock, Elapsed, Timestamp};
pub use contract::Backend;
pub use correlation::{Correlation, HostTime};
pub use device::{Device, Found};
pub use error::{Cause, Error, Result, Timeout};
pub use event::Event;
pub use gate::Gate;
pub use host::{HostOptions, blocking};
pub use marker::{Marker, MarkerFuture, Status};
#[doc(inline)]
pub use measure::measure;
pub use place::Place;
#[cfg(any(feature = "vulkan", feature = "wgpu30", has_metal, loom))]
#[cfg_attr(
    docsrs,
    doc(cfg(any(feature = "vulkan", feature = "wgpu30", feature = "metal")))
)]
pub use reservation::Reservation;
pub use stream::{Progress, Stream};
pub use time_keeper::TimeKeeper;
pub use unobserved::set_unobserved_hook;
pub use wait::{
    WaitSet, Waitable, synchronize_all, synchronize_all_timeout, synchronize_any,
    synchronize_any_timeout,
};

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
unwind_safe!(
    Device,
    Stream,
    Marker,
    Event,
    Gate,
    MarkerFuture,
    Correlation
);

impl<K: std::panic::UnwindSafe> std::panic::UnwindSafe for WaitSet<K> {}
impl<K: std::panic::RefUnwindSafe> std::panic::RefUnwindSafe for WaitSet<K> {}

// Every type is meant to be shared between threads.
const _: () = {
    const fn shared<T: Send + Sync + std::panic::UnwindSafe + std::panic::RefUnwindSafe>() {}
    shared::<Device>();
    shared::<Stream>();
    shared::<Marker>();
    shared::<Event>();
    shared::<Gate>();
    shared::<MarkerFuture>();
    shared::<Error>();
    shared::<Place>();
    shared::<Elapsed>();
    shared::<Timestamp>();
    shared::<Correlation>();
    shared::<HostTime>();
    shared::<WaitSet<u32>>();
};
