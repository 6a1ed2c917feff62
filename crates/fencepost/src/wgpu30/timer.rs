//! Timestamps: a ring of query slots, and how their ticks come to the host.
//!
//! What marks a time writes a query, resolves it, copies it into memory that can be mapped, and
//! maps that as soon as it is submitted. So nobody ever waits for a time, and nobody asks the
//! device for one later.
//!
//! | a slot is | while | then it is |
//! |---|---|---|
//! | free | nothing submitted writes it | taken |
//! | taken | its [`Reading`] is alive, in wgpu's hands | free, once its ticks were read |
//! | retired | somebody may still submit what writes it, and nobody would read that | retired |
//!
//! *Invariant: a slot is free only when no work that writes it can be submitted any more.* Each
//! marker has a [`Stamp`] of its own, which gets the ticks of the slot's generation that the marker
//! took. A query that nothing wrote resolves to 0, or to the ticks of an earlier generation. The
//! slot keeps those, and equal ticks count as none.

use std::sync::{Arc, OnceLock};

use super::gpu::Gpu;
use crate::{
    clock::host_ticks,
    error::{Error, Result},
    panics::contain,
    sync::{Mutex, lock},
    wraps::Bounds,
};

/// Queries in one set. Metal has room for some 32 sets on a device, so they are not small.
const QUERIES: u32 = 256;
/// Where a set's queries may be resolved to: the distance of two slots there.
const STRIDE: u64 = wgpu::QUERY_RESOLVE_BUFFER_ALIGNMENT;
const TICKS: u64 = size_of::<u64>() as u64;

/// Two queries side by side, as those around a pass must be; most marks use the first only.
pub(super) struct Slot {
    set: wgpu::QuerySet,
    first: u32,
    resolved: wgpu::Buffer,
    at: u64,
    mapped: wgpu::Buffer,
    /// The ticks of the generation before.
    before: [u64; 2],
}

pub(super) struct Timer {
    free: Mutex<Vec<Slot>>,
}

/// The ticks of one mark, once they have come to the host.
pub(super) struct Stamp {
    /// The host's time before its submit.
    before: u64,
    read: OnceLock<Read>,
}

/// What came: `None` where the device wrote nothing.
#[derive(Clone, Copy)]
struct Read {
    ticks: Option<u64>,
    after: u64,
}

impl Stamp {
    fn new() -> Arc<Stamp> {
        Arc::new(Stamp {
            before: host_ticks(),
            read: OnceLock::new(),
        })
    }

    /// Whether it is known that the device wrote nothing.
    pub(super) fn is_missing(&self) -> bool {
        self.read.get().is_some_and(|read| read.ticks.is_none())
    }

    /// The ticks and the host's times around them; `None` until they have come.
    pub(super) fn read(&self) -> Option<Result<(u64, Bounds)>> {
        let read = self.read.get()?;
        let bounds = Bounds {
            before: self.before,
            after: read.after,
        };
        Some(match read.ticks {
            Some(ticks) => Ok((ticks, bounds)),
            None => Err(Error::Backend {
                call: "wgpu::CommandEncoder::resolve_query_set",
                code: -1,
                text:
                    "the device wrote no time for this marker; if it is one around a pass, begin \
                       the pass with the timestamp writes that were given for it"
                        .into(),
            }),
        })
    }
}

impl Timer {
    pub(super) fn new() -> Timer {
        Timer {
            free: Mutex::new(Vec::new()),
        }
    }

    /// Takes a slot, and makes more if none is free.
    pub(super) fn take(&self, gpu: &Gpu) -> Result<Slot> {
        if let Some(slot) = lock(&self.free).pop() {
            return Ok(slot);
        }
        let mut made = gpu.scoped("wgpu::Device::create_query_set", || make(&gpu.device))?;
        let slot = made.pop().ok_or_else(|| gpu.no_timing("TIMESTAMP_QUERY"))?;
        lock(&self.free).append(&mut made);
        Ok(slot)
    }

    /// Keeps the free slots for good: to drop them would call the driver.
    pub(super) fn forget(&self) {
        std::mem::forget(std::mem::take(&mut *lock(&self.free)));
    }

    fn give(&self, slot: Slot) {
        lock(&self.free).push(slot);
    }
}

/// The slots of a new set.
fn make(device: &wgpu::Device) -> Vec<Slot> {
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
    fn resolve(&self, encoder: &mut wgpu::CommandEncoder, count: u32) {
        let queries = self.first..self.first + count;
        encoder.resolve_query_set(&self.set, queries, &self.resolved, self.at);
        let size = TICKS * u64::from(count);
        encoder.copy_buffer_to_buffer(&self.resolved, self.at, &self.mapped, 0, size);
    }
}

/// A taken slot on its way: reads the ticks when wgpu has mapped them, or drops it.
pub(super) struct Reading {
    gpu: Arc<Gpu>,
    slot: Option<Slot>,
    stamps: [Option<Arc<Stamp>>; 2],
}

impl Reading {
    /// Of a slot whose first `count` queries are written in front of here in `encoder`.
    pub(super) fn new(
        gpu: &Arc<Gpu>,
        slot: Slot,
        encoder: &mut wgpu::CommandEncoder,
        count: u32,
    ) -> Reading {
        slot.resolve(encoder, count);
        Reading {
            gpu: gpu.clone(),
            slot: Some(slot),
            stamps: [0, 1].map(|query| (query < count).then(Stamp::new)),
        }
    }

    pub(super) fn stamp(&self, query: usize) -> Option<Arc<Stamp>> {
        self.stamps.get(query).cloned().flatten()
    }

    /// Reads once the submit of `encoder` is complete, whoever makes it.
    pub(super) fn on_submit(self, encoder: &wgpu::CommandEncoder) {
        let Some(slot) = &self.slot else { return };
        let mapped = slot.mapped.clone();
        encoder.map_buffer_on_submit(&mapped, wgpu::MapMode::Read, .., move |_| drop(self));
    }

    /// Reads once what was just submitted is complete.
    pub(super) fn submitted(self) {
        let Some(slot) = &self.slot else { return };
        let mapped = slot.mapped.clone();
        contain(|| mapped.map_async(wgpu::MapMode::Read, .., move |_| drop(self)));
    }
}

/// wgpu drops it when it has called it, and when a panic of another callback keeps it from that;
/// or because the encoder is dropped, which then was never submitted.
impl Drop for Reading {
    fn drop(&mut self) {
        let Some(mut slot) = self.slot.take() else {
            return;
        };
        let after = host_ticks();
        let mut ticks = [0; 2];
        let mut is_mapped = false;
        contain(|| {
            let Ok(view) = slot.mapped.get_mapped_range(..) else {
                return;
            };
            is_mapped = true;
            for (to, from) in ticks.iter_mut().zip(view.chunks_exact(TICKS as usize)) {
                *to = from.try_into().map_or(0, u64::from_le_bytes);
            }
        });
        if is_mapped {
            contain(|| slot.mapped.unmap());
        }
        for (query, stamp) in self.stamps.iter().enumerate() {
            let Some(stamp) = stamp else { continue };
            let is_new = is_mapped && ticks[query] != slot.before[query];
            let _ = stamp.read.set(Read {
                ticks: is_new.then_some(ticks[query]),
                after,
            });
            // What is not mapped was not submitted, so the query holds what it held before.
            if is_mapped {
                slot.before[query] = ticks[query];
            }
        }
        self.gpu.timer.give(slot);
    }
}
