//! What the controls of the stand-ins for CUDA and Vulkan share: C functions that the libraries
//! export beside the driver's, and the safe side of these.
//!
//! The stand-in for Metal is always linked, never loaded, so its control needs no C functions.

#![allow(unsafe_code)]

use crate::SEED_VARIABLE;
use crate::ffi::{c_name, text_from};
use std::ffi::{c_char, c_int};
use std::ops::Deref;
use std::sync::MutexGuard;
use std::time::Duration;

/// The functions that each of these stand-ins exports. `C` is the code of a failed call, `Q` the
/// handle of a queue or stream.
///
/// [`common_control_functions`](crate::common_control_functions) defines most of them.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "each is documented where it is defined")]
pub struct CommonFunctions<C, Q> {
    pub seed: unsafe extern "C" fn() -> u64,
    pub calls: unsafe extern "C" fn(*const c_char) -> u64,
    pub fail_call: unsafe extern "C" fn(*const c_char, u64, C, c_int) -> c_int,
    pub clear_faults: unsafe extern "C" fn(),
    pub pause: unsafe extern "C" fn(Q, c_int) -> c_int,
    pub wait_idle: unsafe extern "C" fn(u64) -> c_int,
    pub pending_work: unsafe extern "C" fn(*mut c_char, usize) -> usize,
    pub violations: unsafe extern "C" fn() -> usize,
    pub violation: unsafe extern "C" fn(usize, *mut c_char, usize) -> usize,
    pub clear_violations: unsafe extern "C" fn(),
}

/// What every control can do. A stand-in's own `Control` dereferences to this.
#[derive(Debug)]
pub struct CommonControl<C, Q> {
    stand_in: &'static str,
    functions: CommonFunctions<C, Q>,
}

impl<C, Q> CommonControl<C, Q> {
    /// The control of the stand-in with this name.
    ///
    /// # Safety
    /// The functions are those of one stand-in, which is never unloaded.
    pub unsafe fn new(
        stand_in: &'static str,
        functions: CommonFunctions<C, Q>,
    ) -> CommonControl<C, Q> {
        CommonControl {
            stand_in,
            functions,
        }
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
    /// else. In Vulkan, `ERROR_DEVICE_LOST` loses the device too.
    ///
    /// # Panics
    /// There is no such function.
    pub fn fail_call(&self, name: &str, nth: u64, code: C) {
        self.fail(name, nth, code, false);
    }

    /// As [`CommonControl::fail_call`], for that call and all later ones.
    ///
    /// # Panics
    /// There is no such function.
    pub fn fail_calls_from(&self, name: &str, nth: u64, code: C) {
        self.fail(name, nth, code, true);
    }

    fn fail(&self, name: &str, nth: u64, code: C, repeats: bool) {
        let c_name = c_name(name);
        // SAFETY: a C string that lives through the call
        let found =
            unsafe { (self.functions.fail_call)(c_name.as_ptr(), nth, code, repeats.into()) };
        assert_ne!(found, 0, "the stand-in has no function {name}");
    }

    /// Forgets all planned faults.
    pub fn clear_faults(&self) {
        // SAFETY: the function has no requirement
        unsafe { (self.functions.clear_faults)() }
    }

    /// Stops all work of a queue or stream until [`CommonControl::resume`].
    ///
    /// # Panics
    /// There is no such queue or stream.
    pub fn pause(&self, queue: Q) {
        self.set_paused(queue, true);
    }

    /// Resumes a paused queue or stream.
    ///
    /// # Panics
    /// There is no such queue or stream.
    pub fn resume(&self, queue: Q) {
        self.set_paused(queue, false);
    }

    fn set_paused(&self, queue: Q, paused: bool) {
        // SAFETY: the function has no requirement
        let found = unsafe { (self.functions.pause)(queue, paused.into()) };
        assert_ne!(found, 0, "no such queue or stream");
    }

    /// Waits until no work is pending. False if some still is when the timeout runs out.
    #[must_use]
    pub fn wait_idle(&self, timeout: Duration) -> bool {
        let milliseconds = timeout.as_millis().try_into().unwrap_or(u64::MAX);
        // SAFETY: the function has no requirement
        unsafe { (self.functions.wait_idle)(milliseconds) != 0 }
    }

    /// The pending work, one line each. For a test that has found the device stuck.
    pub fn pending_work(&self) -> String {
        // SAFETY: a buffer of this size that lives through the call
        text_from(|to, size| unsafe { (self.functions.pending_work)(to, size) })
    }

    /// The uses so far that the driver's documentation forbids, in order.
    pub fn violations(&self) -> Vec<String> {
        // SAFETY: the function has no requirement
        let count = unsafe { (self.functions.violations)() };
        // SAFETY: a buffer of this size that lives through the call
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

/// A machine for one test alone. If a panic drops it, the seed is printed.
#[derive(Debug)]
pub struct Session<'a, T: Deref<Target = CommonControl<C, Q>>, C, Q> {
    control: &'a T,
    _exclusive: MutexGuard<'static, ()>,
}

impl<'a, T: Deref<Target = CommonControl<C, Q>>, C, Q> Session<'a, T, C, Q> {
    /// A session of the control, for as long as the caller has the lock.
    pub fn new(control: &'a T, exclusive: MutexGuard<'static, ()>) -> Session<'a, T, C, Q> {
        Session {
            control,
            _exclusive: exclusive,
        }
    }
}

impl<T: Deref<Target = CommonControl<C, Q>>, C, Q> Deref for Session<'_, T, C, Q> {
    type Target = T;

    fn deref(&self) -> &T {
        self.control
    }
}

impl<T: Deref<Target = CommonControl<C, Q>>, C, Q> Drop for Session<'_, T, C, Q> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let (name, seed) = (self.control.stand_in, self.control.seed());
            let violations = self.control.violations();
            eprintln!(
                "fencepost {name} stand-in: failed with seed {seed}; replay with \
                 {SEED_VARIABLE}={seed}; violations: {violations:?}"
            );
        }
    }
}

/// Declares `Control` of a stand-in: its [`CommonControl`], and its further control functions in
/// `struct Functions`. Both are for the copy that is linked into the program (`Control::linked`) or
/// for a loaded library (`Control::load`). The functions have to be in scope.
#[macro_export]
macro_rules! control {
    (
        $stand_in:literal, code: $code:ty, queue: $queue:ty;
        $($field:ident = $name:ident: fn($($argument:ty),*) $(-> $result:ty)?;)*
    ) => {
        struct Functions {
            $($field: unsafe extern "C" fn($($argument),*) $(-> $result)?,)*
        }

        /// Plans faults and inspects the stand-in.
        ///
        /// A program that links this crate and also loads the library has two simulated machines.
        /// Code that loads the library is controlled through [`Control::load`] with the same path,
        /// not through [`Control::linked`].
        #[allow(missing_debug_implementations)]
        pub struct Control {
            common: $crate::control::CommonControl<$code, $queue>,
            functions: Functions,
        }

        /// A machine for one test alone. See [`Control::session`].
        pub type Session<'a> = $crate::control::Session<'a, Control, $code, $queue>;

        impl Control {
            /// Controls the copy of the stand-in that is linked into this program.
            pub fn linked() -> Control {
                let common = $crate::control::CommonFunctions {
                    seed: fencepost_sim_seed,
                    calls: fencepost_sim_calls,
                    fail_call: fencepost_sim_fail_call,
                    clear_faults: fencepost_sim_clear_faults,
                    pause: fencepost_sim_pause,
                    wait_idle: fencepost_sim_wait_idle,
                    pending_work: fencepost_sim_pending_work,
                    violations: fencepost_sim_violations,
                    violation: fencepost_sim_violation,
                    clear_violations: fencepost_sim_clear_violations,
                };
                Control {
                    // SAFETY: the functions of this crate
                    common: unsafe { $crate::control::CommonControl::new($stand_in, common) },
                    functions: Functions { $($field: $name,)* },
                }
            }

            /// Controls the copy in this file, which all code of this process that loads it shares.
            ///
            /// # Errors
            /// The file cannot be loaded or is not the stand-in.
            pub fn load(path: &std::path::Path) -> Result<Control, libloading::Error> {
                // SAFETY: the path names the stand-in, which does nothing on load
                let library = unsafe { libloading::Library::new(path)? };
                // never unloaded, since the machine's threads run its code
                let library = std::mem::ManuallyDrop::new(library);
                macro_rules! get {
                    ($function:ident) => {
                        // SAFETY: the library has this crate's functions, with these types
                        *unsafe { library.get(concat!(stringify!($function), "\0"))? }
                    };
                }
                let common = $crate::control::CommonFunctions {
                    seed: get!(fencepost_sim_seed),
                    calls: get!(fencepost_sim_calls),
                    fail_call: get!(fencepost_sim_fail_call),
                    clear_faults: get!(fencepost_sim_clear_faults),
                    pause: get!(fencepost_sim_pause),
                    wait_idle: get!(fencepost_sim_wait_idle),
                    pending_work: get!(fencepost_sim_pending_work),
                    violations: get!(fencepost_sim_violations),
                    violation: get!(fencepost_sim_violation),
                    clear_violations: get!(fencepost_sim_clear_violations),
                };
                Ok(Control {
                    // SAFETY: the functions of this one library, which is never unloaded
                    common: unsafe { $crate::control::CommonControl::new($stand_in, common) },
                    functions: Functions { $($field: get!($name),)* },
                })
            }
        }

        impl std::ops::Deref for Control {
            type Target = $crate::control::CommonControl<$code, $queue>;

            fn deref(&self) -> &Self::Target {
                &self.common
            }
        }
    };
}

/// Defines the control functions that are the same in all stand-ins, from the stand-in's
/// [`CallLog`](crate::CallLog), the type of its codes, the names of the driver's functions, and a
/// function that returns the machine's first device and makes the machine if there is none.
#[macro_export]
macro_rules! common_control_functions {
    (log: $log:path, code: $code:ty, functions: $functions:path, root: $root:path) => {
        /// The machine's seed.
        #[unsafe(no_mangle)]
        pub extern "C" fn fencepost_sim_seed() -> u64 {
            // makes the machine, and with it the seed, if there is none
            let _ = $root();
            $log.seed()
        }

        /// The text, if it is the name of a function of the stand-in.
        ///
        /// # Safety
        /// `name` is null or a C string.
        unsafe fn function_name(name: *const std::ffi::c_char) -> Option<String> {
            // SAFETY: the caller vouches for it
            let name = unsafe { $crate::ffi::read_text(name) };
            name.filter(|name| $functions.contains(&&**name))
        }

        /// How often a function was called; `u64::MAX` if the stand-in has no function of that
        /// name.
        ///
        /// # Safety
        /// `name` is null or a C string.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn fencepost_sim_calls(name: *const std::ffi::c_char) -> u64 {
            // SAFETY: the caller vouches for it
            unsafe { function_name(name) }.map_or(u64::MAX, |name| $log.calls(&name))
        }

        /// Makes the `nth` call of a function from now on return `code` and do nothing else; with
        /// `repeats`, all later calls too. 0 if there is no such function.
        ///
        /// # Safety
        /// `name` is null or a C string.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn fencepost_sim_fail_call(
            name: *const std::ffi::c_char,
            nth: u64,
            code: $code,
            repeats: std::ffi::c_int,
        ) -> std::ffi::c_int {
            // SAFETY: the caller vouches for it
            let name = unsafe { function_name(name) };
            name.map(|name| $log.fail(&name, nth, code, repeats != 0))
                .is_some()
                .into()
        }

        /// Lists the pending work, one line each. Copies what fits, with a terminating zero, and
        /// returns the full length.
        ///
        /// # Safety
        /// `to` is null or has space for `size` bytes.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn fencepost_sim_pending_work(
            to: *mut std::ffi::c_char,
            size: usize,
        ) -> usize {
            let lines = $root().map(|root| root.pending_work()).unwrap_or_default();
            // SAFETY: the caller vouches for it
            unsafe { $crate::ffi::write_text(&lines.join("\n"), to, size) }
        }

        fn all_violations() -> Vec<String> {
            $log.all_violations($root().as_ref())
        }

        /// The number of violations so far.
        #[unsafe(no_mangle)]
        pub extern "C" fn fencepost_sim_violations() -> usize {
            all_violations().len()
        }

        /// Copies what fits of a violation's text, with a terminating zero, and returns the full
        /// length; 0 if there is no such violation.
        ///
        /// # Safety
        /// `to` is null or has space for `size` bytes.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn fencepost_sim_violation(
            index: usize,
            to: *mut std::ffi::c_char,
            size: usize,
        ) -> usize {
            let all = all_violations();
            // SAFETY: the caller vouches for it
            all.get(index)
                .map_or(0, |text| unsafe { $crate::ffi::write_text(text, to, size) })
        }

        /// Forgets the violations so far, except for those that the simulated device has found.
        #[unsafe(no_mangle)]
        pub extern "C" fn fencepost_sim_clear_violations() {
            $log.clear_violations();
        }
    };
}
