#![cfg(metal_sim)]
//! A stand-in for Metal, for tests only, on the simulated device of [`fencepost_sim`]. Code written
//! against objc2-metal's public interface runs on it where there is no Metal.
//!
//! It is a **stand-in**: no Apple hardware, no Apple code. The names of its devices say so, and **a
//! test on it never counts as a test on Apple hardware**. Such a test shows only that the code does
//! not rely on more than Metal's documentation promises, as this crate reads it, under a seeded
//! scheduler. Everything else needs a Mac.
//!
//! It consists of the C functions of the Objective-C runtime, to which objc2, block2 and dispatch2
//! link, and of classes that implement Metal's methods. In debug builds objc2 checks the selector
//! and types of each message against them.
//!
//! ```
//! use fencepost_sim_metal::{Control, Setup};
//! use objc2::runtime::ProtocolObject;
//! use objc2_metal::*;
//! use std::time::Duration;
//!
//! let session = Control.session(Setup::seeded(7));
//! let signalled = objc2::rc::autoreleasepool(|_| {
//!     let device = MTLCreateSystemDefaultDevice()?;
//!     let (queue, event) = (device.newCommandQueue()?, device.newSharedEvent()?);
//!     session.fail_commit(2, MTLCommandBufferError::Timeout, "Caused GPU Timeout Error");
//!     let buffer = queue.commandBuffer()?;
//!     buffer.encodeSignalEvent_value(ProtocolObject::from_ref(&*event), 1);
//!     buffer.commit();
//!     buffer.waitUntilCompleted();
//!     (event.signaledValue() == 1).then_some(())
//! });
//! assert_eq!(signalled, Some(()));
//! assert!(session.wait_idle(Duration::from_secs(60)));
//! assert!(session.live().is_empty() && session.violations().is_empty());
//! ```
//!
//! # Building with it
//!
//! Everything is behind `--cfg metal_sim`; without it this crate is empty and has no dependencies.
//! rustc rejects objc2-metal's link attribute on other systems than Apple's. A build therefore needs
//! a wrapper for rustc, which is a program of this package that is built first without the cfg. It
//! also needs its own target folder, so that the two builds do not invalidate each other. It works
//! on Linux only.
//!
//! ```text
//! cargo build -p fencepost-sim-metal --bin metal-sim-rustc
//! RUSTC_WRAPPER=$PWD/target/debug/metal-sim-rustc RUSTFLAGS="--cfg metal_sim" \
//!     cargo test -p fencepost-sim-metal --tests --target-dir target/metal-sim
//! ```
//!
//! With `RUSTDOCFLAGS="--cfg metal_sim"` too, the same runs the example above (`--doc`) and builds
//! this page.
//!
//! A library under test declares its dependencies on Metal with `[target.'cfg(any(target_vendor =
//! "apple", metal_sim))']`. Its tests contain `use fencepost_sim_metal as _;`, which links the
//! runtime.
//!
//! | variable | meaning |
//! |---|---|
//! | `FENCEPOST_SIM_SEED` | the scheduler's seed; random by default, and printed with every violation and failed session |
//! | `FENCEPOST_SIM_METAL_DEVICES` | the number of devices; 2 by default |
//! | `FENCEPOST_SIM_METAL_SHARED_EVENTS` | `0`: `newSharedEvent` returns nil, as in some sandboxes |
//! | `FENCEPOST_SIM_METAL_COMMAND_BUFFERS` | how many uncompleted command buffers a queue may have; 64 by default |
//! | `FENCEPOST_SIM_METAL_HANDLERS_BESIDE_ENCODERS` | `1`: handlers may be added to a command buffer whose encoder is open; a violation by default |
//! | `FENCEPOST_SIM_METAL_CHANNELS` | the number of hardware channels that a device's queues share; by default each has its own |
//!
//! # What it models
//!
//! * Command buffers of a queue start in the order of their commits, or of `enqueue`, and then
//!   overlap: only an event orders one behind another. A signal does not imply that earlier buffers
//!   are complete.
//! * The host may see a shared event's value before the buffer that signals it has a status or an
//!   end time. `GPUEndTime` is 0 until then, and stays 0 in some failed buffers.
//! * Completed handlers and notifications run at once or late, and in any order, also among those
//!   of one buffer or one event. `waitUntilCompleted` returns after the buffer's handlers. Handlers
//!   run one at a time on a thread of the stand-in, and listeners' blocks on their dispatch queues;
//!   each has an autorelease pool.
//! * A command buffer that fails stops where the fault says. Its later signals never come, and its
//!   handlers run.
//! * `commandBuffer` blocks while its queue has 64 uncompleted command buffers, committed or not.
//! * The memory of a deallocated object is never reused: a message to it, a retain or a release
//!   panics with its class's name, and is a violation.
//! * These are violations ([`Control::violations`]) too: an object autoreleased without a pool, a
//!   missing or second `endEncoding`, encoding or adding handlers after the commit, a second
//!   commit, a commit with an open encoder, a lowered value, a deallocated object in a command
//!   buffer without retained references, a deallocated event in any command buffer, a handler added
//!   while an encoder is open, a blit of no bytes or of partial words, a panic that leaves a block,
//!   and missing or short arguments of a kernel.
//!
//! The documentation leaves these open, and the behaviour here is a guess: a listener does not
//! retain its event, and a due notification is lost with it; a buffer that fails before it was
//! scheduled drops its scheduled handlers; removing a device ends no wait on an event's value.
//!
//! # What it does not model
//!
//! * Kernels other than the four listed in `kernels`. Shaders are not compiled, and a source that
//!   Metal would reject is accepted.
//! * Metal's hazard tracking, which orders buffers of one queue that use the same tracked memory:
//!   here they overlap.
//! * Memory that becomes visible late, overlap inside one command buffer, real timing, priorities,
//!   residency.
//! * Objective-C exceptions, protocol objects, the arm64 ABI, and defects of objc2-metal's bindings.
//! * Other classes and methods: a message to one panics with its selector, and a missing class fails
//!   to link.
//!
//! # Layers
//!
//! From bottom to top. A module names only modules of lower layers and, in its own layer, those to
//! its left. The sixth layer is the exception: a queue makes command buffers and submits them, and a
//! command buffer makes encoders, which encode into it.
//!
//! 1. `setup`, `report`, `memory`: what a test asks for, what it finds, and the bytes of buffers.
//! 2. `runtime`: the Objective-C runtime, from `types` over `class`, `block`, `object`, `message` and
//!    `references` to `pool` and `reflect`.
//! 3. `foundation`, `dispatch`: the classes of Foundation, and libdispatch's queues.
//! 4. `callbacks`, `gpu`, `kernels`: what the objects of a device share, and what its kernels do.
//! 5. `buffer`, `event`, `library`: objects that know their device as a `DeviceRef`.
//! 6. `queue`, `command_buffer`, `commit`, `encoder`: the way of work to the simulated device.
//! 7. `device`: makes all objects of the layers 5 and 6.
//! 8. `machine`: the devices of the process.
//! 9. `control`: what tests plan and inspect.
//! 10. `startup`: names every module with classes, and no module names it.

#![deny(missing_docs, unsafe_op_in_unsafe_fn)]
#![allow(non_snake_case)]

#[cfg(not(target_os = "linux"))]
compile_error!("the stand-in for Metal makes its classes in .init_array, which Linux has");

mod buffer;
mod callbacks;
mod command_buffer;
mod commit;
mod control;
mod device;
mod dispatch;
mod encoder;
mod event;
mod foundation;
mod gpu;
mod kernels;
mod library;
mod machine;
mod memory;
mod queue;
mod report;
mod runtime;
mod setup;
mod startup;

pub use control::{Control, Session};
pub use report::CALLS;
pub use setup::Setup;
