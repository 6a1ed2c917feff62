//! Timestamps: how the ticks of a mark come to the host.
//!
//! What marks a time writes a query, resolves it, copies it into memory that can be mapped, and
//! maps that as soon as it is submitted. So nobody ever waits for a time, and nobody asks the
//! device for one later.
//!
//! Each marker has a [`Stamp`] of its own, which gets the ticks of the slot's generation that the
//! marker took (`slots.rs`). A query that nothing wrote resolves to 0, or to the ticks of an
//! earlier generation. The slot keeps those, and equal ticks count as none.

use std::sync::{Arc, OnceLock};

use super::{
    gpu::Gpu,
    slots::{Slot, TICKS},
};
use crate::{
    clock::host_ticks,
    error::{Error, Result},
    panics::contain,
    wraps::Bounds,
};

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

/// Takes a slot, and makes one if none is free.
pub(super) fn take(gpu: &Gpu) -> Result<Slot> {
    if let Some(slot) = gpu.slots.take() {
        return Ok(slot);
    }
    let make = || gpu.slots.make(&gpu.device);
    let made = gpu.scoped("wgpu::Device::create_query_set", make);
    if made.is_err() {
        gpu.slots.discard_last();
    }
    made
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
        self.gpu.slots.give(slot);
    }
}
