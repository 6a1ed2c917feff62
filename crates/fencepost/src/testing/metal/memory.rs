//! Memory that the suite's kernels read and write.

use std::{
    ptr::NonNull,
    sync::{Arc, atomic::AtomicU32},
};

use objc2_metal::{MTLBuffer, MTLDevice, MTLResourceOptions};

use crate::{
    error::Result,
    metal::{
        gpu::Gpu,
        objects::{Object, nil, pooled},
    },
};

/// Memory that host and device see, zeroed.
pub(super) struct Memory {
    pub(super) buffer: Object<dyn MTLBuffer>,
    pub(super) bytes: usize,
}

impl Memory {
    /// Room for `bytes`, in whole words.
    pub(super) fn new(gpu: &Gpu, bytes: usize) -> Result<Arc<Memory>> {
        gpu.check()?;
        let bytes = bytes.next_multiple_of(4).max(4);
        let options = MTLResourceOptions::StorageModeShared;
        let buffer = pooled(|| gpu.device.newBufferWithLength_options(bytes, options));
        let buffer = buffer.ok_or_else(|| nil("MTLDevice.newBufferWithLength", "free memory"))?;
        let memory = Memory {
            buffer: Object::new(buffer),
            bytes,
        };
        // SAFETY: a new buffer of that size, which nobody else uses.
        unsafe { memory.start().write_bytes(0, bytes) };
        Ok(Arc::new(memory))
    }

    /// Its address for the host.
    pub(super) fn start(&self) -> NonNull<u8> {
        self.buffer.contents().cast()
    }

    /// One word of it.
    pub(super) fn word(&self, index: usize) -> &AtomicU32 {
        assert!(index < self.bytes / 4);
        // SAFETY: within memory that lives as long as `self`, aligned for any word, and read and
        // written as whole words.
        unsafe { AtomicU32::from_ptr(self.start().cast::<u32>().add(index).as_ptr()) }
    }
}
