//! Semaphores whose counters are seen late: as of a driver that signals those of one submit one
//! after the other.

use fencepost_sim::lock;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

/// A `VkSemaphore`.
type Semaphore = u64;

struct Known {
    /// Those that were made.
    made: BTreeSet<Semaphore>,
    /// Those that are late, with the value that was read first.
    late: BTreeMap<Semaphore, Option<u64>>,
}

static KNOWN: Mutex<Known> = Mutex::new(Known {
    made: BTreeSet::new(),
    late: BTreeMap::new(),
});

/// The driver has made one, perhaps in the place of one that is gone.
pub(crate) fn made(semaphore: Semaphore) {
    let mut known = lock(&KNOWN);
    known.late.remove(&semaphore);
    known.made.insert(semaphore);
}

/// What is told of a semaphore that has reached `value`.
pub(crate) fn shown(semaphore: Semaphore, value: u64) -> u64 {
    let mut known = lock(&KNOWN);
    match known.late.get_mut(&semaphore) {
        Some(first) => *first.get_or_insert(value),
        None => value,
    }
}

/// Those that were made until now are late from now on.
pub(crate) fn begin() {
    let mut known = lock(&KNOWN);
    known.late = known.made.iter().map(|made| (*made, None)).collect();
}

/// None is late any more.
pub(crate) fn end() {
    lock(&KNOWN).late.clear();
}
