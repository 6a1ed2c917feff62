//! Which query slots of a stream are free. Knows no Vulkan, so that loom can explore it.
//!
//! # The protocol
//!
//! | a slot is | while | then it is |
//! |---|---|---|
//! | free | no marker has it | taken |
//! | taken | a marker has it | leaving, once that marker is dropped |
//! | leaving | the device may still write it | free, once the counter has reached its value |
//!
//! A slot is given back with the value of its marker. Each taking has a generation of its own.
//! *Invariant: the device writes a slot only after its taking, and before the counter has reached
//! the value that it is given back with.* So whoever reads a slot of the generation that it took
//! reads what its own marker wrote. If no slot is free, the caller grows the ring; nobody waits.

use std::{cmp::Reverse, collections::BinaryHeap};

use crate::sync::{Mutex, MutexGuard, lock};

pub(super) struct Ring {
    state: Mutex<State>,
}

struct State {
    free: Vec<u32>,
    /// Ordered by the value of the counter that frees them.
    leaving: BinaryHeap<Reverse<(u64, u32)>>,
    generations: Vec<u64>,
    /// What the counter is known to have reached.
    reached: u64,
}

/// A slot that somebody has taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) index: u32,
    pub(super) generation: u64,
}

impl Ring {
    pub(super) fn new() -> Ring {
        Ring {
            state: Mutex::new(State {
                free: Vec::new(),
                leaving: BinaryHeap::new(),
                generations: Vec::new(),
                reached: 0,
            }),
        }
    }

    /// Takes a slot; `None` if the ring must grow. `counter` reads the stream's counter; it is
    /// called only if that may show a leaving slot to be free.
    pub(super) fn take(&self, counter: impl FnOnce() -> u64) -> Option<Slot> {
        let mut state = lock(&self.state);
        let index = match state.free.pop() {
            Some(index) => index,
            None => {
                let &Reverse((native, _)) = state.leaving.peek()?;
                if native > state.reached {
                    state.reached = counter();
                }
                if native > state.reached {
                    return None;
                }
                // The one with the lowest value, which the counter has reached.
                let Reverse((_, index)) = state.leaving.pop()?;
                index
            }
        };
        let generation = state.generations.get_mut(index as usize)?;
        *generation += 1;
        Some(Slot {
            index,
            generation: *generation,
        })
    }

    /// Adds `more` slots after the last one, and takes the first of the new ones.
    pub(super) fn grow(&self, more: u32) -> Slot {
        let mut state = lock(&self.state);
        let first = state.generations.len() as u32;
        state
            .generations
            .extend(std::iter::repeat_n(1, more.max(1) as usize));
        state.free.extend((first + 1..first + more).rev());
        Slot {
            index: first,
            generation: 1,
        }
    }

    /// Whether nobody has taken the slot again since.
    pub(super) fn is_current(&self, slot: Slot) -> bool {
        let state = lock(&self.state);
        state.generations.get(slot.index as usize) == Some(&slot.generation)
    }

    /// Gives back a slot that the device may write until the counter has reached `native`. `forked`
    /// tells whether this process is a forked child of the one that took it. There a thread that
    /// exists in the parent only may hold the lock.
    pub(super) fn give(&self, slot: Slot, native: u64, forked: impl Fn() -> bool) {
        let Some(mut state) = self.lock_unless(forked) else {
            return;
        };
        if state.generations.get(slot.index as usize) == Some(&slot.generation) {
            state.leaving.push(Reverse((native, slot.index)));
        }
    }

    fn lock_unless(&self, forked: impl Fn() -> bool) -> Option<MutexGuard<'_, State>> {
        if !cfg!(loom) {
            for _ in 0..1000 {
                if let Ok(state) = self.state.try_lock() {
                    return Some(state);
                }
                std::hint::spin_loop();
            }
        }
        match forked() {
            true => None,
            false => Some(lock(&self.state)),
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_used_again_only_behind_the_device() {
        let ring = Ring::new();
        assert_eq!(ring.take(|| 0), None, "an empty ring grows");
        let (a, b) = (ring.grow(2), ring.take(|| 0).unwrap());
        assert_ne!(a.index, b.index);
        ring.give(b, 7, || false);
        ring.give(a, 5, || false);
        assert_eq!(ring.take(|| 4), None, "the device may still write both");
        let again = ring.take(|| 5).unwrap();
        assert_eq!(again.index, a.index);
        assert!(ring.is_current(again) && !ring.is_current(a));
        assert_eq!(ring.take(|| 6), None);
        // Giving back an older generation does nothing.
        ring.give(a, 5, || false);
        assert_eq!(ring.take(|| 9).unwrap().index, b.index);
        assert_eq!(ring.take(|| 99), None);
    }

    #[test]
    fn ten_million_takings_need_the_slots_of_those_alive() {
        let ring = Ring::new();
        let mut grown = 0;
        let mut take = |counter: u64| {
            ring.take(|| counter).unwrap_or_else(|| {
                grown += 4;
                ring.grow(4)
            })
        };
        // The device has yet to complete the last three.
        for value in 1..=10_000_000_u64 {
            let slot = take(value.saturating_sub(3));
            ring.give(slot, value, || false);
        }
        assert!(grown <= 8, "{grown} slots for three at a time");
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use std::sync::Arc;

    use super::*;
    use crate::sync::{AtomicU64, Ordering, thread};

    #[test]
    fn no_slot_is_taken_while_the_device_or_a_marker_has_it() {
        loom::model(|| {
            let (ring, counter) = (Arc::new(Ring::new()), Arc::new(AtomicU64::new(0)));
            let first = ring.grow(1);
            // A marker that is dropped in another thread, while the device comes to its value.
            let dropping = {
                let ring = ring.clone();
                thread::spawn(move || ring.give(first, 1, || false))
            };
            let device = {
                let counter = counter.clone();
                thread::spawn(move || counter.store(1, Ordering::Release))
            };
            if let Some(slot) = ring.take(|| counter.load(Ordering::Acquire)) {
                assert_eq!(
                    counter.load(Ordering::Acquire),
                    1,
                    "the device may still write it"
                );
                assert!(slot.generation > first.generation);
                assert!(!ring.is_current(first));
            }
            dropping.join().unwrap();
            device.join().unwrap();
            let again = ring.take(|| counter.load(Ordering::Acquire));
            assert!(again.is_none_or(|slot| slot.generation == first.generation + 1));
        });
    }
}
