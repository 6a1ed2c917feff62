//! When the host could see timed marks complete, for clocks that wrap. Knows no Vulkan.
//!
//! A mark is pending from its submit until somebody reads a counter that has reached its value.
//! Whoever reads the counter tells so *before* it settles the stream's epoch, so that a marker that
//! anybody sees complete has its time noted. Marks are added under the submit lock, so that their
//! values grow. Each has a query slot, and a slot is taken again only after such a reading; so
//! there are never more marks here than slots.

use std::{
    collections::VecDeque,
    sync::{Arc, OnceLock},
};

use crate::{
    clock::host_ticks,
    sync::{Mutex, lock},
    wraps::Bounds,
};

#[derive(Default)]
pub(super) struct Sightings(Mutex<VecDeque<(u64, Arc<Sighting>)>>);

/// When one mark was submitted and seen to be complete, by the host's clock.
pub(super) struct Sighting {
    before: u64,
    after: OnceLock<u64>,
}

impl Sighting {
    /// For a mark that is submitted from now on.
    pub(super) fn begin() -> Arc<Sighting> {
        Arc::new(Sighting {
            before: host_ticks(),
            after: OnceLock::new(),
        })
    }

    /// Of a mark that is complete.
    pub(super) fn bounds(&self) -> Bounds {
        Bounds {
            before: self.before,
            after: *self.after.get_or_init(host_ticks),
        }
    }
}

impl Sightings {
    /// The mark with this value is about to be submitted.
    pub(super) fn add(&self, value: u64, sighting: Arc<Sighting>) {
        lock(&self.0).push_back((value, sighting));
    }

    /// The counter was read, and has reached `counter`.
    pub(super) fn reached(&self, counter: u64) {
        let mut pending = lock(&self.0);
        if pending.front().is_none_or(|(value, _)| *value > counter) {
            return;
        }
        let now = host_ticks();
        while let Some((value, _)) = pending.front()
            && *value <= counter
        {
            if let Some((_, sighting)) = pending.pop_front() {
                let _ = sighting.after.set(now);
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_first_reading_that_shows_a_mark_complete_counts() {
        let sightings = Sightings::default();
        let marks = [3, 5, 9].map(|value| {
            let mark = Sighting::begin();
            sightings.add(value, mark.clone());
            mark
        });
        sightings.reached(2);
        assert!(marks.iter().all(|mark| mark.after.get().is_none()));
        sightings.reached(5);
        let seen = host_ticks();
        std::thread::sleep(std::time::Duration::from_millis(2));
        sightings.reached(9);
        for mark in &marks[..2] {
            assert!(mark.bounds().before <= mark.bounds().after);
            assert!(mark.bounds().after <= seen);
        }
        assert!(marks[2].bounds().after > seen);
        assert!(lock(&sightings.0).is_empty());
    }
}
