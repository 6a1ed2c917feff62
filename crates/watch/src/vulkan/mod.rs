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
//! From bottom to top: `seen` (what was seen), `functions` (the next layer's), `calls` (what writes
//! to `seen`, on the program's threads), `layer` (the loader's interface), `asking` (asks the
//! driver), `account` and `report`.

pub(crate) mod account;
pub(crate) mod asking;
mod calls;
mod functions;
mod layer;
pub(crate) mod report;
pub(crate) mod seen;

use std::sync::atomic::AtomicBool;

pub use layer::vkNegotiateLoaderLayerInterfaceVersion;

/// Whether calls are written down.
pub(crate) static FOLLOWS: AtomicBool = AtomicBool::new(false);
