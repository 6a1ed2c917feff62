//! The safe side of `control`, for tests.

use crate::control::*;
use ash::vk::{self, Handle};
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
    hang = fencepost_sim_hang: fn(u64, c_int) -> c_int;
    stall_call = fencepost_sim_stall_call: fn(*const c_char) -> c_int;
    stalled = fencepost_sim_stalled: fn() -> usize;
    release_stalled = fencepost_sim_release_stalled: fn();
    settle = fencepost_sim_settle: fn(u64) -> c_int;
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
    /// Pieces of memory.
    pub memories: u64,
    /// Layouts of descriptor sets.
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
    let name = libloading::library_filename("fencepost_sim_vulkan");
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

impl Control {
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

    /// A new machine with this seed and these options, for the caller alone: others of this process
    /// wait until the session is dropped. Code that still holds handles of the machine before gets
    /// errors. Options are those of the variables, without `FENCEPOST_SIM_VULKAN_`.
    ///
    /// # Panics
    /// There is no such option.
    pub fn session(&self, seed: u64, options: &[(&str, u64)]) -> Session<'_> {
        static ALONE: Mutex<()> = Mutex::new(());
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        self.restart(seed, options);
        Session {
            control: self,
            _alone: alone,
        }
    }

    /// Throws the machine away, with everything on it, and starts another.
    ///
    /// # Panics
    /// There is no such option.
    pub fn restart(&self, seed: u64, options: &[(&str, u64)]) {
        for (name, value) in options {
            // SAFETY: a C string that lives through the call
            let found = unsafe { (self.functions.option)(c_name(name).as_ptr(), *value) };
            assert_ne!(found, 0, "the stand-in has no option {name}");
        }
        // SAFETY: it asks for nothing
        unsafe { (self.functions.restart)(seed) }
    }

    /// The machine's seed.
    pub fn seed(&self) -> u64 {
        // SAFETY: it asks for nothing
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

    /// The `nth` call of a function from now on, counted from 1, returns `code` and does nothing
    /// else; one that returns nothing does nothing. `ERROR_DEVICE_LOST` loses the device too.
    ///
    /// # Panics
    /// There is no such function.
    pub fn fail_call(&self, name: &str, nth: u64, code: vk::Result) {
        self.fail(name, nth, code, false);
    }

    /// As [`Control::fail_call`], and so do all calls after that one.
    ///
    /// # Panics
    /// There is no such function.
    pub fn fail_calls_from(&self, name: &str, nth: u64, code: vk::Result) {
        self.fail(name, nth, code, true);
    }

    fn fail(&self, name: &str, nth: u64, code: vk::Result, stays: bool) {
        let name_in_c = c_name(name);
        // SAFETY: a C string that lives through the call
        let found = unsafe {
            (self.functions.fail_call)(name_in_c.as_ptr(), nth, code.as_raw(), stays.into())
        };
        assert_ne!(found, 0, "the stand-in has no function {name}");
    }

    /// Forgets all planned faults of calls and submits.
    pub fn clear_faults(&self) {
        // SAFETY: it asks for nothing
        unsafe { (self.functions.clear_faults)() }
    }

    /// The work of the `nth` submit from now on hangs until [`Control::release_submits`].
    pub fn hang_submit(&self, nth: u64) {
        // SAFETY: it asks for nothing
        unsafe { (self.functions.fault_submit)(nth, 0) }
    }

    /// The work of the `nth` submit from now on runs, and its semaphores and fence are never
    /// signalled.
    pub fn silence_submit(&self, nth: u64) {
        // SAFETY: it asks for nothing
        unsafe { (self.functions.fault_submit)(nth, 1) }
    }

    /// The work of the `nth` submit from now on fails when it runs, and the device is lost.
    pub fn fail_submit(&self, nth: u64) {
        // SAFETY: it asks for nothing
        unsafe { (self.functions.fault_submit)(nth, 2) }
    }

    /// Lets all work go on that hangs.
    pub fn release_submits(&self) {
        // SAFETY: it asks for nothing
        unsafe { (self.functions.release_submits)() }
    }

    /// Every device made of the physical device with this number is lost now.
    pub fn lose_device(&self, physical: usize) {
        self.lose_device_after(physical, 0);
    }

    /// As [`Control::lose_device`], after so many steps of the scheduler.
    pub fn lose_device_after(&self, physical: usize, steps: u64) {
        // SAFETY: it asks for nothing
        unsafe { (self.functions.lose_device)(physical, steps) }
    }

    /// The physical device with this number is gone for good: making a device of it says that it is
    /// lost.
    pub fn remove_physical(&self, physical: usize) {
        // SAFETY: it asks for nothing
        unsafe { (self.functions.remove_physical)(physical) }
    }

    /// Stops everything on a queue.
    ///
    /// # Panics
    /// There is no such queue.
    pub fn hang(&self, queue: vk::Queue) {
        // SAFETY: it asks for nothing
        let found = unsafe { (self.functions.hang)(queue.as_raw(), 1) };
        assert_ne!(found, 0, "no such queue");
    }

    /// Lets a stopped queue go on.
    ///
    /// # Panics
    /// There is no such queue.
    pub fn release(&self, queue: vk::Queue) {
        // SAFETY: it asks for nothing
        let found = unsafe { (self.functions.hang)(queue.as_raw(), 0) };
        assert_ne!(found, 0, "no such queue");
    }

    /// The next call of a function stops before it does anything, with its objects in use, until
    /// [`Control::release_stalled`].
    ///
    /// # Panics
    /// There is no such function.
    pub fn stall_call(&self, name: &str) {
        // SAFETY: a C string that lives through the call
        let found = unsafe { (self.functions.stall_call)(c_name(name).as_ptr()) };
        assert_ne!(found, 0, "the stand-in has no function {name}");
    }

    /// How many calls are stopped.
    pub fn stalled(&self) -> usize {
        // SAFETY: it asks for nothing
        unsafe { (self.functions.stalled)() }
    }

    /// Lets stopped calls go on, and forgets those that were to stop.
    pub fn release_stalled(&self) {
        // SAFETY: it asks for nothing
        unsafe { (self.functions.release_stalled)() }
    }

    /// Waits until no work is pending; false if some still is when the time is up.
    #[must_use]
    pub fn settle(&self, timeout: Duration) -> bool {
        let milliseconds = timeout.as_millis().try_into().unwrap_or(u64::MAX);
        // SAFETY: it asks for nothing
        unsafe { (self.functions.settle)(milliseconds) != 0 }
    }

    /// What the devices still have to do, a line each: for a test that found one stuck.
    pub fn pending_work(&self) -> String {
        // SAFETY: `read` gives a buffer and its size
        read(|to, room| unsafe { (self.functions.pending_work)(to, room) })
    }

    /// What is alive.
    pub fn live(&self) -> Live {
        // SAFETY: it asks for nothing
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

    /// What was done that the specification forbids, in order.
    pub fn violations(&self) -> Vec<String> {
        // SAFETY: it asks for nothing
        let count = unsafe { (self.functions.violations)() };
        // SAFETY: `read` gives a buffer and its size
        let text = |index| read(|to, room| unsafe { (self.functions.violation)(index, to, room) });
        (0..count).map(text).collect()
    }

    /// Forgets the violations so far, but for those that the simulated device itself has found.
    pub fn clear_violations(&self) {
        // SAFETY: it asks for nothing
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
                "fencepost Vulkan stand-in: failed with seed {0}; replay with FENCEPOST_SIM_SEED={0}; violations: {1:?}",
                self.seed(),
                self.violations()
            );
        }
    }
}
