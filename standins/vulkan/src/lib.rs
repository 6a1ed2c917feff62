//! The Vulkan face of the simulated device: a library, for tests only, with the functions of Vulkan
//! 1.2 and 1.3 that fencepost's Vulkan backend calls.
//!
//! It is a **stand-in**: no GPU, no driver's code, no SPIR-V run. Its devices say so in their name,
//! and **nothing that it shows counts as hardware**. What passes here is known not to rely on what
//! the specification does not promise, as this crate reads it, under the seeded scheduler of
//! [`fencepost_sim`]. A real driver and the validation layers are the judges of everything else.
//!
//! The backend finds it with `FENCEPOST_VULKAN_LIBRARY=…/libfencepost_sim_vulkan.so`
//! ([`library_path`]), in place of the loader: it exports [`vkGetInstanceProcAddr`], and everything
//! else ([`FUNCTIONS`]) is reached through that. Tests plan faults and look at counts and
//! violations through a [`Control`] loaded from the same path:
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use ash::vk;
//!
//! let path = fencepost_sim_vulkan::library_path().ok_or("not built")?;
//! let control = fencepost_sim_vulkan::Control::load(&path)?;
//! let session = control.session(7, &[("API", 12), ("SYNC2", 0)]);
//! session.fail_call("vkQueueSubmit", 3, vk::Result::ERROR_OUT_OF_HOST_MEMORY);
//! // … the backend at work …
//! assert!(session.violations().is_empty());
//! # Ok(())
//! # }
//! ```
//!
//! Each of these is a variable with `FENCEPOST_SIM_VULKAN_` in front, or an option of
//! [`Control::session`]:
//!
//! | option | says | without it |
//! |---|---|---|
//! | `DEVICES` | how many physical devices there are | 2 |
//! | `API` | 12 or 13: the version of Vulkan | 13 |
//! | `SYNC2` | 0: no synchronization2 (which every true 1.3 has) | 1 |
//! | `HOST_RESET` | 0: no hostQueryReset (which every true 1.2 has) | 1 |
//! | `TIMELINE` | 0: no timelineSemaphore (which every true 1.2 has) | 1 |
//! | `CALIBRATED` | 0: no calibrated timestamps | 1 |
//! | `SINGLE_QUEUE` | 1: one family with one queue | 3 families, as below |
//! | `VALID_BITS` | the bits of a timestamp in the families that have any; 0 for none | 64 and 36 |
//! | `CLOCK` | the first tick, to put a wrap where a test wants it | 1 |
//! | `LOADER` | 12: instances of Vulkan 1.2 at most | as `API` |
//! | `PORTABILITY` | 1: devices for those only who ask for such that do not conform | 0 |
//! | `LOST_COUNTERS` | what a lost device's counters read as: 1 all bits set, 2 what they were at | 0: an error |
//! | `MAX_DIFFERENCE` | `maxTimelineSemaphoreValueDifference` | 2³¹ − 1, the least there may be |
//! | `HEAP` | bytes in each of the two heaps | 256 MiB |
//! | `MAX_ALLOCATIONS` | `maxMemoryAllocationCount` | 4096 |
//!
//! `FENCEPOST_SIM_SEED` is the scheduler's seed; at random without it, and printed with every fault
//! and violation.
//!
//! | family | queues | can | bits of a timestamp |
//! |---|---|---|---|
//! | 0 | 3 | graphics (by name only), compute, transfer | 64 |
//! | 1 | 2 | compute, transfer | 36 |
//! | 2 | 1 | compute, transfer | none |
//!
//! A tick of device 0 is 1 ns, one of device 1 is 52.083332 ns. Memory of type 0 is the device's
//! alone; type 1 is coherent; in type 2 the host sees a copy of its own, and only flushes and
//! invalidations move data.
//!
//! # What it holds
//!
//! * Queues run in any order among each other. Commands of one queue run in any order too, across
//!   command buffers and submits, unless a barrier with stages of work stands between them. Signals
//!   come after everything submitted earlier to the queue; waits hold everything later.
//! * Waits and signals whose stages are none that work has hold no work. A timestamp at the top of
//!   the pipe waits for nothing.
//! * A counter's value is seen before the fence of its batch, and before the queue is idle.
//! * Waits may be submitted before their signals, and are then held, for ever if need be.
//! * A query is unavailable until the device comes to it, and still has its old result until the
//!   device comes to its reset.
//! * A lost device gives up what is pending. Waits under way end with `VK_ERROR_DEVICE_LOST`, and
//!   so does every later call that may say it; what is left can be destroyed.
//! * Handles are keys, never pointers, dispatchable ones too: one that is stale, foreign or made up
//!   is a violation.
//! * Calls that name the same externally synchronized object at the same time on two threads are
//!   violations: found only when they do overlap, which [`Control::stall_call`] brings about.
//!
//! A call that is found wrong does nothing where the specification leaves it undefined, and gives
//! `VK_ERROR_VALIDATION_FAILED_EXT` if it gives anything; destroying what pending work uses is only
//! written down.
//!
//! | found wrong | by |
//! |---|---|
//! | a value that is not greater than the present one, or one before it on the same queue | submit, `vkSignalSemaphore` |
//! | the same among queues, when the device comes to it | the simulated device |
//! | a host's signal that is not below all pending ones; values too far from each other | `vkSignalSemaphore`, submit, wait |
//! | binary semaphores signalled twice, or waited for without a signal; fences used twice or reset while pending | submit, `vkResetFences` |
//! | queries written or read without a reset, reset while in use, out of range | the device, `vkGetQueryPoolResults`, `vkResetQueryPool` |
//! | command buffers not recorded, pending, used once already, of another family, invalid since something in them is gone or updated | submit, begin, reset |
//! | functions and features that were not enabled | every call |
//! | mapping twice, beyond the end, or what the host cannot see; odd ranges | memory |
//! | buffers without memory or the usage, descriptors and push constants that a kernel needs and are not there | recording, submit |
//! | objects left when their device or instance is destroyed | `vkDestroyDevice`, `vkDestroyInstance` |
//!
//! # What it does not
//!
//! * Access masks, caches and hazards beyond order: a barrier with wrong access masks passes, and
//!   two commands run in either order, never at the same time. Which stages a barrier names matters
//!   only as work or no work: it never tells compute from transfer.
//! * Graphics, images, events, render passes, secondary command buffers, sparse binding, device
//!   groups, export, device addresses, debug messengers, private data, other descriptors than
//!   single storage buffers. Timestamps are its only queries, and have no partial results, as the
//!   specification says.
//! * Kernels other than the four listed in the module `kernel`, known by their entry points' names.
//! * Features that it does not know are not refused when a device asks for them. Layouts are not
//!   compared for compatibility. Structures that it does not know in a chain are passed over.
//! * True `CLOCK_MONOTONIC`: a calibration's host time is the machine's own, which runs ahead.
//! * Handles are never given out again, as true drivers do.
//!
//! The text of each module names the chapter that it was written from.

#![deny(missing_docs, unsafe_op_in_unsafe_fn)]
#![allow(non_snake_case)]
// as many arguments as the specification says
#![allow(clippy::too_many_arguments)]

mod boundary;
mod buffer;
mod calls;
mod clock;
mod command;
mod control;
mod descriptor;
mod device;
mod face;
mod fence;
mod instance;
mod kernel;
mod memory;
mod options;
mod physical;
mod pipeline;
mod pool;
mod procs;
mod query;
mod semaphore;
mod submit;
mod table;
mod wrapper;

pub use control::*;
pub use procs::{FUNCTIONS, vkGetInstanceProcAddr};
pub use wrapper::{Control, Live, Session, library_path};
