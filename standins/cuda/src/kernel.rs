//! The kernels that the stand-in has, by name.
//!
//! * `fencepost_append(u32* log, u32 token)` appends the token to the log, `[count, capacity,
//!   tokens…]`. If the log is full, only the count grows.
//! * `fencepost_histogram(u8* data, u64 len, u64* bins)` counts bytes in 256 bins.
//! * `fencepost_reduce(u64* from, u64* into)` adds 256 bins to 256 others.
//! * `fencepost_spin(u64 ns)` takes that many nanoseconds of the device's clock, and from 1 ms on
//!   of real time too.
//! * `fencepost_trap()` fails with `CUDA_ERROR_LAUNCH_FAILED`.

use crate::codes::{CUDA_ERROR_LAUNCH_FAILED, CudaResult};
use crate::context::Context;
use crate::memory::Memory;
use std::ffi::CStr;
use std::sync::atomic::Ordering;
use std::time::Duration;

#[derive(Clone, Copy, Debug)]
pub(crate) enum KernelName {
    Append,
    Histogram,
    Reduce,
    Spin,
    Trap,
}

impl KernelName {
    pub(crate) fn of(text: &str) -> Option<KernelName> {
        Some(match text {
            "fencepost_append" => KernelName::Append,
            "fencepost_histogram" => KernelName::Histogram,
            "fencepost_reduce" => KernelName::Reduce,
            "fencepost_spin" => KernelName::Spin,
            "fencepost_trap" => KernelName::Trap,
            _ => return None,
        })
    }

    /// Its name, as a C string.
    pub(crate) fn symbol(self) -> &'static CStr {
        match self {
            KernelName::Append => c"fencepost_append",
            KernelName::Histogram => c"fencepost_histogram",
            KernelName::Reduce => c"fencepost_reduce",
            KernelName::Spin => c"fencepost_spin",
            KernelName::Trap => c"fencepost_trap",
        }
    }

    /// The sizes of its parameters in bytes.
    pub(crate) fn parameters(self) -> &'static [usize] {
        match self {
            KernelName::Append => &[8, 4],
            KernelName::Histogram => &[8, 8, 8],
            KernelName::Reduce => &[8, 8],
            KernelName::Spin => &[8],
            KernelName::Trap => &[],
        }
    }
}

/// A launch: a kernel and its arguments.
#[derive(Clone, Debug)]
pub(crate) struct Launch {
    pub(crate) name: KernelName,
    pub(crate) arguments: Vec<u64>,
}

const BINS: usize = 256;
/// The shortest spin that takes real time. The simulated device polls a wait about this often.
const SHORTEST_REAL_SPIN: Duration = Duration::from_millis(1);

impl Launch {
    /// How much real time the kernel takes. A shorter spin only advances the simulated clock.
    pub(crate) fn real_time(&self) -> Option<Duration> {
        match (self.name, &self.arguments[..]) {
            (KernelName::Spin, [ns]) => {
                Some(Duration::from_nanos(*ns)).filter(|time| *time >= SHORTEST_REAL_SPIN)
            }
            _ => None,
        }
    }

    pub(crate) fn run(&self, memory: &Memory, context: &Context) -> CudaResult {
        match (self.name, self.arguments[..].as_ref()) {
            (KernelName::Append, [log, token]) => {
                let head = memory.span(*log, 8)?;
                let place = head.word(0)?.fetch_add(1, Ordering::SeqCst) as usize;
                let capacity = head.word(1)?.load(Ordering::SeqCst) as usize;
                if place < capacity {
                    let log = memory.span(*log, 8 + 4 * capacity)?;
                    log.word(2 + place)?.store(*token as u32, Ordering::SeqCst);
                }
                Ok(())
            }
            (KernelName::Histogram, [data, len, bins]) => {
                let bins = memory.span(*bins, 8 * BINS)?;
                let mut counts = [0; BINS];
                for byte in memory.read(*data, *len as usize)? {
                    counts[usize::from(byte)] += 1;
                }
                for (bin, count) in counts.into_iter().enumerate() {
                    bins.double_word(bin)?.fetch_add(count, Ordering::SeqCst);
                }
                Ok(())
            }
            (KernelName::Reduce, [from, into]) => {
                let (from, into) = (memory.span(*from, 8 * BINS)?, memory.span(*into, 8 * BINS)?);
                for bin in 0..BINS {
                    let count = from.double_word(bin)?.load(Ordering::SeqCst);
                    into.double_word(bin)?.fetch_add(count, Ordering::SeqCst);
                }
                Ok(())
            }
            (KernelName::Spin, [ns]) => {
                context.device.advance(*ns);
                Ok(())
            }
            _ => Err(CUDA_ERROR_LAUNCH_FAILED),
        }
    }
}
