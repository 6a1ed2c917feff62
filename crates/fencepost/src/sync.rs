//! The crate's atomics, locks and threads: those of std, or of loom under `--cfg loom`. The code
//! that ships is the code that loom checks.
//!
//! `Arc` is always std's: loom's cannot hold `dyn` types on stable Rust, and no protocol of this
//! crate depends on the order of reference counts.

// Under loom, the qualified names below are not the re-exported ones.
#![allow(unused_qualifications)]

#[cfg(not(loom))]
pub(crate) use std::{
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence},
    },
    thread,
};

#[cfg(loom)]
pub(crate) use loom::{
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence},
    },
    thread,
};

use std::{
    sync::atomic as std_atomic,
    thread as std_thread,
    time::{Duration, Instant},
};

/// Locks, also after a poisoning. No user code runs under a lock of this crate, so the data under a
/// poisoned one is consistent.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// A lock for very short critical sections on hot paths. Locking is one atomic read-modify-write,
/// unlocking a plain store. [`Mutex`] needs a second read-modify-write to learn whether a thread
/// waits.
///
/// So nothing wakes a waiting thread: it spins for a moment, then sleeps, longer each time up to a
/// millisecond. A holder stays inside for long only where the system has preempted it, and then a
/// millisecond makes little difference.
#[cfg(not(loom))]
pub(crate) struct BriefLock<T = ()>(spin::mutex::SpinMutex<T>);
#[cfg(loom)]
pub(crate) struct BriefLock<T = ()>(Mutex<T>);

#[cfg(not(loom))]
pub(crate) type BriefGuard<'a, T = ()> = spin::mutex::SpinMutexGuard<'a, T>;
#[cfg(loom)]
pub(crate) type BriefGuard<'a, T = ()> = MutexGuard<'a, T>;

impl BriefLock {
    pub(crate) fn new() -> BriefLock {
        BriefLock::over(())
    }
}

impl<T> BriefLock<T> {
    /// A lock with what it guards.
    pub(crate) fn over(value: T) -> BriefLock<T> {
        #[cfg(not(loom))]
        return BriefLock(spin::mutex::SpinMutex::new(value));
        #[cfg(loom)]
        return BriefLock(Mutex::new(value));
    }

    #[inline]
    pub(crate) fn lock(&self) -> BriefGuard<'_, T> {
        #[cfg(not(loom))]
        return self.0.try_lock().unwrap_or_else(|| self.wait());
        #[cfg(loom)]
        return lock(&self.0);
    }

    #[cfg(not(loom))]
    #[cold]
    fn wait(&self) -> BriefGuard<'_, T> {
        loop {
            look_until(|| !self.0.is_locked());
            if let Some(guard) = self.0.try_lock() {
                return guard;
            }
        }
    }
}

/// Polls `done` until it is true: spins for a moment, then sleeps between two looks, longer each
/// time up to a millisecond.
pub(crate) fn look_until(mut done: impl FnMut() -> bool) {
    #[cfg(loom)]
    while !done() {
        thread::yield_now();
    }
    #[cfg(not(loom))]
    {
        let mut pause = Duration::from_micros(10);
        while !spin_until(None, &mut done) {
            sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(1));
        }
    }
}

/// Data that a protocol of atomics guards. Under loom every use of it is checked.
#[cfg(loom)]
pub(crate) use loom::cell::{MutPtr, UnsafeCell};

#[cfg(not(loom))]
pub(crate) struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

#[cfg(not(loom))]
impl<T> UnsafeCell<T> {
    pub(crate) fn new(value: T) -> UnsafeCell<T> {
        UnsafeCell(std::cell::UnsafeCell::new(value))
    }

    #[inline]
    pub(crate) fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
        f(self.0.get())
    }

    /// For a use that lasts beyond one call: until what this gives is dropped.
    #[inline]
    pub(crate) fn get_mut(&self) -> MutPtr<T> {
        MutPtr(self.0.get())
    }
}

/// A pointer to what an [`UnsafeCell`] holds.
#[cfg(not(loom))]
pub(crate) struct MutPtr<T>(*mut T);

#[cfg(not(loom))]
impl<T> MutPtr<T> {
    #[inline]
    pub(crate) fn with<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
        f(self.0)
    }
}

/// Parks the thread until it is unparked, or for about `left`. May return early.
pub(crate) fn park(left: Option<Duration>) {
    #[cfg(not(loom))]
    match left {
        Some(left) => thread::park_timeout(left),
        None => thread::park(),
    }
    // loom has no clock: a timed park is a park that may return at once.
    #[cfg(loom)]
    match left {
        Some(_) => thread::yield_now(),
        None => thread::park(),
    }
}

/// How long a thread spins before it sleeps. To sleep and be woken costs from 5 µs on bare metal to
/// 40 µs and more on virtual machines. So spinning for about as long at most doubles the cost of a
/// wait, and often saves all of it.
const SPIN: Duration = Duration::from_micros(15);

/// Polls `done` for a short, bounded time, and gives its last answer. On a machine with one core
/// nothing can change meanwhile, so it looks once.
pub(crate) fn spin_until(deadline: Option<Instant>, mut done: impl FnMut() -> bool) -> bool {
    if done() {
        return true;
    }
    if cfg!(any(loom, miri)) || single_core() {
        return false;
    }
    let start = Instant::now();
    let limit = match deadline.and_then(|d| d.checked_duration_since(start)) {
        Some(left) => left.min(SPIN),
        None if deadline.is_some() => return false,
        None => SPIN,
    };
    loop {
        for _ in 0..32 {
            if done() {
                return true;
            }
            std::hint::spin_loop();
        }
        if start.elapsed() >= limit {
            return false;
        }
        // The awaited thread may have been scheduled onto this very core: let it run. Without this,
        // a wake-up under load was measured to cost up to six times as much.
        std_thread::yield_now();
    }
}

/// The number of cores, at least one.
pub(crate) fn cores() -> usize {
    // No lock: a fork while a thread counts would leave it held in the child.
    static CORES: std_atomic::AtomicUsize = std_atomic::AtomicUsize::new(0);
    match CORES.load(std_atomic::Ordering::Relaxed) {
        0 => {
            let cores = std_thread::available_parallelism().map_or(1, usize::from);
            CORES.store(cores, std_atomic::Ordering::Relaxed);
            cores
        }
        known => known,
    }
}

fn single_core() -> bool {
    cores() == 1
}

/// A counter for identities, from 1. Always std's: no atomic of loom's outlives a model.
pub(crate) struct Ids(std_atomic::AtomicU64);

impl Ids {
    pub(crate) const fn new() -> Ids {
        Ids(std_atomic::AtomicU64::new(1))
    }

    pub(crate) fn next(&self) -> u64 {
        self.0.fetch_add(1, std_atomic::Ordering::Relaxed)
    }
}

/// Sleeps on the real clock. No loom model gets here.
pub(crate) fn sleep(time: Duration) {
    std_thread::sleep(time);
}
