//! The time of a marker: the query slot that it has, and how its ticks are read.

use std::sync::Arc;

use ash::vk;

use super::{
    fault::Fault,
    native::Native,
    sightings::{Sighting, Sightings},
    slots::Slot,
    timer::{Query, Timer},
    timestamp,
};
use crate::{
    clock::{Elapsed, Timestamp},
    epochs::Time,
    error::{Error, Result},
    sync::spin_until,
    wraps::Reading,
};

/// A marker's claim on a query slot.
pub(crate) struct SlotTime {
    native: Arc<Native>,
    slot: Slot,
    query: Query,
    /// The value of the marker timeline at which the device has written the query.
    until: u64,
    /// Where times may wrap.
    sighting: Option<Arc<Sighting>>,
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
        let counter = || {
            let counter = gpu.counter(native.marker_timeline).unwrap_or(0);
            native.reached(counter);
            counter
        };
        let (slot, query) = timer.take(gpu, counter)?;
        let buffer = query.buffer;
        let time = SlotTime {
            native: native.clone(),
            slot,
            query,
            until,
            sighting: SlotTime::sighting(native, until),
        };
        Ok((time, buffer))
    }

    /// For the marker whose native value is `until`, and which is submitted next.
    #[inline]
    fn sighting(native: &Native, until: u64) -> Option<Arc<Sighting>> {
        if !native.gpu.wraps() {
            return None;
        }
        let sighting = Sighting::begin();
        native
            .sightings
            .get_or_init(Sightings::default)
            .add(until, sighting.clone());
        Some(sighting)
    }

    /// The only slot of a timer that has one, for the marker whose native value is `until`, and the
    /// query that the caller's own buffer is to write.
    pub(super) fn only(
        native: &Arc<Native>,
        timer: &Timer,
        until: u64,
    ) -> Option<(SlotTime, Query)> {
        let (slot, query) = timer.only()?;
        let time = SlotTime {
            native: native.clone(),
            slot,
            query: query.clone(),
            until,
            sighting: SlotTime::sighting(native, until),
        };
        Some((time, query))
    }

    /// The ticks, of as many bits as are valid, and when the host could see them. `which` is what
    /// an error calls the marker.
    fn reading(&self, which: &'static str) -> Result<Reading> {
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
            Some(ticks) if current => Ok(Reading {
                ticks: ticks & timestamp::mask(self.bits()),
                bits: self.bits(),
                bounds: self.sighting.as_ref().map(|sighting| sighting.bounds()),
            }),
            _ => {
                let marker = format!("a marker of {}", gpu.name);
                Err(Error::time_not_ready(which, marker))
            }
        }
    }

    fn bits(&self) -> u32 {
        self.native.timer.get().map_or(64, |timer| timer.bits)
    }
}

impl Time for SlotTime {
    fn timestamp(&self) -> Result<Timestamp> {
        let clock = self.native.gpu.clock.clone();
        Ok(Timestamp::of(self.reading("held")?, clock))
    }

    fn elapsed(&self, end: &SlotTime) -> Result<Elapsed> {
        let clock = &self.native.gpu.clock;
        // Where the clock wraps, two readings of one mark may not tell that it is one.
        if self.slot == end.slot && Arc::ptr_eq(&self.native, &end.native) {
            return Ok(Elapsed::new(0.0, clock.clone()));
        }
        clock.between(self.reading("start")?, end.reading("end")?)
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
