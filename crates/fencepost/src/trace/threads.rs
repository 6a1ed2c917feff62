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
    store::{Named, Record, Store, Told},
    text::Text,
    value::Attributes,
};
use crate::sync::{AtomicBool, BriefLock};

/// The name of a span of a thread.
#[derive(Clone, Debug)]
pub(super) enum Name {
    /// The [known](super::known) one with this number.
    Known(u32),
    Other(Box<Text>),
}

/// A span or a mark of a thread that is over. Times are nanoseconds since the trace began.
#[derive(Debug)]
pub(super) struct HostRecord {
    pub(super) track: u32,
    pub(super) start: u64,
    pub(super) length: u64,
    pub(super) name: Name,
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

/// What a thread has recorded, and the store has not yet.
#[derive(Default)]
pub(super) struct Records {
    /// Spans with known names and without attributes.
    pub(super) plain: Vec<Record>,
    pub(super) others: Vec<HostRecord>,
}

impl Records {
    fn len(&self) -> usize {
        self.plain.len() + self.others.len()
    }
}

pub(super) struct Buffer {
    records: BriefLock<Records>,
    /// The track of its thread. A thread that ends spans of others alone has none.
    pub(super) track: OnceLock<u32>,
    /// Whether the track has the name that its thread has in the language that records there.
    pub(super) is_named: AtomicBool,
}

impl Buffer {
    pub(super) fn new() -> Buffer {
        Buffer {
            records: BriefLock::over(Records::default()),
            track: OnceLock::new(),
            is_named: AtomicBool::new(false),
        }
    }

    /// Adds one record by `put`. Tells whether it is time to move the buffer; `None` where there is
    /// no room, and nothing is added.
    #[inline]
    pub(super) fn add(&self, put: impl FnOnce(&mut Records)) -> Option<bool> {
        let mut records = self.records.lock();
        let length = records.len();
        if length >= MOST {
            return None;
        }
        put(&mut records);
        Some((length + 1).is_multiple_of(FULL))
    }

    /// Moves what is there into the store. `spare` is empty, before and after.
    pub(super) fn take_in(&self, store: &mut Store, spare: &mut Records) {
        std::mem::swap(&mut *self.records.lock(), spare);
        store.extend(&spare.plain);
        spare.plain.clear();
        for record in spare.others.drain(..) {
            store.add(&Told {
                track: record.track,
                name: match &record.name {
                    Name::Known(number) => Named::Known(*number),
                    Name::Other(text) => Named::Text(text),
                },
                attributes: record.attributes.as_deref().map_or(&[], Vec::as_slice),
                start: record.start as f64,
                length: record.length as f64,
                values: [0, record.mark.map_or(0, |opened| opened.0)],
                is_mark: record.mark.is_some(),
                failure: None,
            });
        }
        if spare.plain.capacity().max(spare.others.capacity()) > 32 * FULL {
            *spare = Records::default();
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
    /// Known names that it used last, with their numbers, by their ends.
    near: [Option<(Text, u32)>; NEAR],
}

/// So many names a thread finds without the lock of those that are known.
const NEAR: usize = 64;

impl Here {
    pub(super) fn new(trace: u64, buffer: Arc<Buffer>) -> Here {
        Here {
            trace,
            buffer,
            near: [const { None }; NEAR],
        }
    }

    /// The number of a name that this thread has [kept](keep).
    #[inline]
    pub(super) fn number(&self, name: &str) -> Option<u32> {
        match &self.near[place_of(name)] {
            Some((known, number)) if known.bytes() == name.as_bytes() => Some(*number),
            _ => None,
        }
    }
}

/// Where a name is kept.
#[inline]
fn place_of(name: &str) -> usize {
    let bytes = name.as_bytes();
    let ends = [bytes.first(), bytes.last()].map(|byte| byte.map_or(0, |b| usize::from(*b)));
    (ends[0] * 5 + ends[1] * 3 + bytes.len()) % NEAR
}

/// Keeps the number of a known name for this thread, where it has recorded in the trace.
#[cold]
pub(super) fn keep(trace: u64, name: &str, number: u32) {
    // Skipped at the end of the thread.
    let _ = HERE.try_with(|here| {
        let mut here = here.try_borrow_mut().ok()?;
        let known = here.iter_mut().find(|here| here.trace == trace)?;
        known.near[place_of(name)] = Some((Text::new(name), number));
        Some(())
    });
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
