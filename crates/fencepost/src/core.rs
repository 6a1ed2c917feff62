//! The part of a device, and of a stream, that is the same in every backend: identity, the lock of
//! a stream's order, and the waits that the host knows of.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, OnceLock, Weak},
    time::Duration,
};

use crate::{
    clock::Clock,
    diagnostics,
    error::{Cause, Error, Result, Returned},
    fork::Process,
    name::Name,
    place::Place,
    sync::{AtomicU64, BriefLock, Ids, Mutex, Ordering, lock},
    timeline::{Awaited, Point, Reached, Timeline},
};

/// A closure that runs on a thread of the library.
pub(crate) type Job = Box<dyn FnOnce() + Send>;

/// The closure that work on a host stream is. An error that it returns fails the stream.
pub(crate) type Work = Box<dyn FnOnce() -> Result<(), Box<Returned>> + Send>;

/// Where a device runs users' callbacks: one at a time, in order, on a thread of the library.
pub(crate) trait Callbacks: Send + Sync {
    /// Puts `job` behind those that are queued, for the next [`start`](Callbacks::start). It holds
    /// one lock for a moment and takes no other, so it may be called under the locks of this crate.
    /// In a forked child, which has no thread for the job, it is leaked: to drop it may run code of
    /// the user's.
    fn push(&self, job: Job);

    /// Has what is queued run soon. Call it after a [`push`](Callbacks::push), without any lock.
    fn start(&self);

    /// Runs `job` soon.
    fn call(&self, job: Job) {
        self.push(job);
        self.start();
    }

    /// How many jobs have panicked.
    fn panics(&self) -> u64;
}

/// Identity and facts of a device.
pub(crate) struct DeviceCore {
    pub(crate) id: u64,
    pub(crate) name: String,
    pub(crate) label: Name,
    pub(crate) clock: Clock,
    pub(crate) callbacks: Arc<dyn Callbacks>,
    /// The process that opened it. A forked child has neither its threads nor its driver.
    pub(crate) process: Process,
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
            label: Name::default(),
            clock,
            callbacks,
            process: Process::this(),
        })
    }

    /// An error in a process forked from the one that opened the device: what would complete a
    /// pending marker is in the parent. One atomic load, and no lock.
    #[inline]
    pub(crate) fn check_fork(&self) -> Result<()> {
        match self.process.is_this() {
            true => Ok(()),
            false => Err(self.forked()),
        }
    }

    #[cold]
    fn forked(&self) -> Error {
        Error::Forked {
            device: self.name.clone(),
        }
    }
}

/// Its name, and its label if it has one: `cuda:0 "training"`.
impl fmt::Display for DeviceCore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.name, self.label)
    }
}

/// Whether a device is lost, and why: the first cause stays.
#[cfg_attr(not(has_gpu), allow(dead_code))]
pub(crate) struct Loss(OnceLock<Cause>);

#[cfg_attr(not(has_gpu), allow(dead_code))]
impl Loss {
    pub(crate) fn new() -> Loss {
        Loss(OnceLock::new())
    }

    /// The error of every call on the device of this name, once that is lost.
    pub(crate) fn error(&self, device: &str) -> Option<Error> {
        self.0.get().map(|cause| lost(device, cause))
    }

    /// The device of this name is lost, by `cause` if nothing was its cause before. `fail` fails
    /// all its streams with the first cause. Call it without any lock.
    pub(crate) fn declare(
        &self,
        device: &str,
        cause: impl FnOnce() -> Cause,
        fail: impl FnOnce(&Cause),
    ) -> Error {
        let mut first = false;
        let cause = self.0.get_or_init(|| {
            first = true;
            cause()
        });
        fail(cause);
        if first {
            diagnostics::device_lost(device, cause);
        }
        lost(device, cause)
    }
}

fn lost(device: &str, cause: &Cause) -> Error {
    Error::DeviceLost {
        device: device.into(),
        cause: cause.clone(),
    }
}

/// What a stream of host work does at a moment, for the text of a timeout.
pub(crate) enum Doing {
    /// It runs a closure.
    Runs { at: Place, time: Duration },
    /// Its next closure waits for a thread.
    NotStarted {
        at: Place,
        /// Why there is none to be had, in words.
        exhausted: Option<String>,
    },
    /// None of these: it is parked, or between two steps.
    GoesOn,
}

/// A stream of host work.
pub(crate) trait HostWork: Send + Sync {
    fn doing(&self) -> Doing;
}

/// A stream whose work runs on a device that can be asked how far it is.
pub(crate) trait DeviceWork: Send + Sync {
    /// Completes what the device tells to be complete. `true` where nothing submitted is left.
    /// Never blocks.
    fn look(&self) -> bool;
}

/// A stream's wait that the device keeps by itself, so that the host does not learn when it is
/// over. It holds no marker: an event whose marker has another owner is not recorded in place.
struct DeviceWait {
    timeline: Weak<Timeline>,
    value: u64,
    at: Place,
    /// The stream's last marker in front of the wait.
    after: u64,
}

/// The last of them, in a ring: for the texts of timeouts alone.
#[derive(Default)]
struct DeviceWaits {
    ring: [Option<DeviceWait>; 4],
    next: usize,
}

/// Identity and order of a stream, the same over all its timelines.
pub(crate) struct StreamCore {
    pub(crate) id: u64,
    pub(crate) name: Name,
    /// Whether it is no stream, but a [`Gate`](crate::Gate): its only marker is the gate.
    pub(crate) is_gate: bool,
    /// The stream itself, if it runs host work.
    pub(crate) host_work: OnceLock<Weak<dyn HostWork>>,
    /// The stream itself, if a timeout may ask its device.
    pub(crate) device_work: OnceLock<Weak<dyn DeviceWork>>,
    pub(crate) device: Arc<DeviceCore>,
    /// The last value allocated, for [`Timeout`](crate::error::Timeout) and progress.
    pub(crate) recorded: AtomicU64,
    /// The lock under which values are allocated, where the backend has none of its own for it. It
    /// may guard the slots of events too ([`Slot`](crate::rerecord::Slot)), and what OpenCL's
    /// backend keeps of a stream ([`Ordered`](crate::ordered::Ordered)). So under it no lock is
    /// taken but a timeline's, under which nobody takes this one.
    pub(crate) order: BriefLock,
    /// The stream's waits that the host knows of and that are not over, in their order. A host
    /// stream has several where its work waits for many, a GPU's stream where waits queue up.
    waits: Mutex<Waits>,
    device_waits: Mutex<DeviceWaits>,
}

struct Waits {
    list: VecDeque<(u64, Blocked)>,
    next: u64,
}

/// A stream's wait that the host knows of.
#[derive(Clone)]
pub(crate) struct Blocked {
    pub(crate) marker: Arc<dyn Awaited>,
    /// Further markers: the wait is over as soon as one of all of them is.
    pub(crate) or: Vec<Arc<dyn Awaited>>,
    /// Whether the wait has no deadline: only such waits can close a deadlock.
    pub(crate) for_ever: bool,
    /// Whether host work blocks, or the queue itself is parked.
    pub(crate) in_work: bool,
    /// The last marker in front of the wait: later ones are held up by it.
    pub(crate) after: u64,
}

impl StreamCore {
    pub(crate) fn new(device: Arc<DeviceCore>) -> Arc<StreamCore> {
        StreamCore::make(device, false)
    }

    /// That of a gate.
    pub(crate) fn of_gate(device: Arc<DeviceCore>) -> Arc<StreamCore> {
        StreamCore::make(device, true)
    }

    fn make(device: Arc<DeviceCore>, is_gate: bool) -> Arc<StreamCore> {
        static NEXT: Ids = Ids::new();
        Arc::new(StreamCore {
            id: NEXT.next(),
            name: Name::default(),
            is_gate,
            host_work: OnceLock::new(),
            device_work: OnceLock::new(),
            device,
            recorded: AtomicU64::new(0),
            order: BriefLock::new(),
            waits: Mutex::new(Waits {
                list: VecDeque::new(),
                next: 0,
            }),
            device_waits: Mutex::new(DeviceWaits::default()),
        })
    }

    /// Allocates the next value, under the lock of the order.
    #[cfg_attr(not(any(feature = "cuda", loom)), allow(dead_code))]
    pub(crate) fn next_value(&self) -> u64 {
        let _order = self.order.lock();
        self.count()
    }

    /// Allocates the next value. The caller holds the lock under which that is done.
    #[cfg_attr(not(any(feature = "cuda", feature = "opencl", loom)), allow(dead_code))]
    #[inline]
    pub(crate) fn count(&self) -> u64 {
        let value = self.recorded.load(Ordering::Relaxed) + 1;
        self.recorded.store(value, Ordering::Release);
        value
    }

    /// The last value allocated. The thread that allocates the next one sees everything that the
    /// caller did before this call.
    #[cfg_attr(not(any(feature = "cuda", loom)), allow(dead_code))]
    pub(crate) fn last_value(&self) -> u64 {
        let _order = self.order.lock();
        self.recorded.load(Ordering::Relaxed)
    }

    /// What it does; `None` where that is work on a device.
    pub(crate) fn doing(&self) -> Option<Doing> {
        Some(self.host_work.get()?.upgrade()?.doing())
    }

    /// Its name without the device's: `stream 3 "load"`, or `gate 4`.
    pub(crate) fn short(&self) -> String {
        let kind = if self.is_gate { "gate" } else { "stream" };
        format!("{kind} {}{}", self.id, self.name)
    }

    /// What is submitted from now on waits for `point`, on the device.
    #[cfg_attr(not(has_gpu), allow(dead_code))]
    pub(crate) fn waits_on_device(&self, point: &Point) {
        let wait = DeviceWait {
            timeline: Arc::downgrade(&point.timeline),
            value: point.value,
            at: point.at,
            after: self.recorded.load(Ordering::Acquire),
        };
        let mut waits = lock(&self.device_waits);
        let next = waits.next;
        let before = waits.ring[next].replace(wait);
        waits.next = (next + 1) % waits.ring.len();
        drop(waits);
        drop(before);
    }

    /// The last point that the marker at `value` waits for on the device, of those that are not
    /// known to be complete, and the last of its own markers in front of that wait. Asks the device
    /// of that point.
    pub(crate) fn device_wait(&self, value: u64) -> Option<(Point, u64)> {
        let waits = lock(&self.device_waits);
        let (newer, older) = waits.ring.split_at(waits.next);
        let in_front = newer.iter().rev().chain(older.iter().rev()).flatten();
        let in_front = in_front.filter(|wait| wait.after < value);
        let points: Vec<_> = in_front
            .filter_map(|wait| {
                let point = Point {
                    timeline: wait.timeline.upgrade()?,
                    value: wait.value,
                    at: wait.at,
                    timing: false,
                };
                Some((point, wait.after))
            })
            .collect();
        drop(waits);
        points.into_iter().find(|(point, _)| {
            let is_pending = || point.reached() == Reached::NotYet;
            is_pending() && !point.timeline.stream.look() && is_pending()
        })
    }

    fn look(&self) -> bool {
        let work = self.device_work.get().and_then(Weak::upgrade);
        work.is_some_and(|work| work.look())
    }

    /// The first of its waits.
    #[cfg_attr(not(feature = "cuda"), allow(dead_code))]
    pub(crate) fn blocked(&self) -> Option<Blocked> {
        lock(&self.waits)
            .list
            .front()
            .map(|(_, blocked)| blocked.clone())
    }

    /// Its waits in front of the marker at `value`, which completes only after all of them.
    pub(crate) fn waits_in_front_of(&self, value: u64) -> Vec<Blocked> {
        let waits = lock(&self.waits);
        let in_front = waits.list.iter().filter(|(_, wait)| wait.after < value);
        in_front.map(|(_, wait)| wait.clone()).collect()
    }

    /// Publishes a wait. [`unblock`](StreamCore::unblock) takes it back by this number.
    pub(crate) fn block(&self, blocked: Blocked) -> u64 {
        let mut waits = lock(&self.waits);
        waits.next += 1;
        let number = waits.next;
        waits.list.push_back((number, blocked));
        number
    }

    /// Takes back a wait that is over. Its marker is dropped without the lock.
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
        write!(f, "{} of {}", self.short(), self.device)
    }
}

/// The streams of a device, by weak references. Dead ones are removed whenever as many were added
/// as were alive after the last removal, so the amortised cost of a stream is constant.
pub(crate) struct Streams<S: ?Sized>(Mutex<List<S>>);

struct List<S: ?Sized> {
    streams: Vec<Weak<S>>,
    sweep_at: usize,
}

const FIRST_SWEEP: usize = 64;

impl<S: ?Sized> Streams<S> {
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

    /// The stream that `is` says, if one is alive; else `stream`, which is added.
    #[cfg(feature = "opencl")]
    pub(crate) fn find_or_add(&self, stream: Arc<S>, is: impl Fn(&S) -> bool) -> Arc<S> {
        let mut list = lock(&self.0);
        let alive: Vec<_> = list.streams.iter().filter_map(Weak::upgrade).collect();
        let known = alive.iter().find(|known| is(known)).cloned();
        if known.is_none() {
            list.streams.push(Arc::downgrade(&stream));
        }
        drop(list);
        // Any of these may be the last owner, and a stream's drop may call the driver.
        drop(alive);
        known.unwrap_or(stream)
    }
}
