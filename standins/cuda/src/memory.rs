//! Memory: <https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__MEM.html>. Device memory has
//! addresses that the host cannot use; page-locked host memory has the same address on both sides.

use crate::boundary::Out;
use crate::codes::{
    CUDA_ERROR_ILLEGAL_ADDRESS, CUDA_ERROR_INVALID_VALUE, CUDA_ERROR_MISALIGNED_ADDRESS,
    CUDA_ERROR_OUT_OF_MEMORY, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, CUresult, Done,
};
use crate::context::CUcontext;
use crate::control;
use crate::entry::{call, call_then};
use crate::face::Face;
use crate::stream::CUstream;
use crate::work::{Op, wait_all};
use std::alloc::Layout;
use std::collections::BTreeMap;
use std::ffi::{c_uchar, c_uint, c_void};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// An address that kernels and copies understand.
pub type CUdeviceptr = u64;

/// More than this is out of memory.
const MOST: usize = 4 << 30;
/// What fresh memory holds: anything but zeros.
const GARBAGE: u8 = 0xcd;

#[derive(Debug)]
struct Block {
    bytes: NonNull<u8>,
    layout: Layout,
}

// SAFETY: the bytes belong to the block alone, and this crate touches them through atomics only
unsafe impl Send for Block {}
// SAFETY: as above
unsafe impl Sync for Block {}

impl Block {
    fn new(len: usize) -> Done<Block> {
        if len == 0 {
            return Err(CUDA_ERROR_INVALID_VALUE);
        }
        if len > MOST {
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
    fn at(&self, offset: usize, size: usize, align: usize) -> Done<*mut u8> {
        if offset.checked_add(size).is_none_or(|end| end > self.len) {
            return Err(CUDA_ERROR_ILLEGAL_ADDRESS);
        }
        let at = self.block.bytes.as_ptr().wrapping_add(self.offset + offset);
        if !at.addr().is_multiple_of(align) {
            return Err(CUDA_ERROR_MISALIGNED_ADDRESS);
        }
        Ok(at)
    }

    /// The word at a place counted in words.
    pub(crate) fn word(&self, index: usize) -> Done<&AtomicU32> {
        let at = self.at(index.saturating_mul(4), 4, 4)?;
        // SAFETY: in bounds, aligned, and alive as long as `self`; a host that reads it meanwhile
        // must do so atomically
        Ok(unsafe { AtomicU32::from_ptr(at.cast()) })
    }

    /// The double word at a place counted in double words.
    pub(crate) fn double_word(&self, index: usize) -> Done<&AtomicU64> {
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

    pub(crate) fn write(&self, from: &[u8]) -> Done {
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
    /// Its context's number.
    context: u64,
    host: bool,
}

#[derive(Debug)]
struct Allocations {
    by_address: BTreeMap<u64, Allocation>,
    next: u64,
}

/// All allocations. Its lock is a leaf.
#[derive(Debug)]
pub(crate) struct Memory(Mutex<Allocations>);

/// Host memory of contexts and machines that are gone: whoever holds a pointer to it must not
/// crash.
static GHOSTS: Mutex<Vec<Arc<Block>>> = Mutex::new(Vec::new());

fn haunt(block: Arc<Block>) {
    GHOSTS
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(block);
}

impl Default for Memory {
    fn default() -> Memory {
        Memory(Mutex::new(Allocations {
            by_address: BTreeMap::new(),
            // outside of what user space can map on Linux, so that the host cannot read it by
            // mistake
            next: 0x00f0_0000_0000_0000,
        }))
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let all = std::mem::take(&mut self.lock().by_address);
        all.into_values()
            .filter(|allocation| allocation.host)
            .for_each(|allocation| haunt(allocation.block));
    }
}

impl Memory {
    fn lock(&self) -> MutexGuard<'_, Allocations> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn allocate(&self, len: usize, context: u64, host: bool) -> Done<u64> {
        let block = Arc::new(Block::new(len)?);
        let mut all = self.lock();
        let address = if host {
            block.bytes.as_ptr().expose_provenance() as u64
        } else {
            let address = all.next;
            // a hole behind each, so that running over the end is seen
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

    fn free(&self, address: u64, host: bool) -> Done {
        let mut all = self.lock();
        match all.by_address.get(&address) {
            Some(allocation) if allocation.host == host => {
                all.by_address.remove(&address);
                Ok(())
            }
            _ => Err(CUDA_ERROR_INVALID_VALUE),
        }
    }

    /// The context is gone, and its memory with it.
    pub(crate) fn forget(&self, context: u64) {
        let mut all = self.lock();
        let (gone, kept): (BTreeMap<_, _>, BTreeMap<_, _>) = std::mem::take(&mut all.by_address)
            .into_iter()
            .partition(|(_, allocation)| allocation.context == context);
        all.by_address = kept;
        gone.into_values()
            .filter(|allocation| allocation.host)
            .for_each(|allocation| haunt(allocation.block));
    }

    pub(crate) fn live(&self, host: bool) -> usize {
        let all = self.lock();
        all.by_address.values().filter(|a| a.host == host).count()
    }

    pub(crate) fn span(&self, address: u64, len: usize) -> Done<Span> {
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

    /// Whether the address lies in device memory of that context.
    fn is_of(&self, context: u64, address: u64) -> bool {
        let all = self.lock();
        let found = all.by_address.range(..=address).next_back();
        found.is_some_and(|(_, allocation)| allocation.context == context && !allocation.host)
    }

    pub(crate) fn read(&self, address: u64, len: usize) -> Done<Vec<u8>> {
        Ok(self.span(address, len)?.read())
    }

    /// Whether the host pointer is page-locked, so that a copy may use it after the call.
    fn locked(&self, host: *const c_void, len: usize) -> bool {
        self.span(host.addr() as u64, len).is_ok()
    }
}

/// Allocates device memory.
#[unsafe(no_mangle)]
pub extern "C" fn cuMemAlloc_v2(address: Out<'_, CUdeviceptr>, len: usize) -> CUresult {
    call("cuMemAlloc_v2", |face| {
        let address = address.needed()?;
        let context = face.current()?;
        face.unsafe_call()?;
        address.put(face.memory.allocate(len, context.id, false)?);
        Ok(())
    })
}

/// Frees device memory. Waits for all work submitted to the context before, as drivers do.
#[unsafe(no_mangle)]
pub extern "C" fn cuMemFree_v2(address: CUdeviceptr) -> CUresult {
    free("cuMemFree_v2", address, false)
}

/// Allocates page-locked host memory.
#[unsafe(no_mangle)]
pub extern "C" fn cuMemHostAlloc(
    pointer: Out<'_, *mut c_void>,
    len: usize,
    flags: c_uint,
) -> CUresult {
    call("cuMemHostAlloc", |face| {
        let pointer = pointer.needed()?;
        let context = face.current()?;
        // PORTABLE, DEVICEMAP, WRITECOMBINED
        if flags & !7 != 0 {
            return Err(CUDA_ERROR_INVALID_VALUE);
        }
        face.unsafe_call()?;
        let address = face.memory.allocate(len, context.id, true)?;
        pointer.put(std::ptr::with_exposed_provenance_mut(address as usize));
        Ok(())
    })
}

/// Frees page-locked host memory. Waits for all work submitted to the context before, as drivers
/// do.
#[unsafe(no_mangle)]
pub extern "C" fn cuMemFreeHost(pointer: *mut c_void) -> CUresult {
    free("cuMemFreeHost", pointer.addr() as u64, true)
}

fn free(name: &'static str, address: u64, host: bool) -> CUresult {
    call_then(
        name,
        |face| {
            let context = face.current()?;
            face.unsafe_call()?;
            face.refuse_in_any_capture_of(&context)?;
            let ends = face.ends_of(&context, true);
            Ok((face.memory.clone(), context, ends))
        },
        |(memory, context, ends)| {
            wait_all(&context, &ends)?;
            memory.free(address, host).inspect_err(|_| {
                control::violation(&format!("{name}: {address:#x} is not allocated"));
            })
        },
    )
}

/// The address by which the device knows page-locked host memory: the same.
#[unsafe(no_mangle)]
pub extern "C" fn cuMemHostGetDevicePointer_v2(
    address: Out<'_, CUdeviceptr>,
    pointer: *mut c_void,
    flags: c_uint,
) -> CUresult {
    call("cuMemHostGetDevicePointer_v2", |face| {
        let address = address.needed()?;
        face.current()?;
        if flags != 0 || !face.memory.locked(pointer, 1) {
            return Err(CUDA_ERROR_INVALID_VALUE);
        }
        address.put(pointer.addr() as u64);
        Ok(())
    })
}

/// Copies to the host, behind all work of the legacy default stream, and waits.
///
/// # Safety
/// `to` has room for `len` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyDtoH_v2(
    to: *mut c_void,
    from: CUdeviceptr,
    len: usize,
) -> CUresult {
    let prepare = |face: &mut Face| {
        face.unsafe_call()?;
        Ok(1)
    };
    // SAFETY: the caller's word
    unsafe { download("cuMemcpyDtoH_v2", to, from, len, prepare) }
}

/// Copies to the host in a stream. To memory that is not page-locked it waits for the copy.
///
/// # Safety
/// `to` has room for `len` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyDtoHAsync_v2(
    to: *mut c_void,
    from: CUdeviceptr,
    len: usize,
    stream: CUstream,
) -> CUresult {
    let mut locked = false;
    let queued = call("cuMemcpyDtoHAsync_v2", |face| {
        locked = face.memory.locked(to, len);
        if !locked {
            return Ok(());
        }
        let stream = face.stream(stream)?;
        let to = to.addr() as u64;
        face.push(stream, Op::Copy { from, to, len }).map(drop)
    });
    if locked || queued != 0 {
        return queued;
    }
    // SAFETY: the caller's word
    unsafe { download("cuMemcpyDtoHAsync_v2", to, from, len, |_| Ok(stream)) }
}

/// # Safety
/// `to` has room for `len` bytes.
unsafe fn download(
    name: &'static str,
    to: *mut c_void,
    from: CUdeviceptr,
    len: usize,
    stream: impl FnOnce(&mut Face) -> Done<CUstream>,
) -> CUresult {
    call_then(
        name,
        |face| {
            let stream = stream(face)?;
            let stream = face.stream(stream)?;
            let into = Arc::new(Mutex::new(vec![0; len]));
            let copy = Op::Download {
                from,
                into: into.clone(),
            };
            let context = face.enter(stream)?;
            if face.capture_of(stream).is_some() {
                face.invalidate_of(stream);
                return Err(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
            }
            Ok((context, face.push(stream, copy)?, into))
        },
        |(context, end, into)| {
            // the device never touches the caller's memory: it may be freed once an error has come
            // back
            wait_all(&context, end.as_slice())?;
            let bytes = into.lock().unwrap_or_else(PoisonError::into_inner);
            // SAFETY: the caller gave room for `len` bytes, which is what `bytes` holds
            unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to.cast(), bytes.len()) };
            Ok(())
        },
    )
}

/// Copies to the device, behind all work of the legacy default stream, and waits.
///
/// # Safety
/// `from` holds `len` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyHtoD_v2(
    to: CUdeviceptr,
    from: *const c_void,
    len: usize,
) -> CUresult {
    call_then(
        "cuMemcpyHtoD_v2",
        |face| {
            face.unsafe_call()?;
            let stream = face.stream(1)?;
            let context = face.enter(stream)?;
            // SAFETY: the caller's word
            let bytes = unsafe { staged(from, len) };
            Ok((context, face.push(stream, Op::Upload { bytes, to })?))
        },
        |(context, end)| wait_all(&context, end.as_slice()),
    )
}

/// Copies to the device in a stream. Page-locked memory is read when the copy runs, any other now.
///
/// # Safety
/// `from` holds `len` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyHtoDAsync_v2(
    to: CUdeviceptr,
    from: *const c_void,
    len: usize,
    stream: CUstream,
) -> CUresult {
    call("cuMemcpyHtoDAsync_v2", |face| {
        let stream = face.stream(stream)?;
        let copy = if face.memory.locked(from, len) {
            let from = from.addr() as u64;
            Op::Copy { from, to, len }
        } else {
            // SAFETY: the caller's word
            let bytes = unsafe { staged(from, len) };
            Op::Upload { bytes, to }
        };
        face.push(stream, copy).map(drop)
    })
}

/// Copies between two contexts' memory in a stream.
#[unsafe(no_mangle)]
pub extern "C" fn cuMemcpyPeerAsync(
    to: CUdeviceptr,
    to_context: CUcontext,
    from: CUdeviceptr,
    from_context: CUcontext,
    len: usize,
    stream: CUstream,
) -> CUresult {
    call("cuMemcpyPeerAsync", |face| {
        let stream = face.stream(stream)?;
        for (context, address) in [(to_context, to), (from_context, from)] {
            let context = face.context(context)?;
            if !face.memory.is_of(context.id, address) {
                return Err(CUDA_ERROR_INVALID_VALUE);
            }
        }
        face.push(stream, Op::Copy { from, to, len }).map(drop)
    })
}

/// # Safety
/// `from` holds `len` bytes.
unsafe fn staged(from: *const c_void, len: usize) -> Arc<[u8]> {
    if from.is_null() || len == 0 {
        return Arc::default();
    }
    // SAFETY: the caller's word
    unsafe { std::slice::from_raw_parts(from.cast(), len) }.into()
}

/// Fills memory with a byte.
#[unsafe(no_mangle)]
pub extern "C" fn cuMemsetD8Async(
    to: CUdeviceptr,
    value: c_uchar,
    times: usize,
    stream: CUstream,
) -> CUresult {
    fill("cuMemsetD8Async", to, vec![value], times, stream)
}

/// Fills memory with a word.
#[unsafe(no_mangle)]
pub extern "C" fn cuMemsetD32Async(
    to: CUdeviceptr,
    value: c_uint,
    times: usize,
    stream: CUstream,
) -> CUresult {
    let pattern = value.to_ne_bytes().to_vec();
    fill("cuMemsetD32Async", to, pattern, times, stream)
}

fn fill(
    name: &'static str,
    to: CUdeviceptr,
    pattern: Vec<u8>,
    times: usize,
    stream: CUstream,
) -> CUresult {
    call(name, |face| {
        if !to.is_multiple_of(pattern.len() as u64) || times > MOST {
            return Err(CUDA_ERROR_INVALID_VALUE);
        }
        let stream = face.stream(stream)?;
        let fill = Op::Fill { to, pattern, times };
        face.push(stream, fill).map(drop)
    })
}
