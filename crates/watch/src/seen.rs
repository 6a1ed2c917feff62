//! What was seen of the program's streams.
//!
//! **All of it is bounded**, and so is what `events` and `threads` keep. A stream keeps its last
//! [`RECORDS`] records, its last [`WAITS`] waits and its last [`TURNS`] turns; what was overwritten
//! is said to be missing. There is an entry for each live stream, for the last [`DESTROYED`]
//! streams that were destroyed, and for each thread alive at the same time; the events' table has
//! at most twice as many slots as there were recorded events alive, and a few more. Entries and
//! slots are used again and never freed, so that a reference to one is valid for ever; a stream's
//! number tells whether it is still the same stream.
//!
//! **Positions.** The work submitted to a stream is counted; a record, a wait, a launch each is at
//! one position. A stream's work runs in this order, so one number says how far it has come.

use std::{
    collections::{BTreeMap, VecDeque},
    ffi::c_char,
    sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering},
    time::Duration,
};

use crate::{
    asked::Asked,
    cache::Cache,
    calls::{Kind, PER_THREAD},
    lock::Lock,
    place::Line,
    ring::Ring,
};

/// How many records a stream keeps: they are written in turn, so few of them stay in the cache.
const RECORDS: usize = 256;
/// How many waits it keeps.
const WAITS: usize = 1024;
/// How many turns it keeps in the order of the legacy default stream.
const TURNS: usize = 256;
/// How many destroyed streams are kept, since others may wait for their records.
const DESTROYED: usize = 64;
/// How many streams are followed at the same time.
const STREAMS: usize = 1 << 14;

/// The system's clock in milliseconds, in the steps of its ticks: it costs a quarter of the exact
/// one.
pub(crate) fn now() -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the pointer is to a timespec
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC_COARSE, &raw mut time) };
    time.tv_sec as u64 * 1000 + time.tv_nsec as u64 / 1_000_000
}

pub(crate) fn since(then: u64) -> Duration {
    Duration::from_millis(now().saturating_sub(then))
}

/// A stream as it was when this was taken: its entry may be another stream's by now.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StreamOf {
    pub(crate) entry: &'static Stream,
    pub(crate) number: u64,
}

/// A record: the event's marker.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark {
    pub(crate) stream: StreamOf,
    pub(crate) position: u64,
    /// Which record of the stream it is, counted from 1.
    pub(crate) value: u64,
    pub(crate) event: usize,
    pub(crate) line: Line,
}

impl Mark {
    /// Whether they are the same record: no two of a stream have one value.
    pub(crate) fn is(&self, other: &Mark) -> bool {
        (self.stream.number, self.value) == (other.stream.number, other.value)
    }
}

/// What stops a stream.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Awaits {
    Marker(Mark),
    /// The event was not recorded, so the wait does nothing.
    NeverRecorded,
    /// The event was recorded where it cannot be seen: in another process, by a graph, for a
    /// whole context, or while nothing was followed.
    Unseen,
    Value {
        address: u64,
    },
    /// Values that were not looked at.
    Values,
    Semaphore,
    /// A function of the program, which the driver calls.
    Host,
    /// No wait: a write of a value that other streams may wait for.
    Writes {
        address: u64,
    },
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Point {
    pub(crate) position: u64,
    pub(crate) awaits: Awaits,
    pub(crate) line: Line,
    pub(crate) at: u64,
}

/// What was submitted last.
#[derive(Clone, Debug)]
pub(crate) struct Last {
    pub(crate) kind: Kind,
    /// The kernel's symbol; empty for anything else.
    pub(crate) symbol: Vec<u8>,
    /// Where the symbol was, and how many modules had been unloaded then: while both are the same,
    /// it is the same symbol.
    symbol_at: (usize, u64),
    pub(crate) at: u64,
    pub(crate) line: Line,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    Alive,
    Destroyed,
    /// Its context was destroyed or reset, or so much could have happened to it unseen.
    Lost,
}

#[derive(Clone, Debug)]
pub(crate) struct Inner {
    pub(crate) number: u64,
    pub(crate) handle: usize,
    pub(crate) context: usize,
    /// The thread, if it is a thread's default stream.
    pub(crate) thread: i32,
    /// Whether it keeps the order of the legacy default stream; `None` where that was not seen.
    pub(crate) blocking: Option<bool>,
    pub(crate) life: Life,
    /// The number of the stream whose capture it is in, or 0.
    pub(crate) capture: u64,
    pub(crate) submitted: u64,
    /// Everything up to here is known to be complete.
    pub(crate) complete: u64,
    pub(crate) records: u64,
    /// Positions and their places in an order over all streams, each the first of a run of which
    /// both numbers count on. Only of streams that keep the order of the legacy default stream.
    turns: Ring<(u64, u64)>,
    pub(crate) launches: u64,
    pub(crate) made: Line,
    pub(crate) last: Last,
    pub(crate) marks: Ring<Mark>,
    pub(crate) points: Ring<Point>,
    /// The position of the last wait that was overwritten.
    lost_wait: u64,
    /// Whether its last work is of a thread that [keeps time](crate::threads::Thread::keeps_time).
    pub(crate) keeps_time: bool,
}

impl Inner {
    pub(crate) const fn new() -> Inner {
        Inner {
            number: 0,
            handle: 0,
            context: 0,
            thread: 0,
            blocking: None,
            life: Life::Lost,
            capture: 0,
            submitted: 0,
            complete: 0,
            records: 0,
            turns: Ring::new(),
            launches: 0,
            made: Line::UNKNOWN,
            last: Last {
                kind: Kind::Create,
                symbol: Vec::new(),
                symbol_at: (0, 0),
                at: 0,
                line: Line::UNKNOWN,
            },
            marks: Ring::new(),
            points: Ring::new(),
            lost_wait: 0,
            keeps_time: false,
        }
    }

    /// Whether there was a wait that is not kept and not known to be over.
    pub(crate) fn lacks_waits(&self) -> bool {
        self.lost_wait > self.complete
    }

    pub(crate) fn is_legacy(&self) -> bool {
        self.handle == 0
    }

    /// A copy, without the lists where all work is known to be complete.
    pub(crate) fn snapshot(&self) -> Inner {
        if self.complete < self.submitted {
            return self.clone();
        }
        Inner {
            last: self.last.clone(),
            marks: Ring::new(),
            points: Ring::new(),
            turns: Ring::new(),
            ..*self
        }
    }

    /// The entry is another stream's from now on. What it has allocated is used again.
    fn begin(&mut self, number: u64, key: Key) {
        let mut marks = std::mem::replace(&mut self.marks, Ring::new());
        let mut points = std::mem::replace(&mut self.points, Ring::new());
        marks.clear();
        points.clear();
        let mut turns = std::mem::replace(&mut self.turns, Ring::new());
        turns.clear();
        let symbol = std::mem::take(&mut self.last.symbol);
        *self = Inner::new();
        (self.marks, self.points, self.last.symbol) = (marks, points, symbol);
        self.turns = turns;
        self.last.symbol.clear();
        self.number = number;
        (self.context, self.handle, self.thread) = key;
        self.life = Life::Alive;
    }
}

/// The entry of a stream.
#[derive(Debug)]
pub(crate) struct Stream(pub(crate) Lock<Inner>);

/// Context, handle, and the thread where the handle alone says "that of this thread".
type Key = (usize, usize, i32);

struct Streams {
    by_key: BTreeMap<Key, &'static Stream>,
    /// All entries ever made.
    all: Vec<&'static Stream>,
    /// Those of destroyed streams, the oldest first.
    destroyed: VecDeque<&'static Stream>,
    numbers: u64,
}

static STREAMS_SEEN: Lock<Streams> = Lock::new(Streams {
    by_key: BTreeMap::new(),
    all: Vec::new(),
    destroyed: VecDeque::new(),
    numbers: 0,
});

/// Counts what makes a handle mean another stream, so that threads may remember their last one.
static GENERATION: AtomicU64 = AtomicU64::new(1);
/// Whether a stream was seen that keeps the order of the legacy default stream.
static ORDER_MATTERS: AtomicU32 = AtomicU32::new(0);
static ORDER: AtomicU64 = AtomicU64::new(0);
static UNLOADED: AtomicU64 = AtomicU64::new(0);
/// How many captures are under way. A query of a stream, or of the legacy one, breaks a capture.
pub(crate) static CAPTURES: AtomicUsize = AtomicUsize::new(0);
/// How many calls are under way that may destroy a context.
pub(crate) static RELEASES: AtomicUsize = AtomicUsize::new(0);

/// Why the driver must not be asked for anything now.
pub(crate) fn forbidden() -> Option<&'static str> {
    if CAPTURES.load(Ordering::SeqCst) != 0 {
        return Some("a stream is being captured");
    }
    (RELEASES.load(Ordering::SeqCst) != 0).then_some("a context is being released")
}

/// What the driver is being asked about.
pub(crate) static ASKED: Asked = Asked::new();
/// How many streams there were beyond those that are followed.
pub(crate) static BEYOND: AtomicU64 = AtomicU64::new(0);
/// How many waits were for events that were never recorded.
pub(crate) static NEVER_RECORDED: AtomicU64 = AtomicU64::new(0);

impl Streams {
    fn entry(&mut self, key: Key) -> Option<&'static Stream> {
        if let Some(entry) = self.by_key.get(&key) {
            return Some(entry);
        }
        let entry = match self.destroyed.len() > DESTROYED || self.all.len() >= STREAMS {
            true => self.destroyed.pop_front(),
            false => None,
        };
        let entry = entry.or_else(|| {
            (self.all.len() < STREAMS).then(|| {
                let entry: &Stream = Box::leak(Box::new(Stream(Lock::new(Inner::new()))));
                self.all.push(entry);
                entry
            })
        });
        let Some(entry) = entry else {
            BEYOND.fetch_add(1, Ordering::Relaxed);
            return None;
        };
        self.numbers += 1;
        entry.0.lock().begin(self.numbers, key);
        self.by_key.insert(key, entry);
        Some(entry)
    }

    fn remove(&mut self, key: Key, life: Life) {
        if let Some(entry) = self.by_key.remove(&key) {
            entry.0.lock().life = life;
            self.destroyed.push_back(entry);
        }
    }
}

/// The streams that a thread meant last, by context, handle and [`GENERATION`].
pub(crate) type StreamCache = Cache<(usize, usize, u64), Option<&'static Stream>, 16>;

/// The entry of a stream, as the calling thread means it; a new one where the stream was not seen
/// before.
#[inline]
pub(crate) fn stream(
    cache: &StreamCache,
    context: usize,
    handle: usize,
) -> Option<&'static Stream> {
    let of = (context, handle, GENERATION.load(Ordering::Acquire));
    match cache.get(handle, of) {
        Some(entry) => entry,
        None => {
            let entry = find_stream(context, handle);
            cache.set(handle, of, entry);
            entry
        }
    }
}

#[cold]
fn find_stream(context: usize, handle: usize) -> Option<&'static Stream> {
    let key = key(context, handle);
    let entry = STREAMS_SEEN.lock().entry(key);
    if let Some(entry) = entry {
        let mut inner = entry.0.lock();
        if inner.context == 0 {
            inner.context = context;
        }
    }
    entry
}

fn key(context: usize, handle: usize) -> Key {
    key_of(context, handle, tid)
}

fn key_of(context: usize, handle: usize, tid: impl FnOnce() -> i32) -> Key {
    match handle {
        PER_THREAD => (context, handle, tid()),
        // The handle of a stream that was made is the same whatever context is current.
        0 => (context, handle, 0),
        _ => (0, handle, 0),
    }
}

/// The number of the stream that a thread means by a handle; 0 where it was not seen.
pub(crate) fn number_of(context: usize, handle: usize, tid: i32) -> u64 {
    let streams = STREAMS_SEEN.lock();
    let entry = streams.by_key.get(&key_of(context, handle, || tid));
    entry.map_or(0, |entry| entry.0.lock().number)
}

/// A stream was made.
pub(crate) fn created(context: usize, handle: usize, blocking: bool, line: Line) {
    GENERATION.fetch_add(1, Ordering::AcqRel);
    if blocking {
        ORDER_MATTERS.store(1, Ordering::Relaxed);
    }
    let mut streams = STREAMS_SEEN.lock();
    let key = key(context, handle);
    // A handle may be used again after a destruction that was not seen.
    streams.remove(key, Life::Lost);
    if let Some(entry) = streams.entry(key) {
        let mut inner = entry.0.lock();
        inner.context = context;
        inner.blocking = Some(blocking);
        inner.made = line;
    }
}

/// A stream is about to be destroyed.
pub(crate) fn destroyed(context: usize, handle: usize) {
    let mut streams = STREAMS_SEEN.lock();
    streams.remove(key(context, handle), Life::Destroyed);
    GENERATION.fetch_add(1, Ordering::AcqRel);
}

/// Nothing that was seen of these streams is true any more: of a context, or of all.
pub(crate) fn lost(context: Option<usize>) {
    let mut streams = STREAMS_SEEN.lock();
    let gone: Vec<Key> = streams
        .by_key
        .iter()
        .filter(|(_, entry)| context.is_none_or(|context| entry.0.lock().context == context))
        .map(|(key, _)| *key)
        .collect();
    for key in gone {
        streams.remove(key, Life::Lost);
    }
    GENERATION.fetch_add(1, Ordering::AcqRel);
}

/// Every entry that is or was a stream.
pub(crate) fn streams() -> Vec<&'static Stream> {
    STREAMS_SEEN.lock().all.clone()
}

pub(crate) fn unloaded() {
    UNLOADED.fetch_add(1, Ordering::Relaxed);
}

/// How many modules were unloaded.
pub(crate) fn modules_unloaded() -> u64 {
    UNLOADED.load(Ordering::Relaxed)
}

impl Inner {
    /// The last position takes the next place of the order over all streams, if that matters.
    #[inline]
    fn take_turn(&mut self) {
        if ORDER_MATTERS.load(Ordering::Relaxed) == 0
            || !(self.is_legacy() || self.blocking == Some(true))
        {
            return;
        }
        let order = ORDER.fetch_add(1, Ordering::Relaxed) + 1;
        let run = self.turns.last();
        if run.is_none_or(|&(at, first)| first + (self.submitted - at) != order) {
            self.turns.push(TURNS, (self.submitted, order));
        }
    }

    /// The place of a position in the order over all streams. 0: before all that have one. `None`
    /// where that is not kept any more.
    pub(crate) fn order_of(&self, position: u64) -> Option<u64> {
        let runs = &self.turns;
        match runs.partition_point(|&(at, _)| at <= position) {
            0 if self.turns.lacks_older => None,
            0 => Some(0),
            count => runs
                .get(count - 1)
                .map(|&(at, first)| first + (position - at)),
        }
    }

    /// The last position that has a lower place than `order`. `None` where that is not kept.
    pub(crate) fn last_before(&self, order: u64) -> Option<u64> {
        let runs = &self.turns;
        let count = runs.partition_point(|&(_, first)| first < order);
        let end = runs.get(count).map_or(self.submitted, |&(at, _)| at - 1);
        match count.checked_sub(1).and_then(|run| runs.get(run)) {
            Some(&(at, first)) => Some(end.min(at + (order - first) - 1)),
            None => (!self.turns.lacks_older).then_some(end),
        }
    }

    /// Work was submitted by a call of this line and time. Returns its position; `None` where it
    /// went into a capture.
    #[inline]
    pub(crate) fn submit(&mut self, kind: Kind, (line, at): (Line, u64)) -> Option<u64> {
        if self.capture != 0 {
            return None;
        }
        self.submitted += 1;
        self.take_turn();
        self.last.kind = kind;
        self.last.at = at;
        self.last.line = line;
        self.keeps_time = false;
        Some(self.submitted)
    }

    /// The kernel of a launch, by its symbol.
    ///
    /// # Safety
    /// `symbol` is null or a C string.
    #[inline]
    pub(crate) unsafe fn launched(&mut self, symbol: *const c_char) {
        self.launches += 1;
        let at = (symbol.addr(), UNLOADED.load(Ordering::Relaxed));
        if at == self.last.symbol_at && !self.last.symbol.is_empty() {
            return;
        }
        self.last.symbol_at = at;
        self.last.symbol.clear();
        if !symbol.is_null() {
            // SAFETY: the caller vouches for it
            let symbol = unsafe { std::ffi::CStr::from_ptr(symbol) }.to_bytes();
            self.last
                .symbol
                .extend_from_slice(&symbol[..symbol.len().min(1024)]);
        }
    }

    pub(crate) fn stop_at(&mut self, position: u64, awaits: Awaits, line: Line) {
        let lost = self.points.push(
            WAITS,
            Point {
                position,
                awaits,
                line,
                at: self.last.at,
            },
        );
        if let Some(lost) = lost {
            self.lost_wait = lost.position;
        }
    }

    /// A record was submitted at a position.
    pub(crate) fn mark(&mut self, entry: &'static Stream, at: u64, event: usize) -> Mark {
        self.records += 1;
        let mark = Mark {
            stream: StreamOf {
                entry,
                number: self.number,
            },
            position: at,
            value: self.records,
            event,
            line: self.last.line,
        };
        self.marks.push(RECORDS, mark);
        mark
    }
}

/// All work that the stream has now.
pub(crate) fn work_of(entry: &'static Stream) -> (StreamOf, u64) {
    let inner = entry.0.lock();
    let number = inner.number;
    (StreamOf { entry, number }, inner.submitted)
}

pub(crate) fn tid() -> i32 {
    // SAFETY: it has no requirement
    unsafe { libc::gettid() }
}
