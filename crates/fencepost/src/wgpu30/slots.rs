//! Query slots: where marks write their times, and who has them.
//!
//! | a slot is | while | then it is |
//! |---|---|---|
//! | free | nothing submitted writes it | taken |
//! | taken | whoever took it has it, or wgpu's callback that is to read it | free, once its ticks were read |
//! | retired | somebody may still submit what writes it, and nobody would read that | retired |
//!
//! *Invariant: a slot is free only when no work that writes it can be submitted any more.*

use std::mem;

use crate::{
    fork::Process,
    sync::{Mutex, lock},
};

/// Queries in the first set. Each further set has twice as many as the one before, up to wgpu's
/// most: Metal has room for some 32 sets on a device, and most users need few queries.
const FIRST: u32 = 256;
/// Where a set's queries may be resolved to: the distance of two slots there.
const STRIDE: u64 = wgpu::QUERY_RESOLVE_BUFFER_ALIGNMENT;
pub(super) const TICKS: u64 = size_of::<u64>() as u64;

/// Two queries side by side, as those around a pass must be; most marks use the first only.
pub(super) struct Slot {
    set: wgpu::QuerySet,
    first: u32,
    resolved: wgpu::Buffer,
    at: u64,
    pub(super) mapped: wgpu::Buffer,
    /// The ticks of the generation before.
    pub(super) before: [u64; 2],
    made_in: Process,
}

/// In a forked child its objects get one owner more, for good: to drop the last one of them would
/// call the driver.
impl Drop for Slot {
    fn drop(&mut self) {
        if !self.made_in.is_this() {
            let Slot {
                set,
                resolved,
                mapped,
                ..
            } = self;
            mem::forget((set.clone(), resolved.clone(), mapped.clone()));
        }
    }
}

/// The slots of a device that are free.
pub(super) struct Slots(Mutex<State>);

struct State {
    free: Vec<Slot>,
    /// The last set, some slots of which nobody has taken yet.
    last: Option<Set>,
    sets: u32,
}

/// A query set whose slots are made when they are first taken.
#[derive(Clone)]
struct Set {
    set: wgpu::QuerySet,
    resolved: wgpu::Buffer,
    slots: u32,
    made: u32,
}

impl Slots {
    pub(super) fn new() -> Slots {
        Slots(Mutex::new(State {
            free: Vec::new(),
            last: None,
            sets: 0,
        }))
    }

    /// Takes a slot that is free.
    pub(super) fn take(&self) -> Option<Slot> {
        lock(&self.0).free.pop()
    }

    /// Makes a slot, and a set for it where the last one has no more.
    pub(super) fn make(&self, device: &wgpu::Device) -> Slot {
        loop {
            let mut state = lock(&self.0);
            if let Some(last) = state.last.as_mut().filter(|last| last.made < last.slots) {
                let (number, set) = (last.made, last.clone());
                last.made += 1;
                drop(state);
                return set.slot(device, number);
            }
            state.sets += 1;
            let queries = queries_of(state.sets);
            drop(state);
            let fresh = Set::new(device, queries);
            let old = lock(&self.0).last.replace(fresh);
            drop(old);
        }
    }

    /// Makes no more slots of the last set, which wgpu may have refused.
    pub(super) fn discard_last(&self) {
        let last = lock(&self.0).last.take();
        drop(last);
    }

    pub(super) fn give(&self, slot: Slot) {
        lock(&self.0).free.push(slot);
    }

    /// Keeps them for good: to drop them would call the driver.
    pub(super) fn forget(&mut self) {
        // No lock: in a forked child a thread of the parent may have it.
        if let Ok(state) = self.0.get_mut() {
            mem::forget(mem::take(&mut state.free));
            mem::forget(state.last.take());
        }
    }
}

/// How many queries the set of this number has, from 1.
fn queries_of(number: u32) -> u32 {
    let doubled = FIRST.checked_shl(number - 1).unwrap_or(0);
    match doubled {
        FIRST..=wgpu::QUERY_SET_MAX_QUERIES => doubled,
        _ => wgpu::QUERY_SET_MAX_QUERIES,
    }
}

impl Set {
    fn new(device: &wgpu::Device, queries: u32) -> Set {
        let slots = queries / 2;
        let usage = wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC;
        Set {
            set: device.create_query_set(&wgpu::QuerySetDescriptor {
                label: Some("fencepost"),
                ty: wgpu::QueryType::Timestamp,
                count: queries,
            }),
            resolved: buffer(device, STRIDE * u64::from(slots), usage),
            slots,
            made: 0,
        }
    }

    fn slot(self, device: &wgpu::Device, number: u32) -> Slot {
        let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
        Slot {
            set: self.set,
            first: 2 * number,
            resolved: self.resolved,
            at: STRIDE * u64::from(number),
            mapped: buffer(device, 2 * TICKS, usage),
            before: [0; 2],
            made_in: Process::this(),
        }
    }
}

fn buffer(device: &wgpu::Device, size: u64, usage: wgpu::BufferUsages) -> wgpu::Buffer {
    device.create_buffer(&wgpu::BufferDescriptor {
        label: Some("fencepost"),
        size,
        usage,
        mapped_at_creation: false,
    })
}

impl Slot {
    pub(super) fn set(&self) -> &wgpu::QuerySet {
        &self.set
    }

    /// Its queries.
    pub(super) fn queries(&self) -> [u32; 2] {
        [self.first, self.first + 1]
    }

    pub(super) fn write(&self, encoder: &mut wgpu::CommandEncoder) {
        encoder.write_timestamp(&self.set, self.first);
    }

    /// Brings the ticks of the first `count` queries to where they can be mapped.
    pub(super) fn resolve(&self, encoder: &mut wgpu::CommandEncoder, count: u32) {
        let queries = self.first..self.first + count;
        encoder.resolve_query_set(&self.set, queries, &self.resolved, self.at);
        let size = TICKS * u64::from(count);
        encoder.copy_buffer_to_buffer(&self.resolved, self.at, &self.mapped, 0, size);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_thousand_times_fit_into_fewer_sets_than_metal_has_room_for() {
        let slots: u32 = (1..=8).map(|set| queries_of(set) / 2).sum();
        assert!(slots >= 10_000, "{slots} in 8 sets");
        assert_eq!(queries_of(100), wgpu::QUERY_SET_MAX_QUERIES);
    }
}
