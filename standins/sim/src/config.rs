//! The configuration of a simulated device.

use crate::Error;

/// How the batches of one queue are ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// A CUDA stream: each command starts once the previous one has finished, also across batches.
    InOrder,
    /// A Metal command queue: batches start in order, then overlap and finish in any order unless
    /// a semaphore orders them. A signal does not imply that earlier batches are complete.
    /// Commands of one batch run in order.
    Overlapping,
    /// A Vulkan queue: work of different batches overlaps as in `Overlapping`. Signals, flag
    /// changes and timestamps follow everything submitted earlier to the queue, and a wait blocks
    /// everything submitted later. Batches are reported complete in order. Commands of one batch
    /// run in order, as with a full barrier after each.
    OrderedSignals,
}

/// What a submit does when the queue is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenFull {
    /// It fails with [`Error::QueueFull`].
    Refuse,
    /// It blocks the calling thread until there is room.
    Block,
}

/// How far the failure of a batch reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sticky {
    /// Only the batch itself fails (Metal).
    Batch,
    /// The queue fails: its pending batches fail without running, and submits are refused until
    /// [`Queue::clear_error`](crate::Queue::clear_error).
    Queue,
    /// The device is lost (a CUDA context after a fault, `VK_ERROR_DEVICE_LOST`).
    Device,
}

/// The device to simulate. Start from `Config::seeded(n)` and change what the test needs.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The seed of every random choice of the scheduler.
    pub seed: u64,
    /// The order of new queues.
    pub order: Order,
    /// The number of hardware channels, to which queues are assigned round robin; `None` gives each
    /// queue its own. A batch cannot start while an earlier one on the same channel has not
    /// started or is blocked by a wait.
    pub channels: Option<usize>,
    /// How many batches of one queue may overlap.
    pub max_overlap: usize,
    /// How many batches of one queue may be pending; `None` for any number.
    pub max_pending: Option<usize>,
    /// What a submit to a full queue does.
    pub when_full: WhenFull,
    /// How far the failure of a batch reaches.
    pub sticky: Sticky,
    /// Nanoseconds per tick of the device clock.
    pub period_ns: f64,
    /// How many low bits of a timestamp are valid: 36 to 64 with Vulkan, 0 for a device without
    /// timestamps.
    pub valid_bits: u32,
    /// The first tick of the clock, not masked. A test sets it to choose when the clock wraps.
    pub initial_tick: u64,
    /// By how many parts per million the device clock runs fast against the host clock.
    pub drift_ppm: f64,
    /// The largest error of a calibration's host time.
    pub calibration_error_ns: u64,
    /// The longest common step. Some steps take no time, and a few a thousand times as long.
    pub max_step_ns: u64,
    /// Whether the clock follows real time: each step then takes the real time that has passed, and
    /// a reading is never ahead of it, unless by [`SimDevice::advance`](crate::SimDevice::advance).
    /// For tests that compare it with the host's time. A seed then no longer determines timestamps.
    /// [`SimDevice::leave_real_time`](crate::SimDevice::leave_real_time) ends it.
    pub follows_real_time: bool,
    /// Whether the device accepts objects of other devices of its machine, as it does CUDA events
    /// and Metal shared events. Vulkan objects need an export.
    pub shares_objects: bool,
    /// How many of the latest trace entries are kept.
    pub trace_capacity: usize,
}

impl Config {
    /// A device with in-order queues, a 64-bit clock of 1 ns, and no limits.
    pub fn seeded(seed: u64) -> Config {
        Config {
            seed,
            order: Order::InOrder,
            channels: None,
            max_overlap: 8,
            max_pending: None,
            when_full: WhenFull::Refuse,
            sticky: Sticky::Batch,
            period_ns: 1.0,
            valid_bits: 64,
            initial_tick: 1,
            drift_ppm: 0.0,
            calibration_error_ns: 0,
            max_step_ns: 1000,
            follows_real_time: false,
            shares_objects: true,
            trace_capacity: 1 << 16,
        }
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        let bad = |what| Err(Error::BadConfig(what));
        if !(self.period_ns.is_finite() && self.period_ns > 0.0) {
            return bad("period_ns must be positive");
        }
        if !(self.drift_ppm.is_finite() && self.drift_ppm.abs() < 1e6) {
            return bad("drift_ppm must be between minus and plus a million");
        }
        if self.valid_bits > 64 {
            return bad("valid_bits must be at most 64");
        }
        if self.max_overlap == 0 || self.max_pending == Some(0) || self.channels == Some(0) {
            return bad("max_overlap, max_pending and channels must be at least 1");
        }
        Ok(())
    }
}
