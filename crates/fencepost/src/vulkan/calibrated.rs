//! The device's clock beside the host's: calibrated timestamps, or a stamp between two reads.
//!
//! The driver reads the device's clock alone (`VK_TIME_DOMAIN_DEVICE`), between two reads of the
//! host's here. It could read a clock of the host's too, and would bracket the one by the other in
//! the same way: on an H200 it reports half the duration of the call as the deviation. But what it
//! reads is another clock on each system, and not always the one of
//! [`Instant`](std::time::Instant).

use std::sync::Arc;

use ash::vk;

use super::{fault::Fault, gpu::Gpu, stream::VkStream, timestamp};
use crate::{
    bracket,
    clock::{Timestamp, host_now},
    contract::{Look, Sample, Stamp},
    error::{Error, Result},
    place::Place,
    wraps::{Bounds, Reading},
};

/// How often the driver is asked: the closest reading counts.
const READINGS: usize = 8;

/// A moment on both clocks. `stamps` gives the stream for stamps of our own, where the device has
/// no calibrated timestamps.
pub(super) fn sample(
    gpu: &Gpu,
    family: u32,
    stamps: impl FnOnce() -> Result<Arc<VkStream>>,
    at: Place,
    look: Look<'_>,
) -> Result<Sample> {
    let bits = gpu
        .families
        .iter()
        .map(|family| family.timestamp_valid_bits);
    let bits = bits.max().unwrap_or(0);
    if bits == 0 {
        // No marker of the device has a time: the same error as for a timed one.
        timestamp::valid_bits(gpu, family, false)?;
    }
    let Some(calibrated) = gpu.calibrated else {
        return bracket::sample(&*stamps()?, at, look);
    };
    let read = || {
        let (before, first) = host_now();
        let ticks = ticks(gpu, calibrated)?;
        let (after, last) = host_now();
        let reading = Reading {
            ticks,
            bits,
            bounds: Some(Bounds {
                before: first,
                after: last,
            }),
        };
        let stamp = Stamp::Clock(Timestamp::of(reading, gpu.clock.clone()));
        Ok(Sample::between(before, after, stamp))
    };
    let mut best: Sample = read()?;
    for _ in 1..READINGS {
        best = best.or_closer(read()?);
    }
    Ok(best)
}

/// The device's clock now. Never blocks.
fn ticks(gpu: &Gpu, calibrated: vk::PFN_vkGetCalibratedTimestampsKHR) -> Result<u64, Error> {
    let info = vk::CalibratedTimestampInfoKHR::default().time_domain(vk::TimeDomainKHR::DEVICE);
    let (mut ticks, mut deviation) = (0, 0);
    // SAFETY: a function of this device, which is alive and has the extension and its domain; each
    // pointer is to one value of its type.
    let result = unsafe {
        calibrated(
            gpu.device.handle(),
            1,
            &raw const info,
            &raw mut ticks,
            &raw mut deviation,
        )
    };
    match result {
        vk::Result::SUCCESS => Ok(ticks),
        result => Err(gpu.failed(Fault {
            call: "vkGetCalibratedTimestampsKHR",
            result,
        })),
    }
}
