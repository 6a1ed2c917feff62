//! What records the spans of one stream.

use std::sync::{Arc, Weak};

use super::pending::Pending;
use crate::{
    contract::{Backend, StreamImpl},
    core::StreamCore,
    device::Device,
    event::Event,
    stream::Stream,
    sync::{Mutex, lock},
};

pub(super) struct Recorder {
    /// The trace that it is of.
    pub(super) trace: u64,
    pub(super) track: u32,
    pub(super) core: Arc<StreamCore>,
    /// `None` once it is closed: threads keep recorders within reach, and no device with them.
    device: Mutex<Option<Device>>,
    stream: Weak<dyn StreamImpl>,
    pub(super) pending: Pending<Pair>,
    /// So many ended spans wake who collects.
    share: usize,
    /// And each so many more.
    step: usize,
}

/// The events of a span, which are recorded again for the next one.
pub(super) struct Pair {
    pub(super) start: Event,
    pub(super) end: Event,
    pub(super) recorder: Arc<Recorder>,
}

/// How many spans of a stream are pending at most, where the user has not said. Each is two records
/// in the driver's queue, behind work that the device has not come to.
///
/// | backend | its queue takes | so |
/// |---|---|---|
/// | CUDA | some 1,020 timed records, together with launches | half |
/// | Metal | 64 command buffers that are not completed, and each record is one | a quarter |
/// | Vulkan, OpenCL, wgpu, host | what memory holds | more |
fn budget(backend: Backend) -> usize {
    match backend {
        Backend::Cuda => 256,
        Backend::Metal => 8,
        Backend::Vulkan | Backend::OpenCl | Backend::Wgpu30 => 1024,
        Backend::Host => 4096,
    }
}

impl Recorder {
    pub(super) fn new(
        trace: u64,
        track: u32,
        stream: &Stream,
        pending: Option<usize>,
    ) -> Arc<Recorder> {
        let device = stream.device().clone();
        let budget = pending.unwrap_or_else(|| budget(device.backend())).max(1);
        Arc::new(Recorder {
            trace,
            track,
            core: stream.imp().core().clone(),
            device: Mutex::new(Some(device)),
            stream: stream.downgrade(),
            pending: Pending::new(budget),
            share: (budget - budget / 4).max(1),
            step: (budget / 8).max(1),
        })
    }

    /// `None` where it is closed.
    pub(super) fn pair(self: &Arc<Self>) -> Option<Pair> {
        let device = self.device()?;
        Some(Pair {
            start: Event::with_timing(&device),
            end: Event::with_timing(&device),
            recorder: self.clone(),
        })
    }

    pub(super) fn device(&self) -> Option<Device> {
        lock(&self.device).clone()
    }

    /// Whether who collects is to be woken when so many are ended, by the one that ended last.
    #[inline]
    pub(super) fn is_due_at(&self, ended: usize) -> bool {
        ended >= self.share && (ended - self.share).is_multiple_of(self.step)
    }

    /// Whether enough is ended.
    pub(super) fn is_due(&self) -> bool {
        self.pending.count().1 >= self.share
    }

    /// No span is begun from now on, and nothing is kept.
    pub(super) fn close(&self) {
        self.pending.close();
        let device = lock(&self.device).take();
        drop(device);
    }

    /// Whether its stream is gone, so that no span will be begun.
    pub(super) fn is_over(&self) -> bool {
        self.stream.strong_count() == 0
    }
}
