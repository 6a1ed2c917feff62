//! Host gates: what a stream waits for until the host lets it go on.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use ash::vk;

use super::{fault::Fault, gpu::Gpu, queue::SemaphoreValue};

/// A timeline semaphore that the host signals once, with 1. One semaphore could serve several
/// gates, but then the validation layer (1.3.239) takes an earlier signal of the host for pending.
pub(crate) struct HostGate {
    gpu: Arc<Gpu>,
    semaphore: vk::Semaphore,
    opened: AtomicBool,
}

impl HostGate {
    /// A closed gate.
    pub(super) fn new(gpu: &Arc<Gpu>) -> Result<HostGate, Fault> {
        Ok(HostGate {
            semaphore: gpu.timeline_semaphore()?,
            gpu: gpu.clone(),
            opened: AtomicBool::new(false),
        })
    }

    /// What a batch waits for, to be held by the gate. The batch keeps the gate until it is
    /// complete.
    pub(super) fn opening(&self) -> SemaphoreValue {
        (self.semaphore, 1)
    }

    /// Idempotent: a value may be signalled once.
    pub(crate) fn open(&self) {
        if !self.opened.swap(true, Ordering::AcqRel) {
            self.gpu.signal(self.semaphore, 1);
        }
    }
}

impl Drop for HostGate {
    fn drop(&mut self) {
        if !self.gpu.is_gone() {
            // SAFETY: made by us; the batch that waits for it is complete, since it has kept the
            // gate until then (`Objects::submit_work`).
            unsafe { self.gpu.device.destroy_semaphore(self.semaphore, None) };
        }
    }
}
