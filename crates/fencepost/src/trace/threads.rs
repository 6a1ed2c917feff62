//! Spans of the host's threads, on their way into the store.
//!
//! Each thread has a buffer of its own for each trace, so that threads do not wait for each other.
//! A thread whose buffer is full moves it into the store itself, unless the store is busy: then the
//! buffer grows, up to a bound. A collector moves all buffers.

use std::{
    cell::RefCell,
    sync::{Arc, OnceLock},
};

use super::{
    store::{Store, Told},
    text::Text,
    value::Attributes,
};
use crate::sync::{AtomicBool, BriefLock};

/// A span or a mark of a thread that is over. Times are nanoseconds since the trace began.
#[derive(Debug)]
pub(super) struct HostRecord {
    pub(super) track: u32,
    pub(super) start: u64,
    pub(super) length: u64,
    pub(super) name: Text,
    pub(super) attributes: Attributes,
    /// For a mark.
    pub(super) mark: Option<Opened>,
}

/// What a mark tells of: the gate with this number was opened; 0 for none.
#[derive(Clone, Copy, Debug)]
pub(super) struct Opened(pub(super) u64);

/// So many records go at once: what stays in the cache of a core.
const FULL: usize = 128;
/// So many are kept at most while the store is busy.
const MOST: usize = 256 * FULL;

pub(super) struct Buffer {
    records: BriefLock<Vec<HostRecord>>,
    /// The track of its thread. A thread that ends spans of others alone has none.
    pub(super) track: OnceLock<u32>,
    /// Whether the track has the name that its thread has in the language that records there.
    pub(super) is_named: AtomicBool,
}

impl Buffer {
    pub(super) fn new() -> Buffer {
        Buffer {
            records: BriefLock::over(Vec::new()),
            track: OnceLock::new(),
            is_named: AtomicBool::new(false),
        }
    }

    /// Adds a record. Tells whether it is time to move the buffer; gives the record back where
    /// there is no room.
    #[inline]
    pub(super) fn push(&self, record: HostRecord) -> Result<bool, HostRecord> {
        let mut records = self.records.lock();
        let length = records.len();
        if length >= MOST {
            return Err(record);
        }
        records.push(record);
        Ok((length + 1).is_multiple_of(FULL))
    }

    /// Moves what is there into the store. `spare` is empty, before and after.
    pub(super) fn take_in(&self, store: &mut Store, spare: &mut Vec<HostRecord>) {
        std::mem::swap(&mut *self.records.lock(), spare);
        for record in spare.drain(..) {
            store.add(&Told {
                track: record.track,
                name: &record.name,
                attributes: record.attributes.as_deref().map_or(&[], Vec::as_slice),
                start: record.start as f64,
                length: record.length as f64,
                values: [0, record.mark.map_or(0, |opened| opened.0)],
                is_mark: record.mark.is_some(),
                failure: None,
            });
        }
        if spare.capacity() > 32 * FULL {
            *spare = Vec::new();
        }
    }

    pub(super) fn len(&self) -> usize {
        self.records.lock().len()
    }
}

/// What a thread keeps of each trace that it recorded in.
pub(super) struct Here {
    pub(super) trace: u64,
    pub(super) buffer: Arc<Buffer>,
}

thread_local! {
    static HERE: RefCell<Vec<Here>> = const { RefCell::new(Vec::new()) };
}

/// Calls `f` with what this thread keeps of a trace, which `make` makes first where there is none.
/// `None` at the end of the thread.
#[inline]
pub(super) fn here<R>(
    trace: u64,
    make: impl FnOnce() -> Here,
    f: impl FnOnce(&Here) -> R,
) -> Option<R> {
    HERE.try_with(|here| {
        if let Ok(known) = here.try_borrow()
            && let Some(known) = known.iter().find(|here| here.trace == trace)
        {
            return Some(f(known));
        }
        let made = make();
        let result = f(&made);
        if let Ok(mut here) = here.try_borrow_mut() {
            // Those of traces that are gone.
            here.retain(|here| Arc::strong_count(&here.buffer) > 1);
            here.push(made);
        }
        Some(result)
    })
    .ok()
    .flatten()
}

/// The number by which the system knows this thread, where it tells; else one of its own.
pub(super) fn thread_number() -> u64 {
    use crate::sync::Ids;

    static NEXT: Ids = Ids::new();
    // `PID/task/TID`, on Linux.
    let told = std::fs::read_link("/proc/thread-self").ok();
    let number = told
        .as_deref()
        .and_then(|path| path.file_name()?.to_str()?.parse().ok());
    // Beyond what a system numbers.
    number.unwrap_or_else(|| (1 << 32) + NEXT.next())
}
