//! A stand-in for a Vulkan driver, for tests only. It is a library with the functions of Vulkan 1.2
//! and 1.3 that fencepost's Vulkan backend calls, on the simulated device of [`fencepost_sim`].
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
//! # Options
//!
//! An option is an environment variable with the prefix `FENCEPOST_SIM_VULKAN_`, or an argument of
//! [`Control::session`]. Those without a default here are 1 by default.
//!
//! * `DEVICES`: the number of physical devices. Default: 2.
//! * `API`: the version of Vulkan, 12 or 13. Default: 13.
//! * `LOADER`: the highest version of an instance, 12 or 13. Default: as `API`.
//! * `SYNC2`: 0 removes synchronization2, which every real Vulkan 1.3 has.
//! * `HOST_RESET`: 0 removes hostQueryReset, which every real Vulkan 1.2 has.
//! * `TIMELINE`: 0 removes timelineSemaphore, which every real Vulkan 1.2 has.
//! * `CALIBRATED`: 0 removes calibrated timestamps.
//! * `SINGLE_QUEUE`: 1 leaves one queue family with one queue. Default: 0, the families below.
//! * `VALID_BITS`: the valid bits of a timestamp, the same for every family that has timestamps.
//!   Default: as in the table below. 0: no timestamps.
//! * `CLOCK`: the first tick of the first device, to choose when the clock wraps. The clock of each
//!   further one is an hour ahead of the one before.
//! * `DRIFT`: by how many parts per million the clocks drift from the host's. Those of devices with
//!   even numbers are fast, the others slow. Default: 20.
//! * `PORTABILITY`: 1 lists the devices only for instances that enumerate portability devices.
//!   Default: 0.
//! * `LOST_COUNTERS`: the result of reading a counter of a lost device. 0: an error; 1: all bits
//!   set; 2: the last value; 3: the last value, and waits go on, until a submit was refused.
//!   Default: 0.
//! * `MAX_DIFFERENCE`: `maxTimelineSemaphoreValueDifference`. Default: 2³¹ − 1, the smallest that
//!   the specification permits.
//! * `HEAP`: the size of each of the two memory heaps in bytes. Default: 256 MiB.
//! * `MAX_ALLOCATIONS`: `maxMemoryAllocationCount`. Default: 4096.
//!
//! `FENCEPOST_SIM_SEED` is the scheduler's seed. It is random by default, and printed with every
//! fault and violation.
//!
//! # Devices
//!
//! | family | queues | can | bits of a timestamp |
//! |---|---|---|---|
//! | 0 | 3 | graphics (by name only), compute, transfer | 64 |
//! | 1 | 2 | compute, transfer | 36 |
//! | 2 | 1 | compute, transfer | none |
//!
//! A tick of device 0 is 1 ns, and one of device 1 is 52.083332 ns. Memory of type 0 is not visible
//! to the host. Type 1 is coherent. In type 2 the host has a copy of its own, and only flushes and
//! invalidations copy between the two.
//!
//! # What it models
//!
//! * Queues run in any order relative to each other. Commands of one queue run in any order too,
//!   across command buffers and submits, unless a barrier whose stages have work is between them. A
//!   signal follows everything submitted earlier to the queue, and a wait blocks everything later.
//! * A wait or signal whose stages have no work orders no work. A timestamp at the top of the pipe
//!   waits for nothing.
//! * The host may see a counter's value before the fence of its batch is signalled and before the
//!   queue is idle.
//! * A wait may be submitted before its signal. It blocks until the signal runs.
//! * A query is unavailable until the device has written it, and keeps its old result until the
//!   device has run its reset.
//! * A lost device drops its pending work. Waits in progress end with `VK_ERROR_DEVICE_LOST`, and
//!   every later call that can return this error returns it. The remaining objects can be
//!   destroyed.
//! * Handles, dispatchable ones too, are keys and never pointers. An invalid handle is a violation:
//!   its object is destroyed or belongs to another device, or it was never returned.
//! * Calls of two threads that overlap and name the same externally synchronized object are a
//!   violation. [`Control::stall_call`] makes calls overlap.
//!
//! Where the specification leaves an invalid call undefined, it does nothing, and returns
//! `VK_ERROR_VALIDATION_FAILED_EXT` if it returns a result. Destroying an object that pending work
//! uses is reported, and takes place.
//!
//! # Violations
//!
//! * Every call: functions and features that are not enabled; invalid handles.
//! * Submits: a timeline value that is not greater than the counter or than an earlier value of the
//!   same queue. Between queues, the simulated device finds it when the signal runs.
//! * `vkSignalSemaphore`: a value that is not greater than the counter, or not below all pending
//!   ones.
//! * Submits, waits and `vkSignalSemaphore`: values that differ too much.
//! * Submits: a binary semaphore that is signalled twice, or waited for without a signal.
//! * Submits and `vkResetFences`: a fence that is used twice, or reset while pending.
//! * Queries that are written or read without a reset, reset while in use, or out of range. The
//!   device, `vkGetQueryPoolResults` and `vkResetQueryPool` find them.
//! * Submits, and begin and reset of command buffers: a command buffer that is not recorded,
//!   pending, submitted again despite `ONE_TIME_SUBMIT`, of another queue family, or invalid
//!   because an object in it is destroyed or updated.
//! * Memory: mapping twice, beyond the end, or where the host has no access; unaligned ranges.
//! * Recording and submits: buffers without memory or the required usage; a kernel's missing
//!   descriptors or push constants.
//! * `vkDestroyDevice`, `vkDestroyInstance`: objects that are not destroyed.
//!
//! # What it does not model
//!
//! * Access masks, caches and hazards beyond order: a barrier with wrong access masks is accepted,
//!   and two commands never run at the same time. Stages matter only as stages with or without
//!   work: compute and transfer are not distinguished.
//! * Graphics, images, events, render passes, secondary command buffers, sparse binding, device
//!   groups, export, device addresses, debug messengers, private data, other descriptors than
//!   single storage buffers. Its only queries are timestamps.
//! * Kernels other than the four listed in the module `kernel`.
//! * Unknown features are not refused, layouts are not checked for compatibility, and unknown
//!   structures in a chain are skipped.
//! * The real `CLOCK_MONOTONIC`: the host time of a calibration is simulated, and runs ahead of it
//!   once a kernel has spun.
//! * Reuse of handles. Real drivers reuse them.
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
//! 4. `entry`: the part that all calls share: counts, planned faults and the driver's lock.
//! 5. `api`: Vulkan's functions by topic. Each module names the chapter that it follows.
//! 6. `procs`: the table of all functions by name. An application gets their addresses from it.
//! 7. `control_functions`: what tests plan and inspect. `control` is its safe wrapper.

#![deny(missing_docs, unsafe_op_in_unsafe_fn)]
#![allow(non_snake_case)]
#![allow(clippy::too_many_arguments)] // the API's functions have that many

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
