//! Counting bytes by a kernel: what `fencepost run` puts on OpenCL streams.
//!
//! The host's memory is never freed, since a copy may be pending when its owner goes; a run needs
//! its few buffers until it ends.

use std::{any::Any, sync::Arc};

use super::{
    kernels::Argument,
    state::{State, state},
};
use crate::{
    error::{Error, Result},
    opencl::{
        context::Context,
        fault::Fault,
        loader::MemoryHandle,
        stream::{ClStream, of_stream},
    },
    stream::Stream,
    sync::{Mutex, lock},
    testing::bytes::{ByteCounter, ByteCounterImpl},
};

struct ClCounter {
    context: &'static Context,
    state: &'static State,
    /// Memory that the host fills. Held while that goes on.
    host: Mutex<HostMemory>,
    data: MemoryHandle,
    /// Of one chunk.
    counts: MemoryHandle,
    bins: MemoryHandle,
}

struct HostMemory {
    address: usize,
    capacity: usize,
}

const BINS: usize = 256;
/// Every device takes groups of that size in practice; the kernel works with any.
const GROUP: usize = 64;
const MOST_GROUPS: usize = 256;
const BYTES_A_GROUP: usize = 16 * 1024;

pub(super) fn new(context: &'static Context, capacity: usize) -> Result<Arc<dyn ByteCounterImpl>> {
    let state = state(context)?;
    let failed = |fault| context.failed(fault);
    let host = vec![0_u8; capacity.max(1)].leak();
    let counter = ClCounter {
        context,
        state,
        host: Mutex::new(HostMemory {
            address: host.as_mut_ptr() as usize,
            capacity,
        }),
        data: context.new_memory(capacity.max(1)).map_err(failed)?,
        counts: context.new_memory(BINS * 4).map_err(failed)?,
        bins: context.new_memory(BINS * 8).map_err(failed)?,
    };
    let (queue, bins) = (state.queue, counter.bins);
    context.clear(queue, bins, BINS * 8).map_err(failed)?;
    counter.read()?;
    Ok(Arc::new(counter))
}

impl ClCounter {
    fn stream<'a>(&self, stream: &'a Stream) -> Result<&'a ClStream> {
        of_stream(stream.imp())
            .ok()
            .filter(|stream| std::ptr::eq(stream.context, self.context))
            .ok_or_else(|| Error::DeviceMismatch {
                call: "count",
                left: format!("memory of {}", self.context.name),
                right: stream.to_string(),
            })
    }

    fn submit(&self, stream: &ClStream, len: usize) -> Result<(), Fault> {
        let (context, queue) = (self.context, stream.queue);
        let host = lock(&self.host);
        let len = len.min(host.capacity);
        context.clear(queue, self.counts, BINS * 4)?;
        if len > 0 {
            let from = host.address as *const _;
            context.write(queue, self.data, from, len)?;
        }
        drop(host);
        let groups = len.div_ceil(BYTES_A_GROUP).clamp(1, MOST_GROUPS);
        let kernels = self.state.kernels;
        let arguments = [
            Argument::Memory(self.data),
            Argument::Long(len as u64),
            Argument::Memory(self.counts),
        ];
        let items = (groups * GROUP, GROUP);
        kernels.launch(context, queue, c"fencepost_histogram", items, &arguments)?;
        let arguments = [Argument::Memory(self.counts), Argument::Memory(self.bins)];
        let items = (BINS, GROUP);
        kernels.launch(context, queue, c"fencepost_widen", items, &arguments)
    }
}

impl ByteCounterImpl for ClCounter {
    fn fill(&self, len: usize, fill: &mut dyn FnMut(&mut [u8])) {
        let host = lock(&self.host);
        let len = len.min(host.capacity);
        // SAFETY: memory of at least that size that is never freed; the lock is held, so no other
        // slice of it exists.
        let bytes = unsafe { std::slice::from_raw_parts_mut(host.address as *mut u8, len) };
        fill(bytes);
    }

    fn count(&self, stream: &Stream, len: usize) -> Result<()> {
        let stream = self.stream(stream)?;
        self.submit(stream, len)
            .map_err(|fault| self.context.failed(fault))
    }

    fn add_to(&self, stream: &Stream, into: &ByteCounter) -> Result<()> {
        let stream = self.stream(stream)?;
        let into: &dyn Any = into.inner();
        let Some(into) = into.downcast_ref::<ClCounter>() else {
            return Err(Error::DeviceMismatch {
                call: "add_to",
                left: format!("counts of {}", self.context.name),
                right: "counts of another device".into(),
            });
        };
        let arguments = [Argument::Memory(self.bins), Argument::Memory(into.bins)];
        let (queue, items) = (stream.queue, (BINS, GROUP));
        self.state
            .kernels
            .launch(self.context, queue, c"fencepost_reduce", items, &arguments)
            .map_err(|fault| self.context.failed(fault))
    }

    fn read(&self) -> Result<[u64; BINS]> {
        let mut counts = [0_u64; BINS];
        let to = counts.as_mut_ptr().cast();
        self.context
            .read(self.state.queue, self.bins, to, BINS * 8)
            .map_err(|fault| self.context.failed(fault))?;
        Ok(counts)
    }
}

impl Drop for ClCounter {
    fn drop(&mut self) {
        for memory in [self.data, self.counts, self.bins] {
            self.context.release_memory(memory);
        }
    }
}
