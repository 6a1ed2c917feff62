//! The host gates of one context.
//!
//! They are never freed. Freeing page-locked memory blocks while any stream is stalled
//! (docs/measurements/cuda-stalls.md), and a stalled stream is what they are for.

use std::sync::atomic::{AtomicU32, Ordering as StdOrdering};

use super::{calls::Calls, driver::StreamHandle, fault::Fault};
use crate::sync::{Mutex, lock};

pub(crate) struct HostGates {
    calls: Calls,
    /// Those that nobody uses now.
    free: Mutex<Vec<HostGate>>,
}

/// What holds a stream until the host opens it: 32 bits of page-locked memory that only grow. Each
/// use waits for one more than the last, so a gate can be used again as soon as it is open: what
/// waited for it before is released all the same.
#[derive(Clone, Copy)]
pub(crate) struct HostGate {
    host: usize,
    device: u64,
    /// The value that opens it.
    opens_at: u32,
}

const PAGE: usize = 4096;

impl HostGates {
    pub(super) fn new(calls: Calls) -> HostGates {
        HostGates {
            calls,
            free: Mutex::new(Vec::new()),
        }
    }

    /// A closed gate.
    pub(crate) fn take(&self) -> Result<HostGate, Fault> {
        let mut free = lock(&self.free);
        if free.is_empty() {
            let (host, device) = self.calls.allocate_page_locked(PAGE)?;
            free.extend((0..PAGE / 4).map(|i| HostGate {
                host: host + i * 4,
                device: device + i as u64 * 4,
                opens_at: 0,
            }));
        }
        let mut gate = free.pop().ok_or(Fault::Missing("page-locked memory"))?;
        gate.opens_at = gate.opens_at.wrapping_add(1);
        Ok(gate)
    }

    /// Holds `stream` until `gate` is opened.
    pub(crate) fn block(&self, stream: StreamHandle, gate: HostGate) -> Result<(), Fault> {
        // SAFETY: part of a page that the device sees and that is never freed.
        unsafe { self.calls.wait_value(stream, gate.device, gate.opens_at) }
    }

    /// Releases the stream that waits for the gate, if one does, and takes the gate back.
    pub(crate) fn open(&self, gate: HostGate) {
        // SAFETY: aligned, part of a page that is never freed, and written by nobody else: a gate
        // has one holder, and the device only reads it.
        let cell = unsafe { AtomicU32::from_ptr(gate.host as *mut u32) };
        cell.store(gate.opens_at, StdOrdering::Release);
        lock(&self.free).push(gate);
    }
}
