//! The safe side of the control functions, for tests.

use crate::control_functions::*;
use ash::vk;
use fencepost_sim::ffi::c_name;
use fencepost_sim::{control, lock};
use std::ffi::{c_char, c_int};
use std::path::PathBuf;
use std::sync::Mutex;

control! {
    "Vulkan", code: vk::Result, queue: vk::Queue;
    restart = fencepost_sim_restart: fn(u64);
    option = fencepost_sim_option: fn(*const c_char, u64) -> c_int;
    fault_submit = fencepost_sim_fault_submit: fn(u64, u32);
    release_submits = fencepost_sim_release_submits: fn();
    lose_device = fencepost_sim_lose_device: fn(usize, u64);
    remove_physical = fencepost_sim_remove_physical: fn(usize);
    stall_call = fencepost_sim_stall_call: fn(*const c_char) -> c_int;
    stalled = fencepost_sim_stalled: fn() -> usize;
    release_stalled = fencepost_sim_release_stalled: fn();
    live = fencepost_sim_live: fn(u32) -> u64;
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
    /// A new machine with this seed and these options, for the caller alone: other callers in this
    /// process block until the session is dropped. Handles of the earlier machine become invalid.
    /// Options have the names of the variables, without `FENCEPOST_SIM_VULKAN_`.
    ///
    /// # Panics
    /// There is no such option.
    pub fn session(&self, seed: u64, options: &[(&str, u64)]) -> Session<'_> {
        static EXCLUSIVE: Mutex<()> = Mutex::new(());
        let exclusive = lock(&EXCLUSIVE);
        self.restart(seed, options);
        Session::new(self, exclusive)
    }

    /// Drops the machine with everything on it, and creates another.
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

    /// Removes the physical device with this number: its devices are lost, and creating another
    /// returns `ERROR_DEVICE_LOST`.
    pub fn remove_physical(&self, physical: usize) {
        // SAFETY: the function has no requirement
        unsafe { (self.functions.remove_physical)(physical) }
    }

    /// Makes the next call of a function stop at its beginning, with its objects in use, until
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

    /// Lets stalled calls continue, and forgets planned stalls.
    pub fn release_stalled(&self) {
        // SAFETY: the function has no requirement
        unsafe { (self.functions.release_stalled)() }
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
}
