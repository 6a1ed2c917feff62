//! Whether a thread is blocked, asked from another thread; and a clock that is cheap to read.
//!
//! | system | CPU time | state |
//! |---|---|---|
//! | Linux, Android | the thread's CPU clock | `/proc/self/task/ID/stat` |
//! | Apple's | `thread_info` | `thread_info` |
//! | Windows | `QueryThreadCycleTime` | unknown |
//! | others | unknown | unknown |
//!
//! The CPU time alone does not tell a blocked thread from one that waits for a core, as threads do
//! on a loaded machine. So the state is asked too, but only of threads whose time stands still,
//! because it costs far more: 12 µs on Linux, where the time costs 0.3 µs.

/// What the system says of a thread at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(windows, allow(dead_code))]
pub(super) enum ThreadState {
    /// It runs, or waits for a core.
    Runnable,
    /// It waits for something that another thread, a timer or a signal brings.
    Asleep,
    /// It may be waiting for a page or a disk, which mostly takes a moment; or the system does not
    /// tell.
    Unclear,
}

/// A handle to a thread, for other threads. It may outlive the thread: what it says then means
/// nothing, but asking is sound.
pub(super) struct Probe(system::Thread);

impl Probe {
    /// Of the calling thread. `None` where the system cannot tell.
    pub(super) fn of_this_thread() -> Option<Probe> {
        system::Thread::current().map(Probe)
    }

    /// A number that changes whenever the thread runs, for comparing with an earlier one.
    pub(super) fn cpu_time(&self) -> Option<u64> {
        self.0.cpu_time()
    }

    pub(super) fn state(&self) -> ThreadState {
        self.0.state()
    }
}

/// Nanoseconds on a clock that never goes back. On Linux it is right to some milliseconds, and
/// costs a quarter of what an exact one does.
pub(crate) fn coarse_nanos() -> u64 {
    #[cfg(all(any(target_os = "linux", target_os = "android"), not(any(loom, miri))))]
    let nanos = system::coarse_nanos();
    #[cfg(not(all(any(target_os = "linux", target_os = "android"), not(any(loom, miri)))))]
    let nanos = crate::clock::host_ticks();
    nanos
}

#[cfg(all(any(target_os = "linux", target_os = "android"), not(any(loom, miri))))]
#[allow(unsafe_code)]
mod system {
    use std::{
        ffi::{c_int, c_ulong},
        io::Read as _,
        path::PathBuf,
    };

    use super::ThreadState;

    /// Room for a `timespec` of every target. It is two numbers of 32 or 64 bits, and which is not
    /// told by the width of pointers: x32 and riscv32 count seconds in 64 bits, and other targets
    /// have both kinds. So the bytes of a processor time are never taken apart.
    type TimeSpec = [u64; 2];

    unsafe extern "C" {
        fn pthread_self() -> c_ulong;
        fn pthread_getcpuclockid(thread: c_ulong, clock: *mut c_int) -> c_int;
        fn clock_gettime(clock: c_int, time: *mut TimeSpec) -> c_int;
    }

    /// Where pointers have 64 bits, a `timespec` is two numbers of 64 bits.
    #[cfg(target_pointer_width = "64")]
    pub(super) fn coarse_nanos() -> u64 {
        const CLOCK_MONOTONIC_COARSE: c_int = 6;
        // Every kernel since 2.6.32 has the clock.
        let [seconds, nanos] = read(CLOCK_MONOTONIC_COARSE).unwrap_or_default();
        seconds * 1_000_000_000 + nanos
    }

    #[cfg(not(target_pointer_width = "64"))]
    pub(super) fn coarse_nanos() -> u64 {
        crate::clock::host_ticks()
    }

    fn read(clock: c_int) -> Option<TimeSpec> {
        let mut time: TimeSpec = [0; 2];
        // SAFETY: `time` is where the answer goes. For the clock of a thread that has ended the
        // call fails. https://man7.org/linux/man-pages/man3/clock_gettime.3.html
        let refused = unsafe { clock_gettime(clock, &mut time) };
        (refused == 0).then_some(time)
    }

    pub(super) struct Thread {
        clock: c_int,
        stat: PathBuf,
    }

    impl Thread {
        pub(super) fn current() -> Option<Thread> {
            let mut clock = 0;
            // SAFETY: the calling thread exists, and `clock` is where the answer goes.
            // https://man7.org/linux/man-pages/man3/pthread_getcpuclockid.3.html
            let refused = unsafe { pthread_getcpuclockid(pthread_self(), &mut clock) };
            // The link of the calling thread: PROCESS/task/THREAD.
            let link = std::fs::read_link("/proc/thread-self").ok()?;
            let stat = PathBuf::from("/proc").join(link).join("stat");
            (refused == 0).then_some(Thread { clock, stat })
        }

        pub(super) fn cpu_time(&self) -> Option<u64> {
            // Two times are equal only if all bytes are. Little-endian, this is the seconds in the
            // upper half and the nanoseconds in the lower one, whichever kind it is.
            read(self.clock).map(|time| time[0].rotate_left(32) ^ time[1])
        }

        pub(super) fn state(&self) -> ThreadState {
            let mut stat = [0; 128];
            let read = std::fs::File::open(&self.stat).and_then(|mut file| file.read(&mut stat));
            let stat = &stat[..read.unwrap_or(0)];
            // The thread's name stands in brackets in front, and may hold any byte.
            let name_end = stat.iter().rposition(|&byte| byte == b')');
            match name_end.and_then(|end| stat.get(end + 2)) {
                Some(b'R') => ThreadState::Runnable,
                Some(b'S') => ThreadState::Asleep,
                _ => ThreadState::Unclear,
            }
        }
    }
}

#[cfg(all(target_vendor = "apple", not(any(loom, miri))))]
#[allow(unsafe_code)]
mod system {
    use std::ffi::{c_int, c_uint, c_void};

    use super::ThreadState;

    /// `thread_basic_info`: two times of seconds and microseconds, the usage, the policy, the
    /// state, flags, a count and a time, each an `integer_t`.
    type Info = [c_int; 10];
    const THREAD_BASIC_INFO: c_uint = 3;
    const RUN_STATE: usize = 6;
    const TH_STATE_RUNNING: c_int = 1;
    const TH_STATE_WAITING: c_int = 3;

    unsafe extern "C" {
        fn pthread_self() -> *mut c_void;
        fn pthread_mach_thread_np(thread: *mut c_void) -> c_uint;
        fn thread_info(
            thread: c_uint,
            flavor: c_uint,
            info: *mut c_int,
            count: *mut c_uint,
        ) -> c_int;
    }

    pub(super) struct Thread(c_uint);

    impl Thread {
        pub(super) fn current() -> Option<Thread> {
            // SAFETY: the calling thread exists. The port is a name, which is not released here.
            let port = unsafe { pthread_mach_thread_np(pthread_self()) };
            (port != 0).then_some(Thread(port))
        }

        fn info(&self) -> Option<Info> {
            let mut info: Info = [0; 10];
            let mut count = info.len() as c_uint;
            // SAFETY: `info` has room for `count` integers. For a port whose thread has ended the
            // call fails. https://developer.apple.com/documentation/kernel/1418630-thread_info
            let refused =
                unsafe { thread_info(self.0, THREAD_BASIC_INFO, info.as_mut_ptr(), &mut count) };
            (refused == 0).then_some(info)
        }

        pub(super) fn cpu_time(&self) -> Option<u64> {
            let [user, user_micros, system, system_micros, ..] = self.info()?.map(i64::from);
            Some(((user + system) * 1_000_000 + user_micros + system_micros) as u64)
        }

        pub(super) fn state(&self) -> ThreadState {
            match self.info().map(|info| info[RUN_STATE]) {
                Some(TH_STATE_RUNNING) => ThreadState::Runnable,
                Some(TH_STATE_WAITING) => ThreadState::Asleep,
                _ => ThreadState::Unclear,
            }
        }
    }
}

#[cfg(all(windows, not(any(loom, miri))))]
#[allow(unsafe_code)]
mod system {
    use std::os::windows::io::{AsRawHandle as _, BorrowedHandle, OwnedHandle, RawHandle};

    use super::ThreadState;

    #[link(name = "kernel32")]
    unsafe extern "system" {
        fn GetCurrentThread() -> RawHandle;
        fn QueryThreadCycleTime(thread: RawHandle, cycles: *mut u64) -> i32;
    }

    pub(super) struct Thread(OwnedHandle);

    impl Thread {
        pub(super) fn current() -> Option<Thread> {
            // SAFETY: a constant that stands for the calling thread, valid in it for ever.
            let current = unsafe { BorrowedHandle::borrow_raw(GetCurrentThread()) };
            // The copy is a real handle, which other threads may use.
            current.try_clone_to_owned().ok().map(Thread)
        }

        pub(super) fn cpu_time(&self) -> Option<u64> {
            let mut cycles = 0;
            // SAFETY: the handle is open, and `cycles` is where the answer goes.
            // https://learn.microsoft.com/windows/win32/api/realtimeapiset/nf-realtimeapiset-querythreadcycletime
            let done = unsafe { QueryThreadCycleTime(self.0.as_raw_handle(), &mut cycles) };
            (done != 0).then_some(cycles)
        }

        pub(super) fn state(&self) -> ThreadState {
            ThreadState::Unclear
        }
    }
}

#[cfg(any(
    loom,
    miri,
    not(any(
        target_os = "linux",
        target_os = "android",
        target_vendor = "apple",
        windows
    ))
))]
mod system {
    use super::ThreadState;

    pub(super) enum Thread {}

    impl Thread {
        pub(super) fn current() -> Option<Thread> {
            None
        }

        pub(super) fn cpu_time(&self) -> Option<u64> {
            match *self {}
        }

        pub(super) fn state(&self) -> ThreadState {
            match *self {}
        }
    }
}

#[cfg(all(
    test,
    any(target_os = "linux", target_os = "android", target_vendor = "apple"),
    not(any(loom, miri))
))]
mod tests {
    use std::{sync::mpsc, thread, time::Duration};

    use super::*;

    #[test]
    fn coarse_time_goes_on_and_never_back() {
        let start = coarse_nanos();
        let mut last = start;
        while last < start + 20_000_000 {
            thread::sleep(Duration::from_millis(1));
            let now = coarse_nanos();
            assert!(now >= last, "{now} after {last}");
            last = now;
        }
    }

    /// Asks until the system says so: a thread takes a moment to fall asleep.
    fn becomes(probe: &Probe, state: ThreadState) {
        while probe.state() != state {
            thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn a_thread_that_waits_is_asleep_and_its_time_stands_still() {
        let (tell, told) = mpsc::channel();
        let (release, released) = mpsc::channel::<()>();
        let thread = thread::spawn(move || {
            tell.send(Probe::of_this_thread().unwrap()).unwrap();
            let _ = released.recv();
        });
        let probe = told.recv().unwrap();
        becomes(&probe, ThreadState::Asleep);
        let before = probe.cpu_time().unwrap();
        assert_eq!(probe.state(), ThreadState::Asleep);
        assert_eq!(probe.cpu_time(), Some(before));
        drop(release);
        thread.join().unwrap();
    }

    #[test]
    fn a_thread_that_computes_is_runnable_and_its_time_grows() {
        let (tell, told) = mpsc::channel();
        let (release, released) = mpsc::channel::<()>();
        let thread = thread::spawn(move || {
            tell.send(Probe::of_this_thread().unwrap()).unwrap();
            while released.try_recv() == Err(mpsc::TryRecvError::Empty) {}
        });
        let probe = told.recv().unwrap();
        becomes(&probe, ThreadState::Runnable);
        let before = probe.cpu_time().unwrap();
        while probe.cpu_time() == Some(before) {
            thread::yield_now();
        }
        drop(release);
        thread.join().unwrap();
        // Asking of a thread that has ended is sound.
        probe.cpu_time();
        probe.state();
    }
}
