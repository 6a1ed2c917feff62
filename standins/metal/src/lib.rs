#![cfg(metal_sim)]
//! The Metal face of the simulated device: a stand-in for Metal, for tests only, on which code
//! written against objc2-metal's public interface runs where there is no Metal.
//!
//! It is a **stand-in**: no Apple hardware, no Apple code. Its devices say so in their name, and
//! **nothing that it shows counts as Apple hardware**. What passes here is known not to rely on
//! what Metal's documentation does not promise, as this crate reads it, under the seeded scheduler
//! of [`fencepost_sim`]. A Mac is the judge of everything else.
//!
//! It is made of the Objective-C runtime's C functions, to which objc2, block2 and dispatch2 link,
//! and of classes that answer Metal's messages. In debug builds objc2 checks each message's
//! selector and types against them.
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
//! assert!(session.quiesce(Duration::from_secs(60)));
//! assert!(session.live().is_empty() && session.violations().is_empty());
//! ```
//!
//! # Building with it
//!
//! Everything is behind `--cfg metal_sim`; without it this crate is empty and has no dependencies.
//! Two things are needed, since rustc rejects objc2-metal's link line off Apple: a wrapper for
//! rustc, which is a program of this package and built first without the cfg, and a target folder
//! of its own, so that neither build throws the other's results away. Linux only; no network beyond
//! what cargo fetches anyway.
//!
//! ```text
//! cargo build -p fencepost-sim-metal --bin metal-sim-rustc
//! RUSTC_WRAPPER=$PWD/target/debug/metal-sim-rustc RUSTFLAGS="--cfg metal_sim" \
//!     cargo test -p fencepost-sim-metal --tests --target-dir target/metal-sim
//! ```
//!
//! The same with `RUSTDOCFLAGS="--cfg metal_sim"` as well runs the example above (`--doc`) and
//! builds this page.
//!
//! A library that is to be tested says, where it needs Metal, `[target.'cfg(any(target_vendor =
//! "apple", metal_sim))']`, and its tests say `use fencepost_sim_metal as _;`, which brings the
//! runtime into the link.
//!
//! | variable | says |
//! |---|---|
//! | `FENCEPOST_SIM_SEED` | the scheduler's seed; at random without it, and printed with every violation and failed session |
//! | `FENCEPOST_SIM_METAL_DEVICES` | how many devices there are: 2 |
//! | `FENCEPOST_SIM_METAL_SHARED_EVENTS` | `0`: `newSharedEvent` gives nil, as in some sandboxes |
//! | `FENCEPOST_SIM_METAL_COMMAND_BUFFERS` | how many uncompleted command buffers a queue has room for: 64 |
//! | `FENCEPOST_SIM_METAL_HANDLERS_BESIDE_ENCODERS` | `1`: handlers may be added to a command buffer whose encoder is open; a violation without it |
//! | `FENCEPOST_SIM_METAL_CHANNELS` | over how many hardware channels a device's queues are spread: each has its own without it |
//!
//! # What it holds
//!
//! * Command buffers of a queue start in the order of their commits, or of `enqueue`, and overlap
//!   from then on: only an event orders one behind another. A signal says nothing about earlier
//!   buffers.
//! * A shared event's value may be seen before the buffer that signals it has a status or an end
//!   time. `GPUEndTime` is 0 till then, and in some failed buffers for ever.
//! * Completed handlers, and notifications, come at once or late and in any order, also among those
//!   of one buffer or one event. `waitUntilCompleted` returns after the buffer's handlers have.
//!   Handlers run one at a time in a thread of the stand-in, listeners' blocks on their dispatch
//!   queues; each has an autorelease pool.
//! * A command buffer that fails stops where the fault says; the signals after that never come, its
//!   handlers do.
//! * `commandBuffer` blocks while its queue has 64 uncompleted command buffers, committed or not.
//! * The memory of a dead object is never used again: a message to it, a retain or a release panics
//!   with its class's name, and is a violation.
//! * Violations ([`Control::violations`]) are also: an object autoreleased without a pool, a
//!   missing or second `endEncoding`, encoding or adding handlers after the commit, a second
//!   commit, a commit with an open encoder, a lowered value, a freed object in a command buffer
//!   without retained references, a freed event in any, a handler added beside an open encoder, a
//!   blit of nothing or not of whole words, a panic that leaves a block, and a kernel's missing or
//!   short arguments.
//!
//! Guesses, where the documentation says nothing: a listener does not keep its event alive, and a
//! notification that is due is lost with it; a buffer that fails before it was scheduled has its
//! scheduled handlers dropped; removing a device ends no wait on an event's value.
//!
//! # What it does not
//!
//! * Compute beyond the four kernels listed in `kernels`, which are known by name: shaders are not
//!   compiled, and a source that Metal would reject is taken.
//! * Metal's hazard tracking, which orders buffers of one queue that use the same tracked memory:
//!   here they overlap.
//! * Memory that becomes visible late, overlap inside of one command buffer, real timing,
//!   priorities, residency.
//! * Objective-C exceptions, protocol objects, the arm64 ABI, and mistakes in objc2-metal's own
//!   bindings.
//! * Other classes and methods: a message to one panics with its selector, and a class that is
//!   missing fails to link.

#![deny(missing_docs, unsafe_op_in_unsafe_fn)]
#![allow(non_snake_case)]

#[cfg(not(target_os = "linux"))]
compile_error!("the stand-in for Metal makes its classes in .init_array, which Linux has");

mod buffer;
mod command_buffer;
mod commit;
mod control;
mod device;
mod dispatch;
mod encoder;
mod event;
mod foundation;
mod kernels;
mod library;
mod machine;
mod queue;
mod report;
mod runtime;

pub use control::{Control, Session, Setup};
pub use report::CALLS;

/// Makes all classes. Once, when the root is there and before anybody names one.
fn register() {
    foundation::register();
    dispatch::register();
    library::register();
    buffer::register();
    event::register();
    device::register();
    queue::register();
    command_buffer::register();
    encoder::register();
}
