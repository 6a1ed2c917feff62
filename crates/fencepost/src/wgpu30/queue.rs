//! The caller's queue, as the streams on it share it.

use std::{mem::ManuallyDrop, sync::Arc};

use super::{exit, gpu::Gpu, watcher::Watch};

pub(super) struct SharedQueue {
    pub(super) raw: ManuallyDrop<wgpu::Queue>,
    gpu: Arc<Gpu>,
}

impl SharedQueue {
    pub(super) fn new(gpu: &Arc<Gpu>, raw: wgpu::Queue) -> Arc<SharedQueue> {
        Arc::new(SharedQueue {
            raw: ManuallyDrop::new(raw),
            gpu: gpu.clone(),
        })
    }
}

/// wgpu's last owner of a queue waits until it is idle, and nobody can tell who is the last. So the
/// watcher's thread drops this one.
impl Drop for SharedQueue {
    fn drop(&mut self) {
        if self.gpu.is_gone() {
            return;
        }
        // SAFETY: dropped once, here, and not used after.
        let raw = unsafe { ManuallyDrop::take(&mut self.raw) };
        exit::will_be_destroyed();
        // If no thread can be started, it lives until the process ends.
        let _ = self.gpu.watch(Watch::queue(&self.gpu, raw));
    }
}
