//! The memory of buffers.

use objc2_foundation::NSRange;
use std::ffi::c_void;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU32;

/// Memory that host and device share. As on hardware, a read during a write may give any value.
pub(crate) struct Memory {
    words: Box<[AtomicU32]>,
    length: usize,
}

impl Memory {
    pub(crate) fn new(length: usize) -> Memory {
        Memory {
            words: (0..length.div_ceil(4)).map(|_| AtomicU32::new(0)).collect(),
            length,
        }
    }

    pub(crate) fn length(&self) -> usize {
        self.length
    }

    /// The whole words from a byte offset to the end. The offset is a multiple of 4.
    pub(crate) fn words(&self, offset: usize) -> &[AtomicU32] {
        self.words[..self.length / 4]
            .get(offset / 4..)
            .unwrap_or_default()
    }

    pub(crate) fn start(&self) -> NonNull<c_void> {
        NonNull::from(&*self.words).cast()
    }

    /// Whether `length` bytes from `offset` on are inside.
    pub(crate) fn has(&self, offset: usize, length: usize) -> bool {
        offset
            .checked_add(length)
            .is_some_and(|end| end <= self.length)
    }

    pub(crate) fn fill(&self, range: NSRange, value: u8) {
        if self.has(range.location, range.length) {
            let to = self.start().cast::<u8>();
            // SAFETY: the range is inside of the memory, whose words are atomics and may be written
            // through a shared reference
            unsafe { to.add(range.location).write_bytes(value, range.length) };
        }
    }

    pub(crate) fn write(&self, offset: usize, bytes: &[u8]) {
        if self.has(offset, bytes.len()) {
            let to = self.start().cast::<u8>();
            // SAFETY: as in `fill`, and `bytes` is no part of the memory
            unsafe {
                to.add(offset)
                    .as_ptr()
                    .copy_from_nonoverlapping(bytes.as_ptr(), bytes.len())
            };
        }
    }

    pub(crate) fn copy(&self, from: usize, to: &Memory, at: usize, length: usize) {
        if self.has(from, length) && to.has(at, length) {
            let source = self.start().cast::<u8>();
            let target = to.start().cast::<u8>();
            // SAFETY: as in `fill`. Both may be the same memory: `copy_from` lets the ranges
            // overlap
            unsafe {
                target
                    .add(at)
                    .as_ptr()
                    .copy_from(source.add(from).as_ptr(), length)
            };
        }
    }
}
