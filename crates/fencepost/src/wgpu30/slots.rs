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

/// Queries in one set. Metal has room for some 32 sets on a device, so they are not small.
const QUERIES: u32 = 256;
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

pub(super) struct FreeSlots(Mutex<Vec<Slot>>);

impl FreeSlots {
    pub(super) fn new() -> FreeSlots {
        FreeSlots(Mutex::new(Vec::new()))
    }

    pub(super) fn take(&self) -> Option<Slot> {
        lock(&self.0).pop()
    }

    pub(super) fn add(&self, mut slots: Vec<Slot>) {
        lock(&self.0).append(&mut slots);
    }

    pub(super) fn give(&self, slot: Slot) {
        lock(&self.0).push(slot);
    }

    /// Keeps them for good: to drop them would call the driver.
    pub(super) fn forget(&mut self) {
        // No lock: in a forked child a thread of the parent may have it.
        if let Ok(slots) = self.0.get_mut() {
            mem::forget(mem::take(slots));
        }
    }
}

/// The slots of a new set.
pub(super) fn make(device: &wgpu::Device) -> Vec<Slot> {
    let set = device.create_query_set(&wgpu::QuerySetDescriptor {
        label: Some("fencepost"),
        ty: wgpu::QueryType::Timestamp,
        count: QUERIES,
    });
    let buffer = |size, usage| {
        device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("fencepost"),
            size,
            usage,
            mapped_at_creation: false,
        })
    };
    let slots = QUERIES / 2;
    let usage = wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC;
    let resolved = buffer(STRIDE * u64::from(slots), usage);
    let slot = |number: u32| Slot {
        set: set.clone(),
        first: 2 * number,
        resolved: resolved.clone(),
        at: STRIDE * u64::from(number),
        mapped: buffer(
            2 * TICKS,
            wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
        ),
        before: [0; 2],
        made_in: Process::this(),
    };
    (0..slots).rev().map(slot).collect()
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
