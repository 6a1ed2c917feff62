//! A simulated device, for tests only.
//!
//! It is a **stand-in**: it has queues, semaphores, timestamps and faults, and a scheduler that may
//! take any order that the real APIs permit. A missing wait or a wrong assumption about order
//! therefore fails with some seed. The device runs no kernels, and has no memory model, no real
//! timing and none of a driver's bugs. **It never counts as hardware**: a test that passes here
//! shows only that the code does not rely on more than the APIs promise, as this crate reads them.
//!
//! A [`SimDevice`] has [`Queue`]s. A queue takes a [`Submission`], which is a list of [`Command`]s,
//! and returns a [`Batch`]. [`Semaphore`]s, [`Flag`]s and [`Gate`]s block commands,
//! [`TimestampQuery`]s hold timestamps, and [`Fault`]s make things fail. [`SimDevice::trace`] lists
//! what happened, [`SimDevice::violations`] what the APIs forbid, and [`SimDevice::live`] counts
//! the objects that are alive. Devices made with [`SimDevice::another`] belong to one machine: they
//! share its scheduler and host clock, and may use each other's objects.
//!
//! ```
//! use fencepost_sim::{Config, SimDevice, Submission};
//!
//! let device = SimDevice::new(Config::seeded(7))?;
//! let (first, second) = (device.new_queue()?, device.new_queue()?);
//! let done = device.new_semaphore(0)?;
//! second.submit(Submission::new().wait(&done, 1).run(|| println!("second")))?;
//! first.submit(Submission::new().run(|| println!("first")).signal(&done, 1))?;
//! device.run_until_idle();
//! assert_eq!(done.value()?, 1);
//! # Ok::<(), fencepost_sim::Error>(())
//! ```
//!
//! # What the scheduler may do
//!
//! Each step is drawn at random from the permitted ones. Queues, batches and handlers have random
//! weights, so that some lag far behind the others. What is permitted depends on the queue's
//! [`Order`]:
//!
//! | rule | `InOrder` | `Overlapping` | `OrderedSignals` |
//! |---|---|---|---|
//! | batches of a queue start in the order of submission | yes | yes | yes |
//! | a batch may start before the earlier ones have run | no | yes | yes |
//! | a signal, flag change or timestamp may come before earlier batches have run | no | yes | no |
//! | a later batch may overtake one that waits | no | yes | no |
//! | batches may be reported complete in another order | no | yes | no |
//!
//! Further rules, each with the APIs that permit or require it:
//!
//! * All: queues run in any order relative to each other, unless a semaphore or flag orders them
//!   ([CUDA][cuda-streams], [Vulkan][vk-order], [Metal][mtl-queue]).
//! * All: a step takes any time, so two timestamps may be equal
//!   ([CUDA][cuda-elapsed], [Vulkan][vk-timestamps]).
//! * CUDA: the commands of one stream run in order ([streams][cuda-streams]).
//! * CUDA: a wait blocks only the later work of its stream, and a later record of the event does
//!   not change the wait ([streams][cuda-wait]).
//! * CUDA: queues share a hardware channel, and a blocked queue blocks the others
//!   ([`Config::channels`]; [dependencies][cuda-channels]).
//! * Vulkan: the batches of one queue overlap. A signal follows all earlier work of the queue, and
//!   a wait blocks all later work ([order][vk-order], [semaphores][vk-semaphores]).
//! * Vulkan: a timestamp follows all earlier commands, as with the stage `ALL_COMMANDS`
//!   ([timestamps][vk-timestamps]). It may have fewer than 64 valid bits, and wraps.
//! * Vulkan: a lost device ends all waits with an error ([lost devices][vk-lost]).
//! * Metal, read strictly: the command buffers of one queue overlap, and only a wait orders one
//!   behind another ([events][mtl-event]).
//! * Metal: handlers run late, and in any order among batches and semaphores
//!   ([handlers][mtl-handler], [listeners][mtl-listener]).
//! * Vulkan and Metal: a wait may be submitted before its signal
//!   ([Vulkan][vk-semaphores], [Metal][mtl-event]).
//! * Vulkan and Metal: the host may see a signal before its batch is reported complete or has an
//!   end time ([Vulkan][vk-semaphores], [Metal][mtl-shared]).
//! * CUDA and Metal: a failed batch may stop at any command, and its later signals never come
//!   ([CUDA][cuda-errors], [Metal][mtl-buffer]).
//! * CUDA and Metal: a full queue blocks its caller. In CUDA a submit blocks, in Metal the creation
//!   of a command buffer ([CUDA][cuda-streams], [Metal][mtl-queue]). A submit may be refused
//!   instead ([`WhenFull`]).
//!
//! Apple's documentation of events can also be read so that a wait blocks the later command buffers
//! of its queue. A test of that reading gives each queue its own channel, with `channels: Some(n)`
//! for `n` queues.
//!
//! Not simulated: stages and access masks, overlap of the commands inside one batch, memory that
//! becomes visible late, priorities, and time-outs by the driver's watchdog.
//!
//! [`CallLog`], [`Planned`], [`lock()`], [`mod@control`] and [`ffi`] are for the stand-ins for
//! drivers that are built on this crate.
//!
//! [cuda-streams]: https://docs.nvidia.com/cuda/cuda-driver-api/stream-sync-behavior.html
//! [cuda-wait]: https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__STREAM.html
//! [cuda-channels]: https://docs.nvidia.com/cuda/cuda-c-programming-guide/index.html#implicit-synchronization
//! [cuda-errors]: https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__TYPES.html
//! [cuda-elapsed]: https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__EVENT.html
//! [vk-order]: https://docs.vulkan.org/spec/latest/chapters/synchronization.html#synchronization-implicit
//! [vk-semaphores]: https://docs.vulkan.org/spec/latest/chapters/synchronization.html#synchronization-semaphores
//! [vk-timestamps]: https://docs.vulkan.org/spec/latest/chapters/queries.html#queries-timestamps
//! [vk-lost]: https://docs.vulkan.org/spec/latest/chapters/devsandqueues.html#devsandqueues-lost-device
//! [mtl-queue]: https://developer.apple.com/documentation/metal/mtlcommandqueue
//! [mtl-buffer]: https://developer.apple.com/documentation/metal/mtlcommandbuffer
//! [mtl-event]: https://developer.apple.com/documentation/metal/mtlevent
//! [mtl-shared]: https://developer.apple.com/documentation/metal/mtlsharedevent
//! [mtl-handler]: https://developer.apple.com/documentation/metal/mtlcommandbuffer/addcompletedhandler(_:)
//! [mtl-listener]: https://developer.apple.com/documentation/metal/mtlsharedevent/notify(_:atvalue:block:)

#![deny(missing_docs, unsafe_code)]

mod batch;
mod call_log;
mod clock;
mod command;
mod config;
pub mod control;
mod device;
mod error;
mod fault;
pub mod ffi;
mod flag;
mod handler;
mod lifecycle;
mod lock;
mod machine;
mod object;
mod planned;
mod query;
mod queue;
mod recording;
mod schedule;
mod seed;
mod semaphore;
mod state;
mod status;
mod stepper;
mod submission;
mod timeline;
mod trace;
mod violation;

pub use call_log::CallLog;
pub use clock::{Calibration, drift_of, offset_of};
pub use command::Command;
pub use config::{Config, Order, Sticky, WhenFull};
pub use device::{SimDevice, WaitFor};
pub use error::{Error, Waited};
pub use fault::Fault;
pub use flag::{Flag, Gate};
pub use lock::lock;
pub use object::{Live, ObjectKind, QueueId};
pub use planned::Planned;
pub use query::TimestampQuery;
pub use queue::{Batch, Queue};
pub use recording::{Recording, Reuse};
pub use seed::{SEED_VARIABLE, find_seed, random_seed, seed_or, with_seeds};
pub use semaphore::Semaphore;
pub use status::{Outcome, Status};
pub use stepper::Stepper;
pub use submission::Submission;
pub use trace::{TraceEntry, TraceEvent};
pub use violation::Violation;

/// The deadline of all tests for what must happen: only a hang takes longer, whatever else the
/// machine does.
pub const HANG_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(240);
