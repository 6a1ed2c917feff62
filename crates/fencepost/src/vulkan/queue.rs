//! A hardware queue and the lock that guards it.

use std::{
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        Arc, PoisonError, TryLockError, Weak,
        atomic::{AtomicUsize, Ordering},
    },
};

use ash::vk;

use super::fault::Fault;
use crate::{
    core::StreamCore,
    sync::{Mutex, lock},
};

/// The lock that the caller guards a queue with: Vulkan lets one thread at a time use a queue.
///
/// Streams take it in the calling thread, for one submit at a time; no thread of the library ever
/// does. So a thread that holds it must not call a stream of that queue, nor an event that another
/// thread may be recording there.
///
/// ```
/// use std::sync::{Arc, Mutex};
/// use fencepost::vulkan::QueueLock;
/// let lock: Arc<dyn QueueLock> = Arc::new(Mutex::new(()));
/// let mut ran = false;
/// lock.locked(&mut || ran = true);
/// assert!(ran);
/// ```
pub trait QueueLock: Send + Sync {
    /// Calls `submit` once, while no other thread uses the queue. A panic before that call reaches
    /// the caller of the stream. A panic after it is caught, since the work is submitted.
    fn locked(&self, submit: &mut dyn FnMut());
}

impl<T: Send> QueueLock for Mutex<T> {
    fn locked(&self, submit: &mut dyn FnMut()) {
        let _alone = self.lock().unwrap_or_else(PoisonError::into_inner);
        submit();
    }
}

pub(crate) struct Queue {
    pub(super) raw: vk::Queue,
    pub(crate) family: u32,
    lock: Guard,
    /// How many streams are on it.
    users: AtomicUsize,
    /// The streams on it: a wait for a host gate holds all of them.
    streams: Mutex<Vec<Weak<StreamCore>>>,
}

enum Guard {
    Ours(Mutex<()>),
    Callers(Arc<dyn QueueLock>),
}

/// A timeline semaphore and a value of it.
pub(super) type SemaphoreValue = (vk::Semaphore, u64);

/// What one submit does: waits, then runs the buffer, then signals.
#[derive(Clone, Copy, Default)]
pub(super) struct Batch {
    pub(super) wait: Option<SemaphoreValue>,
    pub(super) buffer: Option<vk::CommandBuffer>,
    pub(super) signal: Option<SemaphoreValue>,
}

impl Queue {
    pub(super) fn new(raw: vk::Queue, family: u32, lock: Option<Arc<dyn QueueLock>>) -> Queue {
        Queue {
            raw,
            family,
            lock: match lock {
                None => Guard::Ours(Mutex::new(())),
                Some(lock) => Guard::Callers(lock),
            },
            users: AtomicUsize::new(0),
            streams: Mutex::new(Vec::new()),
        }
    }

    /// Calls `call` under the queue's lock; `None` if the caller's lock does not call it.
    #[inline]
    pub(super) fn locked<R>(&self, call: impl FnOnce(vk::Queue) -> R) -> Option<R> {
        match &self.lock {
            Guard::Ours(mutex) => {
                let _alone = lock(mutex);
                Some(call(self.raw))
            }
            Guard::Callers(theirs) => {
                let (mut call, mut result) = (Some(call), None);
                let mut once = || {
                    if let Some(call) = call.take() {
                        result = Some(call(self.raw));
                    }
                };
                let locked = catch_unwind(AssertUnwindSafe(|| theirs.locked(&mut once)));
                match (locked, result) {
                    (Err(panic), None) => resume_unwind(panic),
                    // Something was submitted: that counts, even if the lock panicked later.
                    (_, result) => result,
                }
            }
        }
    }

    /// What the driver says to a submit of nothing; `None` where the lock is taken, or the
    /// caller's: no thread of the library waits for either.
    pub(super) fn submit_nothing(&self, submit: vk::PFN_vkQueueSubmit) -> Option<vk::Result> {
        let Guard::Ours(mutex) = &self.lock else {
            return None;
        };
        let _alone = match mutex.try_lock() {
            Ok(alone) => alone,
            // What the caller did under the lock has panicked: see `with_queue`.
            Err(TryLockError::Poisoned(alone)) => alone.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        // SAFETY: the queue's lock is held, and there is no batch.
        // https://registry.khronos.org/vulkan/specs/latest/man/html/vkQueueSubmit.html
        Some(unsafe { submit(self.raw, 0, std::ptr::null(), vk::Fence::null()) })
    }

    /// How many streams are on it.
    pub(super) fn users(&self) -> usize {
        self.users.load(Ordering::Relaxed)
    }

    pub(super) fn remove_stream(&self) {
        self.users.fetch_sub(1, Ordering::Relaxed);
    }

    /// The streams on it.
    pub(super) fn streams(&self) -> Vec<Arc<StreamCore>> {
        let streams = lock(&self.streams);
        streams.iter().filter_map(Weak::upgrade).collect()
    }

    pub(super) fn add_stream(&self, stream: &Arc<StreamCore>) {
        self.users.fetch_add(1, Ordering::Relaxed);
        let mut streams = lock(&self.streams);
        streams.retain(|stream| stream.strong_count() > 0);
        streams.push(Arc::downgrade(stream));
    }
}

/// The function that submits to the queues of a device.
#[derive(Clone, Copy)]
pub(super) struct Submitter {
    /// `vkQueueSubmit2`, where the device has it.
    pub(super) submit2: Option<vk::PFN_vkQueueSubmit2>,
    pub(super) submit: vk::PFN_vkQueueSubmit,
}

impl Submitter {
    /// Submits `batch`. The device may begin before this returns.
    ///
    /// A wait holds back everything that is submitted to the queue later, and a signal comes after
    /// everything that was submitted before it: both scopes cover the submission order
    /// ([semaphore signaling][1]).
    ///
    /// [1]: https://registry.khronos.org/vulkan/specs/latest/html/vkspec.html#synchronization-semaphores-signaling
    #[inline]
    pub(super) fn submit(&self, queue: &Queue, batch: Batch) -> Result<(), Fault> {
        let (call, result) = match self.submit2 {
            Some(submit2) => ("vkQueueSubmit2", with_submit2(submit2, queue, batch)),
            None => ("vkQueueSubmit", with_submit(self.submit, queue, batch)),
        };
        match result {
            Some(vk::Result::SUCCESS) => Ok(()),
            Some(result) => Err(Fault { call, result }),
            None => Err(Fault {
                call: "QueueLock::locked",
                result: vk::Result::ERROR_UNKNOWN,
            }),
        }
    }
}

#[inline]
fn with_submit2(
    submit2: vk::PFN_vkQueueSubmit2,
    queue: &Queue,
    batch: Batch,
) -> Option<vk::Result> {
    let point = |(semaphore, value)| {
        vk::SemaphoreSubmitInfo::default()
            .semaphore(semaphore)
            .value(value)
            .stage_mask(vk::PipelineStageFlags2::ALL_COMMANDS)
    };
    let wait = batch.wait.map(point);
    let signal = batch.signal.map(point);
    let buffer = batch
        .buffer
        .map(|buffer| vk::CommandBufferSubmitInfo::default().command_buffer(buffer));
    let info = vk::SubmitInfo2::default()
        .wait_semaphore_infos(wait.as_slice())
        .command_buffer_infos(buffer.as_slice())
        .signal_semaphore_infos(signal.as_slice());
    queue.locked(|raw| {
        // SAFETY: the queue's lock is held. The semaphores and the buffer are of this device, and
        // streams keep them until the batch is complete (native.rs). The buffer is not pending.
        // https://registry.khronos.org/vulkan/specs/latest/man/html/vkQueueSubmit2.html
        unsafe { submit2(raw, 1, &raw const info, vk::Fence::null()) }
    })
}

#[inline]
fn with_submit(submit: vk::PFN_vkQueueSubmit, queue: &Queue, batch: Batch) -> Option<vk::Result> {
    let wait = batch.wait.unzip();
    let signal = batch.signal.unzip();
    let stage = batch.wait.map(|_| vk::PipelineStageFlags::ALL_COMMANDS);
    let mut values = vk::TimelineSemaphoreSubmitInfo::default()
        .wait_semaphore_values(wait.1.as_slice())
        .signal_semaphore_values(signal.1.as_slice());
    let info = vk::SubmitInfo::default()
        .wait_semaphores(wait.0.as_slice())
        .wait_dst_stage_mask(stage.as_slice())
        .command_buffers(batch.buffer.as_slice())
        .signal_semaphores(signal.0.as_slice())
        .push_next(&mut values);
    queue.locked(|raw| {
        // SAFETY: as in `with_submit2`.
        // https://registry.khronos.org/vulkan/specs/latest/man/html/vkQueueSubmit.html
        unsafe { submit(raw, 1, &raw const info, vk::Fence::null()) }
    })
}
