//! The safe side of the control functions, for tests.

use crate::codes::CUresult;
use crate::control_functions::*;
use crate::types::{CUevent, CUstream};
use fencepost_sim::{control, lock};
use std::ffi::c_int;
use std::path::PathBuf;
use std::sync::Mutex;

control! {
    "CUDA", code: CUresult, queue: CUstream;
    restart = fencepost_sim_restart: fn(u64, c_int);
    fail_launch = fencepost_sim_fail_launch: fn(c_int, u64, CUresult);
    fail_contexts = fencepost_sim_fail_contexts: fn(c_int, CUresult);
    lose_device = fencepost_sim_lose_device: fn(c_int, CUresult);
    reset_primary = fencepost_sim_reset_primary: fn(c_int);
    deinitialize = fencepost_sim_deinitialize: fn();
    recycle_handles = fencepost_sim_recycle_handles: fn(c_int);
    ipc_in_one_process = fencepost_sim_ipc_in_one_process: fn(c_int);
    queue_depth = fencepost_sim_queue_depth: fn(usize);
    advance = fencepost_sim_advance: fn(u64);
    leave_real_time = fencepost_sim_leave_real_time: fn();
    event_tick = fencepost_sim_event_tick: fn(CUevent) -> u64;
    live = fencepost_sim_live: fn(u32) -> u64;
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

impl Control {
    /// A new machine with this seed, for the caller alone: other callers in this process block
    /// until the session is dropped. Handles of the earlier machine become invalid.
    pub fn session(&self, seed: u64, devices: u32) -> Session<'_> {
        static EXCLUSIVE: Mutex<()> = Mutex::new(());
        let exclusive = lock(&EXCLUSIVE);
        self.restart(seed, devices);
        Session::new(self, exclusive)
    }

    /// Drops the machine with everything on it, and creates another.
    pub fn restart(&self, seed: u64, devices: u32) {
        // SAFETY: the function has no requirement
        unsafe { (self.functions.restart)(seed, devices.try_into().unwrap_or(c_int::MAX)) }
    }

    /// Makes the `nth` kernel launched on a device from now on, and its context, fail when it runs.
    pub fn fail_launch(&self, device: i32, nth: u64, code: CUresult) {
        // SAFETY: the function has no requirement
        unsafe { (self.functions.fail_launch)(device, nth, code) }
    }

    /// Makes every context of the device fail now, until it is reset.
    pub fn fail_contexts(&self, device: i32, code: CUresult) {
        // SAFETY: the function has no requirement
        unsafe { (self.functions.fail_contexts)(device, code) }
    }

    /// Loses the device until a restart.
    pub fn lose_device(&self, device: i32, code: CUresult) {
        // SAFETY: the function has no requirement
        unsafe { (self.functions.lose_device)(device, code) }
    }

    /// Resets the primary context, as other code of the process might.
    pub fn reset_primary(&self, device: i32) {
        // SAFETY: the function has no requirement
        unsafe { (self.functions.reset_primary)(device) }
    }

    /// Makes every later call return that the driver is shutting down.
    pub fn deinitialize(&self) {
        // SAFETY: the function has no requirement
        unsafe { (self.functions.deinitialize)() }
    }

    /// Whether the handle of a destroyed object is used for the next object.
    pub fn recycle_handles(&self, on: bool) {
        // SAFETY: the function has no requirement
        unsafe { (self.functions.recycle_handles)(on.into()) }
    }

    /// Whether an event's handle may be opened in the process that exported it.
    pub fn ipc_in_one_process(&self, on: bool) {
        // SAFETY: the function has no requirement
        unsafe { (self.functions.ipc_in_one_process)(on.into()) }
    }

    /// How much work may be pending on a stream before a call that submits more blocks; 0: any.
    pub fn queue_depth(&self, depth: usize) {
        // SAFETY: the function has no requirement
        unsafe { (self.functions.queue_depth)(depth) }
    }

    /// Advances the machine's simulated time by so many nanoseconds.
    pub fn advance(&self, ns: u64) {
        // SAFETY: the function has no requirement
        unsafe { (self.functions.advance)(ns) }
    }

    /// From now on simulated time passes by the work's steps and by [`Control::advance`] alone, and
    /// not as real time does: for tests that must not depend on how fast the machine is.
    pub fn leave_real_time(&self) {
        // SAFETY: the function has no requirement
        unsafe { (self.functions.leave_real_time)() }
    }

    /// The device's clock when the last record of this event completed, in nanoseconds; `None`
    /// while it is pending, and without timing.
    pub fn event_tick(&self, event: CUevent) -> Option<u64> {
        // SAFETY: the function has no requirement
        Some(unsafe { (self.functions.event_tick)(event) }).filter(|&tick| tick != u64::MAX)
    }

    /// How many objects are alive.
    pub fn live(&self) -> Live {
        // SAFETY: the function has no requirement
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
}
