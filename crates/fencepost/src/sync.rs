//! The one place where the crate's atomics, locks and threads come from: std, or loom under
//! `--cfg loom`, so that the code that ships is the code that is model-checked.
//!
//! `Arc` is always std's: loom's cannot hold `dyn` types on stable Rust, and none of the protocols
//! checked here depends on the order of reference counts.

// Under loom the qualified names below are others than the re-exported ones.
#![allow(unused_qualifications)]

#[cfg(not(loom))]
pub(crate) use std::{
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    thread,
};

#[cfg(loom)]
pub(crate) use loom::{
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    thread,
};

use std::{
    sync::atomic as std_atomic,
    thread as std_thread,
    time::{Duration, Instant},
};

/// Locks, and goes on after a poisoning: no user code runs under a lock of this crate, so the data
/// of a poisoned one is whole.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// A lock for the shortest sections of the busiest paths: taken by one atomic read-modify-write,
/// let go of by a plain store, where [`Mutex`] needs a second read-modify-write to learn whether
/// somebody waits.
///
/// So nobody wakes those who wait: they look for a moment, then sleep, longer each time up to a
/// millisecond. A holder can be long inside only where the system took its core away, and then a
/// millisecond is little.
#[cfg(not(loom))]
pub(crate) struct BriefLock(spin::mutex::SpinMutex<()>);
#[cfg(loom)]
pub(crate) struct BriefLock(Mutex<()>);

#[cfg(not(loom))]
pub(crate) type BriefGuard<'a> = spin::mutex::SpinMutexGuard<'a, ()>;
#[cfg(loom)]
pub(crate) type BriefGuard<'a> = MutexGuard<'a, ()>;

impl BriefLock {
    pub(crate) fn new() -> BriefLock {
        #[cfg(not(loom))]
        return BriefLock(spin::mutex::SpinMutex::new(()));
        #[cfg(loom)]
        return BriefLock(Mutex::new(()));
    }

    #[inline]
    pub(crate) fn lock(&self) -> BriefGuard<'_> {
        #[cfg(not(loom))]
        return self.0.try_lock().unwrap_or_else(|| self.wait());
        #[cfg(loom)]
        return lock(&self.0);
    }

    #[cfg(not(loom))]
    #[cold]
    fn wait(&self) -> BriefGuard<'_> {
        loop {
            look_until(|| !self.0.is_locked());
            if let Some(guard) = self.0.try_lock() {
                return guard;
            }
        }
    }
}

/// Looks at `done` until it is so, of which nobody tells: for a moment without a pause, then with
/// sleeps, longer each time up to a millisecond.
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

/// What a protocol of atomics guards, so that loom sees every use of it.
#[cfg(loom)]
pub(crate) use loom::cell::UnsafeCell;

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
}

/// Parks until unparked, or for about `left`; may return early.
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

/// How long a thread looks before it sleeps. Sleeping and being woken costs from 5 µs (bare metal)
/// to 40 µs and more (virtual machines), so looking for about as long at most doubles a wait's cost
/// and often saves all of it.
const SPIN: Duration = Duration::from_micros(15);

/// Looks at `done` for a short, bounded time. On a machine with one core nothing can change while
/// we look, so it looks once.
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
        // Whoever we wait for may have been woken onto this very core: let it run. Measured:
        // without this, a wake-up under load costs up to six times as much.
        std_thread::yield_now();
    }
}

/// The number of cores, at least one.
pub(crate) fn cores() -> usize {
    use std::sync::OnceLock;
    static CORES: OnceLock<usize> = OnceLock::new();
    *CORES.get_or_init(|| std_thread::available_parallelism().map_or(1, usize::from))
}

fn single_core() -> bool {
    cores() == 1
}

/// Gives out numbers from 1 up. Always std's: loom has no atomics that outlive a model.
pub(crate) struct Ids(std_atomic::AtomicU64);

impl Ids {
    pub(crate) const fn new() -> Ids {
        Ids(std_atomic::AtomicU64::new(1))
    }

    pub(crate) fn next(&self) -> u64 {
        self.0.fetch_add(1, std_atomic::Ordering::Relaxed)
    }
}

/// Sleeps on the real clock; no loom model gets here.
pub(crate) fn sleep(time: Duration) {
    std_thread::sleep(time);
}
