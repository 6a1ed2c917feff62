//! Forks: whether this is the process that something was made in, by one atomic load; and statics
//! that a forked child can use whatever its parent's threads did at the fork.
//!
//! Threads and drivers stay with the parent of a fork. In the child nothing may wait for them, no
//! driver that the parent uses may be called, and a lock that a thread of the parent held is held
//! for ever. So each call looks here before it takes a lock.
//!
//! *The count of forks only grows, and it changes before any code of the child runs:* the system
//! calls the handler inside `fork()`. So the number of a process never comes again among its
//! descendants, which are the only ones that have its memory.
//!
//! # Statics
//!
//! `OnceLock`, `LazyLock` and `Mutex` of std do not know who holds them, so a child would wait for
//! ever. A static is one of these instead:
//!
//! | kind | in the child | for |
//! |---|---|---|
//! | [`Lasting`] | takes no lock | the origin and the clock of the host; whose child Metal and wgpu refuse |
//! | [`PerProcess`] | one of its own, which takes no lock to make | the shared host device; failures that are held (`root.rs`) or lost, and their hook (`unobserved.rs`); lines of other languages (`place.rs`); deadlines of gates; Metal's streams at exit |
//! | [`Once`] | what the parent made; told where a thread of the parent was making it | CUDA's driver, NVML, the loaders of Vulkan and OpenCL |
//! | [`Lock`] | told where a thread of the parent has it | calls of NVML |
//!
//! The statics that are left are locked only behind a check that the driver is this process's own,
//! which a child fails: the devices of CUDA and OpenCL (`device.rs`), of Vulkan (`open.rs`) and of
//! Metal (`OPENED`), exported handles (`watched.rs`), and what exit handlers look for, CUDA's
//! contexts (`host_gates.rs`), OpenCL's contexts and Vulkan's devices (`exit.rs`).

#![allow(unsafe_code)]

use std::{
    ptr::null_mut,
    sync::{
        OnceLock,
        atomic::{AtomicPtr, AtomicU32, Ordering},
    },
};

use crate::sync::{AtomicU64, look_until};

/// How many forks lie between this process and the first that used the library.
static FORKS: AtomicU32 = AtomicU32::new(0);

/// Marks the number of a process that is its ID: where the system takes no handler.
const BY_ID: u32 = 1 << 31;

/// A process, as its forked children are told from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Process(u32);

impl Process {
    /// The process that calls.
    pub(crate) fn this() -> Process {
        match counts() {
            true => Process(FORKS.load(Ordering::Relaxed)),
            false => Process::by_id(),
        }
    }

    /// Whether it is the process that calls, and not one of its ancestors.
    #[inline]
    pub(crate) fn is_this(self) -> bool {
        self.0 == FORKS.load(Ordering::Relaxed) || self.has_this_id()
    }

    #[cold]
    fn has_this_id(self) -> bool {
        self == Process::by_id()
    }

    fn by_id() -> Process {
        Process(std::process::id() | BY_ID)
    }
}

/// Whether forks of this process are counted from now on.
#[cfg(all(unix, not(miri)))]
fn counts() -> bool {
    const UNKNOWN: u32 = 0;
    const YES: u32 = 1;
    const NO: u32 = 2;
    // No lock: a child would find it held. Threads that are here at the same time register the
    // handler several times; then the count grows by more, and that is all.
    static COUNTS: AtomicU32 = AtomicU32::new(UNKNOWN);
    type Handler = Option<extern "C" fn()>;
    unsafe extern "C" {
        fn pthread_atfork(prepare: Handler, parent: Handler, child: Handler) -> std::ffi::c_int;
    }
    extern "C" fn count() {
        FORKS.fetch_add(1, Ordering::Relaxed);
    }
    if COUNTS.load(Ordering::Acquire) == UNKNOWN {
        // SAFETY: POSIX's pthread_atfork, with a function that does one atomic addition, as a child
        // may. It is refused for lack of memory only.
        // https://pubs.opengroup.org/onlinepubs/9799919799/functions/pthread_atfork.html
        let refused = unsafe { pthread_atfork(None, None, Some(count)) } != 0;
        let answer = if refused { NO } else { YES };
        // One answer for all, also where another thread was refused.
        let _ = COUNTS.compare_exchange(UNKNOWN, answer, Ordering::AcqRel, Ordering::Acquire);
    }
    COUNTS.load(Ordering::Acquire) == YES
}

/// Nothing here forks.
#[cfg(not(all(unix, not(miri))))]
fn counts() -> bool {
    true
}

/// A value that is made when it is first asked for, and lasts as long as the process and its forked
/// children.
///
/// *Invariant: `made` is null or points to a value that is never freed.* It takes no lock, so a
/// fork at any moment leaves a child that can ask.
pub(crate) struct Lasting<T> {
    made: AtomicPtr<T>,
}

impl<T: Send + Sync> Lasting<T> {
    pub(crate) const fn new() -> Lasting<T> {
        Lasting {
            made: AtomicPtr::new(null_mut()),
        }
    }

    /// The value. Of several threads that make one at the same time, the first to be done gives it
    /// to all.
    #[inline]
    pub(crate) fn get_or_make(&'static self, make: impl FnOnce() -> T) -> &'static T {
        match self.get() {
            Some(made) => made,
            None => self.put(None, make()),
        }
    }

    #[inline]
    fn get(&'static self) -> Option<&'static T> {
        // SAFETY: null, or never freed.
        unsafe { self.made.load(Ordering::Acquire).as_ref() }
    }

    /// Puts `value` in the place of `before`, and gives it; or what another thread of this process
    /// has put there meanwhile. No other process writes here: its memory is its own.
    #[cold]
    fn put(&'static self, before: Option<&'static T>, value: T) -> &'static T {
        let before = before.map_or(null_mut(), |before| std::ptr::from_ref(before).cast_mut());
        let value = Box::into_raw(Box::new(value));
        let put = self
            .made
            .compare_exchange(before, value, Ordering::AcqRel, Ordering::Acquire);
        let lasting = match put {
            Ok(_) => value,
            Err(other) => {
                // SAFETY: made above, and known to nobody else.
                drop(unsafe { Box::from_raw(value) });
                other
            }
        };
        // SAFETY: not null, as it was just put there, by this thread or another one; and never
        // freed.
        unsafe { &*lasting }
    }
}

/// A value that each process makes for itself, when it first asks. It takes no lock either.
pub(crate) struct PerProcess<T>(Lasting<Made<T>>);

struct Made<T> {
    process: Process,
    value: T,
}

impl<T: Send + Sync> PerProcess<T> {
    pub(crate) const fn new() -> PerProcess<T> {
        PerProcess(Lasting::new())
    }

    /// The value of this process. `make` is given that of the process that it was forked from,
    /// where there is one: a lock in it may be held for ever. Of several threads that make one at
    /// the same time, the first to be done gives it to all.
    pub(crate) fn get_or_make(
        &'static self,
        make: impl FnOnce(Option<&'static T>) -> T,
    ) -> &'static T {
        let before = self.0.get();
        match before {
            Some(made) if made.process.is_this() => &made.value,
            _ => {
                let made = Made {
                    process: Process::this(),
                    value: make(before.map(|made| &made.value)),
                };
                &self.0.put(before, made).value
            }
        }
    }
}

/// A thread of a process that this one was forked from was inside at the fork, and stays there for
/// ever.
#[derive(Debug)]
pub(crate) struct Interrupted;

/// A lock that tells a forked child when a thread of its parent has it. For what is long, rare and
/// may block, since a thread that waits for it polls.
///
/// `owner` is zero while it is free; else it has the number of the process whose thread holds it,
/// plus one. *Invariant: only a thread of that process sets it to zero*, so in a child of that
/// process it never changes again.
pub(crate) struct Lock {
    owner: AtomicU64,
}

/// While it lives, this thread has the lock.
pub(crate) struct Held<'a>(&'a Lock);

#[cfg_attr(
    any(
        loom,
        not(any(feature = "cuda", feature = "opencl", feature = "vulkan"))
    ),
    allow(dead_code)
)]
impl Lock {
    #[cfg(not(loom))]
    pub(crate) const fn new() -> Lock {
        Lock {
            owner: AtomicU64::new(0),
        }
    }

    /// loom's atomics are made at run time.
    #[cfg(loom)]
    pub(crate) fn new() -> Lock {
        Lock {
            owner: AtomicU64::new(0),
        }
    }

    pub(crate) fn lock(&self) -> Result<Held<'_>, Interrupted> {
        let this = u64::from(Process::this().0) + 1;
        let mut owner = 0;
        let take = || {
            let taken = self
                .owner
                .compare_exchange(0, this, Ordering::Acquire, Ordering::Relaxed);
            owner = taken.err().unwrap_or(0);
            owner != this
        };
        look_until(take);
        match owner {
            0 => Ok(Held(self)),
            _ => Err(Interrupted),
        }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.owner.store(0, Ordering::Release);
    }
}

/// A value that one thread makes while others wait. A forked child has what its parent had made.
pub(crate) struct Once<T> {
    making: Lock,
    value: OnceLock<T>,
}

#[cfg_attr(
    any(
        loom,
        not(any(feature = "cuda", feature = "opencl", feature = "vulkan"))
    ),
    allow(dead_code)
)]
impl<T> Once<T> {
    #[cfg(not(loom))]
    pub(crate) const fn new() -> Once<T> {
        Once {
            making: Lock::new(),
            value: OnceLock::new(),
        }
    }

    /// The value, where it was made. Never blocks.
    #[cfg_attr(not(feature = "cuda"), allow(dead_code))]
    pub(crate) fn get(&self) -> Option<&T> {
        self.value.get()
    }

    /// The value, which `make` makes where nobody has; an error is not kept, so the next call tries
    /// again. `interrupted` is the error of a child that was forked while a thread of its parent
    /// was inside `make`.
    pub(crate) fn get_or_try_make<E>(
        &self,
        make: impl FnOnce() -> Result<T, E>,
        interrupted: impl FnOnce() -> E,
    ) -> Result<&T, E> {
        if let Some(value) = self.value.get() {
            return Ok(value);
        }
        let _alone = match self.making.lock() {
            Ok(held) => held,
            Err(Interrupted) => return Err(interrupted()),
        };
        match self.value.get() {
            Some(value) => Ok(value),
            None => {
                let value = make()?;
                // Nobody else sets it: std's lock in it is never waited for.
                Ok(self.value.get_or_init(|| value))
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
pub(crate) mod tests {
    use super::*;

    #[test]
    fn a_process_is_itself() {
        let one = Process::this();
        assert!(one.is_this() && one == Process::this());
        assert!(
            Process::by_id().is_this(),
            "also where forks are not counted"
        );
        assert!(!Process(one.0 + 1).is_this());
    }

    /// Forks, and gives whether `child` was true there.
    #[cfg(all(unix, not(miri)))]
    pub(crate) fn in_a_child(child: impl FnOnce() -> bool) -> bool {
        // SAFETY: the child calls nothing but what is tested, and _exit.
        match unsafe { libc::fork() } {
            0 => {
                // SAFETY: ends a child that hangs, and the child.
                unsafe {
                    libc::alarm(60);
                    libc::_exit(i32::from(!child()))
                }
            }
            pid => {
                let mut status = -1;
                // SAFETY: a child of ours, and a place for an int.
                unsafe { libc::waitpid(pid, &raw mut status, 0) };
                status == 0
            }
        }
    }

    #[cfg(all(unix, not(miri)))]
    #[test]
    fn a_child_is_told_of_what_a_thread_of_its_parent_was_making() {
        use std::sync::mpsc;

        static MADE: Once<u32> = Once::new();
        static FRESH: Once<u32> = Once::new();
        static LOCK: Lock = Lock::new();
        let (tell, told) = mpsc::channel();
        let (go_on, held) = mpsc::channel::<()>();
        let making = std::thread::spawn(move || {
            let _locked = LOCK.lock().unwrap();
            let make = || {
                tell.send(()).unwrap();
                held.recv().unwrap();
                Ok::<_, &str>(1)
            };
            MADE.get_or_try_make(make, || unreachable!()).copied()
        });
        told.recv().unwrap();
        assert!(in_a_child(|| {
            MADE.get().is_none()
                && MADE.get_or_try_make(|| Ok(2), || "told") == Err("told")
                && matches!(LOCK.lock(), Err(Interrupted))
                && FRESH.get_or_try_make(|| Ok::<_, ()>(3), || ()) == Ok(&3)
                && in_a_child(|| {
                    MADE.get_or_try_make(|| Ok(2), || "told") == Err("told")
                        && FRESH.get_or_try_make(|| Ok::<_, ()>(4), || ()) == Ok(&3)
                })
        }));
        go_on.send(()).unwrap();
        assert_eq!(making.join().unwrap(), Ok(1));
        assert!(in_a_child(|| {
            MADE.get_or_try_make(|| Ok(2), || "told") == Ok(&1) && LOCK.lock().is_ok()
        }));
    }

    #[test]
    fn what_could_not_be_made_is_tried_again() {
        static MADE: Once<u32> = Once::new();
        let make = |made| MADE.get_or_try_make(|| made, || "interrupted").copied();
        assert_eq!(make(Err("no")), Err("no"));
        assert_eq!(make(Ok(1)), Ok(1));
        assert_eq!(make(Err("not called")), Ok(1));
    }

    #[cfg(all(unix, not(miri)))]
    #[test]
    fn a_child_makes_its_own_of_its_parents() {
        static VALUE: PerProcess<u32> = PerProcess::new();
        let value = || *VALUE.get_or_make(|before| before.map_or(1, |before| before + 1));
        assert_eq!((value(), value()), (1, 1));
        assert!(in_a_child(|| value() == 2 && in_a_child(|| value() == 3)));
        assert_eq!(value(), 1);
    }

    #[test]
    fn threads_that_ask_at_the_same_time_get_one_value() {
        static VALUE: PerProcess<String> = PerProcess::new();
        let ask = || std::ptr::from_ref(VALUE.get_or_make(|_| "made".into())).addr();
        let asked: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(ask)).collect();
            threads.into_iter().map(|t| t.join().unwrap()).collect()
        });
        assert!(asked.iter().all(|at| *at == asked[0]));
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use std::sync::Arc;

    use super::*;
    use crate::sync::{UnsafeCell, thread};

    #[test]
    fn one_thread_at_a_time_has_the_lock() {
        loom::model(|| {
            let shared = Arc::new((Lock::new(), UnsafeCell::new(0)));
            let add = |shared: &(Lock, UnsafeCell<u32>)| {
                let _held = shared.0.lock().unwrap();
                // SAFETY: whoever has the lock is alone; loom checks that.
                shared.1.with_mut(|count| unsafe { *count += 1 });
            };
            let other = {
                let shared = shared.clone();
                thread::spawn(move || add(&shared))
            };
            add(&shared);
            other.join().unwrap();
            // SAFETY: the other thread has ended.
            assert_eq!(shared.1.with_mut(|count| unsafe { *count }), 2);
        });
    }
}
