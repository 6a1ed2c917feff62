//! One `VkDevice`, ours or the caller's: its functions and facts, its queues, the streams on it,
//! and the loss that ended it.
//!
//! - **Everything that belongs to the device keeps it alive.** The objects of a dropped stream are
//!   destroyed once nothing of them is pending, and keep the device until then. So a device's
//!   children are always gone before the device, and no drop waits.
//! - **Functions that a device may lack are looked up by name**, not assumed from a version: a
//!   caller's device may be older than its driver.

use std::{
    any::Any,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use ash::{Device as Table, vk};

use super::{
    fault::Fault,
    parts::{Facts, Optional, Parts},
    queue::{Queue, QueueLock, Submitter},
};
use crate::{
    clock::Clock,
    contract::StreamImpl,
    core::DeviceCore,
    error::{Cause, Error, Result},
    fork::Process,
    lost::{Loses, Lost},
    sync::{Mutex, lock},
    workers::{CallbackQueue, Pool},
};

pub(crate) struct Gpu {
    pub(crate) device: Arc<Table>,
    pub(crate) instance: ash::Instance,
    pub(crate) physical: vk::PhysicalDevice,
    pub(super) submitter: Submitter,
    /// `vkCmdWriteTimestamp2`, where the device has it.
    pub(super) write2: Option<vk::PFN_vkCmdWriteTimestamp2>,
    /// Whether the host resets queries. Else the queue does.
    pub(super) host_reset: bool,
    /// `vkGetCalibratedTimestampsKHR`, where the device has it and `VK_TIME_DOMAIN_DEVICE`.
    pub(super) calibrated: Option<vk::PFN_vkGetCalibratedTimestampsKHR>,
    /// Whether the driver spins in a wait for one of several semaphores.
    pub(super) spins: bool,
    /// Whether reading a query waits until the whole device is idle.
    reads_block: bool,
    pub(crate) name: String,
    pub(super) uuid: [u8; 16],
    pub(super) families: Vec<vk::QueueFamilyProperties>,
    pub(super) clock: Clock,
    /// Whether a timed marker was recorded in a family with fewer than 64 valid bits: from then on
    /// the host notes when it sees marks complete.
    wraps: AtomicBool,
    callbacks: Arc<CallbackQueue>,
    /// The queues that new streams are put on.
    queues: Mutex<Vec<Arc<Queue>>>,
    /// Further queues of the caller's, while they have streams.
    wrapped: Mutex<Vec<Weak<Queue>>>,
    lost: Lost<dyn GpuStream>,
    /// When it was last looked whether the device is lost.
    looked: Mutex<Instant>,
    /// Whether the process is ending, and its driver may be taken apart.
    exiting: AtomicBool,
    /// The process that it was made in.
    process: Process,
    /// `None` for a device of ours.
    keep_alive: Option<Arc<dyn Any + Send + Sync>>,
}

/// The longest sleep in the driver before a look whether the device is lost, and how far apart two
/// such looks are at least.
pub(super) const SLICE: Duration = Duration::from_secs(1);

/// Whether buffers for queues of a family may reset and copy queries: not where they only transfer.
pub(super) fn has_query_commands(family: &vk::QueueFamilyProperties) -> bool {
    let computes = vk::QueueFlags::GRAPHICS | vk::QueueFlags::COMPUTE;
    family.queue_flags.intersects(computes)
}

/// A stream, as its device knows it.
pub(super) trait GpuStream: StreamImpl + Loses {}

impl Gpu {
    /// # Safety
    /// The parts belong together and are alive, until `keep_alive` is dropped where there is one;
    /// the features that they name, and timeline semaphores, are enabled.
    pub(super) unsafe fn new(parts: Parts) -> Result<Arc<Gpu>> {
        // SAFETY: passed on to the caller, here and below.
        let optional = unsafe { Optional::find(&parts) }?;
        // SAFETY: as above.
        let facts = unsafe { Facts::of(&parts) };
        Ok(Arc::new(Gpu {
            submitter: Submitter {
                submit2: optional.submit2,
                submit: parts.device.fp_v1_0().queue_submit,
            },
            write2: optional.write2,
            host_reset: optional.host_reset,
            calibrated: optional.calibrated,
            spins: facts.driver == vk::DriverId::MESA_LLVMPIPE,
            reads_block: facts.driver == vk::DriverId::MESA_LLVMPIPE,
            clock: facts.clock(),
            wraps: AtomicBool::new(false),
            device: Arc::new(parts.device),
            instance: parts.instance,
            physical: parts.physical,
            uuid: facts.uuid,
            families: facts.families,
            callbacks: Arc::new(CallbackQueue::new(Arc::new(Pool::new(1)))),
            queues: Mutex::new(Vec::new()),
            wrapped: Mutex::new(Vec::new()),
            lost: Lost::new(parts.name.clone()),
            looked: Mutex::new(Instant::now()),
            name: parts.name,
            exiting: AtomicBool::new(false),
            process: Process::this(),
            keep_alive: parts.keep_alive,
        }))
    }

    pub(super) fn device_core(&self) -> Arc<DeviceCore> {
        DeviceCore::new(
            self.name.clone(),
            self.clock.clone(),
            self.callbacks.clone(),
        )
    }

    pub(super) fn is_forked(&self) -> bool {
        !self.process.is_this()
    }

    /// An error in a forked child. It comes before any lock, since a thread of the parent may hold
    /// one, and before the driver.
    #[inline]
    pub(super) fn check_fork(&self) -> Result<()> {
        match self.process.is_this() {
            true => Ok(()),
            false => Err(Error::Forked {
                device: self.name.clone(),
            }),
        }
    }

    /// The process is ending: the driver is not called any more.
    pub(super) fn exit(&self) {
        self.exiting.store(true, Ordering::Release);
    }

    /// Whether the driver must not be called: in a forked child, and when the process is ending.
    /// Drops then destroy nothing.
    pub(crate) fn is_gone(&self) -> bool {
        self.exiting.load(Ordering::Acquire) || self.is_forked()
    }

    /// Whether buffers for queues of `family` copy the times that they write into host memory,
    /// since reading them from the query would block. A queue that only transfers cannot copy
    /// queries: VUID-vkCmdCopyQueryPoolResults-commandBuffer-cmdpool.
    pub(super) fn copies_times(&self, family: u32) -> bool {
        let family = self.families.get(family as usize);
        self.reads_block && family.is_some_and(has_query_commands)
    }

    /// Timestamps of so many valid bits are written from now on.
    pub(super) fn writes_bits(&self, bits: u32) {
        if bits < 64 {
            self.wraps.store(true, Ordering::Relaxed);
        }
    }

    /// Whether times of this device may wrap.
    #[inline]
    pub(super) fn wraps(&self) -> bool {
        self.wraps.load(Ordering::Relaxed)
    }

    /// Adds a queue that new streams are put on.
    pub(super) fn add_queue(&self, queue: Queue) {
        lock(&self.queues).push(Arc::new(queue));
    }

    /// The queue with the fewest streams.
    pub(super) fn quietest_queue(&self) -> Option<Arc<Queue>> {
        let queues = lock(&self.queues);
        queues.iter().min_by_key(|queue| queue.users()).cloned()
    }

    /// A queue of the caller's. A queue that is known already keeps its lock, since two locks would
    /// guard nothing.
    pub(super) fn wrapped_queue(
        &self,
        raw: vk::Queue,
        family: u32,
        guard: Arc<dyn QueueLock>,
    ) -> Arc<Queue> {
        let known = lock(&self.queues)
            .iter()
            .find(|queue| queue.raw == raw)
            .cloned();
        if let Some(known) = known {
            return known;
        }
        // Dropped behind the lock: by then each may be the last owner, whose drop drops a lock of
        // the caller's.
        let alive: Vec<_>;
        let mut wrapped = lock(&self.wrapped);
        wrapped.retain(|queue| queue.strong_count() > 0);
        alive = wrapped.iter().filter_map(Weak::upgrade).collect();
        if let Some(known) = alive.iter().find(|queue: &&Arc<Queue>| queue.raw == raw) {
            return known.clone();
        }
        let queue = Arc::new(Queue::new(raw, family, Some(guard)));
        wrapped.push(Arc::downgrade(&queue));
        queue
    }

    /// See [`Lost::add`].
    pub(super) fn add_stream(&self, stream: Arc<dyn GpuStream>) {
        self.lost.add(&stream);
    }

    pub(super) fn streams(&self) -> Vec<Arc<dyn GpuStream>> {
        self.lost.streams()
    }

    /// The error of every call, once the device is lost.
    pub(super) fn lost(&self) -> Option<Error> {
        self.lost.error()
    }

    /// See [`Lost::check`].
    pub(super) fn check_loss(&self, stream: &dyn GpuStream) -> Result<()> {
        self.lost.check(stream)
    }

    /// Looks whether the device is lost, where something has not come; at most once in a [`SLICE`],
    /// so that waits in small slices may call it after each. NVIDIA's driver tells a loss by a
    /// submit alone (seen on an H200, driver 580.159.04): until then waits time out, and counters
    /// and fences say that all is pending. A loss fails every stream. Call it without any lock.
    pub(super) fn look_for_a_loss(&self) {
        if self.is_gone() || self.lost().is_some() {
            return;
        }
        let mut looked = lock(&self.looked);
        if looked.elapsed() < SLICE {
            return;
        }
        *looked = Instant::now();
        drop(looked);
        let queues = lock(&self.queues).clone();
        let submit = self.submitter.submit;
        let lost = |queue: &Arc<Queue>| {
            queue.submit_nothing(submit) == Some(vk::Result::ERROR_DEVICE_LOST)
        };
        if queues.iter().any(lost) {
            self.failed(Fault {
                call: "vkQueueSubmit",
                result: vk::Result::ERROR_DEVICE_LOST,
            });
        }
    }

    /// The error of a call that the driver refused. A loss fails every stream, with the first such
    /// call as the cause. Call it without any lock.
    #[cold]
    pub(crate) fn failed(&self, fault: Fault) -> Error {
        if self.is_forked() {
            return Error::Forked {
                device: self.name.clone(),
            };
        }
        if fault.result != vk::Result::ERROR_DEVICE_LOST {
            return fault.error();
        }
        let cause = || {
            Cause::new(format!(
                "{} said that the device is lost: a fault of the work on it, or of its driver",
                fault.call
            ))
        };
        self.lost.declare(cause)
    }

    /// A new timeline semaphore, with the value 0.
    pub(super) fn timeline_semaphore(&self) -> Result<vk::Semaphore, Fault> {
        let mut kind = vk::SemaphoreTypeCreateInfo::default()
            .semaphore_type(vk::SemaphoreType::TIMELINE)
            .initial_value(0);
        let info = vk::SemaphoreCreateInfo::default().push_next(&mut kind);
        // SAFETY: the device is alive and has timeline semaphores; the chain is alive during the
        // call.
        unsafe { self.device.create_semaphore(&info, None) }.map_err(Fault::of("vkCreateSemaphore"))
    }

    /// The value of a timeline semaphore. Never blocks.
    #[inline]
    pub(super) fn counter(&self, semaphore: vk::Semaphore) -> Result<u64, Fault> {
        /// No stream reaches this value. Some drivers report a lost device by such a value and the
        /// result of a success ([Vulkan-ValidationLayers
        /// #4566](https://github.com/KhronosGroup/Vulkan-ValidationLayers/issues/4566)).
        const BEYOND: u64 = 1 << 63;
        // SAFETY: a timeline semaphore of this device, which its owner keeps alive.
        let value = match unsafe { self.device.get_semaphore_counter_value(semaphore) } {
            Ok(BEYOND..) => Err(vk::Result::ERROR_DEVICE_LOST),
            other => other,
        };
        value.map_err(Fault::of("vkGetSemaphoreCounterValue"))
    }

    /// Signals a timeline semaphore from the host. Only a lost device refuses that, and there
    /// nothing waits any more.
    pub(super) fn signal(&self, semaphore: vk::Semaphore, value: u64) {
        if self.is_gone() {
            return;
        }
        let info = vk::SemaphoreSignalInfo::default()
            .semaphore(semaphore)
            .value(value);
        // SAFETY: a timeline semaphore that only the host signals, with growing values.
        let _ = unsafe { self.device.signal_semaphore(&info) };
    }
}

impl Drop for Gpu {
    fn drop(&mut self) {
        if self.is_gone() {
            return;
        }
        let device = &self.device;
        if self.keep_alive.is_none() {
            // SAFETY: made by us; whatever was made of it kept it, and is destroyed. Every
            // semaphore has reached its last value, so this waits at most for what a queue does
            // behind its last signal.
            unsafe {
                let _ = device.device_wait_idle();
                device.destroy_device(None);
            }
        }
    }
}
