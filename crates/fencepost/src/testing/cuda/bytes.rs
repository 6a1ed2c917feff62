//! Counting bytes by a kernel: what `fencepost run` puts on CUDA streams.
//!
//! Its memory is never freed: freeing blocks while any stream is stalled
//! (docs/measurements/cuda-stalls.md), and a run needs its few buffers until it ends.

use std::{any::Any, ffi::c_void, sync::Arc};

use super::{
    kernels::{Functions, launch},
    state::state,
};
use crate::{
    cuda::{
        context::Context,
        fault::Fault,
        stream::{CudaStream, of_stream},
    },
    error::{Error, Result},
    stream::Stream,
    sync::{Mutex, lock},
    testing::bytes::{ByteCounter, ByteCounterImpl},
};

/// Page-locked memory that the host fills, device memory that it is copied to, and 256 counts.
struct Memory {
    capacity: usize,
    host: usize,
    data: u64,
    bins: u64,
}

struct CudaCounter {
    context: &'static Context,
    /// Held while the host's memory is filled.
    memory: Mutex<Memory>,
    bins: u64,
}

const BINS: usize = 256;
const THREADS: u32 = 256;
/// Enough blocks to fill any GPU; each counts its share in steps.
const MOST_BLOCKS: usize = 1024;
const BYTES_A_BLOCK: usize = 16 * 1024;

pub(super) fn new(context: &'static Context, capacity: usize) -> Result<Arc<dyn ByteCounterImpl>> {
    state(context).kernels(context)?;
    let failed = |fault| context.failed(fault, None);
    let memory = allocate(context, capacity).map_err(failed)?;
    let zeroes = [0_u64; BINS];
    context
        .calls
        .current(|| {
            // SAFETY: `bins` is device memory of that size, and nobody else's.
            unsafe {
                let from = zeroes.as_ptr().cast::<c_void>();
                Functions::get()?.copy_in(memory.bins, from, size_of_val(&zeroes))
            }
        })
        .map_err(failed)?;
    Ok(Arc::new(CudaCounter {
        context,
        bins: memory.bins,
        memory: Mutex::new(memory),
    }))
}

fn allocate(context: &Context, capacity: usize) -> Result<Memory, Fault> {
    let (host, _) = context.calls.allocate_page_locked(capacity.max(1))?;
    let on_device = |bytes: usize| {
        context.calls.current(|| {
            let mut address = 0;
            // SAFETY: `address` is one device pointer.
            unsafe { Functions::get()?.alloc(&raw mut address, bytes) }?;
            Ok(address)
        })
    };
    Ok(Memory {
        capacity,
        host,
        data: on_device(capacity.max(1))?,
        bins: on_device(BINS * size_of::<u64>())?,
    })
}

impl CudaCounter {
    fn stream<'a>(&self, stream: &'a Stream) -> Result<&'a CudaStream> {
        of_stream(stream.imp())
            .ok()
            .filter(|cuda| std::ptr::eq(cuda.context, self.context))
            .ok_or_else(|| Error::DeviceMismatch {
                call: "count",
                left: format!("memory of {}", self.context.name),
                right: stream.to_string(),
            })
    }
}

impl ByteCounterImpl for CudaCounter {
    fn fill(&self, len: usize, fill: &mut dyn FnMut(&mut [u8])) {
        let memory = lock(&self.memory);
        let len = len.min(memory.capacity);
        // SAFETY: pinned memory of at least that size, initialised when it was allocated and never
        // freed; the lock is held, so no other slice of it exists in this process.
        let bytes = unsafe { std::slice::from_raw_parts_mut(memory.host as *mut u8, len) };
        fill(bytes);
    }

    fn count(&self, stream: &Stream, len: usize) -> Result<()> {
        let cuda = self.stream(stream)?;
        let kernels = state(self.context).kernels(self.context)?;
        let memory = lock(&self.memory);
        let len = len.min(memory.capacity);
        let (mut data, mut bytes, mut bins) = (memory.data, len as u64, memory.bins);
        let copied = cuda.native.call(|raw| {
            let driver = Functions::get()?;
            // SAFETY: `bins` is device memory of 512 words of 32 bits.
            unsafe { driver.set_async(bins, 0, BINS * 2, raw) }?;
            match len {
                0 => Ok(()),
                // SAFETY: both are of at least `len` bytes and never freed; the host's is
                // page-locked.
                _ => unsafe { driver.copy_in_async(data, memory.host as *const c_void, len, raw) },
            }
        });
        copied.map_err(|fault| self.context.failed(fault, None))?;
        let blocks = len.div_ceil(BYTES_A_BLOCK).clamp(1, MOST_BLOCKS) as u32;
        let mut arguments = [
            (&raw mut data).cast::<c_void>(),
            (&raw mut bytes).cast::<c_void>(),
            (&raw mut bins).cast::<c_void>(),
        ];
        // SAFETY: the kernel takes these three; the memory is of its context and never freed.
        unsafe { launch(cuda, kernels.histogram, (blocks, THREADS), &mut arguments) }
    }

    fn add_to(&self, stream: &Stream, into: &ByteCounter) -> Result<()> {
        let cuda = self.stream(stream)?;
        let kernels = state(self.context).kernels(self.context)?;
        let into: &dyn Any = into.inner();
        let Some(into) = into.downcast_ref::<CudaCounter>() else {
            return Err(Error::DeviceMismatch {
                call: "add_to",
                left: format!("counts of {}", self.context.name),
                right: "counts of another device".into(),
            });
        };
        let (mut from, mut to) = (self.bins, into.bins);
        let mut arguments = [
            (&raw mut from).cast::<c_void>(),
            (&raw mut to).cast::<c_void>(),
        ];
        // SAFETY: the kernel takes these two; counts are never freed.
        unsafe { launch(cuda, kernels.reduce, (1, THREADS), &mut arguments) }
    }

    fn read(&self) -> Result<[u64; BINS]> {
        let mut counts = [0; BINS];
        self.context
            .calls
            .current(|| {
                let to = counts.as_mut_ptr().cast::<c_void>();
                // SAFETY: `to` has room for that many bytes, and `bins` is device memory of as
                // many.
                unsafe { Functions::get()?.copy_out(to, self.bins, BINS * size_of::<u64>()) }
            })
            .map_err(|fault| self.context.failed(fault, None))?;
        Ok(counts)
    }
}
