//! Counting bytes by a kernel: what `fencepost run` puts on Metal streams.

use std::{
    any::Any,
    sync::{Arc, atomic::Ordering},
};

use super::{
    State,
    kernels::{Dispatch, dispatch},
    memory::Memory,
};
use crate::{
    error::{Error, Result},
    metal::stream::{MtlStream, of_stream},
    stream::Stream,
    sync::{Mutex, lock},
    testing::bytes::{ByteCounter, ByteCounterImpl},
};

struct MtlCounter {
    state: Arc<State>,
    /// Only the owner of the lock fills the memory.
    data: Mutex<Arc<Memory>>,
    bins: Arc<Memory>,
    capacity: usize,
}

const BINS: usize = 256;
/// Enough threadgroups to keep any device busy. Each counts its share in steps.
const MOST_GROUPS: usize = 1024;
const BYTES_A_GROUP: usize = 16 * 1024;

pub(super) fn new(state: &Arc<State>, capacity: usize) -> Result<Arc<dyn ByteCounterImpl>> {
    let gpu = &state.gpu;
    Ok(Arc::new(MtlCounter {
        state: state.clone(),
        data: Mutex::new(Memory::new(gpu, capacity)?),
        bins: Memory::new(gpu, BINS * 8)?,
        capacity,
    }))
}

impl MtlCounter {
    fn stream<'a>(&self, stream: &'a Stream) -> Result<&'a MtlStream> {
        of_stream(stream.imp())
            .ok()
            .filter(|metal| Arc::ptr_eq(&metal.gpu, &self.state.gpu))
            .ok_or_else(|| Error::DeviceMismatch {
                call: "count",
                left: format!("memory of {}", self.state.gpu.core.name),
                right: stream.to_string(),
            })
    }
}

impl ByteCounterImpl for MtlCounter {
    fn fill(&self, len: usize, fill: &mut dyn FnMut(&mut [u8])) {
        let data = lock(&self.data);
        let len = len.min(self.capacity);
        // SAFETY: shared memory of at least that size, initialised when it was made; the lock is
        // held, so no other slice of it exists in this process.
        fill(unsafe { std::slice::from_raw_parts_mut(data.start().as_ptr(), len) });
    }

    fn count(&self, stream: &Stream, len: usize) -> Result<()> {
        let len = len.min(self.capacity);
        let gpu = &self.state.gpu;
        let word = u32::try_from(len).map_err(|_| Error::Unsupported {
            what: format!("counting {len} bytes at once"),
            device: gpu.core.name.clone(),
            remedy: "count chunks of less than 4 GiB".into(),
        })?;
        let data = lock(&self.data).clone();
        let counting = Dispatch {
            kernel: &self.state.kernels()?.histogram,
            memory: &[&data, &self.bins],
            groups: len.div_ceil(BYTES_A_GROUP).clamp(1, MOST_GROUPS),
            word,
            zeroed: Some(&self.bins),
        };
        dispatch(self.stream(stream)?, &counting).map(drop)
    }

    fn add_to(&self, stream: &Stream, into: &ByteCounter) -> Result<()> {
        let any: &dyn Any = into.inner();
        let gpu = &self.state.gpu;
        let into = any.downcast_ref::<MtlCounter>();
        let Some(into) = into.filter(|into| Arc::ptr_eq(&into.state.gpu, gpu)) else {
            return Err(Error::DeviceMismatch {
                call: "add_to",
                left: format!("counts of {}", gpu.core.name),
                right: "counts of another device".into(),
            });
        };
        let adding = Dispatch {
            kernel: &self.state.kernels()?.reduce,
            memory: &[&self.bins, &into.bins],
            groups: 1,
            word: 0,
            zeroed: None,
        };
        dispatch(self.stream(stream)?, &adding).map(drop)
    }

    fn read(&self) -> Result<[u64; BINS]> {
        let word = |index| u64::from(self.bins.word(index).load(Ordering::SeqCst));
        Ok(std::array::from_fn(|bin| {
            word(bin) | word(BINS + bin) << 32
        }))
    }
}
