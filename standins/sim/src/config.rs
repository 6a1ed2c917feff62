//! What kind of device is simulated.

use crate::Error;

/// In which order the batches of one queue run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// A CUDA stream: each command starts after the one before it has finished, across batches too.
    InOrder,
    /// A Metal command queue: batches start in order, but overlap and finish in any order unless a
    /// semaphore orders them. A signal says nothing about earlier batches. Commands of one batch
    /// run in order.
    Overlapping,
    /// A Vulkan queue: work of different batches overlaps as in `Overlapping`, but signals, flag
    /// changes and timestamps come after everything submitted earlier to the queue, and a wait
    /// holds back everything submitted later. Batches are reported complete in order. Commands of
    /// one batch run in order, as with a full barrier after each.
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

/// What a failed batch does to what comes after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sticky {
    /// Nothing (Metal): only the batch itself fails.
    Batch,
    /// The queue fails: its pending batches fail without running, and submits are refused until
    /// [`Queue::clear_error`](crate::Queue::clear_error).
    Queue,
    /// The device is lost (a CUDA context after a fault, `VK_ERROR_DEVICE_LOST`).
    Device,
}

/// What kind of device to simulate. `Config::seeded(n)` is a plain one; change what the test is
/// about.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Drives every choice of the scheduler.
    pub seed: u64,
    /// How new queues order their batches.
    pub order: Order,
    /// How many hardware channels the queues are spread over, in turns; `None` gives each its own.
    /// A batch cannot start while one submitted earlier to the same channel has not started, or is
    /// stopped at a wait.
    pub channels: Option<usize>,
    /// How many batches of one queue may overlap.
    pub max_overlap: usize,
    /// How many batches of one queue may be pending; `None` for any number.
    pub max_pending: Option<usize>,
    /// What a submit to a full queue does.
    pub when_full: WhenFull,
    /// What a failed batch does to the others.
    pub sticky: Sticky,
    /// Nanoseconds per tick of the device clock.
    pub period_ns: f64,
    /// How many low bits of a timestamp count: 36 to 64 with Vulkan, 0 where there are no
    /// timestamps.
    pub valid_bits: u32,
    /// The clock's first value, so that a test can put a wrap where it wants it. Not masked.
    pub initial_tick: u64,
    /// By how many parts per million the device clock runs fast against the host clock.
    pub drift_ppm: f64,
    /// How far a calibration's host time may be off.
    pub calibration_error_ns: u64,
    /// The most the clock advances in a common step. Some steps take no time, a few a thousand
    /// times as much.
    pub max_step_ns: u64,
    /// Whether the clock also goes on with real time, for tests whose host takes time too: as much
    /// as passes between two steps passes on the device at least. A seed then no longer fixes
    /// timestamps.
    pub follows_real_time: bool,
    /// Whether objects of other devices of the same machine may be used here (CUDA events, Metal
    /// shared events), or not (Vulkan, without export).
    pub shares_objects: bool,
    /// How many of the latest trace entries are kept.
    pub trace_capacity: usize,
}

impl Config {
    /// A device with in-order queues, a 64-bit clock of 1 ns, and nothing limited.
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
            return bad("drift_ppm must be within a million");
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
