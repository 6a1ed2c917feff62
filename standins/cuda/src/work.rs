//! The work that streams and graphs run.

use crate::codes::{CUDA_ERROR_OPERATING_SYSTEM, CUresult, CudaResult};
use crate::context::Context;
use crate::kernel::Launch;
use crate::memory::{Memory, Span};
use fencepost_sim::Flag;
use fencepost_sim::lock;
use std::cell::Cell;
use std::ffi::c_void;
use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};

/// How a wait compares a word: `CUstreamWaitValue_flags`.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Compare {
    Geq,
    Eq,
    And,
    Nor,
}

impl Compare {
    pub(crate) fn matches(self, word: u32, value: u32) -> bool {
        match self {
            // modulo 2^32, so that counters may wrap
            Compare::Geq => word.wrapping_sub(value) as i32 >= 0,
            Compare::Eq => word == value,
            Compare::And => word & value != 0,
            Compare::Nor => !(word | value) != 0,
        }
    }
}

/// A `CUhostFn` and its argument.
#[derive(Clone, Copy)]
pub(crate) struct HostFunction {
    pub(crate) call: unsafe extern "C" fn(*mut c_void),
    pub(crate) data: *mut c_void,
}

// SAFETY: cuLaunchHostFunc calls the function on a thread of the driver, and its caller must ensure
// that this is sound
unsafe impl Send for HostFunction {}
// SAFETY: as above; it is only copied
unsafe impl Sync for HostFunction {}

impl fmt::Debug for HostFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("host function")
    }
}

/// One piece of work. A graph may run it repeatedly.
#[derive(Clone, Debug)]
pub(crate) enum Work {
    Kernel(Launch),
    /// A launch that fails.
    Trap(CUresult),
    Copy {
        from: u64,
        to: u64,
        len: usize,
    },
    Upload {
        bytes: Arc<[u8]>,
        to: u64,
    },
    /// To a buffer of this crate. The calling thread copies it to the caller's memory after the
    /// wait.
    Download {
        from: u64,
        into: Arc<Mutex<Vec<u8>>>,
    },
    Fill {
        to: u64,
        pattern: Vec<u8>,
        times: usize,
    },
    Write {
        word: Span,
        value: u32,
    },
    Wait {
        word: Span,
        value: u32,
        compare: Compare,
    },
    Host(HostFunction),
}

impl Work {
    pub(crate) fn run(&self, memory: &Memory, context: &Context) -> CudaResult {
        match self {
            Work::Kernel(kernel) => kernel.run(memory, context),
            Work::Trap(code) => Err(*code),
            Work::Copy { from, to, len } => {
                memory.span(*to, *len)?.write(&memory.read(*from, *len)?)
            }
            Work::Upload { bytes, to } => memory.span(*to, bytes.len())?.write(bytes),
            Work::Download { from, into } => {
                let mut into = lock(into);
                *into = memory.read(*from, into.len())?;
                Ok(())
            }
            Work::Fill { to, pattern, times } => {
                let bytes = pattern.repeat(*times);
                memory.span(*to, bytes.len())?.write(&bytes)
            }
            Work::Write { word, value } => {
                word.word(0)?.store(*value, Ordering::SeqCst);
                Ok(())
            }
            Work::Wait { .. } | Work::Host(_) => Ok(()),
        }
    }
}

/// The thread that runs host functions, one after the other. It is not the thread that steps the
/// device. So a host function that blocks delays other host functions, as CUDA permits, but no work
/// of the device.
#[derive(Clone, Debug)]
pub(crate) struct HostFunctionThread(Sender<(HostFunction, Flag)>);

thread_local! {
    /// Set in the thread that runs host functions.
    static IN_HOST_FUNCTION: Cell<bool> = const { Cell::new(false) };
}

pub(crate) fn in_host_function() -> bool {
    IN_HOST_FUNCTION.try_with(Cell::get).unwrap_or(false)
}

impl HostFunctionThread {
    pub(crate) fn spawn() -> CudaResult<HostFunctionThread> {
        let (sender, jobs) = channel::<(HostFunction, Flag)>();
        std::thread::Builder::new()
            .name("simulated driver".into())
            .spawn(move || {
                IN_HOST_FUNCTION.set(true);
                for (function, done) in jobs {
                    // SAFETY: the caller of cuLaunchHostFunc vouches for this call once earlier
                    // work of the stream is complete
                    unsafe { (function.call)(function.data) };
                    done.set();
                }
            })
            .map_err(|_| CUDA_ERROR_OPERATING_SYSTEM)?;
        Ok(HostFunctionThread(sender))
    }

    /// Runs the function, then sets `done`.
    pub(crate) fn run(&self, function: HostFunction, done: Flag) {
        if self.0.send((function, done.clone())).is_err() {
            done.set();
        }
    }
}
