//! The device clock.

use crate::config::Config;

/// Both clocks, read at about the same moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Calibration {
    /// The device clock, masked by its valid bits.
    pub device_tick: u64,
    /// The host clock, which is the machine's simulated time. It is wrong by `uncertainty_ns` at
    /// most.
    pub host_ns: u64,
    /// How far apart the two readings may be.
    pub uncertainty_ns: u64,
}

/// The drift of the device with this number, where that of the first one is `ppm`: the clocks of
/// two devices drift apart.
pub fn drift_of(ppm: f64, number: usize) -> f64 {
    match number % 2 {
        0 => ppm,
        _ => -ppm,
    }
}

/// By how many ticks the clock of the device with this number is ahead of that of the first one:
/// the ticks of two devices say nothing of each other.
pub fn offset_of(number: usize) -> u64 {
    (number as u64).wrapping_mul(3_600_000_000_000)
}

/// The low `bits` bits.
pub(crate) fn mask(bits: u32) -> u64 {
    match bits {
        0 => 0,
        64.. => u64::MAX,
        bits => (1 << bits) - 1,
    }
}

/// The device's tick at the machine's time. It is not masked; as on hardware, a read masks it.
pub(crate) fn tick_at(config: &Config, now_ns: u64) -> u64 {
    let ticks = now_ns as f64 * (1.0 + config.drift_ppm / 1e6) / config.period_ns;
    config.initial_tick.wrapping_add(ticks as u64)
}
