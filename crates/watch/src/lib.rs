//! The library that `fencepost watch` has NVIDIA's driver load into a program
//! (`CUDA_INJECTION64_PATH`). It follows the program's calls of the driver by CUPTI's callbacks,
//! and tells what the program waits for when nothing moves.
//!
//! It runs inside programs that know nothing of it, so it must not change what they do:
//!
//! * No panic leaves it. One that happens ends the watching, and the program goes on.
//! * No lock of it is held while the driver is called. Nothing in a callback blocks, except that a
//!   call that destroys what the driver is just being asked about waits until it has answered.
//! * What it keeps is bounded, however many calls there are: see `seen.rs`.
//! * It writes to no descriptor of the program's, but to a socket of its own. Its threads take no
//!   signals. In a forked child it does nothing.
//!
//! # Layers
//!
//! From bottom to top:
//!
//! 1. `lock`, `delegated`, `asked`, `frames`, `place`, `traced` and `calls`: which calls are
//!    followed, and where their streams are.
//! 2. `seen`, `events` and `threads`: what was seen of streams, events and threads.
//! 3. `callback`: writes to it, on the program's threads.
//! 4. `driver` and `asking`: asks the driver how far its streams are, on a thread of its own.
//! 5. `account` and `report`: who waits for what, by the graph that fencepost's timeouts use, and
//!    its telling.
//! 6. `cupti`, `channel`, `batch` and `watcher`: CUPTI, the socket to `fencepost watch`, what a
//!    trace is sent there, and the thread that decides when to report.
#![cfg(target_os = "linux")]
#![deny(unsafe_op_in_unsafe_fn)]

#[cfg(not(loom))]
mod account;
#[cfg_attr(loom, allow(dead_code))]
mod asked;
#[cfg(not(loom))]
mod asking;
#[cfg(not(loom))]
mod batch;
#[cfg(not(loom))]
mod cache;
#[cfg(not(loom))]
mod callback;
#[cfg(not(loom))]
mod calls;
#[cfg(not(loom))]
mod channel;
#[cfg(not(loom))]
mod cupti;
#[cfg_attr(loom, allow(dead_code))]
mod delegated;
#[cfg(not(loom))]
mod driver;
#[cfg(not(loom))]
mod events;
#[cfg(not(loom))]
mod frames;
#[cfg(not(loom))]
mod kernel_name;
#[cfg_attr(loom, allow(dead_code))]
mod lock;
#[cfg(not(loom))]
mod place;
#[cfg(not(loom))]
mod report;
#[cfg(not(loom))]
mod ring;
#[cfg(not(loom))]
mod seen;
mod sync;
#[cfg(not(loom))]
mod threads;
#[cfg(not(loom))]
mod traced;
#[cfg(not(loom))]
mod vulkan;
#[cfg(not(loom))]
mod watcher;

#[cfg(not(loom))]
pub use cupti::{
    cuptiEnableAllDomains, cuptiEnableCallback, cuptiEnableDomain, cuptiFinalize,
    cuptiGetCallbackState, cuptiSubscribe, cuptiUnsubscribe,
};

#[cfg(not(loom))]
pub use vulkan::vkNegotiateLoaderLayerInterfaceVersion;

/// Called by the driver while it initializes: see `CUDA_INJECTION64_PATH` in CUPTI's documentation,
/// <https://docs.nvidia.com/cupti/main/main.html>.
#[cfg(not(loom))]
#[unsafe(no_mangle)]
pub extern "C" fn InitializeInjection() -> std::ffi::c_int {
    callback::guarded(watcher::start_cuda);
    1
}
