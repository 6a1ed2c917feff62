//! Memory that is larger than the GPU's last cache, to write over for a cold one.
//!
//! It is made when it is first asked for, and never freed. Freeing blocks while any stream is
//! stalled (docs/measurements/cuda-stalls.md), and it is for measuring on stalled streams.

use super::{calls::Calls, driver::DevicePointer, fault::Fault};
use crate::sync::{Mutex, lock};

pub(super) struct CacheMemory {
    calls: Calls,
    /// The bytes of the cache, where the driver tells.
    cache: Option<usize>,
    made: Mutex<Option<Words>>,
}

/// Memory of the device, in words of 32 bits.
#[derive(Clone, Copy)]
pub(super) struct Words {
    pub(super) address: DevicePointer,
    pub(super) count: usize,
}

impl CacheMemory {
    pub(super) fn new(calls: Calls, cache: Option<usize>) -> CacheMemory {
        CacheMemory {
            calls,
            cache,
            made: Mutex::new(None),
        }
    }

    /// Memory of twice the cache's size; `None` where the driver does not tell that.
    pub(super) fn get(&self) -> Result<Option<Words>, Fault> {
        let Some(cache) = self.cache else {
            return Ok(None);
        };
        let mut made = lock(&self.made);
        if made.is_none() {
            let count = cache / 2;
            let address = self.calls.allocate(count * 4)?;
            *made = Some(Words { address, count });
        }
        Ok(*made)
    }
}
