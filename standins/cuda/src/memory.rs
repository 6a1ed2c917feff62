//! Memory. Device memory has addresses that the host cannot use; page-locked host memory has the
//! same address on both sides.

use crate::codes::{
    CUDA_ERROR_ILLEGAL_ADDRESS, CUDA_ERROR_INVALID_VALUE, CUDA_ERROR_MISALIGNED_ADDRESS,
    CUDA_ERROR_OUT_OF_MEMORY, CudaResult,
};
use fencepost_sim::lock;
use std::alloc::Layout;
use std::collections::BTreeMap;
use std::ffi::c_void;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

/// The size of the largest allocation.
pub(crate) const MAX_SIZE: usize = 4 << 30;
/// The initial value of memory, so that no test relies on zeros.
const GARBAGE: u8 = 0xcd;

#[derive(Debug)]
struct Block {
    bytes: NonNull<u8>,
    layout: Layout,
}

// SAFETY: the bytes belong to the block alone, and this crate accesses them through atomics only
unsafe impl Send for Block {}
// SAFETY: as above
unsafe impl Sync for Block {}

impl Block {
    fn new(len: usize) -> CudaResult<Block> {
        if len == 0 {
            return Err(CUDA_ERROR_INVALID_VALUE);
        }
        if len > MAX_SIZE {
            return Err(CUDA_ERROR_OUT_OF_MEMORY);
        }
        let layout = Layout::from_size_align(len, 4096).map_err(|_| CUDA_ERROR_OUT_OF_MEMORY)?;
        // SAFETY: the size is not zero
        let bytes = NonNull::new(unsafe { std::alloc::alloc(layout) });
        let bytes = bytes.ok_or(CUDA_ERROR_OUT_OF_MEMORY)?;
        // SAFETY: these bytes were just allocated
        unsafe { bytes.write_bytes(GARBAGE, len) };
        Ok(Block { bytes, layout })
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout
        unsafe { std::alloc::dealloc(self.bytes.as_ptr(), self.layout) };
    }
}

/// A part of a block, which it keeps alive.
#[derive(Clone, Debug)]
pub(crate) struct Span {
    block: Arc<Block>,
    offset: usize,
    len: usize,
}

impl Span {
    fn at(&self, offset: usize, size: usize, align: usize) -> CudaResult<*mut u8> {
        if offset.checked_add(size).is_none_or(|end| end > self.len) {
            return Err(CUDA_ERROR_ILLEGAL_ADDRESS);
        }
        let at = self.block.bytes.as_ptr().wrapping_add(self.offset + offset);
        if !at.addr().is_multiple_of(align) {
            return Err(CUDA_ERROR_MISALIGNED_ADDRESS);
        }
        Ok(at)
    }

    /// The word with this index.
    pub(crate) fn word(&self, index: usize) -> CudaResult<&AtomicU32> {
        let at = self.at(index.saturating_mul(4), 4, 4)?;
        // SAFETY: in bounds, aligned, and alive as long as `self`; the host must access it
        // atomically while work may use it
        Ok(unsafe { AtomicU32::from_ptr(at.cast()) })
    }

    /// The double word with this index.
    pub(crate) fn double_word(&self, index: usize) -> CudaResult<&AtomicU64> {
        let at = self.at(index.saturating_mul(8), 8, 8)?;
        // SAFETY: as in `word`
        Ok(unsafe { AtomicU64::from_ptr(at.cast()) })
    }

    fn bytes(&self) -> impl Iterator<Item = &AtomicU8> {
        (0..self.len).filter_map(|offset| {
            let at = self.at(offset, 1, 1).ok()?;
            // SAFETY: as in `word`
            Some(unsafe { AtomicU8::from_ptr(at) })
        })
    }

    pub(crate) fn read(&self) -> Vec<u8> {
        self.bytes()
            .map(|byte| byte.load(Ordering::Relaxed))
            .collect()
    }

    pub(crate) fn write(&self, from: &[u8]) -> CudaResult {
        if from.len() != self.len {
            return Err(CUDA_ERROR_ILLEGAL_ADDRESS);
        }
        for (byte, from) in self.bytes().zip(from) {
            byte.store(*from, Ordering::Relaxed);
        }
        Ok(())
    }
}

#[derive(Debug)]
struct Allocation {
    block: Arc<Block>,
    /// The id of its context.
    context: u64,
    host: bool,
}

#[derive(Debug)]
struct Allocations {
    by_address: BTreeMap<u64, Allocation>,
    next: u64,
}

/// All allocations. No other lock is taken while its lock is held.
#[derive(Debug)]
pub(crate) struct Memory(Mutex<Allocations>);

/// Host memory of destroyed contexts and earlier machines. It is never freed, since a thread may
/// still have a pointer to it.
static KEPT_ALIVE: Mutex<Vec<Arc<Block>>> = Mutex::new(Vec::new());

fn keep_alive(block: Arc<Block>) {
    lock(&KEPT_ALIVE).push(block);
}

impl Default for Memory {
    fn default() -> Memory {
        Memory(Mutex::new(Allocations {
            by_address: BTreeMap::new(),
            // outside of the addresses that Linux maps for user space, so that a use on the host
            // crashes
            next: 0x00f0_0000_0000_0000,
        }))
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let all = std::mem::take(&mut self.lock().by_address);
        all.into_values()
            .filter(|allocation| allocation.host)
            .for_each(|allocation| keep_alive(allocation.block));
    }
}

impl Memory {
    fn lock(&self) -> MutexGuard<'_, Allocations> {
        lock(&self.0)
    }

    pub(crate) fn allocate(&self, len: usize, context: u64, host: bool) -> CudaResult<u64> {
        let block = Arc::new(Block::new(len)?);
        let mut all = self.lock();
        let address = if host {
            block.bytes.as_ptr().expose_provenance() as u64
        } else {
            let address = all.next;
            // a gap behind each allocation, so that an overrun is an illegal address
            all.next += (len as u64).next_multiple_of(512) + 512;
            address
        };
        all.by_address.insert(
            address,
            Allocation {
                block,
                context,
                host,
            },
        );
        Ok(address)
    }

    pub(crate) fn free(&self, address: u64, host: bool) -> CudaResult {
        let mut all = self.lock();
        match all.by_address.get(&address) {
            Some(allocation) if allocation.host == host => {
                all.by_address.remove(&address);
                Ok(())
            }
            _ => Err(CUDA_ERROR_INVALID_VALUE),
        }
    }

    /// Frees the memory of a destroyed context.
    pub(crate) fn free_all(&self, context: u64) {
        let mut all = self.lock();
        let (freed, kept): (BTreeMap<_, _>, BTreeMap<_, _>) = std::mem::take(&mut all.by_address)
            .into_iter()
            .partition(|(_, allocation)| allocation.context == context);
        all.by_address = kept;
        freed
            .into_values()
            .filter(|allocation| allocation.host)
            .for_each(|allocation| keep_alive(allocation.block));
    }

    pub(crate) fn live(&self, host: bool) -> usize {
        let all = self.lock();
        all.by_address.values().filter(|a| a.host == host).count()
    }

    pub(crate) fn span(&self, address: u64, len: usize) -> CudaResult<Span> {
        let all = self.lock();
        let (start, allocation) = all
            .by_address
            .range(..=address)
            .next_back()
            .ok_or(CUDA_ERROR_ILLEGAL_ADDRESS)?;
        let offset = usize::try_from(address - start).map_err(|_| CUDA_ERROR_ILLEGAL_ADDRESS)?;
        let size = allocation.block.layout.size();
        if offset.checked_add(len).is_none_or(|end| end > size) {
            return Err(CUDA_ERROR_ILLEGAL_ADDRESS);
        }
        Ok(Span {
            block: allocation.block.clone(),
            offset,
            len,
        })
    }

    /// Whether the address lies in device memory of this context.
    pub(crate) fn is_of(&self, context: u64, address: u64) -> bool {
        let all = self.lock();
        let found = all.by_address.range(..=address).next_back();
        found.is_some_and(|(_, allocation)| allocation.context == context && !allocation.host)
    }

    pub(crate) fn read(&self, address: u64, len: usize) -> CudaResult<Vec<u8>> {
        Ok(self.span(address, len)?.read())
    }

    /// Whether the host pointer is page-locked. A copy may then use it after the call.
    pub(crate) fn is_page_locked(&self, host: *const c_void, len: usize) -> bool {
        self.span(host.addr() as u64, len).is_ok()
    }
}
