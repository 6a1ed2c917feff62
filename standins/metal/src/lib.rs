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
//! # Building
//!
//! Everything is behind `--cfg metal_sim`; without it this crate is empty and has no dependencies.
//! rustc rejects objc2-metal's link attribute on systems other than Apple's. A build with the
//! cfg therefore needs a wrapper for rustc, a program of this package that is built first, without
//! the cfg. The two builds have target folders of their own, so that neither invalidates the other.
//! All this works on Linux only.
//!
//! ```text
//! cargo build -p fencepost-sim-metal --bin metal-sim-rustc
//! RUSTC_WRAPPER=$PWD/target/debug/metal-sim-rustc RUSTFLAGS="--cfg metal_sim" \
//!     cargo test -p fencepost-sim-metal --tests --target-dir target/metal-sim
//! ```
//!
//! With `RUSTDOCFLAGS="--cfg metal_sim"` as well, `cargo test --doc` runs the example above, and
//! `cargo doc` builds this page.
//!
//! A library under test declares its dependencies on Metal with `[target.'cfg(any(target_vendor =
//! "apple", metal_sim))']`. Its tests contain `use fencepost_sim_metal as _;`, which links the
//! runtime.
//!
//! These environment variables configure the machine that the first call of Metal makes if no
//! [`Session`] has made one:
//!
//! * `FENCEPOST_SIM_SEED`: the scheduler's seed. It is random by default, and printed with every
//!   violation and failed session.
//! * `FENCEPOST_SIM_METAL_DEVICES`: the number of devices; 2 by default.
//! * `FENCEPOST_SIM_METAL_SHARED_EVENTS`: with `0`, `newSharedEvent` returns nil, as in some
//!   sandboxes.
//! * `FENCEPOST_SIM_METAL_COMMAND_BUFFERS`: how many uncompleted command buffers a queue may have;
//!   64 by default.
//! * `FENCEPOST_SIM_METAL_HANDLERS_BESIDE_ENCODERS`: with `1`, handlers may be added to a command
//!   buffer whose encoder is open, which is a violation by default.
//! * `FENCEPOST_SIM_METAL_CHANNELS`: the number of hardware channels that a device's queues share.
//!   By default each queue has its own.
//!
//! # What it models
//!
//! * Command buffers of a queue start in the order of their commits, or of `enqueue`, and then
//!   overlap: only an event orders one behind another. A signal does not imply that earlier buffers
//!   are complete.
//! * The host may see a shared event's value before the buffer that signals it has a status or an
//!   end time. `GPUEndTime` is 0 until then, and stays 0 in some failed buffers.
//! * Completed handlers and notifications run at once or late, and in any order, even those of one
//!   buffer or one event. `waitUntilCompleted` returns after the buffer's handlers. Handlers run
//!   one at a time on a thread of the stand-in, and listeners' blocks on their dispatch queues.
//!   Each call has an autorelease pool.
//! * A failing command buffer stops at the command that the fault names. Its later signals never
//!   come; its completed handlers run.
//! * `commandBuffer` blocks while its queue has 64 uncompleted command buffers, committed or not.
//! * The memory of a deallocated object is never reused: a message to it, a retain or a release is
//!   a violation, and panics with the name of its class.
//! * These are [violations](Control::violations) too: an object autoreleased without a pool, a
//!   missing or second `endEncoding`, encoding or adding handlers after the commit, a second
//!   commit, a commit with an open encoder, a lowered value, a deallocated object in a command
//!   buffer without retained references, a deallocated event in any command buffer, a handler added
//!   while an encoder is open, a blit of no bytes or of partial words, a panic that leaves a block,
//!   and missing or short arguments of a kernel.
//!
//! In three points the documentation is silent, and the behaviour here is a guess. A listener does
//! not retain its event, and a due notification is lost if the event is deallocated. A buffer that
//! fails before it is scheduled drops its scheduled handlers. The removal of a device does not end
//! waits for an event's value.
//!
//! # What it does not model
//!
//! * Kernels other than the four listed in `kernels`. Shaders are not compiled, and a source that
//!   Metal would reject is accepted.
//! * Metal's hazard tracking, which orders buffers of one queue that use the same tracked memory:
//!   here they overlap.
//! * Memory that becomes visible late, overlap inside one command buffer, real timing, priorities,
//!   residency.
//! * Objective-C exceptions, protocol objects, the arm64 ABI, and defects in the bindings of
//!   objc2-metal.
//! * Other classes and methods. A message with an unknown selector panics with that selector,
//!   and a program that uses an unknown class does not link.
//!
//! # Layers
//!
//! From bottom to top. A module names only modules of lower layers and, in its own layer, those
//! before it. Layer 6 is the exception: a queue makes and submits command buffers, and a command
//! buffer makes encoders, which encode into it.
//!
//! 1. `setup`, `report`, `memory`: the settings of a machine, the log of calls and violations, and
//!    the memory of buffers.
//! 2. `runtime`: the Objective-C runtime. Its files are `types`, `class`, `block`, `object`,
//!    `message`, `references`, `pool` and `reflect`.
//! 3. `foundation`, `dispatch`: the classes of Foundation, and the queues of libdispatch.
//! 4. `callbacks`, `gpu`, `kernels`: the state that the objects of a device share, and its kernels.
//! 5. `buffer`, `event`, `library`: objects that hold their device as a `DeviceRef`.
//! 6. `queue`, `command_buffer`, `commit`, `encoder`: encoding, and submits to the simulated
//!    device.
//! 7. `device`: it makes the objects of layers 5 and 6.
//! 8. `machine`: the devices of the process.
//! 9. `control`: what tests plan and inspect.
//! 10. `startup`: it names every module that has classes, and no module names it.

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
