//! Memory. Type 0 is not visible to the host and type 1 is coherent. Type 2 has two copies, one for
//! the host and one for the device: only a flush or an invalidation copies from one to the other.

use crate::table::Child;
use ash::vk::{self, Handle};
use fencepost_sim::lock;
use std::ffi::c_void;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

/// The words of a page.
const WORDS: usize = 1024;

/// Its alignment is `minMemoryMapAlignment`.
#[derive(Debug)]
#[repr(align(4096))]
struct Page([AtomicU32; WORDS]);

/// The initial value of memory, so that no test relies on zeros.
const GARBAGE: u32 = 0xcdcd_cdcd;

#[derive(Debug)]
pub(crate) struct Block {
    pages: Vec<Page>,
    /// The host's copy of memory that is not coherent.
    host: Option<Vec<Page>>,
}

fn pages(size: u64) -> Vec<Page> {
    let count = size.div_ceil(4 * WORDS as u64) as usize;
    let page = |_| Page([const { AtomicU32::new(GARBAGE) }; WORDS]);
    (0..count).map(page).collect()
}

fn word(pages: &[Page], index: usize) -> Option<&AtomicU32> {
    pages.get(index / WORDS).map(|page| &page.0[index % WORDS])
}

/// Copies whole words; offsets and sizes are multiples of 64.
fn copy(from: &[Page], to: &[Page], offset: u64, size: u64) {
    for index in offset / 4..(offset + size).div_ceil(4) {
        if let (Some(from), Some(to)) = (word(from, index as usize), word(to, index as usize)) {
            to.store(from.load(Ordering::Relaxed), Ordering::Relaxed);
        }
    }
}

impl Block {
    pub(crate) fn new(size: u64, coherent: bool) -> Block {
        Block {
            pages: pages(size),
            host: (!coherent).then(|| pages(size)),
        }
    }

    /// Copies from the host's copy to the device's.
    pub(crate) fn flush(&self, offset: u64, size: u64) {
        if let Some(host) = &self.host {
            copy(host, &self.pages, offset, size);
        }
    }

    /// Copies from the device's copy to the host's.
    pub(crate) fn invalidate(&self, offset: u64, size: u64) {
        if let Some(host) = &self.host {
            copy(&self.pages, host, offset, size);
        }
    }

    pub(crate) fn host_pointer(&self) -> *mut c_void {
        let pages = self.host.as_ref().unwrap_or(&self.pages);
        pages.as_ptr().cast_mut().cast()
    }
}

/// A part of a block, in words. It keeps the block alive.
#[derive(Clone, Debug)]
pub(crate) struct Span {
    pub(crate) block: Arc<Block>,
    pub(crate) first: usize,
    pub(crate) count: usize,
}

impl Span {
    /// `None` beyond its end.
    pub(crate) fn word(&self, index: usize) -> Option<&AtomicU32> {
        let index = (index < self.count).then_some(self.first + index)?;
        word(&self.block.pages, index)
    }

    pub(crate) fn part(&self, offset: u64, size: u64) -> Span {
        Span {
            block: self.block.clone(),
            first: self.first + offset as usize / 4,
            count: size as usize / 4,
        }
    }
}

#[derive(Debug)]
pub(crate) struct Memory {
    pub(crate) device: vk::Device,
    pub(crate) size: u64,
    pub(crate) kind: u32,
    pub(crate) block: Arc<Block>,
    /// The offset and size of the mapped range.
    pub(crate) mapped: Option<(u64, u64)>,
}

impl Child for Memory {
    fn parent(&self) -> u64 {
        self.device.as_raw()
    }
}

/// Mapped memory of earlier machines. It is never freed, since a thread may still have a pointer to
/// it.
static KEPT_ALIVE: Mutex<Vec<Arc<Block>>> = Mutex::new(Vec::new());

pub(crate) fn keep_alive(blocks: impl Iterator<Item = Arc<Block>>) {
    lock(&KEPT_ALIVE).extend(blocks);
}
