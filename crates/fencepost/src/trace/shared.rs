//! What the handles of a trace, its guards and its thread share.
//!
//! Locks, in the order in which they may be taken: `intake`, then one of the others. None of the
//! others is held while another one is taken, but for a thread's buffer under `store`. No driver is
//! called under any but `intake`, which nobody takes who records.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, PoisonError, TryLockError},
    time::Instant,
};

use super::{
    Options,
    alarm::Alarm,
    arrows::{self, Arrows},
    clocks::{Reading, unique},
    instants::Origin,
    intake::Intake,
    known::KnownNames,
    picture::{Picture, ProcessFacts},
    recorder::Recorder,
    store::{Record, Store},
    text::Text,
    threads::{self, Buffer, Here, HostRecord, Name, Opened, Records},
};
use crate::{
    core::StreamCore,
    error::Error,
    fork::Process,
    observe::{Observer, Wait},
    stream::Stream,
    sync::{AtomicBool, AtomicU64, Ids, Mutex, Ordering, lock},
};

pub(super) struct Shared {
    pub(super) id: u64,
    pub(super) process: Process,
    pub(super) facts: ProcessFacts,
    /// When the trace began: what times of the host count from.
    pub(super) origin: Origin,
    pub(super) readings: Mutex<Vec<Reading>>,
    pending: Option<usize>,
    pub(super) tracks: Mutex<Tracks>,
    /// Names of spans of threads.
    pub(super) names: KnownNames,
    pub(super) store: Mutex<Stored>,
    pub(super) arrows: Mutex<Arrows>,
    pub(super) intake: Mutex<Intake>,
    /// Spans that could not be recorded, or not be kept on their way into the store.
    pub(super) dropped: AtomicU64,
    first_error: Mutex<Option<String>>,
    pub(super) stopping: AtomicBool,
    pub(super) alarm: Alarm,
}

pub(super) struct Stored {
    pub(super) store: Store,
    spare: Records,
}

/// So many tracks are kept in any case.
const SWEEP: usize = 1024;

/// Each so many new threads, the buffers of those that have ended are taken in.
const MANY: usize = 64;

pub(super) struct Tracks {
    /// By their numbers, none of which comes again.
    pub(super) list: HashMap<u32, Track>,
    next: u32,
    sweep_at: usize,
    of_streams: HashMap<u64, u32>,
    recorders: HashMap<u64, Arc<Recorder>>,
    buffers: Vec<Arc<Buffer>>,
}

pub(super) enum Track {
    Stream(Arc<StreamCore>),
    Thread { name: String, tid: u64 },
}

impl Shared {
    pub(super) fn new(options: Options) -> Arc<Shared> {
        static NEXT: Ids = Ids::new();
        Arc::new(Shared {
            id: NEXT.next(),
            process: Process::this(),
            facts: ProcessFacts {
                pid: std::process::id(),
                name: process_name(),
                unique: unique(),
            },
            origin: Origin::now(),
            readings: Mutex::new(vec![Reading::now()]),
            pending: options.pending,
            tracks: Mutex::new(Tracks::new()),
            names: KnownNames::default(),
            store: Mutex::new(Stored {
                store: Store::new(options.capacity),
                spare: Records::default(),
            }),
            arrows: Mutex::new(Arrows::new(options.capacity)),
            intake: Mutex::new(Intake::default()),
            dropped: AtomicU64::new(0),
            first_error: Mutex::new(None),
            stopping: AtomicBool::new(false),
            alarm: Alarm::new(),
        })
    }

    /// Whether this is the process that made it. In a forked child nothing of it is touched.
    #[inline]
    pub(super) fn is_ours(&self) -> bool {
        self.process.is_this()
    }

    #[inline]
    pub(super) fn since_origin(&self, at: Instant) -> u64 {
        self.origin.until(at)
    }

    /// A span is lost. The first error is kept.
    #[cold]
    pub(super) fn lost(&self, error: Option<&Error>) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
        if let Some(error) = error {
            lock(&self.first_error).get_or_insert_with(|| error.to_string());
        }
    }

    /// As [`lost`](Shared::lost), where the trace goes on without.
    #[cold]
    pub(super) fn note_error(&self, error: &Error) {
        lock(&self.first_error).get_or_insert_with(|| error.to_string());
    }

    pub(super) fn first_error(&self) -> Option<String> {
        lock(&self.first_error).clone()
    }

    /// The recorder of a stream, made where there is none.
    #[cold]
    pub(super) fn recorder(&self, stream: &Stream) -> Arc<Recorder> {
        let mut tracks = lock(&self.tracks);
        let track = tracks.of(stream.imp().core());
        let recorders = &mut tracks.recorders;
        let make = || Recorder::new(self.id, track, stream, self.pending);
        let recorder = recorders.entry(stream.id()).or_insert_with(make).clone();
        drop(tracks);
        self.sweep();
        recorder
    }

    pub(super) fn recorders(&self) -> Vec<Arc<Recorder>> {
        lock(&self.tracks).recorders.values().cloned().collect()
    }

    /// Forgets the recorders of streams that are gone, and what waits for them.
    pub(super) fn forget(&self, streams: &[u64]) {
        let mut tracks = lock(&self.tracks);
        let gone: Vec<_> = streams
            .iter()
            .map(|id| tracks.recorders.remove(id))
            .collect();
        drop(tracks);
        gone.iter().flatten().for_each(|recorder| recorder.close());
    }

    /// Adds a record of this thread, or of the thread with the track that it names.
    #[inline]
    pub(super) fn host(&self, record: HostRecord) {
        self.add_here(|records| records.others.push(record));
    }

    /// The same of a span with a known name and without attributes.
    #[inline]
    pub(super) fn plain(&self, record: Record) {
        self.add_here(|records| records.plain.push(record));
    }

    #[inline]
    fn add_here(&self, put: impl FnOnce(&mut Records)) {
        let added = threads::here(
            self.id,
            || self.new_thread(),
            |here| {
                let added = here.buffer.add(put);
                if added == Some(true) {
                    self.move_if_free(&here.buffer);
                }
                added
            },
        );
        if added.flatten().is_none() {
            self.lost(None);
        }
    }

    /// The track of this thread, which is named by `thread` if that tells one, and what a span
    /// there is called. `None` at the end of the thread.
    #[inline]
    pub(super) fn begin_here(
        &self,
        name: &str,
        thread: impl FnOnce() -> Option<String>,
    ) -> Option<(u32, Name)> {
        let (track, known) = threads::here(
            self.id,
            || self.new_thread(),
            |here| {
                let track = match here.buffer.track.get() {
                    Some(track) if here.buffer.is_named.load(Ordering::Relaxed) => *track,
                    _ => self.name_thread(&here.buffer, Some(thread())),
                };
                (track, here.number(name))
            },
        )?;
        match known {
            Some(number) => Some((track, Name::Known(number))),
            None => Some((track, self.name(name))),
        }
    }

    /// The name of a span of a thread; this thread keeps its number, if it has one.
    #[cold]
    pub(super) fn name(&self, name: &str) -> Name {
        match self.names.number(name) {
            Some(number) => {
                threads::keep(self.id, name, number);
                Name::Known(number)
            }
            None => Name::Other(Box::new(Text::new(name))),
        }
    }

    /// Gives the thread a track, and its track the name that the caller's language has for it, or
    /// has not. Without a caller the name may come later.
    #[cold]
    fn name_thread(&self, buffer: &Buffer, name: Option<Option<String>>) -> u32 {
        let tid = threads::thread_number();
        let mut tracks = lock(&self.tracks);
        let track = *buffer.track.get_or_init(|| tracks.add_thread(tid));
        buffer.is_named.store(name.is_some(), Ordering::Relaxed);
        if let Some(Some(name)) = name {
            tracks.list.insert(track, Track::Thread { name, tid });
        }
        drop(tracks);
        self.sweep();
        track
    }

    #[cold]
    fn new_thread(&self) -> Here {
        let buffer = Arc::new(Buffer::new());
        let mut tracks = lock(&self.tracks);
        tracks.buffers.push(buffer.clone());
        let many = tracks.buffers.len().is_multiple_of(MANY);
        drop(tracks);
        if many {
            // Those of threads that have ended would pile up.
            self.take_in_threads();
        }
        Here::new(self.id, buffer)
    }

    /// Forgets tracks on which nothing is any more, when there are many.
    fn sweep(&self) {
        let floor = {
            let tracks = lock(&self.tracks);
            if tracks.list.len() < tracks.sweep_at {
                return;
            }
            tracks.next
        };
        let mut used = HashSet::new();
        lock(&self.store).store.each_track(|track| {
            used.insert(track);
        });
        for noted in lock(&self.arrows).list() {
            used.insert(noted.to);
            if let arrows::From::Marker(track, _) = noted.from {
                used.insert(track);
            }
        }
        let mut tracks = lock(&self.tracks);
        used.extend(tracks.recorders.values().map(|recorder| recorder.track));
        let live = tracks
            .buffers
            .iter()
            .filter_map(|buffer| buffer.track.get());
        used.extend(live);
        let is_kept = |track: u32| track >= floor || used.contains(&track);
        tracks.list.retain(|track, _| is_kept(*track));
        tracks.of_streams.retain(|_, track| is_kept(*track));
        tracks.sweep_at = (tracks.list.len() * 2).max(SWEEP);
    }

    #[cold]
    fn move_if_free(&self, buffer: &Buffer) {
        let mut stored = match self.store.try_lock() {
            Ok(stored) => stored,
            Err(TryLockError::Poisoned(stored)) => PoisonError::into_inner(stored),
            Err(TryLockError::WouldBlock) => return,
        };
        let Stored { store, spare } = &mut *stored;
        buffer.take_in(store, spare);
    }

    /// Moves the buffers of all threads.
    pub(super) fn take_in_threads(&self) {
        let mut tracks = lock(&self.tracks);
        let buffers = tracks.buffers.clone();
        // Those of threads that have ended: they are taken in below, and then they are gone.
        tracks
            .buffers
            .retain(|buffer| Arc::strong_count(buffer) > 2);
        drop(tracks);
        let mut stored = lock(&self.store);
        let Stored { store, spare } = &mut *stored;
        for buffer in buffers.iter().filter(|buffer| buffer.len() > 0) {
            buffer.take_in(store, spare);
        }
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Whether a stream has enough pending for a round of the thread.
    pub(super) fn is_due(&self) -> bool {
        lock(&self.tracks)
            .recorders
            .values()
            .any(|recorder| recorder.is_due())
    }

    /// Ends the thread, and drops what belongs to devices.
    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        self.alarm.stop();
        let mut tracks = lock(&self.tracks);
        let recorders = std::mem::take(&mut tracks.recorders);
        drop(tracks);
        recorders.values().for_each(|recorder| recorder.close());
    }
}

impl Tracks {
    fn new() -> Tracks {
        Tracks {
            list: HashMap::new(),
            next: 0,
            sweep_at: SWEEP,
            of_streams: HashMap::new(),
            recorders: HashMap::new(),
            buffers: Vec::new(),
        }
    }

    fn add(&mut self, track: Track) -> u32 {
        let number = self.next;
        self.next += 1;
        self.list.insert(number, track);
        number
    }

    /// A track of this thread, with the name that the system knows.
    fn add_thread(&mut self, tid: u64) -> u32 {
        let current = std::thread::current();
        let name = current.name().map(Into::into);
        let name = name.unwrap_or_else(|| format!("thread {tid}"));
        self.add(Track::Thread { name, tid })
    }

    #[cfg(test)]
    pub(super) fn buffers(&self) -> usize {
        self.buffers.len()
    }

    /// The track of a stream.
    pub(super) fn of(&mut self, stream: &Arc<StreamCore>) -> u32 {
        if let Some(track) = self.of_streams.get(&stream.id) {
            return *track;
        }
        let track = self.add(Track::Stream(stream.clone()));
        self.of_streams.insert(stream.id, track);
        track
    }
}

impl Observer for Shared {
    fn waits(&self, wait: &Wait<'_>) {
        if self.is_ours() {
            // Not under the lock of the arrows.
            let of = |core: &Arc<StreamCore>| lock(&self.tracks).of(core);
            let from = match wait.awaited.is_gate {
                true => arrows::From::Gate(wait.awaited.id),
                false => arrows::From::Marker(of(wait.awaited), wait.value),
            };
            let to = of(wait.waiting);
            lock(&self.arrows).add(arrows::Noted {
                from,
                to,
                after: wait.after,
            });
            self.sweep();
        }
    }

    fn opens(&self, gate: &StreamCore) {
        let at = Instant::now();
        if !self.is_ours() || !lock(&self.arrows).opens(gate.id) {
            return;
        }
        let track = threads::here(
            self.id,
            || self.new_thread(),
            |here| match here.buffer.track.get() {
                Some(track) => *track,
                None => self.name_thread(&here.buffer, None),
            },
        );
        let Some(track) = track else {
            return;
        };
        self.host(HostRecord {
            track,
            start: self.since_origin(at),
            length: 0,
            name: Name::Other(Box::new(Text::new(&format!("open {}", gate.short())))),
            attributes: None,
            mark: Some(Opened(gate.id)),
        });
    }
}

impl Picture {
    /// An empty one, of a process and as of now.
    pub fn of_process(pid: u32, name: String) -> Picture {
        Picture {
            process: ProcessFacts {
                pid,
                name,
                unique: unique(),
            },
            clocks: Reading::now().clocks,
            ..Picture::default()
        }
    }
}

/// The name of the program.
fn process_name() -> String {
    let program = std::env::current_exe().ok();
    let name = program.as_deref().and_then(|path| path.file_name());
    name.map_or_else(
        || "unknown".into(),
        |name| name.to_string_lossy().into_owned(),
    )
}
