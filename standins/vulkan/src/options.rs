//! The options of the simulated machine. Each is an environment variable that a test can override.

use fencepost_sim::lock;
use std::sync::Mutex;

/// The names of the options. Their variables have the prefix `FENCEPOST_SIM_VULKAN_`.
pub(crate) const NAMES: &[&str] = &[
    "DEVICES",
    "API",
    "LOADER",
    "SYNC2",
    "HOST_RESET",
    "TIMELINE",
    "CALIBRATED",
    "SINGLE_QUEUE",
    "VALID_BITS",
    "CLOCK",
    "DRIFT",
    "MAX_DIFFERENCE",
    "HEAP",
    "MAX_ALLOCATIONS",
    "LOST_COUNTERS",
    "PORTABILITY",
];

/// The options that tests have set for the next machine. No other lock is taken while its lock is
/// held.
static OVERRIDES: Mutex<Vec<(String, u64)>> = Mutex::new(Vec::new());

/// False if there is no such option.
pub(crate) fn set(name: String, value: u64) -> bool {
    let known = NAMES.contains(&&*name);
    if known {
        lock(&OVERRIDES).push((name, value));
    }
    known
}

#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) devices: u64,
    /// The version of Vulkan: 12 is 1.2, 13 is 1.3.
    pub(crate) api: u64,
    /// The highest version of an instance.
    pub(crate) loader: u64,
    pub(crate) sync2: bool,
    pub(crate) host_reset: bool,
    pub(crate) timeline: bool,
    pub(crate) calibrated: bool,
    pub(crate) single_queue: bool,
    /// If set, the valid bits of a timestamp in every family that has timestamps.
    pub(crate) valid_bits: Option<u64>,
    pub(crate) clock: u64,
    pub(crate) drift: u64,
    pub(crate) max_difference: u64,
    pub(crate) heap: u64,
    pub(crate) max_allocations: u64,
    /// The result of reading a counter of a lost device. 0: an error; 1: all bits set; 2: the last
    /// value; 3: the last value, and waits go on, until a submit has told of the loss.
    pub(crate) lost_counters: u64,
    /// Whether the devices are listed only for instances that enumerate portability devices.
    pub(crate) portability: bool,
}

impl Options {
    /// Reads the options, and clears what tests have set.
    pub(crate) fn read() -> Options {
        let overrides = std::mem::take(&mut *lock(&OVERRIDES));
        let maybe = |name: &str| {
            let set = overrides.iter().rev().find(|(option, _)| option == name);
            set.map(|(_, value)| *value).or_else(|| {
                let variable = std::env::var(format!("FENCEPOST_SIM_VULKAN_{name}"));
                variable.ok()?.trim().parse().ok()
            })
        };
        let number = |name, default| maybe(name).unwrap_or(default);
        let api = number("API", 13).clamp(12, 13);
        Options {
            devices: number("DEVICES", 2).min(64),
            api,
            loader: number("LOADER", api).clamp(12, 13),
            sync2: number("SYNC2", 1) != 0,
            host_reset: number("HOST_RESET", 1) != 0,
            timeline: number("TIMELINE", 1) != 0,
            calibrated: number("CALIBRATED", 1) != 0,
            single_queue: number("SINGLE_QUEUE", 0) != 0,
            valid_bits: maybe("VALID_BITS").map(|bits| bits.min(64)),
            clock: number("CLOCK", 1),
            drift: number("DRIFT", 20).min(999_999),
            // the smallest value that a driver may have
            max_difference: number("MAX_DIFFERENCE", (1 << 31) - 1),
            heap: number("HEAP", 256 << 20),
            max_allocations: number("MAX_ALLOCATIONS", 4096),
            lost_counters: number("LOST_COUNTERS", 0),
            portability: number("PORTABILITY", 0) != 0,
        }
    }
}
