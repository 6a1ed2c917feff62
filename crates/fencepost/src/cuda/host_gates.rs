//! The host gates of one context, and what happens to them when the process ends.
//!
//! They are never freed. Freeing page-locked memory blocks while any stream is stalled
//! (docs/measurements/cuda-stalls.md), and a stalled stream is what they are for.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering as StdOrdering};

use super::{calls::Calls, context::Context, driver::StreamHandle, fault::Fault};
use crate::{
    exit::at_exit_of_use,
    sync::{Mutex, lock},
};

pub(crate) struct HostGates {
    calls: Calls,
    /// Those that nobody uses now.
    free: Mutex<Vec<HostGate>>,
    /// The pages that all of them are in.
    pages: Mutex<Vec<usize>>,
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
            pages: Mutex::new(Vec::new()),
        }
    }

    /// A closed gate.
    pub(crate) fn take(&self) -> Result<HostGate, Fault> {
        let mut free = lock(&self.free);
        if free.is_empty() {
            let (host, device) = self.calls.allocate_page_locked(PAGE)?;
            lock(&self.pages).push(host);
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
        static USES: AtomicU64 = AtomicU64::new(0);
        // SAFETY: part of a page that the device sees and that is never freed.
        unsafe { self.calls.wait_value(stream, gate.device, gate.opens_at) }?;
        at_exit_of_use(&USES, open_all);
        Ok(())
    }

    /// For the end of the process: releases every stream that waits. Until then, a word of memory
    /// is always one less than what its gate waits for.
    fn open_all(&self) {
        if self.calls.is_forked() {
            return;
        }
        let Ok(pages) = self.pages.try_lock() else {
            return;
        };
        for word in pages
            .iter()
            .flat_map(|page| (0..PAGE / 4).map(move |i| page + i * 4))
        {
            // SAFETY: as in `open`.
            let cell = unsafe { AtomicU32::from_ptr(word as *mut u32) };
            cell.fetch_add(1, StdOrdering::Release);
        }
    }

    /// Releases the stream that waits for the gate, if one does, and takes the gate back.
    pub(crate) fn open(&self, gate: HostGate) {
        // SAFETY: aligned, part of a page that is never freed, and the device only reads it.
        let cell = unsafe { AtomicU32::from_ptr(gate.host as *mut u32) };
        cell.store(gate.opens_at, StdOrdering::Release);
        lock(&self.free).push(gate);
    }
}

static ALL: Mutex<Vec<&Context>> = Mutex::new(Vec::new());

/// Has the host gates of the context opened when the process ends, before the driver is taken
/// apart: a driver may wait there for streams that only the host can release. So may other
/// libraries, which free memory in exit handlers of their own. Those that are registered before a
/// stream is held run after the gates are open.
pub(super) fn open_at_exit(context: &'static Context) {
    lock(&ALL).push(context);
}

/// Opens all host gates, for the end of the process. A gate that is used later may be open.
pub(crate) extern "C" fn open_all() {
    if let Ok(contexts) = ALL.try_lock() {
        for context in contexts.iter() {
            context.gates.open_all();
        }
    }
}
