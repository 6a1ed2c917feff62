//! The caller's queue, as the streams on it share it.

use std::{
    mem::{ManuallyDrop, forget},
    sync::Arc,
};

#[cfg(target_vendor = "apple")]
use super::metal::HalQueue;
use super::{exit, gpu::Gpu, signal::Told, watcher::Watch};
#[cfg(not(target_vendor = "apple"))]
use super::{vulkan::HalQueue, watcher::Due};
use crate::{
    panics::contain,
    sync::{Mutex, lock},
    watcher::Watched,
};

pub(super) struct SharedQueue {
    pub(super) raw: ManuallyDrop<wgpu::Queue>,
    hal: ManuallyDrop<Option<HalQueue>>,
    gpu: Arc<Gpu>,
}

impl SharedQueue {
    pub(super) fn new(gpu: &Arc<Gpu>, raw: wgpu::Queue) -> Arc<SharedQueue> {
        Arc::new(SharedQueue {
            hal: ManuallyDrop::new(HalQueue::of(&raw)),
            raw: ManuallyDrop::new(raw),
            gpu: gpu.clone(),
        })
    }

    /// The queue as wgpu-hal has it, on Vulkan and Metal.
    pub(super) fn hal(&self) -> Option<&HalQueue> {
        self.hal.as_ref()
    }
}

/// wgpu's last owner of a queue waits until it is idle, and nobody can tell who is the last. So the
/// watcher's thread drops this one, once what was submitted until now is over.
impl Drop for SharedQueue {
    fn drop(&mut self) {
        if self.gpu.is_gone() {
            return;
        }
        // SAFETY: dropped once, here, and not used after.
        let raw = unsafe { ManuallyDrop::take(&mut self.raw) };
        // SAFETY: as above.
        let hal = unsafe { ManuallyDrop::take(&mut self.hal) };
        exit::will_be_destroyed();
        let over = Told::new();
        let tell = over.tell(1);
        contain(|| raw.on_submitted_work_done(move || drop(tell)));
        // If no thread can be started, it lives until the process ends.
        let _ = self.gpu.watch(LastQueue {
            gpu: self.gpu.clone(),
            over,
            queue: Mutex::new(Some((raw, hal))),
        });
    }
}

/// A queue that no stream uses any more. The watcher's thread must not wait in its drop: it would
/// tell nobody of other markers meanwhile.
struct LastQueue {
    gpu: Arc<Gpu>,
    /// Whether what was submitted before is over.
    over: Arc<Told>,
    queue: Mutex<Option<(wgpu::Queue, Option<HalQueue>)>>,
}

impl Watched for LastQueue {
    fn key(&self) -> (usize, u64) {
        (Arc::as_ptr(&self.gpu) as usize + 2, 0)
    }

    fn look(&self) -> bool {
        // Nothing more comes of a lost device.
        let is_lost = self.gpu.poll().is_err();
        if self.over.value() == 0 && !is_lost {
            return false;
        }
        let queue = lock(&self.queue).take();
        // It waits where the caller's last owner was dropped with later work. It calls callbacks of
        // the user's.
        contain(|| drop(queue));
        true
    }
}

impl Watch for LastQueue {
    #[cfg(not(target_vendor = "apple"))]
    fn due(&self) -> Due<'_> {
        Due::Poll
    }
}

/// What could not be watched to its end lives until the process ends.
impl Drop for LastQueue {
    fn drop(&mut self) {
        forget(lock(&self.queue).take());
    }
}
