//! Times of markers: the `GPUEndTime` of a command buffer.

use std::{
    ptr::NonNull,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use objc2::runtime::ProtocolObject;
use objc2_metal::{MTLDevice, MTLTimestamp};

use crate::{
    clock::{Clock, HOST_RESOLUTION, Timestamp},
    contract::{Sample, Stamp},
    epochs,
    error::{Error, Result},
};

/// The clock of a device. Its name includes the model, so that every report tells which GPU it was
/// measured on, and whether that was a stand-in.
///
/// `GPUEndTime` is in seconds on the host's time base, and is kept in nanoseconds. Its resolution
/// is undocumented, so it is taken to be that of the time base.
pub(super) fn clock(model: &str) -> Clock {
    let resolution = HOST_RESOLUTION.max(Duration::from_nanos(1));
    Clock::new(format!("GPUEndTime of {model}"), 1.0, 64, resolution)
}

/// Nanoseconds; 0 where `seconds` is no time. The seconds count from the start of the system, and
/// an `f64` still resolves 4 ns after a year.
pub(super) fn ticks(seconds: f64) -> u64 {
    // The cast turns negative numbers and NaN into 0.
    (seconds * 1e9) as u64
}

/// How often Metal is asked: the closest reading counts.
const READINGS: usize = 8;

/// A moment on `clock`, that of `GPUEndTime`, and on the host's. `GPUEndTime` is on the host's time
/// base, of which Metal tells a reading in nanoseconds. What it tells of the GPU's own counter
/// beside that is of no use here: Metal has converted `GPUEndTime` from it, and does not say how
/// well. Never blocks.
pub(super) fn sample(device: &ProtocolObject<dyn MTLDevice>, clock: &Clock) -> Sample {
    let read = || {
        let (mut cpu, mut counter): (MTLTimestamp, MTLTimestamp) = (0, 0);
        let before = Instant::now();
        // SAFETY: each pointer is to one timestamp.
        unsafe {
            device.sampleTimestamps_gpuTimestamp(
                NonNull::from(&mut cpu),
                NonNull::from(&mut counter),
            );
        }
        let after = Instant::now();
        let reading = Timestamp::new(cpu, clock.clone());
        Sample::between(before, after, Stamp::Clock(reading))
    };
    (1..READINGS).fold(read(), |best, _| best.or_closer(read()))
}

/// Where completed handlers store the end time of a marker's command buffer, or the latest of
/// several. Each record has its own, so a late handler never overwrites the time of a later record.
#[derive(Default)]
pub(crate) struct EndTime(AtomicU64);

impl EndTime {
    /// Stores a time, unless a later one is stored already.
    pub(super) fn set(&self, ticks: u64) {
        self.0.fetch_max(ticks, Ordering::AcqRel);
    }

    fn get(&self) -> Option<u64> {
        Some(self.0.load(Ordering::Acquire)).filter(|&ticks| ticks > 0)
    }
}

/// The result of submitting a marker.
pub(crate) struct Submission {
    /// The value that the stream's event has once the marker is complete.
    pub(super) ordinal: u64,
    /// `None` without timing.
    pub(super) end_time: Option<Arc<EndTime>>,
    pub(super) clock: Clock,
}

impl epochs::Time for Submission {
    fn timestamp(&self) -> Result<Timestamp> {
        let Some(end_time) = &self.end_time else {
            return Err(Error::timing_disabled("held"));
        };
        match end_time.get() {
            Some(ticks) => Ok(Timestamp::new(ticks, self.clock.clone())),
            None => Err(Error::Backend {
                call: "MTLCommandBuffer.GPUEndTime",
                code: 0,
                text: "Metal has no time for a command buffer that is complete; record again"
                    .into(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_time_is_told_from_a_time() {
        let time = EndTime::default();
        assert_eq!(time.get(), None, "no handler has run");
        for none in [0.0, -1.0, f64::NAN] {
            time.set(ticks(none));
            assert_eq!(time.get(), None, "{none} s");
        }
        time.set(ticks(86_400.000_000_042));
        assert_eq!(time.get(), Some(86_400_000_000_042));
        time.set(ticks(86_399.0));
        assert_eq!(time.get(), Some(86_400_000_000_042), "the latest counts");
    }
}
