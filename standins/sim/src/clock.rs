//! The device clock and the slots its timestamps are written to.

use crate::config::Config;
use crate::ledger::{Object, Violation};
use std::sync::{Arc, Mutex, PoisonError};

/// Both clocks read at about the same moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Calibration {
    /// The device clock, masked by its valid bits.
    pub device_tick: u64,
    /// The host clock (the machine's simulated time), off by at most `uncertainty_ns`.
    pub host_ns: u64,
    /// How far apart the two readings may lie.
    pub uncertainty_ns: u64,
}

/// The low `bits` bits.
pub(crate) fn mask(bits: u32) -> u64 {
    match bits {
        0 => 0,
        64.. => u64::MAX,
        bits => (1 << bits) - 1,
    }
}

/// The device's tick at the machine's time. Not masked: that happens on reading, as on hardware.
pub(crate) fn tick_at(config: &Config, now_ns: u64) -> u64 {
    let ticks = now_ns as f64 * (1.0 + config.drift_ppm / 1e6) / config.period_ns;
    config.initial_tick.wrapping_add(ticks as u64)
}

/// A place for one timestamp. Cheap to clone; all clones are the same slot.
#[derive(Clone, Debug)]
pub struct Slot {
    pub(crate) object: Arc<Object>,
    value: Arc<Mutex<Option<u64>>>,
}

impl Slot {
    pub(crate) fn new(object: Arc<Object>) -> Slot {
        Slot {
            object,
            value: Arc::default(),
        }
    }

    /// Its number, as in the trace.
    pub fn id(&self) -> u64 {
        self.object.id()
    }

    /// The timestamp, masked by the clock's valid bits, or `None` while none was written. Never
    /// blocks.
    pub fn read(&self) -> Option<u64> {
        self.object.check("read a slot");
        *self.lock()
    }

    /// Empties the slot from the host. A violation while pending work uses it. Never blocks.
    pub fn reset(&self) {
        if self.object.in_use() {
            self.object
                .ledger()
                .report(Violation::ResetInUse { slot: self.id() });
        }
        self.object.check("reset a slot");
        self.clear();
    }

    /// Ends the slot's life, for APIs with an explicit destroy. A violation while pending work uses
    /// it.
    pub fn destroy(&self) {
        self.object.destroy();
    }

    pub(crate) fn clear(&self) {
        *self.lock() = None;
    }

    pub(crate) fn write(&self, masked_tick: u64) {
        let mut value = self.lock();
        if value.is_some() {
            self.object
                .ledger()
                .report(Violation::SlotNotReset { slot: self.id() });
        } else {
            *value = Some(masked_tick);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<u64>> {
        self.value.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
