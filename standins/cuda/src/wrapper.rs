//! The safe side of `control`, for tests.

use crate::codes::CUresult;
use crate::control::*;
use libloading::Library;
use std::ffi::{CString, c_char, c_int};
use std::mem::ManuallyDrop;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

macro_rules! functions {
    ($($field:ident = $name:ident: fn($($argument:ty),*) $(-> $result:ty)?;)*) => {
        struct Functions {
            $($field: unsafe extern "C" fn($($argument),*) $(-> $result)?,)*
        }

        impl Functions {
            const LINKED: Functions = Functions { $($field: $name,)* };

            fn of(library: &Library) -> Result<Functions, libloading::Error> {
                Ok(Functions {
                    // SAFETY: these are the types of the functions of these names, and `Control`
                    // keeps the library
                    $($field: *unsafe { library.get(concat!(stringify!($name), "\0"))? },)*
                })
            }
        }
    };
}

functions! {
    restart = fencepost_sim_restart: fn(u64, c_int);
    seed = fencepost_sim_seed: fn() -> u64;
    calls = fencepost_sim_calls: fn(*const c_char) -> u64;
    fail_call = fencepost_sim_fail_call: fn(*const c_char, u64, CUresult) -> c_int;
    fail_calls_from = fencepost_sim_fail_calls_from: fn(*const c_char, u64, CUresult) -> c_int;
    clear_faults = fencepost_sim_clear_faults: fn();
    fail_launch = fencepost_sim_fail_launch: fn(c_int, u64, CUresult);
    fail_contexts = fencepost_sim_fail_contexts: fn(c_int, CUresult);
    lose_device = fencepost_sim_lose_device: fn(c_int, CUresult);
    reset_primary = fencepost_sim_reset_primary: fn(c_int);
    deinitialize = fencepost_sim_deinitialize: fn();
    recycle_handles = fencepost_sim_recycle_handles: fn(c_int);
    ipc_in_one_process = fencepost_sim_ipc_in_one_process: fn(c_int);
    hang = fencepost_sim_hang: fn(usize, c_int) -> c_int;
    settle = fencepost_sim_settle: fn(u64) -> c_int;
    queue_depth = fencepost_sim_queue_depth: fn(usize);
    pending_work = fencepost_sim_pending_work: fn(*mut c_char, usize) -> usize;
    live = fencepost_sim_live: fn(u32) -> u64;
    violations = fencepost_sim_violations: fn() -> usize;
    violation = fencepost_sim_violation: fn(usize, *mut c_char, usize) -> usize;
    clear_violations = fencepost_sim_clear_violations: fn();
}

/// Plans faults and looks at what happened.
///
/// A program that links this crate and also loads the library has two simulated machines. Code that
/// loads the library is controlled through [`Control::load`] with the same path, not through
/// [`Control::linked`].
#[allow(missing_debug_implementations)]
pub struct Control {
    functions: Functions,
    /// Never unloaded: the machine's threads run its code.
    _library: Option<ManuallyDrop<Library>>,
}

/// How many objects are alive. A leak test compares it with `Live::default()`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Live {
    /// Streams, without default streams.
    pub streams: u64,
    /// Events.
    pub events: u64,
    /// How often primary contexts are retained, all together.
    pub retains: u64,
    /// Contexts that are there.
    pub contexts: u64,
    /// Pieces of page-locked host memory.
    pub host_memory: u64,
    /// Pieces of device memory.
    pub device_memory: u64,
    /// Modules.
    pub modules: u64,
    /// Graphs.
    pub graphs: u64,
    /// Graphs ready to run.
    pub execs: u64,
    /// Captures that have not ended.
    pub captures: u64,
}

/// The path of the library, if cargo has built it beside the running test.
pub fn library_path() -> Option<PathBuf> {
    let name = libloading::library_filename("fencepost_sim_cuda");
    let program = std::env::current_exe().ok()?;
    program
        .ancestors()
        .skip(1)
        .take(3)
        .flat_map(|folder| [folder.join(&name), folder.join("deps").join(&name)])
        .find(|path| path.is_file())
}

/// Reads what `fill` copies to a place of so many bytes; longer texts are cut.
fn read(fill: impl FnOnce(*mut c_char, usize) -> usize) -> String {
    let mut bytes = vec![0; 1 << 14];
    let length = fill(bytes.as_mut_ptr().cast(), bytes.len());
    bytes.truncate(length.min(bytes.len() - 1));
    String::from_utf8_lossy(&bytes).into_owned()
}

fn c_name(name: &str) -> CString {
    CString::new(name).unwrap_or_default()
}

#[allow(clippy::undocumented_unsafe_blocks)] // one reason for all, below
impl Control {
    // Each block calls a function of `control`: those without pointers ask for nothing, and those
    // with get C strings and buffers that live through the call.

    /// Controls the copy of the stand-in that is linked into this program.
    pub fn linked() -> Control {
        Control {
            functions: Functions::LINKED,
            _library: None,
        }
    }

    /// Controls the copy in this file, which everybody who loads it in this process shares.
    ///
    /// # Errors
    /// It cannot be loaded, or is not the stand-in.
    pub fn load(path: &Path) -> Result<Control, libloading::Error> {
        // SAFETY: it names the stand-in, which does nothing when it is loaded
        let library = unsafe { Library::new(path)? };
        Ok(Control {
            functions: Functions::of(&library)?,
            _library: Some(ManuallyDrop::new(library)),
        })
    }

    /// A new machine with this seed, for the caller alone: others of this process wait until the
    /// session is dropped. Code that still holds handles of the machine before gets errors.
    pub fn session(&self, seed: u64, devices: u32) -> Session<'_> {
        static ALONE: Mutex<()> = Mutex::new(());
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        self.restart(seed, devices);
        Session {
            control: self,
            _alone: alone,
        }
    }

    /// Throws the machine away, with everything on it, and starts another.
    pub fn restart(&self, seed: u64, devices: u32) {
        unsafe { (self.functions.restart)(seed, devices.try_into().unwrap_or(c_int::MAX)) }
    }

    /// The machine's seed.
    pub fn seed(&self) -> u64 {
        unsafe { (self.functions.seed)() }
    }

    /// How often a function was called.
    ///
    /// # Panics
    /// There is no such function.
    pub fn calls(&self, name: &str) -> u64 {
        let calls = unsafe { (self.functions.calls)(c_name(name).as_ptr()) };
        assert_ne!(calls, u64::MAX, "the stand-in has no function {name}");
        calls
    }

    /// The `nth` call of a function from now on, counted from 1, returns `code` and does nothing
    /// else.
    ///
    /// # Panics
    /// There is no such function.
    pub fn fail_call(&self, name: &str, nth: u64, code: CUresult) {
        let found = unsafe { (self.functions.fail_call)(c_name(name).as_ptr(), nth, code) };
        assert_ne!(found, 0, "the stand-in has no function {name}");
    }

    /// As [`Control::fail_call`], and so do all calls after that one.
    ///
    /// # Panics
    /// There is no such function.
    pub fn fail_calls_from(&self, name: &str, nth: u64, code: CUresult) {
        let found = unsafe { (self.functions.fail_calls_from)(c_name(name).as_ptr(), nth, code) };
        assert_ne!(found, 0, "the stand-in has no function {name}");
    }

    /// Forgets all planned faults.
    pub fn clear_faults(&self) {
        unsafe { (self.functions.clear_faults)() }
    }

    /// The `nth` kernel launched on a device from now on fails when it runs, and its context with
    /// it.
    pub fn fail_launch(&self, device: i32, nth: u64, code: CUresult) {
        unsafe { (self.functions.fail_launch)(device, nth, code) }
    }

    /// Every context of the device fails now, until it is reset.
    pub fn fail_contexts(&self, device: i32, code: CUresult) {
        unsafe { (self.functions.fail_contexts)(device, code) }
    }

    /// The device is gone for good.
    pub fn lose_device(&self, device: i32, code: CUresult) {
        unsafe { (self.functions.lose_device)(device, code) }
    }

    /// Resets the primary context under everybody's feet.
    pub fn reset_primary(&self, device: i32) {
        unsafe { (self.functions.reset_primary)(device) }
    }

    /// Every later call says that the driver is shutting down.
    pub fn deinitialize(&self) {
        unsafe { (self.functions.deinitialize)() }
    }

    /// Whether the handle of a destroyed object is given to the next one.
    pub fn recycle_handles(&self, on: bool) {
        unsafe { (self.functions.recycle_handles)(on.into()) }
    }

    /// Whether an event's handle may be opened in the process that exported it.
    pub fn ipc_in_one_process(&self, on: bool) {
        unsafe { (self.functions.ipc_in_one_process)(on.into()) }
    }

    /// Stops everything in a stream.
    ///
    /// # Panics
    /// There is no such stream.
    pub fn hang(&self, stream: usize) {
        let found = unsafe { (self.functions.hang)(stream, 1) };
        assert_ne!(found, 0, "no such stream");
    }

    /// Lets a stopped stream go on.
    ///
    /// # Panics
    /// There is no such stream.
    pub fn release(&self, stream: usize) {
        let found = unsafe { (self.functions.hang)(stream, 0) };
        assert_ne!(found, 0, "no such stream");
    }

    /// Waits until no work is pending; false if some still is when the time is up.
    #[must_use]
    pub fn settle(&self, timeout: Duration) -> bool {
        let milliseconds = timeout.as_millis().try_into().unwrap_or(u64::MAX);
        unsafe { (self.functions.settle)(milliseconds) != 0 }
    }

    /// How many pieces of work a stream takes before calls block; 0 for any number.
    pub fn queue_depth(&self, depth: usize) {
        unsafe { (self.functions.queue_depth)(depth) }
    }

    /// What the device still has to do, a line each: for a test that found it stuck.
    pub fn pending_work(&self) -> String {
        read(|to, room| unsafe { (self.functions.pending_work)(to, room) })
    }

    /// What is alive.
    pub fn live(&self) -> Live {
        let count = |kind| unsafe { (self.functions.live)(kind) };
        Live {
            streams: count(0),
            events: count(1),
            retains: count(2),
            contexts: count(3),
            host_memory: count(4),
            device_memory: count(5),
            modules: count(6),
            graphs: count(7),
            execs: count(8),
            captures: count(9),
        }
    }

    /// What was done that CUDA's documentation forbids, in order.
    pub fn violations(&self) -> Vec<String> {
        let count = unsafe { (self.functions.violations)() };
        (0..count)
            .map(|index| read(|to, room| unsafe { (self.functions.violation)(index, to, room) }))
            .collect()
    }

    /// Forgets the violations so far.
    pub fn clear_violations(&self) {
        unsafe { (self.functions.clear_violations)() }
    }
}

/// A machine for one test alone. See [`Control::session`].
#[allow(missing_debug_implementations)]
pub struct Session<'a> {
    control: &'a Control,
    _alone: MutexGuard<'static, ()>,
}

impl std::ops::Deref for Session<'_> {
    type Target = Control;

    fn deref(&self) -> &Control {
        self.control
    }
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "fencepost CUDA stand-in: failed with seed {0}; replay with FENCEPOST_SIM_SEED={0}; violations: {1:?}",
                self.seed(),
                self.violations()
            );
        }
    }
}
