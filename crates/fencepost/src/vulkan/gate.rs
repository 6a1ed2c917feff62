//! Host gates: what a stream waits for until the host lets it go on.
//!
//! All gates of a stream are values of one timeline semaphore, its *gate timeline*, which the host
//! alone signals. A semaphore for each gate would cost more than all else that a gate does: on
//! NVIDIA's driver 580.159.04 some 500 µs to make and destroy it.

use std::sync::Arc;

use ash::vk;

use super::{fault::Fault, gpu::Gpu, queue::SemaphoreValue};
use crate::epochs::HostGates;

/// The gate timeline of a stream. It is destroyed when the stream and all of its gates are dropped.
pub(crate) struct GateTimeline {
    gpu: Arc<Gpu>,
    semaphore: vk::Semaphore,
    gates: HostGates,
}

impl GateTimeline {
    pub(super) fn new(gpu: &Arc<Gpu>) -> Result<GateTimeline, Fault> {
        Ok(GateTimeline {
            semaphore: gpu.timeline_semaphore()?,
            gpu: gpu.clone(),
            gates: HostGates::new(),
        })
    }

    /// A closed gate. Call it under the submit lock of the stream.
    pub(super) fn new_gate(self: &Arc<Self>) -> Arc<HostGate> {
        Arc::new(HostGate {
            ticket: self.gates.take(),
            timeline: self.clone(),
        })
    }

    /// For the end of the process: opens all gates.
    pub(super) fn open_all(&self) {
        self.gates.all_done(|last| self.signal(last));
    }

    /// Opens all gates up to that of the ticket `last`. Called under the lock of the gates.
    ///
    /// The difference that every driver takes (`maxTimelineSemaphoreValueDifference`, at least
    /// 2³¹ − 1) is not reached: values differ by no more than the number of gates that wait.
    fn signal(&self, last: u64) {
        let opened = self.gpu.counter(self.semaphore);
        // In turn, although the last signal alone would open them all: where one signal ends waits
        // for several values, the validation layer (1.3.239) forgets the lowest of them in place of
        // the signal, and later takes that for pending.
        for value in opened.unwrap_or(last.saturating_sub(1)) + 1..=last {
            self.gpu.signal(self.semaphore, value);
        }
    }
}

impl Drop for GateTimeline {
    fn drop(&mut self) {
        if !self.gpu.is_gone() {
            // SAFETY: made by us; the batches that wait for it are complete, since each has kept
            // its gate until then (`Objects::submit_work`).
            unsafe { self.gpu.device.destroy_semaphore(self.semaphore, None) };
        }
    }
}

/// A value of the gate timeline. It is signalled once this gate and all in front of it were opened,
/// which is no later for the stream, since it does its work in order.
pub(crate) struct HostGate {
    timeline: Arc<GateTimeline>,
    ticket: u64,
}

impl HostGate {
    /// What a batch waits for, to be held by the gate. The batch keeps the gate until it is
    /// complete.
    pub(super) fn opening(&self) -> SemaphoreValue {
        (self.timeline.semaphore, self.ticket)
    }

    /// Idempotent.
    pub(crate) fn open(&self) {
        let GateTimeline { gpu, gates, .. } = &*self.timeline;
        // Asked first: in a forked child a thread of the parent may hold the lock of the gates.
        if !gpu.is_gone() {
            gates.done(self.ticket, |last| self.timeline.signal(last));
        }
    }
}

/// A gate whose wait was refused is opened by nobody, and must not hold back those behind it.
impl Drop for HostGate {
    fn drop(&mut self) {
        self.open();
    }
}
