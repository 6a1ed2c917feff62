//! A stand-in for a Vulkan driver, for tests only: a library with the functions of Vulkan 1.2 and 1.3
//! that fencepost's Vulkan backend calls, on the simulated device of [`fencepost_sim`].
//!
//! It is a **stand-in**: no GPU, no driver's code, and it runs no SPIR-V. The names of its devices
//! say so, and **a test on it never counts as a test on hardware**. Such a test shows only that the
//! code does not rely on more than the specification promises, as this crate reads it, under a
//! seeded scheduler. Everything else needs a real driver and the validation layers.
//!
//! The backend finds it with `FENCEPOST_VULKAN_LIBRARY=…/libfencepost_sim_vulkan.so`
//! ([`library_path`]), in place of the loader: it exports [`vkGetInstanceProcAddr`], and everything
//! else ([`FUNCTIONS`]) is reached through that. Tests plan faults, and read counts and violations,
//! through a [`Control`] loaded from the same path:
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use ash::vk;
//!
//! let path = fencepost_sim_vulkan::library_path().ok_or("not built")?;
//! let control = fencepost_sim_vulkan::Control::load(&path)?;
//! let session = control.session(7, &[("API", 12), ("SYNC2", 0)]);
//! session.fail_call("vkQueueSubmit", 3, vk::Result::ERROR_OUT_OF_HOST_MEMORY);
//! // … run the backend …
//! assert!(session.violations().is_empty());
//! # Ok(())
//! # }
//! ```
//!
//! Each of these is a variable with the prefix `FENCEPOST_SIM_VULKAN_`, or an option of
//! [`Control::session`]:
//!
//! | option | meaning | default |
//! |---|---|---|
//! | `DEVICES` | the number of physical devices | 2 |
//! | `API` | 12 or 13: the version of Vulkan | 13 |
//! | `SYNC2` | 0: no synchronization2 (which every real 1.3 has) | 1 |
//! | `HOST_RESET` | 0: no hostQueryReset (which every real 1.2 has) | 1 |
//! | `TIMELINE` | 0: no timelineSemaphore (which every real 1.2 has) | 1 |
//! | `CALIBRATED` | 0: no calibrated timestamps | 1 |
//! | `SINGLE_QUEUE` | 1: one family with one queue | 3 families, as below |
//! | `VALID_BITS` | the bits of a timestamp in the families that have any; 0 for none | 64 and 36 |
//! | `CLOCK` | the first tick, to choose when the clock wraps | 1 |
//! | `LOADER` | 12: instances of Vulkan 1.2 at most | as `API` |
//! | `PORTABILITY` | 1: the devices are listed only for instances that enumerate portability devices | 0 |
//! | `LOST_COUNTERS` | what reading a counter of a lost device gives: 1 all bits set, 2 the last value | 0: an error |
//! | `MAX_DIFFERENCE` | `maxTimelineSemaphoreValueDifference` | 2³¹ − 1, the smallest permitted |
//! | `HEAP` | bytes in each of the two heaps | 256 MiB |
//! | `MAX_ALLOCATIONS` | `maxMemoryAllocationCount` | 4096 |
//!
//! `FENCEPOST_SIM_SEED` is the scheduler's seed. It is random by default, and printed with every
//! fault and violation.
//!
//! | family | queues | can | bits of a timestamp |
//! |---|---|---|---|
//! | 0 | 3 | graphics (by name only), compute, transfer | 64 |
//! | 1 | 2 | compute, transfer | 36 |
//! | 2 | 1 | compute, transfer | none |
//!
//! A tick of device 0 is 1 ns, and one of device 1 is 52.083332 ns. Memory of type 0 is not visible
//! to the host; type 1 is coherent; in type 2 the host has its own copy, and only flushes and
//! invalidations move data.
//!
//! # What it models
//!
//! * Queues run in any order relative to each other. Commands of one queue run in any order too,
//!   across command buffers and submits, unless a barrier whose stages have work is between them.
//!   A signal follows everything submitted earlier to the queue, and a wait blocks everything later.
//! * A wait or signal whose stages have no work orders no work. A timestamp at the top of the pipe
//!   waits for nothing.
//! * The host may see a counter's value before the fence of its batch is signalled and before the
//!   queue is idle.
//! * A wait may be submitted before its signal. It then blocks, for ever if no signal comes.
//! * A query is unavailable until the device has written it, and keeps its old result until the
//!   device has run its reset.
//! * A lost device drops its pending work. Waits under way end with `VK_ERROR_DEVICE_LOST`, and
//!   every later call that may return it does. The remaining objects can be destroyed.
//! * Handles are keys, never pointers; dispatchable ones too. A stale, foreign or made-up one is a
//!   violation.
//! * Simultaneous calls of two threads that name the same externally synchronized object are a
//!   violation. It is found only if they overlap, which [`Control::stall_call`] makes them do.
//!
//! An invalid call does nothing where the specification leaves it undefined, and returns
//! `VK_ERROR_VALIDATION_FAILED_EXT` if it returns a result. Destroying an object that pending work
//! uses is only reported.
//!
//! | violation | found by |
//! |---|---|
//! | a value that is not greater than the current one, or than an earlier one of the same queue | submit, `vkSignalSemaphore` |
//! | the same among queues, when the signal runs | the simulated device |
//! | a host's signal that is not below all pending ones; values too far apart | `vkSignalSemaphore`, submit, wait |
//! | binary semaphores signalled twice, or waited for without a signal; fences used twice, or reset while pending | submit, `vkResetFences` |
//! | queries written or read without a reset, reset while in use, out of range | the device, `vkGetQueryPoolResults`, `vkResetQueryPool` |
//! | command buffers not recorded, pending, already used once, of another family, or invalid because an object in them is destroyed or updated | submit, begin, reset |
//! | functions and features that are not enabled | every call |
//! | mapping twice, beyond the end, or memory that the host cannot see; unaligned ranges | memory |
//! | buffers without memory or the required usage; missing descriptors and push constants of a kernel | recording, submit |
//! | objects that are alive when their device or instance is destroyed | `vkDestroyDevice`, `vkDestroyInstance` |
//!
//! # What it does not model
//!
//! * Access masks, caches and hazards beyond order: a barrier with wrong access masks is accepted,
//!   and two commands never run at the same time. Stages matter only as stages with or without work:
//!   compute and transfer are not distinguished.
//! * Graphics, images, events, render passes, secondary command buffers, sparse binding, device
//!   groups, export, device addresses, debug messengers, private data, other descriptors than
//!   single storage buffers. Its only queries are timestamps.
//! * Kernels other than the four listed in the module `kernel`.
//! * Unknown features are not refused, layouts are not checked for compatibility, and unknown
//!   structures in a chain are skipped.
//! * The real `CLOCK_MONOTONIC`: a calibration's host time is the machine's, which runs ahead.
//! * Reuse of handles, which real drivers do.
//!
//! # Layers
//!
//! From bottom to top. A module names modules of lower layers, and of its own layer without a
//! circle.
//!
//! 1. `usage` (results and violations), `options`, `table` (handles), `ffi` (the C boundary) and
//!    `external_sync` (objects in use by calls in progress).
//! 2. The objects, one module for each kind: their structures, and what these do without the
//!    driver's other objects.
//! 3. `driver`: the tables of all objects, behind one lock. On it, `requirements`: the version or
//!    extension that each function needs; and `submission`: the checks of a submit, and the steps
//!    that run it.
//! 4. `entry`: what every call does before its function's own part.
//! 5. `api`: Vulkan's functions by topic. Each module names the chapter that it follows.
//! 6. `procs`: the table of all functions by name, which an application reaches them through.
//! 7. `control_functions`: what tests plan and inspect. `control` is its safe wrapper.

#![deny(missing_docs, unsafe_op_in_unsafe_fn)]
#![allow(non_snake_case)]
// the API's functions have this many
#![allow(clippy::too_many_arguments)]

mod api;
mod batch;
mod buffer;
mod command;
mod command_buffer;
mod control;
mod control_functions;
mod descriptor;
mod device;
mod driver;
mod entry;
mod external_sync;
mod fence;
mod ffi;
mod instance;
mod kernel;
mod memory;
mod options;
mod physical;
mod pipeline;
mod procs;
mod query;
mod requirements;
mod semaphore;
mod submission;
mod table;
mod usage;

pub use control::{Control, Live, Session, library_path};
pub use control_functions::*;
pub use procs::{FUNCTIONS, vkGetInstanceProcAddr};
