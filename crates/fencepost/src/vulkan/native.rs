//! The native objects of a stream: its semaphores and query slots, and how long they live. The gate
//! timeline is in `gate.rs`.
//!
//! - **The marker timeline** is the timeline semaphore whose values are the stream's markers.
//! - **The work timeline** is signalled by batches that mark nothing (waits, and the work of
//!   tests). It tells when what such a batch uses is free: a semaphore must not be destroyed while
//!   a batch that waits for it is pending. A stream that only records has none.
//!
//! Whoever may use a semaphore keeps its [`Native`]: markers, streams, and batches of other streams
//! that wait for it, until these are known to be complete. If something is pending when the last of
//! them drops it, the device's watcher destroys the objects later ([`Watch::Objects`]).

use std::{
    any::Any,
    collections::VecDeque,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use ash::vk;

use super::{
    fault::Fault,
    gpu::Gpu,
    queue::SemaphoreValue,
    sightings::Sightings,
    timer::Timer,
    watcher::{DeviceWatcher, Watch},
};
use crate::sync::{Mutex, lock};

/// A stream's objects while somebody uses them.
pub(crate) struct Native {
    /// `None` only while this is dropped.
    objects: Option<Objects>,
}

/// The objects; destroyed when nothing of them is pending.
pub(crate) struct Objects {
    pub(super) gpu: Arc<Gpu>,
    pub(super) watcher: Arc<DeviceWatcher>,
    pub(super) marker_timeline: vk::Semaphore,
    /// The last value of the marker timeline that was submitted.
    submitted: AtomicU64,
    /// The only value that is signalled, where these are the objects of a reservation.
    reserved: Option<u64>,
    work_timeline: OnceLock<WorkTimeline>,
    pub(super) timer: OnceLock<Timer>,
    /// Made with the first timed marker of a device whose clock wraps.
    pub(super) sightings: OnceLock<Sightings>,
}

struct WorkTimeline {
    semaphore: vk::Semaphore,
    /// The last value that was submitted.
    last: AtomicU64,
    uses: Mutex<Uses>,
}

/// What pending batches use, by the value of the work timeline until which it must live.
pub(super) type Uses = VecDeque<(u64, Arc<dyn Any + Send + Sync>)>;

impl Native {
    /// The objects of a new stream.
    pub(super) fn new(watcher: &Arc<DeviceWatcher>) -> Result<Arc<Native>, Fault> {
        let timeline = watcher.gpu.timeline_semaphore()?;
        Ok(Native::with(watcher, timeline, None))
    }

    /// The objects of a reservation, and the value that its submit is to signal.
    pub(super) fn reserved(watcher: &Arc<DeviceWatcher>) -> Result<(Arc<Native>, u64), Fault> {
        let (timeline, reached) = watcher.take_spare()?;
        let value = reached + 1;
        Ok((Native::with(watcher, timeline, Some(value)), value))
    }

    fn with(
        watcher: &Arc<DeviceWatcher>,
        marker_timeline: vk::Semaphore,
        reserved: Option<u64>,
    ) -> Arc<Native> {
        Arc::new(Native {
            objects: Some(Objects {
                marker_timeline,
                gpu: watcher.gpu.clone(),
                watcher: watcher.clone(),
                submitted: AtomicU64::new(0),
                reserved,
                work_timeline: OnceLock::new(),
                timer: OnceLock::new(),
                sightings: OnceLock::new(),
            }),
        })
    }

    /// The stream is dropped, so no later submit frees what its last batches use: from now on the
    /// watcher does. Else two streams that waited for each other would keep each other for ever.
    pub(super) fn stream_dropped(self: &Arc<Self>) {
        let Some(work) = self.work_timeline.get() else {
            return;
        };
        if self.gpu.is_gone() {
            return;
        }
        let uses = std::mem::take(&mut *lock(&work.uses));
        let last = work.last.load(Ordering::Acquire);
        let reached = || self.gpu.counter(work.semaphore);
        if uses.is_empty() || reached().is_ok_and(|reached| reached >= last) {
            return drop(uses);
        }
        // If no thread can be started, they live until the process ends.
        let _ = self.watcher.watch(Watch::Uses {
            native: self.clone(),
            until: (work.semaphore, last),
            uses,
        });
    }
}

impl std::ops::Deref for Native {
    type Target = Objects;

    #[inline]
    fn deref(&self) -> &Objects {
        match &self.objects {
            Some(objects) => objects,
            // Taken by the drop, which has the only reference.
            None => unreachable!("a native in use is not dropped"),
        }
    }
}

impl Drop for Native {
    fn drop(&mut self) {
        let Some(mut objects) = self.objects.take() else {
            return;
        };
        if objects.gpu.is_gone() {
            // The driver must not be called.
            return std::mem::forget(objects);
        }
        if objects.pending().is_none() {
            return objects.destroy();
        }
        let watcher = objects.watcher.clone();
        // If no thread can be started, the objects live until the process ends.
        let _ = watcher.watch(Watch::objects(objects));
    }
}

impl Objects {
    /// A marker's value was submitted.
    #[inline]
    pub(super) fn was_submitted(&self, native: u64) {
        self.submitted.store(native, Ordering::Release);
    }

    /// The marker timeline was read, and has reached `counter`.
    #[inline]
    pub(super) fn reached(&self, counter: u64) {
        if let Some(sightings) = self.sightings.get() {
            sightings.reached(counter);
        }
    }

    /// Submits a batch that marks nothing: `submit` is to signal the value that it is given. `uses`
    /// lives until the batch is complete. Called under the submit lock.
    pub(super) fn submit_work(
        &self,
        uses: Arc<dyn Any + Send + Sync>,
        submit: impl FnOnce(SemaphoreValue) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let work = match self.work_timeline.get() {
            Some(work) => work,
            None => {
                let fresh = WorkTimeline {
                    semaphore: self.gpu.timeline_semaphore()?,
                    last: AtomicU64::new(0),
                    uses: Mutex::new(VecDeque::new()),
                };
                self.work_timeline.get_or_init(|| fresh)
            }
        };
        let value = work.last.load(Ordering::Relaxed) + 1;
        submit((work.semaphore, value))?;
        work.last.store(value, Ordering::Release);
        let reached = self.gpu.counter(work.semaphore).unwrap_or(0);
        let mut pending = lock(&work.uses);
        let over = pending.partition_point(|(value, _)| *value <= reached);
        let over: Vec<_> = pending.drain(..over).collect();
        pending.push_back((value, uses));
        drop(pending);
        // Dropped without the lock: this may be the last owner of another stream's objects.
        drop(over);
        Ok(())
    }

    /// The first timeline that has not reached its last value; `None` when nothing is pending.
    pub(super) fn pending(&self) -> Option<SemaphoreValue> {
        if self.gpu.lost().is_some() {
            return None;
        }
        let markers = (self.marker_timeline, self.submitted.load(Ordering::Acquire));
        let work = self.work_timeline.get();
        let work = work.map(|work| (work.semaphore, work.last.load(Ordering::Acquire)));
        [Some(markers), work]
            .into_iter()
            .flatten()
            .find(|&(semaphore, value)| {
                match self.gpu.counter(semaphore) {
                    Ok(reached) => reached < value,
                    // Nothing runs on a lost device.
                    Err(fault) => fault.result != vk::Result::ERROR_DEVICE_LOST,
                }
            })
    }

    /// Whether another reservation can use the marker timeline: the signal of this one was made, on
    /// a device that is not lost.
    fn is_spare(&self) -> bool {
        let value = self.submitted.load(Ordering::Acquire);
        let counter = || self.gpu.counter(self.marker_timeline);
        self.reserved == Some(value)
            && self.gpu.lost().is_none()
            && counter().is_ok_and(|reached| reached == value)
    }

    /// Destroys everything. Called once, when nothing is pending.
    pub(super) fn destroy(&mut self) {
        let device = &self.gpu.device;
        if let Some(timer) = self.timer.take() {
            timer.destroy(device);
        }
        let work = self.work_timeline.take().map(|work| work.semaphore);
        let markers = (self.marker_timeline, self.submitted.load(Ordering::Acquire));
        let is_kept = self.is_spare() && self.watcher.give_spare(markers);
        let markers = (!is_kept).then_some(self.marker_timeline);
        for semaphore in [markers, work].into_iter().flatten() {
            // SAFETY: made by us of this device; all batches that use it are complete, and nobody
            // else is left to ask it.
            unsafe { device.destroy_semaphore(semaphore, None) };
        }
    }
}
