//! A hardware queue and the lock that guards it.

use std::{
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        Arc, Weak,
        atomic::{AtomicUsize, Ordering},
    },
};

use ash::vk;

use super::gpu::Fault;
use crate::{
    core::StreamCore,
    sync::{Mutex, lock},
    vulkan::QueueLock,
};

pub(crate) struct Queue {
    pub(super) raw: vk::Queue,
    pub(super) family: u32,
    lock: Guard,
    /// How many streams share it.
    pub(super) users: AtomicUsize,
    /// Who they are, for waits that hold all of them up.
    streams: Mutex<Vec<Weak<StreamCore>>>,
}

enum Guard {
    Ours(Mutex<()>),
    Callers(Arc<dyn QueueLock>),
}

/// A value on a timeline semaphore.
pub(super) type Point = (vk::Semaphore, u64);

/// One submit.
#[derive(Clone, Copy, Default)]
pub(super) struct Batch {
    pub(super) wait: Option<Point>,
    pub(super) buffer: Option<vk::CommandBuffer>,
    pub(super) signal: Option<Point>,
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

    /// Calls `call` with nobody else at the queue.
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
                    // Nothing was submitted.
                    (Err(panic), None) => resume_unwind(panic),
                    // What was submitted counts, whatever the lock does behind it.
                    (_, result) => result,
                }
            }
        }
    }

    /// The streams whose work is on it.
    pub(super) fn streams(&self) -> Vec<Arc<StreamCore>> {
        let streams = lock(&self.streams);
        streams.iter().filter_map(Weak::upgrade).collect()
    }

    pub(super) fn add(&self, stream: &Arc<StreamCore>) {
        self.users.fetch_add(1, Ordering::Relaxed);
        let mut streams = lock(&self.streams);
        streams.retain(|stream| stream.strong_count() > 0);
        streams.push(Arc::downgrade(stream));
    }
}

/// How this device is submitted to.
#[derive(Clone, Copy)]
pub(super) struct Submitter {
    /// `vkQueueSubmit2`, where the device has it.
    pub(super) two: Option<vk::PFN_vkQueueSubmit2>,
    pub(super) one: vk::PFN_vkQueueSubmit,
}

impl Submitter {
    /// Submits `batch`. The device may begin before this returns.
    ///
    /// A wait holds back everything that is submitted to the queue later, and a signal comes after
    /// everything that was submitted before it: both scopes cover the submission order
    /// ([semaphores](https://registry.khronos.org/vulkan/specs/latest/html/vkspec.html#synchronization-semaphores-signaling)).
    #[inline]
    pub(super) fn submit(&self, queue: &Queue, batch: Batch) -> Result<(), Fault> {
        let call = match self.two {
            Some(_) => "vkQueueSubmit2",
            None => "vkQueueSubmit",
        };
        let result = match self.two {
            Some(two) => two_infos(two, queue, batch),
            None => one_info(self.one, queue, batch),
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
fn two_infos(submit: vk::PFN_vkQueueSubmit2, queue: &Queue, batch: Batch) -> Option<vk::Result> {
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
        // alive until the batch is complete: streams keep what they submit (native.rs). The buffer
        // is not pending.
        // https://registry.khronos.org/vulkan/specs/latest/man/html/vkQueueSubmit2.html
        unsafe { submit(raw, 1, &raw const info, vk::Fence::null()) }
    })
}

#[inline]
fn one_info(submit: vk::PFN_vkQueueSubmit, queue: &Queue, batch: Batch) -> Option<vk::Result> {
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
        // SAFETY: as in `two_infos`.
        // https://registry.khronos.org/vulkan/specs/latest/man/html/vkQueueSubmit.html
        unsafe { submit(raw, 1, &raw const info, vk::Fence::null()) }
    })
}
