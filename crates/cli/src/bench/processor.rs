//! The processor time of this process.

use std::{ffi::c_int, time::Duration};

/// The processor time that all threads of the process have used.
pub(super) fn time() -> Duration {
    /// A `timespec`, where pointers have 64 bits.
    #[repr(C)]
    struct Time {
        seconds: i64,
        nanos: i64,
    }
    unsafe extern "C" {
        fn clock_gettime(clock: c_int, time: *mut Time) -> c_int;
    }
    const CLOCK_PROCESS_CPUTIME_ID: c_int = 2;
    let mut time = Time {
        seconds: 0,
        nanos: 0,
    };
    // SAFETY: `time` is one timespec.
    unsafe { clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    Duration::new(time.seconds as u64, time.nanos as u32)
}
