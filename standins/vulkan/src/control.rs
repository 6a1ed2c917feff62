//! The safe side of the control functions, for tests.

use crate::control_functions::*;
use ash::vk::{self, Handle};
use fencepost_sim::control_functions;
use fencepost_sim::ffi::{c_name, text_from};
use libloading::Library;
use std::ffi::{c_char, c_int};
use std::mem::ManuallyDrop;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

control_functions! {
    restart = fencepost_sim_restart: fn(u64);
    option = fencepost_sim_option: fn(*const c_char, u64) -> c_int;
    seed = fencepost_sim_seed: fn() -> u64;
    calls = fencepost_sim_calls: fn(*const c_char) -> u64;
    fail_call = fencepost_sim_fail_call: fn(*const c_char, u64, i32, c_int) -> c_int;
    clear_faults = fencepost_sim_clear_faults: fn();
    fault_submit = fencepost_sim_fault_submit: fn(u64, u32);
    release_submits = fencepost_sim_release_submits: fn();
    lose_device = fencepost_sim_lose_device: fn(usize, u64);
    remove_physical = fencepost_sim_remove_physical: fn(usize);
    pause = fencepost_sim_pause: fn(u64, c_int) -> c_int;
    stall_call = fencepost_sim_stall_call: fn(*const c_char) -> c_int;
    stalled = fencepost_sim_stalled: fn() -> usize;
    release_stalled = fencepost_sim_release_stalled: fn();
    wait_idle = fencepost_sim_wait_idle: fn(u64) -> c_int;
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
    /// Instances.
    pub instances: u64,
    /// Devices.
    pub devices: u64,
    /// Semaphores, binary and timeline.
    pub semaphores: u64,
    /// Fences.
    pub fences: u64,
    /// Query pools.
    pub query_pools: u64,
    /// Command pools.
    pub command_pools: u64,
    /// Command buffers.
    pub command_buffers: u64,
    /// Buffers.
    pub buffers: u64,
    /// Memory allocations.
    pub memories: u64,
    /// Descriptor set layouts.
    pub set_layouts: u64,
    /// Descriptor pools.
    pub descriptor_pools: u64,
    /// Descriptor sets.
    pub descriptor_sets: u64,
    /// Pipeline layouts.
    pub pipeline_layouts: u64,
    /// Shader modules.
    pub modules: u64,
    /// Pipeline caches.
    pub caches: u64,
    /// Pipelines.
    pub pipelines: u64,
}

/// The path of the library, if cargo has built it beside the running test.
pub fn library_path() -> Option<PathBuf> {
    fencepost_sim::ffi::library_path("fencepost_sim_vulkan")
}

impl Control {
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

    /// A new machine with this seed and these options, for the caller alone: other callers in this
    /// process block until the session is dropped. Handles of the earlier machine become invalid.
    /// Options have the names of the variables, without `FENCEPOST_SIM_VULKAN_`.
    ///
    /// # Panics
    /// There is no such option.
    pub fn session(&self, seed: u64, options: &[(&str, u64)]) -> Session<'_> {
        static EXCLUSIVE: Mutex<()> = Mutex::new(());
        let exclusive = EXCLUSIVE.lock().unwrap_or_else(PoisonError::into_inner);
        self.restart(seed, options);
        Session {
            control: self,
            _exclusive: exclusive,
        }
    }

    /// Drops the machine with everything on it, and makes another.
    ///
    /// # Panics
    /// There is no such option.
    pub fn restart(&self, seed: u64, options: &[(&str, u64)]) {
        for (name, value) in options {
            // SAFETY: a C string that lives through the call
            let found = unsafe { (self.functions.option)(c_name(name).as_ptr(), *value) };
            assert_ne!(found, 0, "the stand-in has no option {name}");
        }
        // SAFETY: the function has no requirement
        unsafe { (self.functions.restart)(seed) }
    }

    /// The machine's seed.
    pub fn seed(&self) -> u64 {
        // SAFETY: the function has no requirement
        unsafe { (self.functions.seed)() }
    }

    /// How often a function was called.
    ///
    /// # Panics
    /// There is no such function.
    pub fn calls(&self, name: &str) -> u64 {
        // SAFETY: a C string that lives through the call
        let calls = unsafe { (self.functions.calls)(c_name(name).as_ptr()) };
        assert_ne!(calls, u64::MAX, "the stand-in has no function {name}");
        calls
    }

    /// Makes the `nth` call of a function from now on, counted from 1, return `code` and do nothing
    /// else. `ERROR_DEVICE_LOST` loses the device too.
    ///
    /// # Panics
    /// There is no such function.
    pub fn fail_call(&self, name: &str, nth: u64, code: vk::Result) {
        self.fail(name, nth, code, false);
    }

    /// As [`Control::fail_call`], for that call and all later ones.
    ///
    /// # Panics
    /// There is no such function.
    pub fn fail_calls_from(&self, name: &str, nth: u64, code: vk::Result) {
        self.fail(name, nth, code, true);
    }

    fn fail(&self, name: &str, nth: u64, code: vk::Result, repeats: bool) {
        let c_name = c_name(name);
        // SAFETY: a C string that lives through the call
        let found = unsafe {
            (self.functions.fail_call)(c_name.as_ptr(), nth, code.as_raw(), repeats.into())
        };
        assert_ne!(found, 0, "the stand-in has no function {name}");
    }

    /// Forgets all planned faults of calls and submits.
    pub fn clear_faults(&self) {
        // SAFETY: the function has no requirement
        unsafe { (self.functions.clear_faults)() }
    }

    /// Makes the work of the `nth` submit from now on hang until [`Control::release_submits`].
    pub fn hang_submit(&self, nth: u64) {
        // SAFETY: the function has no requirement
        unsafe { (self.functions.fault_submit)(nth, 0) }
    }

    /// Makes the `nth` submit from now on run its work and never signal its semaphores and fence.
    pub fn silence_submit(&self, nth: u64) {
        // SAFETY: the function has no requirement
        unsafe { (self.functions.fault_submit)(nth, 1) }
    }

    /// Makes the work of the `nth` submit from now on fail when it runs, which loses the device.
    pub fn fail_submit(&self, nth: u64) {
        // SAFETY: the function has no requirement
        unsafe { (self.functions.fault_submit)(nth, 2) }
    }

    /// Lets the work of all hanging submits finish.
    pub fn release_submits(&self) {
        // SAFETY: the function has no requirement
        unsafe { (self.functions.release_submits)() }
    }

    /// Loses every device of the physical device with this number now.
    pub fn lose_device(&self, physical: usize) {
        self.lose_device_after(physical, 0);
    }

    /// As [`Control::lose_device`], after this many steps of the scheduler.
    pub fn lose_device_after(&self, physical: usize, steps: u64) {
        // SAFETY: the function has no requirement
        unsafe { (self.functions.lose_device)(physical, steps) }
    }

    /// Removes the physical device with this number for good: creating a device of it returns that it
    /// is lost.
    pub fn remove_physical(&self, physical: usize) {
        // SAFETY: the function has no requirement
        unsafe { (self.functions.remove_physical)(physical) }
    }

    /// Stops all work of a queue until [`Control::resume`].
    ///
    /// # Panics
    /// There is no such queue.
    pub fn pause(&self, queue: vk::Queue) {
        // SAFETY: the function has no requirement
        let found = unsafe { (self.functions.pause)(queue.as_raw(), 1) };
        assert_ne!(found, 0, "no such queue");
    }

    /// Resumes a paused queue.
    ///
    /// # Panics
    /// There is no such queue.
    pub fn resume(&self, queue: vk::Queue) {
        // SAFETY: the function has no requirement
        let found = unsafe { (self.functions.pause)(queue.as_raw(), 0) };
        assert_ne!(found, 0, "no such queue");
    }

    /// Makes the next call of a function stop before it does anything, with its objects in use, until
    /// [`Control::release_stalled`].
    ///
    /// # Panics
    /// There is no such function.
    pub fn stall_call(&self, name: &str) {
        // SAFETY: a C string that lives through the call
        let found = unsafe { (self.functions.stall_call)(c_name(name).as_ptr()) };
        assert_ne!(found, 0, "the stand-in has no function {name}");
    }

    /// How many calls are stalled.
    pub fn stalled(&self) -> usize {
        // SAFETY: the function has no requirement
        unsafe { (self.functions.stalled)() }
    }

    /// Lets stalled calls continue, and plans no more stalls.
    pub fn release_stalled(&self) {
        // SAFETY: the function has no requirement
        unsafe { (self.functions.release_stalled)() }
    }

    /// Waits until no work is pending. False if some still is when the timeout runs out.
    #[must_use]
    pub fn wait_idle(&self, timeout: Duration) -> bool {
        let milliseconds = timeout.as_millis().try_into().unwrap_or(u64::MAX);
        // SAFETY: the function has no requirement
        unsafe { (self.functions.wait_idle)(milliseconds) != 0 }
    }

    /// The pending work, one line each. For a test that has found a device stuck.
    pub fn pending_work(&self) -> String {
        // SAFETY: `text_from` passes a buffer and its size
        text_from(|to, size| unsafe { (self.functions.pending_work)(to, size) })
    }

    /// How many objects are alive.
    pub fn live(&self) -> Live {
        // SAFETY: the function has no requirement
        let count = |kind| unsafe { (self.functions.live)(kind) };
        Live {
            instances: count(0),
            devices: count(1),
            semaphores: count(2),
            fences: count(3),
            query_pools: count(4),
            command_pools: count(5),
            command_buffers: count(6),
            buffers: count(7),
            memories: count(8),
            set_layouts: count(9),
            descriptor_pools: count(10),
            descriptor_sets: count(11),
            pipeline_layouts: count(12),
            modules: count(13),
            caches: count(14),
            pipelines: count(15),
        }
    }

    /// The uses so far that the specification forbids, in order.
    pub fn violations(&self) -> Vec<String> {
        // SAFETY: the function has no requirement
        let count = unsafe { (self.functions.violations)() };
        // SAFETY: `text_from` passes a buffer and its size
        let text =
            |index| text_from(|to, size| unsafe { (self.functions.violation)(index, to, size) });
        (0..count).map(text).collect()
    }

    /// Forgets the violations so far, except for those that the simulated device has found.
    pub fn clear_violations(&self) {
        // SAFETY: the function has no requirement
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
                "fencepost Vulkan stand-in: failed with seed {seed}; replay with \
                 FENCEPOST_SIM_SEED={seed}; violations: {violations:?}"
            );
        }
    }
}
