//! Vulkan programs: an instance layer, which the loader puts between the program and the driver.
//! `fencepost watch` writes the layer's manifest and names it in the loader's variables.
//!
//! **Nothing is added to what the program submits, and no feature of its device is switched on.**
//! How far a queue is, is read from what the program has anyway: values of timeline semaphores and
//! the states of fences. A timeline semaphore of ours behind each submit would tell of every batch,
//! but takes a copy of each submit's structures, a feature that the program may not have enabled,
//! and a signal that drivers of one queue can see. What is behind the last fence or timeline
//! semaphore of a queue is therefore unknown; it is complete once a later one tells, or a batch is
//! complete that waited for its binary semaphore.
//!
//! **What the driver is asked, and when.** `vkGetSemaphoreCounterValue` and `vkGetFenceStatus` need
//! no external synchronisation, but destroying a semaphore, and destroying, resetting or submitting
//! a fence, exclude all other use of it. So a destruction or a reset first takes away what names
//! the object and then waits while the driver is being asked about it, as `asked.rs` describes.
//! Only a fence that was submitted and not reset is asked about, so that a submit need not wait.
//!
//! From bottom to top: `seen` (what was seen), `functions` (the next layer's), `calls` and
//! `presenting` (what writes to `seen`, on the program's threads), `layer` (the loader's
//! interface), `asking` (asks the driver), `account` and `report`.

pub(crate) mod account;
pub(crate) mod asking;
mod calls;
mod functions;
mod layer;
mod presenting;
pub(crate) mod report;
pub(crate) mod seen;

use std::sync::atomic::AtomicBool;

pub use layer::vkNegotiateLoaderLayerInterfaceVersion;

/// Whether calls are written down.
pub(crate) static FOLLOWS: AtomicBool = AtomicBool::new(false);

/// Before the process forks: a child has none of the threads that may hold a lock at that moment,
/// and takes each of them if it makes an instance and devices of its own.
pub(crate) extern "C" fn hold_locks() {
    layer::INSTANCES.hold();
    functions::DEVICES.hold();
    seen::SEEN.hold();
}

/// After the process has forked, in it and in the child.
pub(crate) extern "C" fn let_locks_go() {
    seen::SEEN.let_go();
    functions::DEVICES.let_go();
    layer::INSTANCES.let_go();
}

/// Held by tests that look at what was seen in this process, or change whether calls are followed.
#[cfg(test)]
pub(crate) static ALONE: std::sync::Mutex<()> = std::sync::Mutex::new(());

#[cfg(test)]
mod tests;
