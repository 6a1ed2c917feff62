//! Waits, as they are noted: which marker of which stream, and where on the waiting stream.

use std::collections::{HashSet, VecDeque};

/// A wait, by tracks and by values of their streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Noted {
    pub(super) from: From,
    pub(super) to: u32,
    /// The last value of the waiting stream in front of the wait.
    pub(super) after: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum From {
    /// A track, and a value of its stream.
    Marker(u32, u64),
    /// A gate, by its number.
    Gate(u64),
}

pub(super) struct Arrows {
    list: VecDeque<Noted>,
    /// Gates that are awaited and not open.
    gates: HashSet<u64>,
    capacity: usize,
}

impl Arrows {
    pub(super) fn new(capacity: usize) -> Arrows {
        Arrows {
            list: VecDeque::new(),
            gates: HashSet::new(),
            capacity: capacity.max(1),
        }
    }

    /// Notes a wait. If there are more than the capacity then, the oldest goes.
    pub(super) fn add(&mut self, wait: Noted) {
        if let From::Gate(gate) = wait.from {
            // Gates that are never opened do not pile up.
            if self.gates.len() >= self.capacity {
                self.gates.clear();
            }
            self.gates.insert(gate);
        }
        if self.list.len() >= self.capacity {
            self.list.pop_front();
        }
        self.list.push_back(wait);
    }

    /// Whether the gate was awaited, when it is opened.
    pub(super) fn opens(&mut self, gate: u64) -> bool {
        self.gates.remove(&gate)
    }

    pub(super) fn list(&self) -> Vec<Noted> {
        self.list.iter().copied().collect()
    }
}
