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
    wraps::Reading,
};

/// How long a time may take behind the completion of its marker. Both come with one submit, whose
/// signals the driver makes one after the other: ours, then wgpu's.
const SHOWN: Duration = Duration::from_millis(250);

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

    /// The ticks, and when the host could see them. `which` is what an error calls the marker.
    fn reading(&self, which: &'static str) -> Result<Reading> {
        self.gpu.core.check_fork()?;
        let start = Instant::now();
        let mut read = self.stamp.read();
        while read.is_none() && start.elapsed() < SHOWN {
            self.gpu.poll()?;
            read = self.stamp.read();
            if read.is_none() {
                sleep(Duration::from_micros(20));
            }
        }
        let Some(read) = read else {
            let marker = format!("a marker of {}", self.gpu.name());
            return Err(Error::time_not_ready(which, marker));
        };
        let (ticks, bounds) = read?;
        let bits = self.gpu.core.clock.valid_bits();
        Ok(Reading {
            ticks,
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
