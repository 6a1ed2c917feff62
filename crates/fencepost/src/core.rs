//! What everything of one device shares, and everything of one stream: identity, the lock of its
//! order, and the waits that the host can see.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Weak},
};

use crate::{
    clock::Clock,
    error::{Error, Result},
    sync::{AtomicU64, BriefLock, Ids, Mutex, Ordering, lock},
    timeline::Awaited,
};

/// Work to run soon, apart from any stream.
pub(crate) type Job = Box<dyn FnOnce() + Send>;

/// Where a device runs user callbacks: one at a time, in order, on a thread of ours.
pub(crate) trait Callbacks: Send + Sync {
    /// Runs `job` soon; drops it where no thread is left to run it (after a fork).
    fn call(&self, job: Job);

    /// How many jobs have panicked.
    fn panics(&self) -> u64;
}

/// What everything that belongs to one device shares.
pub(crate) struct DeviceCore {
    pub(crate) id: u64,
    pub(crate) name: String,
    pub(crate) clock: Clock,
    pub(crate) callbacks: Arc<dyn Callbacks>,
    /// The process that opened it. Threads and drivers do not survive a fork.
    owner: u32,
}

impl DeviceCore {
    pub(crate) fn new(
        name: impl Into<String>,
        clock: Clock,
        callbacks: Arc<dyn Callbacks>,
    ) -> Arc<DeviceCore> {
        static NEXT: Ids = Ids::new();
        Arc::new(DeviceCore {
            id: NEXT.next(),
            name: name.into(),
            clock,
            callbacks,
            owner: std::process::id(),
        })
    }

    /// An error in a process forked from the one that opened the device: whoever would complete a
    /// pending marker lives in the parent. Asks the system, so only for paths that sleep anyway.
    pub(crate) fn check_fork(&self) -> Result<()> {
        match std::process::id() == self.owner {
            true => Ok(()),
            false => Err(Error::Forked {
                device: self.name.clone(),
            }),
        }
    }
}

/// What everything that belongs to one stream shares, over all its timelines.
pub(crate) struct StreamCore {
    pub(crate) id: u64,
    pub(crate) device: Arc<DeviceCore>,
    /// The last value handed out, for [`Timeout`](crate::error::Timeout) and progress.
    pub(crate) recorded: AtomicU64,
    /// The lock under which values are handed out, where the backend has none of its own for it. It
    /// may guard the slots of events too ([`Slot`](crate::rerecord::Slot)), so no other lock is
    /// taken under it.
    pub(crate) order: BriefLock,
    /// The waits of the stream that the host can see, in their order. A host stream stands at one
    /// at most; ahead of a GPU's queue there may be several.
    waits: Mutex<Waits>,
}

struct Waits {
    list: VecDeque<(u64, Blocked)>,
    next: u64,
}

/// A stream's wait that the host can see.
#[derive(Clone)]
pub(crate) struct Blocked {
    pub(crate) marker: Arc<dyn Awaited>,
    /// Whether the wait has no deadline: only such waits can close a deadlock.
    pub(crate) for_ever: bool,
    /// Whether host work blocks, or the queue itself is parked.
    pub(crate) in_work: bool,
    /// The last marker in front of the wait: those above it are held up.
    pub(crate) after: u64,
}

impl StreamCore {
    pub(crate) fn new(device: Arc<DeviceCore>) -> Arc<StreamCore> {
        static NEXT: Ids = Ids::new();
        Arc::new(StreamCore {
            id: NEXT.next(),
            device,
            recorded: AtomicU64::new(0),
            order: BriefLock::new(),
            waits: Mutex::new(Waits {
                list: VecDeque::new(),
                next: 0,
            }),
        })
    }

    /// Hands out the next value, under the lock of the order.
    #[cfg_attr(not(any(feature = "cuda", loom)), allow(dead_code))]
    pub(crate) fn next_value(&self) -> u64 {
        let _order = self.order.lock();
        self.count()
    }

    /// The next value, for who has the lock of the order.
    #[cfg_attr(not(any(feature = "cuda", loom)), allow(dead_code))]
    #[inline]
    pub(crate) fn count(&self) -> u64 {
        let value = self.recorded.load(Ordering::Relaxed) + 1;
        self.recorded.store(value, Ordering::Release);
        value
    }

    /// The last value handed out: whoever gets the next one sees what the caller did before.
    #[cfg_attr(not(any(feature = "cuda", loom)), allow(dead_code))]
    pub(crate) fn last_value(&self) -> u64 {
        let _order = self.order.lock();
        self.recorded.load(Ordering::Relaxed)
    }

    /// The first of its waits that is not over.
    pub(crate) fn blocked(&self) -> Option<Blocked> {
        lock(&self.waits)
            .list
            .front()
            .map(|(_, blocked)| blocked.clone())
    }

    /// Publishes a wait, until [`unblock`](StreamCore::unblock) is given the number.
    pub(crate) fn block(&self, blocked: Blocked) -> u64 {
        let mut waits = lock(&self.waits);
        waits.next += 1;
        let number = waits.next;
        waits.list.push_back((number, blocked));
        number
    }

    /// A wait is over. What it held is dropped without the lock.
    pub(crate) fn unblock(&self, number: u64) {
        let mut waits = lock(&self.waits);
        let at = waits.list.iter().position(|(wait, _)| *wait == number);
        let over = at.and_then(|at| waits.list.remove(at));
        drop(waits);
        drop(over);
    }
}

impl fmt::Display for StreamCore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stream {} of {}", self.id, self.device.name)
    }
}

/// The streams made so far, without owning them. Dead ones are swept out whenever as many were
/// added as were alive after the last sweep, so a stream costs a constant share of sweeping.
pub(crate) struct Streams<S>(Mutex<List<S>>);

struct List<S> {
    streams: Vec<Weak<S>>,
    sweep_at: usize,
}

const FIRST_SWEEP: usize = 64;

impl<S> Streams<S> {
    pub(crate) fn new() -> Streams<S> {
        Streams(Mutex::new(List {
            streams: Vec::new(),
            sweep_at: FIRST_SWEEP,
        }))
    }

    pub(crate) fn add(&self, stream: &Arc<S>) {
        let mut list = lock(&self.0);
        if list.streams.len() >= list.sweep_at {
            list.streams.retain(|stream| stream.strong_count() > 0);
            list.sweep_at = (list.streams.len() * 2).max(FIRST_SWEEP);
        }
        list.streams.push(Arc::downgrade(stream));
    }

    pub(crate) fn alive(&self) -> Vec<Arc<S>> {
        let list = lock(&self.0);
        list.streams.iter().filter_map(Weak::upgrade).collect()
    }
}
