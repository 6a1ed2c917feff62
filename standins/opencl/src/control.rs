//! What tests plan and inspect: exported functions that no driver has, and their safe wrapper.

use crate::calls::{FUNCTIONS, LOG};
use crate::events::{self, Failure, IN_CALLBACK, IN_STATUS, IN_WAIT, PLANNED};
use crate::quirks;
use fencepost_sim::ffi::{c_name, read_text};
use libloading::Library;
use std::ffi::{c_char, c_int};
use std::mem::ManuallyDrop;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// # Safety
/// `name` is null or a C string.
unsafe fn function(name: *const c_char) -> Option<&'static str> {
    // SAFETY: the caller vouches for it
    let name = unsafe { read_text(name) }?;
    FUNCTIONS.iter().copied().find(|known| *known == name)
}

/// How often a function was called; `u64::MAX` where there is no such function.
///
/// # Safety
/// `name` is null or a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fencepost_sim_opencl_calls(name: *const c_char) -> u64 {
    // SAFETY: the caller vouches for it
    unsafe { function(name) }.map_or(u64::MAX, |name| LOG.calls(name))
}

/// Makes the `nth` call of a function from now on return `code` and do nothing else; with
/// `repeats`, all later calls too. 0 where there is no such function.
///
/// # Safety
/// `name` is null or a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fencepost_sim_opencl_fail_call(
    name: *const c_char,
    nth: u64,
    code: c_int,
    repeats: c_int,
) -> c_int {
    // SAFETY: the caller vouches for it
    let found = unsafe { function(name) };
    if let Some(name) = found {
        LOG.fail(name, nth, code, repeats != 0);
    }
    found.is_some().into()
}

/// Makes the event of the `nth` call of a function from now on end with `code`. Which calls tell of
/// it is a sum of 1 (`clGetEventInfo`), 2 (the callback) and 4 (`clWaitForEvents`). 0 where there
/// is no such function.
///
/// # Safety
/// `name` is null or a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fencepost_sim_opencl_fail_event(
    name: *const c_char,
    nth: u64,
    code: c_int,
    told: u32,
) -> c_int {
    // SAFETY: the caller vouches for it
    let found = unsafe { function(name) };
    if let Some(name) = found {
        PLANNED.fail(name, nth, Failure { code, told }, false);
    }
    found.is_some().into()
}

/// Forgets all planned faults.
#[unsafe(no_mangle)]
pub extern "C" fn fencepost_sim_opencl_clear_faults() {
    LOG.clear_failures();
    PLANNED.clear_failures();
}

/// Whether callbacks run inside of the next call, whichever that is, on its thread.
#[unsafe(no_mangle)]
pub extern "C" fn fencepost_sim_opencl_call_back_inside(on: c_int) {
    quirks::set_calls_back_inside(on != 0);
}

/// Whether all times of a command are 0 but that of its end.
#[unsafe(no_mangle)]
pub extern "C" fn fencepost_sim_opencl_end_alone(on: c_int) {
    quirks::set_has_end_alone(on != 0);
}

/// The timers of devices work, and are ahead of the clock of their times by so many nanoseconds.
#[unsafe(no_mangle)]
pub extern "C" fn fencepost_sim_opencl_timer(ahead: u64) {
    quirks::set_timer(ahead);
}

/// How many references to events the program owns.
#[unsafe(no_mangle)]
pub extern "C" fn fencepost_sim_opencl_owned_events() -> i64 {
    events::owned()
}

/// Which calls tell that an event has ended with an error.
#[derive(Clone, Copy, Debug)]
pub struct Tells {
    /// `clGetEventInfo` gives the code. Without it the event is complete there.
    pub status: bool,
    /// The callback gets the code. Without it the callback is never called.
    pub callback: bool,
    /// `clWaitForEvents` fails. Without it the wait succeeds.
    pub wait: bool,
}

impl Tells {
    /// All of them: NVIDIA's way.
    pub const EVERYWHERE: Tells = Tells {
        status: true,
        callback: true,
        wait: true,
    };
    /// No callback comes: PoCL's way.
    pub const NO_CALLBACK: Tells = Tells {
        callback: false,
        ..Tells::EVERYWHERE
    };
    /// The status says complete: the way of Intel's runtime for CPUs.
    pub const COMPLETE: Tells = Tells {
        status: false,
        ..Tells::EVERYWHERE
    };
}

/// The path of the library, if cargo has built it beside the running test.
pub fn library_path() -> Option<PathBuf> {
    fencepost_sim::ffi::library_path("fencepost_sim_opencl")
}

/// Plans faults of the library that the OpenCL loader has loaded from the same path.
#[derive(Debug)]
pub struct Control {
    library: ManuallyDrop<Library>,
}

impl Control {
    /// Controls the copy in this file, which all code of this process that loads it shares.
    ///
    /// # Errors
    /// The file cannot be loaded or is another library.
    pub fn load(path: &Path) -> Result<Control, libloading::Error> {
        // SAFETY: the path names this library, which does nothing on load
        let library = unsafe { Library::new(path)? };
        // SAFETY: the type of the function of this name
        unsafe { library.get::<extern "C" fn()>("fencepost_sim_opencl_clear_faults")? };
        // Never unloaded, since the driver's table points into it.
        let library = ManuallyDrop::new(library);
        Ok(Control { library })
    }

    fn get<T: Copy>(&self, name: &str) -> T {
        // SAFETY: the callers know the types of this crate's functions
        let found = unsafe { self.library.get::<T>(name) };
        *found.unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// How often a function was called.
    ///
    /// # Panics
    /// It is none of [`FUNCTIONS`].
    pub fn calls(&self, name: &str) -> u64 {
        type Calls = unsafe extern "C" fn(*const c_char) -> u64;
        let calls = self.get::<Calls>("fencepost_sim_opencl_calls");
        // SAFETY: a C string that lives through the call
        let calls = unsafe { calls(c_name(name).as_ptr()) };
        assert_ne!(calls, u64::MAX, "no function {name} passes here");
        calls
    }

    /// Makes the `nth` call of a function from now on, counted from 1, return `code` and do nothing
    /// else.
    ///
    /// # Panics
    /// It is none of [`FUNCTIONS`].
    pub fn fail_call(&self, name: &str, nth: u64, code: i32) {
        self.fail(name, nth, code, false);
    }

    /// As [`Control::fail_call`], for that call and all later ones.
    ///
    /// # Panics
    /// It is none of [`FUNCTIONS`].
    pub fn fail_calls_from(&self, name: &str, nth: u64, code: i32) {
        self.fail(name, nth, code, true);
    }

    fn fail(&self, name: &str, nth: u64, code: i32, repeats: bool) {
        type Fail = unsafe extern "C" fn(*const c_char, u64, c_int, c_int) -> c_int;
        let fail = self.get::<Fail>("fencepost_sim_opencl_fail_call");
        // SAFETY: a C string that lives through the call
        let found = unsafe { fail(c_name(name).as_ptr(), nth, code, repeats.into()) };
        assert_ne!(found, 0, "no function {name} passes here");
    }

    /// Makes every call but those that release something return `code` from now on, as on a lost
    /// context.
    pub fn lose_context(&self, code: i32) {
        // First what a program would try the context by, once another call has failed.
        self.lose_context_quietly(code);
        for name in FUNCTIONS.iter().filter(|name| !name.contains("Release")) {
            self.fail(name, 1, code, true);
        }
    }

    /// Makes every call that makes something, submits it or waits for it return `code` from now on,
    /// as on a lost context whose driver no longer moves on: asked, it calls pending what was.
    pub fn lose_context_quietly(&self, code: i32) {
        let fails = |name: &&&str| {
            ["clCreate", "clEnqueue", "clFlush", "clFinish", "clWait"]
                .iter()
                .any(|kind| name.starts_with(kind))
        };
        for name in FUNCTIONS.iter().filter(fails) {
            self.fail(name, 1, code, true);
        }
    }

    /// Makes the event of the `nth` call of a function from now on, counted from 1, end with
    /// `code`, a negative number, though the work in front of it has run. `tells` says which calls
    /// tell of it.
    ///
    /// # Panics
    /// It is none of [`FUNCTIONS`].
    pub fn fail_event(&self, name: &str, nth: u64, code: i32, tells: Tells) {
        type Fail = unsafe extern "C" fn(*const c_char, u64, c_int, u32) -> c_int;
        let fail = self.get::<Fail>("fencepost_sim_opencl_fail_event");
        let flag = |on: bool, bit: u32| if on { bit } else { 0 };
        let told = flag(tells.status, IN_STATUS)
            | flag(tells.callback, IN_CALLBACK)
            | flag(tells.wait, IN_WAIT);
        // SAFETY: a C string that lives through the call
        let found = unsafe { fail(c_name(name).as_ptr(), nth, code, told) };
        assert_ne!(found, 0, "no function {name} passes here");
    }

    /// Forgets all planned faults. Events that have failed already stay failed.
    pub fn clear_faults(&self) {
        self.get::<extern "C" fn()>("fencepost_sim_opencl_clear_faults")();
    }

    /// Makes callbacks run inside of the next call that passes here, whichever that is, on its
    /// thread: what the specification allows, and more than any driver does.
    pub fn call_back_inside_calls(&self) {
        self.get::<extern "C" fn(c_int)>("fencepost_sim_opencl_call_back_inside")(1);
    }

    /// Makes all times of a command 0, with success, but that of its end: the way of Intel's
    /// runtime for CPUs.
    pub fn have_end_alone(&self) {
        self.get::<extern "C" fn(c_int)>("fencepost_sim_opencl_end_alone")(1);
    }

    /// Makes `clGetDeviceAndHostTimer` work, also where the driver has no timer and its times are
    /// those of `CLOCK_MONOTONIC_RAW`: PoCL 3.1. The timer is `ahead` of that clock.
    pub fn have_timer(&self, ahead: Duration) {
        let nanoseconds = ahead.as_nanos() as u64;
        self.get::<extern "C" fn(u64)>("fencepost_sim_opencl_timer")(nanoseconds);
    }

    /// How many references to events the program owns: those made and retained, less those
    /// released. A leak test compares it with an earlier number.
    pub fn owned_events(&self) -> i64 {
        self.get::<extern "C" fn() -> i64>("fencepost_sim_opencl_owned_events")()
    }
}
