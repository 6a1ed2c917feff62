//! A simulated device, for tests only.
//!
//! It is a **stand-in**: it has queues, semaphores, timestamps and faults, and a scheduler that
//! does whatever the real APIs permit, so that a missing wait or a wrong assumption about order
//! shows on some seed. It runs no kernels, has no memory model and no real timing, and knows no
//! driver's bugs. **It never counts as hardware**: what passes here is only known not to rely on
//! what the APIs do not promise, as this crate reads them.
//!
//! A [`SimDevice`] has [`Queue`]s; a queue takes a [`Submission`], a list of [`Command`]s, and
//! gives back a [`Batch`]. [`Semaphore`]s, [`Flag`]s and [`Gate`]s hold commands back, [`Slot`]s
//! take timestamps, [`Fault`]s break things. What happened is in [`SimDevice::trace`], what should
//! not have been done in [`SimDevice::violations`], what still lives in [`SimDevice::live`].
//! Devices made with [`SimDevice::another`] stand on one machine: they share its scheduler and host
//! clock, and may use each other's objects.
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
//! At each step one of the permitted things happens, drawn from the seed. Every queue, batch and
//! handler has a random eagerness, so that some lag far behind the rest. By [`Order`]:
//!
//! | rule | `InOrder` | `Overlapping` | `OrderedSignals` |
//! |---|---|---|---|
//! | batches of a queue start in the order of submission | yes | yes | yes |
//! | a batch may start before the earlier ones have run | no | yes | yes |
//! | a signal, a flag's change or a timestamp may come before earlier batches have run | no | yes | no |
//! | a later batch may pass one that waits | no | yes | no |
//! | batches may be reported complete in another order | no | yes | no |
//!
//! | rule, on every queue | permitted by | reference |
//! |---|---|---|
//! | queues run in any order among each other, unless a semaphore or flag orders them | all | [CUDA][cuda-streams], [Vulkan][vk-order], [Metal][mtl-queue] |
//! | commands of one stream run in order | CUDA | [CUDA][cuda-streams] |
//! | a wait holds back what comes later in its stream only, and a later record does not change it | CUDA | [CUDA][cuda-wait] |
//! | batches of one queue overlap, but a signal comes after, and a wait before, the rest of the queue | Vulkan | [Vulkan][vk-order], [semaphores][vk-semaphores] |
//! | the timestamp comes after all earlier commands (as with the stage `ALL_COMMANDS`) | Vulkan | [Vulkan][vk-timestamps] |
//! | command buffers of one queue overlap; only a wait orders a buffer behind another | Metal, read strictly | [Metal][mtl-event] |
//! | queues share a hardware channel, and a stopped one stops the rest ([`Config::channels`]) | CUDA | [CUDA][cuda-channels] |
//! | waits for values that nobody has submitted yet | Vulkan, Metal | [Vulkan][vk-semaphores], [Metal][mtl-event] |
//! | a semaphore's value is seen before the batch that signals it is reported complete, or has an end time | Vulkan, Metal | [Vulkan][vk-semaphores], [Metal][mtl-shared] |
//! | handlers come late, and in any order among batches and semaphores | Metal | [Metal][mtl-handler], [listeners][mtl-listener] |
//! | the work of a failed batch stops anywhere, and its signals never come | CUDA, Metal | [CUDA][cuda-errors], [Metal][mtl-buffer] |
//! | a lost device ends all waits with an error | Vulkan | [Vulkan][vk-lost] |
//! | steps take any time, so that two timestamps may be equal | all | [CUDA][cuda-elapsed], [Vulkan][vk-timestamps] |
//! | a timestamp has fewer than 64 valid bits and wraps | Vulkan | [Vulkan][vk-timestamps] |
//! | a submit to a full queue blocks or is refused | CUDA blocks; Metal blocks for a new buffer | [CUDA][cuda-streams], [Metal][mtl-queue] |
//!
//! Apple's text on events can also be read so that a wait holds back the later buffers of its
//! queue. A test that wants this reading too gives each queue a channel of its own: `channels:
//! Some(n)` with as many as there are queues.
//!
//! Not simulated: stages and access masks, overlap of the commands inside one batch, memory that
//! becomes visible late, priorities, time-outs by the driver's watchdog.
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

mod clock;
mod config;
mod device;
mod driver;
mod error;
mod fault;
mod flag;
mod ledger;
mod life;
mod machine;
mod queue;
mod schedule;
mod seed;
mod semaphore;
mod state;
mod trace;

pub use clock::{Calibration, Slot};
pub use config::{Config, Order, Sticky, WhenFull};
pub use device::{SimDevice, WaitFor};
pub use driver::Driver;
pub use error::{Error, Waited};
pub use fault::Fault;
pub use flag::{Flag, Gate, Recording, Reuse};
pub use ledger::{Kind, Live, Violation};
pub use queue::{Batch, Command, Outcome, Queue, QueueId, Status, Submission};
pub use seed::{SEED_VARIABLE, find_seed, seed_or, with_seeds};
pub use semaphore::Semaphore;
pub use trace::{TraceEntry, TraceEvent};
