//! The safe side of the control functions, for tests.

use crate::codes::CUresult;
use crate::control_functions::*;
use fencepost_sim::control_functions;
use fencepost_sim::ffi::{c_name, text_from};
use libloading::Library;
use std::ffi::{c_char, c_int};
use std::mem::ManuallyDrop;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

control_functions! {
    restart = fencepost_sim_restart: fn(u64, c_int);
    seed = fencepost_sim_seed: fn() -> u64;
    calls = fencepost_sim_calls: fn(*const c_char) -> u64;
    fail_call = fencepost_sim_fail_call: fn(*const c_char, u64, CUresult, c_int) -> c_int;
    clear_faults = fencepost_sim_clear_faults: fn();
    fail_launch = fencepost_sim_fail_launch: fn(c_int, u64, CUresult);
    fail_contexts = fencepost_sim_fail_contexts: fn(c_int, CUresult);
    lose_device = fencepost_sim_lose_device: fn(c_int, CUresult);
    reset_primary = fencepost_sim_reset_primary: fn(c_int);
    deinitialize = fencepost_sim_deinitialize: fn();
    recycle_handles = fencepost_sim_recycle_handles: fn(c_int);
    ipc_in_one_process = fencepost_sim_ipc_in_one_process: fn(c_int);
    pause = fencepost_sim_pause: fn(usize, c_int) -> c_int;
    wait_idle = fencepost_sim_wait_idle: fn(u64) -> c_int;
    queue_depth = fencepost_sim_queue_depth: fn(usize);
    pending_work = fencepost_sim_pending_work: fn(*mut c_char, usize) -> usize;
    live = fencepost_sim_live: fn(u32) -> u64;
    violations = fencepost_sim_violations: fn() -> usize;
    violation = fencepost_sim_violation: fn(usize, *mut c_char, usize) -> usize;
    clear_violations = fencepost_sim_clear_violations: fn();
}

/// Plans faults and inspects the stand-in.
///
/// A program that links this crate and also loads the library has two simulated machines. Code that
/// loads the library is controlled through [`Control::load`] with the same path, not through
/// [`Control::linked`].
#[allow(missing_debug_implementations)]
pub struct Control {
    functions: Functions,
    /// Never unloaded, since the machine's threads run its code.
    _library: Option<ManuallyDrop<Library>>,
}

/// How many objects are alive. A leak test compares it with `Live::default()`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Live {
    /// Streams, without default streams.
    pub streams: u64,
    /// Events.
    pub events: u64,
    /// The sum of the retain counts of primary contexts.
    pub retains: u64,
    /// Contexts that are not destroyed.
    pub contexts: u64,
    /// Allocations of page-locked host memory.
    pub host_memory: u64,
    /// Allocations of device memory.
    pub device_memory: u64,
    /// Modules.
    pub modules: u64,
    /// Graphs.
    pub graphs: u64,
    /// Executable graphs.
    pub execs: u64,
    /// Captures that have not ended.
    pub captures: u64,
}

/// The path of the library, if cargo has built it beside the running test.
pub fn library_path() -> Option<PathBuf> {
    fencepost_sim::ffi::library_path("fencepost_sim_cuda")
}

#[allow(clippy::undocumented_unsafe_blocks)] // one reason for all, below
impl Control {
    // Every unsafe block calls a control function. Functions without pointers have no requirement;
    // the others get C strings and buffers that live through the call.

    /// Controls the copy of the stand-in that is linked into this program.
    pub fn linked() -> Control {
        Control {
            functions: Functions::LINKED,
            _library: None,
        }
    }

    /// Controls the copy in this file, which all code of this process that loads it shares.
    ///
    /// # Errors
    /// The file cannot be loaded or is not the stand-in.
    pub fn load(path: &Path) -> Result<Control, libloading::Error> {
        // SAFETY: the path names the stand-in, which does nothing on load
        let library = unsafe { Library::new(path)? };
        Ok(Control {
            functions: Functions::load(&library)?,
            _library: Some(ManuallyDrop::new(library)),
        })
    }

    /// A new machine with this seed, for the caller alone: other callers in this process block
    /// until the session is dropped. Handles of the earlier machine become invalid.
    pub fn session(&self, seed: u64, devices: u32) -> Session<'_> {
        static EXCLUSIVE: Mutex<()> = Mutex::new(());
        let exclusive = EXCLUSIVE.lock().unwrap_or_else(PoisonError::into_inner);
        self.restart(seed, devices);
        Session {
            control: self,
            _exclusive: exclusive,
        }
    }

    /// Drops the machine with everything on it, and makes another.
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

    /// Makes the `nth` call of a function from now on, counted from 1, return `code` and do nothing
    /// else.
    ///
    /// # Panics
    /// There is no such function.
    pub fn fail_call(&self, name: &str, nth: u64, code: CUresult) {
        self.fail(name, nth, code, false);
    }

    /// As [`Control::fail_call`], for that call and all later ones.
    ///
    /// # Panics
    /// There is no such function.
    pub fn fail_calls_from(&self, name: &str, nth: u64, code: CUresult) {
        self.fail(name, nth, code, true);
    }

    fn fail(&self, name: &str, nth: u64, code: CUresult, repeats: bool) {
        let c_name = c_name(name);
        let found =
            unsafe { (self.functions.fail_call)(c_name.as_ptr(), nth, code, repeats.into()) };
        assert_ne!(found, 0, "the stand-in has no function {name}");
    }

    /// Forgets all planned faults.
    pub fn clear_faults(&self) {
        unsafe { (self.functions.clear_faults)() }
    }

    /// Makes the `nth` kernel launched on a device from now on, and its context, fail when it runs.
    pub fn fail_launch(&self, device: i32, nth: u64, code: CUresult) {
        unsafe { (self.functions.fail_launch)(device, nth, code) }
    }

    /// Makes every context of the device fail now, until it is reset.
    pub fn fail_contexts(&self, device: i32, code: CUresult) {
        unsafe { (self.functions.fail_contexts)(device, code) }
    }

    /// Loses the device for good.
    pub fn lose_device(&self, device: i32, code: CUresult) {
        unsafe { (self.functions.lose_device)(device, code) }
    }

    /// Resets the primary context, as another part of the program might.
    pub fn reset_primary(&self, device: i32) {
        unsafe { (self.functions.reset_primary)(device) }
    }

    /// Makes every later call return that the driver is shutting down.
    pub fn deinitialize(&self) {
        unsafe { (self.functions.deinitialize)() }
    }

    /// Whether the handle of a destroyed object is used for the next object.
    pub fn recycle_handles(&self, on: bool) {
        unsafe { (self.functions.recycle_handles)(on.into()) }
    }

    /// Whether an event's handle may be opened in the process that exported it.
    pub fn ipc_in_one_process(&self, on: bool) {
        unsafe { (self.functions.ipc_in_one_process)(on.into()) }
    }

    /// Stops all work of a stream until [`Control::resume`].
    ///
    /// # Panics
    /// There is no such stream.
    pub fn pause(&self, stream: usize) {
        let found = unsafe { (self.functions.pause)(stream, 1) };
        assert_ne!(found, 0, "no such stream");
    }

    /// Resumes a paused stream.
    ///
    /// # Panics
    /// There is no such stream.
    pub fn resume(&self, stream: usize) {
        let found = unsafe { (self.functions.pause)(stream, 0) };
        assert_ne!(found, 0, "no such stream");
    }

    /// Waits until no work is pending. False if some still is when the timeout runs out.
    #[must_use]
    pub fn wait_idle(&self, timeout: Duration) -> bool {
        let milliseconds = timeout.as_millis().try_into().unwrap_or(u64::MAX);
        unsafe { (self.functions.wait_idle)(milliseconds) != 0 }
    }

    /// How many pieces of work a stream holds before calls block; 0 for any number.
    pub fn queue_depth(&self, depth: usize) {
        unsafe { (self.functions.queue_depth)(depth) }
    }

    /// The pending work, one line each. For a test that has found the device stuck.
    pub fn pending_work(&self) -> String {
        text_from(|to, size| unsafe { (self.functions.pending_work)(to, size) })
    }

    /// How many objects are alive.
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

    /// The uses so far that CUDA's documentation forbids, in order.
    pub fn violations(&self) -> Vec<String> {
        let count = unsafe { (self.functions.violations)() };
        let text =
            |index| text_from(|to, size| unsafe { (self.functions.violation)(index, to, size) });
        (0..count).map(text).collect()
    }

    /// Forgets the violations so far, except for those that the simulated device has found.
    pub fn clear_violations(&self) {
        unsafe { (self.functions.clear_violations)() }
    }
}

/// A machine for one test alone. See [`Control::session`].
#[allow(missing_debug_implementations)]
pub struct Session<'a> {
    control: &'a Control,
    _exclusive: MutexGuard<'static, ()>,
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
            let (seed, violations) = (self.seed(), self.violations());
            eprintln!(
                "fencepost CUDA stand-in: failed with seed {seed}; replay with \
                 FENCEPOST_SIM_SEED={seed}; violations: {violations:?}"
            );
        }
    }
}
