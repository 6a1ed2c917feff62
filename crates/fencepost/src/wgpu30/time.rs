//! The time of a marker.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{gpu::Gpu, timer::Stamp};
use crate::{
    clock::{Elapsed, Timestamp},
    epochs::Time,
    error::{Error, Result},
    sync::sleep,
    watcher::pause_after,
    wraps::{Bounds, Reading},
};

/// How long a time may take behind the completion of its marker. Both come with one submit, whose
/// signals the driver makes one after the other: ours, then wgpu's. Between the two a busy machine
/// may run other threads for long.
const SHOWN: Duration = Duration::from_secs(10);
/// The same, once wgpu says that its queue is empty. Then another thread is about to bring the
/// time, or it is due behind a callback of the user's that asks for it here.
const DUE: Duration = Duration::from_secs(1);

pub(crate) struct MarkTime {
    gpu: Arc<Gpu>,
    stamp: Arc<Stamp>,
}

impl MarkTime {
    pub(super) fn new(gpu: &Arc<Gpu>, stamp: Arc<Stamp>) -> MarkTime {
        MarkTime {
            gpu: gpu.clone(),
            stamp,
        }
    }

    /// Has wgpu bring the time. `None` where it does not come.
    fn bring(&self) -> Result<Option<Result<(u64, Bounds)>>> {
        let start = Instant::now();
        let mut empty_since = None;
        loop {
            if let Some(read) = self.stamp.read() {
                return Ok(Some(read));
            }
            match self.gpu.poll()? {
                wgpu::PollStatus::QueueEmpty => empty_since = empty_since.or(Some(Instant::now())),
                _ => empty_since = None,
            }
            // A thread that was off its processor for long has to look again before it gives up.
            if let Some(read) = self.stamp.read() {
                return Ok(Some(read));
            }
            let is_due = empty_since.is_some_and(|since| since.elapsed() >= DUE);
            if is_due || start.elapsed() >= SHOWN {
                return Ok(None);
            }
            sleep(pause_after(start.elapsed()));
        }
    }

    /// The ticks, and when the host could see them. `which` is what an error calls the marker.
    fn reading(&self, which: &'static str) -> Result<Reading> {
        self.gpu.core.check_fork()?;
        let read = self.bring()?;
        let Some(read) = read else {
            let marker = format!("a marker of {}", self.gpu.name());
            return Err(Error::time_not_ready(which, marker));
        };
        let (resolved, bounds) = read?;
        let bits = self.gpu.core.clock.valid_bits();
        Ok(Reading {
            ticks: self.gpu.ticks(resolved),
            bits,
            bounds: (bits < 64).then_some(bounds),
        })
    }
}

impl Time for MarkTime {
    fn timestamp(&self) -> Result<Timestamp> {
        let clock = self.gpu.core.clock.clone();
        Ok(Timestamp::of(self.reading("held")?, clock))
    }

    fn elapsed(&self, end: &MarkTime) -> Result<Elapsed> {
        let clock = &self.gpu.core.clock;
        // Where the clock wraps, two readings of one mark may not tell that it is one.
        if Arc::ptr_eq(&self.stamp, &end.stamp) {
            return Ok(Elapsed::new(0.0, clock.clone()));
        }
        clock.between(self.reading("start")?, end.reading("end")?)
    }
}
