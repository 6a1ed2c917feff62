//! What tests plan and inspect: exported functions that no layer has, and their safe wrapper.

use crate::calls::{FUNCTIONS, LOG};
use crate::late;
use fencepost_sim::ffi::{c_name, read_text};
use libloading::Library;
use std::ffi::{c_char, c_int};
use std::mem::ManuallyDrop;
use std::path::{Path, PathBuf};

/// What `VK_INSTANCE_LAYERS` calls the layer.
pub const NAME: &str = "VK_LAYER_FENCEPOST_faults";

/// `VK_ERROR_DEVICE_LOST`
const DEVICE_LOST: i32 = -4;

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
pub unsafe extern "C" fn fencepost_sim_layer_calls(name: *const c_char) -> u64 {
    // SAFETY: the caller vouches for it
    unsafe { function(name) }.map_or(u64::MAX, |name| LOG.calls(name))
}

/// Makes the `nth` call of a function from now on return `code`; with `repeats`, all later calls
/// too. 0 where there is no such function.
///
/// # Safety
/// `name` is null or a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fencepost_sim_layer_fail_call(
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

/// Forgets all planned faults.
#[unsafe(no_mangle)]
pub extern "C" fn fencepost_sim_layer_clear_faults() {
    LOG.clear_failures();
}

/// From now on the counters of all semaphores that exist are seen as they are when they are next
/// read, until `fencepost_sim_layer_be_on_time`.
#[unsafe(no_mangle)]
pub extern "C" fn fencepost_sim_layer_be_late() {
    late::begin();
}

/// All counters are seen as they are.
#[unsafe(no_mangle)]
pub extern "C" fn fencepost_sim_layer_be_on_time() {
    late::end();
}

/// The path of the library, if cargo has built it beside the running test.
pub fn library_path() -> Option<PathBuf> {
    fencepost_sim::ffi::library_path("fencepost_sim_layer")
}

/// Plans faults of the layer that the Vulkan loader has loaded from the same path.
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
        unsafe { library.get::<extern "C" fn()>("fencepost_sim_layer_clear_faults")? };
        // Never unloaded: what is planned would be lost.
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
        let calls = self.get::<Calls>("fencepost_sim_layer_calls");
        // SAFETY: a C string that lives through the call
        let calls = unsafe { calls(c_name(name).as_ptr()) };
        assert_ne!(calls, u64::MAX, "no function {name} passes here");
        calls
    }

    /// How often any of [`FUNCTIONS`] was called.
    pub fn all_calls(&self) -> u64 {
        FUNCTIONS.iter().map(|name| self.calls(name)).sum()
    }

    /// Makes the `nth` call of a function from now on, counted from 1, return `code`.
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
        let fail = self.get::<Fail>("fencepost_sim_layer_fail_call");
        // SAFETY: a C string that lives through the call
        let found = unsafe { fail(c_name(name).as_ptr(), nth, code, repeats.into()) };
        assert_ne!(found, 0, "no function {name} passes here");
    }

    /// Makes every call return `VK_ERROR_DEVICE_LOST` from now on, as on a lost device. Work that
    /// the driver has runs on.
    pub fn lose_devices(&self) {
        for name in FUNCTIONS {
            self.fail(name, 1, DEVICE_LOST, true);
        }
    }

    /// From now on the counters of all semaphores that exist are seen as they are when they are
    /// next read, until [`Control::be_on_time`]. Waits for them end as before.
    pub fn be_late(&self) {
        self.get::<extern "C" fn()>("fencepost_sim_layer_be_late")();
    }

    /// All counters are seen as they are.
    pub fn be_on_time(&self) {
        self.get::<extern "C" fn()>("fencepost_sim_layer_be_on_time")();
    }

    /// Forgets all planned faults.
    pub fn clear_faults(&self) {
        self.get::<extern "C" fn()>("fencepost_sim_layer_clear_faults")();
    }
}
