//! The time of a marker: the query slot that it has, and how its ticks are read.

use std::sync::Arc;

use ash::vk;

use super::{
    fault::Fault,
    native::Native,
    slots::Slot,
    timer::{Query, Timer},
    timestamp,
};
use crate::{
    clock::{Elapsed, Timestamp},
    epochs::Time,
    error::{Error, Result},
    sync::spin_until,
};

/// A marker's claim on a query slot.
pub(crate) struct SlotTime {
    native: Arc<Native>,
    slot: Slot,
    query: Query,
    /// The value of the marker timeline at which the device has written the query.
    until: u64,
}

impl SlotTime {
    /// A slot for the marker whose native value is `until`, and the buffer that writes its time.
    /// Called under the submit lock.
    pub(super) fn take(
        native: &Arc<Native>,
        timer: &Timer,
        until: u64,
    ) -> Result<(SlotTime, vk::CommandBuffer), Fault> {
        let gpu = &native.gpu;
        let counter = || gpu.counter(native.marker_timeline).unwrap_or(0);
        let (slot, query) = timer.take(gpu, counter)?;
        let buffer = query.buffer;
        let time = SlotTime {
            native: native.clone(),
            slot,
            query,
            until,
        };
        Ok((time, buffer))
    }

    /// The only slot of a timer that has one, for the marker whose native value is 1, and the query
    /// that the caller's own buffer is to write.
    pub(super) fn only(native: &Arc<Native>, timer: &Timer) -> Option<(SlotTime, Query)> {
        let (slot, query) = timer.only()?;
        let time = SlotTime {
            native: native.clone(),
            slot,
            query: query.clone(),
            until: 1,
        };
        Some((time, query))
    }

    /// The ticks, of as many bits as are valid.
    fn ticks(&self) -> Result<u64> {
        let gpu = &self.native.gpu;
        let query = (self.query.pool, self.query.index);
        let copy = self.query.copy.as_deref();
        let mut ticks = Ok(None);
        // The marker is complete, so the time is written. A driver may make it visible a moment
        // later.
        spin_until(None, || {
            ticks = timestamp::read(gpu, query, copy);
            !matches!(ticks, Ok(None))
        });
        let current = self
            .native
            .timer
            .get()
            .is_some_and(|timer| timer.ring.is_current(self.slot));
        match ticks? {
            Some(ticks) if current => Ok(ticks & timestamp::mask(self.bits())),
            _ => Err(Error::NotReady {
                which: "held",
                marker: format!("its time on {} is not readable yet", gpu.name),
            }),
        }
    }

    fn bits(&self) -> u32 {
        self.native.timer.get().map_or(64, |timer| timer.bits)
    }
}

impl Time for SlotTime {
    fn timestamp(&self) -> Result<Timestamp> {
        let clock = self.native.gpu.clock.clone();
        Ok(Timestamp::of_bits(self.ticks()?, self.bits(), clock))
    }

    fn elapsed(&self, end: &SlotTime) -> Result<Elapsed> {
        let bits = self.bits().min(end.bits());
        let clock = &self.native.gpu.clock;
        Ok(clock.between(bits, self.ticks()?, end.ticks()?))
    }
}

impl Drop for SlotTime {
    fn drop(&mut self) {
        if let Some(timer) = self.native.timer.get() {
            let forked = || self.native.gpu.is_gone();
            timer.ring.give(self.slot, self.until, forked);
        }
    }
}
