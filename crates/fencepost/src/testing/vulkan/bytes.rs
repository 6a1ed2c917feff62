//! Counting bytes by a kernel: what `fencepost run` puts on Vulkan streams.

use std::{
    any::Any,
    sync::{Arc, atomic::Ordering},
};

use super::{
    dispatch::{Dispatch, dispatch},
    kernels::Kernels,
    memory::{Bound, Memory, for_kernels},
};
use crate::{
    error::{Error, Result},
    stream::Stream,
    sync::{Mutex, lock},
    testing::bytes::{ByteCounter, ByteCounterImpl},
    vulkan::{device::stream_as_vulkan, stream::VkStream},
};

struct VkCounter {
    kernels: Arc<Kernels>,
    /// Locked while the host fills the memory, so that one thread at a time does.
    data: Mutex<Arc<Memory>>,
    bins: Arc<Memory>,
    bound: Arc<Bound>,
    capacity: usize,
}

const BINS: usize = 256;
/// Enough workgroups to keep any device busy. Each counts its share in steps.
const MOST_GROUPS: usize = 1024;
const BYTES_A_GROUP: usize = 16 * 1024;

pub(super) fn new(kernels: &Arc<Kernels>, capacity: usize) -> Result<Arc<dyn ByteCounterImpl>> {
    let gpu = &kernels.gpu;
    let (data, bins) = (for_kernels(gpu, capacity)?, for_kernels(gpu, BINS * 8)?);
    Ok(Arc::new(VkCounter {
        kernels: kernels.clone(),
        bound: Bound::new(kernels, vec![data.clone(), bins.clone()])?,
        data: Mutex::new(data),
        bins,
        capacity,
    }))
}

impl VkCounter {
    fn stream<'a>(&self, stream: &'a Stream) -> Result<&'a VkStream> {
        stream_as_vulkan(stream.imp())
            .ok()
            .filter(|vulkan| Arc::ptr_eq(&vulkan.gpu, &self.kernels.gpu))
            .ok_or_else(|| Error::DeviceMismatch {
                call: "count",
                left: format!("memory of {}", self.kernels.gpu.name),
                right: stream.to_string(),
            })
    }
}

impl ByteCounterImpl for VkCounter {
    fn fill(&self, len: usize, fill: &mut dyn FnMut(&mut [u8])) {
        let data = lock(&self.data);
        let len = len.min(self.capacity);
        // SAFETY: mapped memory of at least that size, initialised when it was made; the lock is
        // held, so no other slice of it exists in this process.
        let bytes = unsafe { std::slice::from_raw_parts_mut(data.at as *mut u8, len) };
        fill(bytes);
    }

    fn count(&self, stream: &Stream, len: usize) -> Result<()> {
        let len = len.min(self.capacity);
        let word = u32::try_from(len).map_err(|_| Error::Unsupported {
            what: format!("counting {len} bytes at once"),
            device: self.kernels.gpu.name.clone(),
            remedy: "count chunks of less than 4 GiB".into(),
        })?;
        let counting = Dispatch {
            pipeline: self.kernels.histogram,
            groups: len.div_ceil(BYTES_A_GROUP).clamp(1, MOST_GROUPS) as u32,
            word,
            zeroed: Some(self.bins.buffer),
        };
        dispatch(self.stream(stream)?, &self.bound, &counting).map(drop)
    }

    fn add_to(&self, stream: &Stream, into: &ByteCounter) -> Result<()> {
        let into: &dyn Any = into.inner();
        let Some(into) = into
            .downcast_ref::<VkCounter>()
            .filter(|into| Arc::ptr_eq(&into.kernels.gpu, &self.kernels.gpu))
        else {
            return Err(Error::DeviceMismatch {
                call: "add_to",
                left: format!("counts of {}", self.kernels.gpu.name),
                right: "counts of another device".into(),
            });
        };
        let bound = Bound::new(&self.kernels, vec![self.bins.clone(), into.bins.clone()])?;
        let adding = Dispatch {
            pipeline: self.kernels.reduce,
            groups: 1,
            word: 0,
            zeroed: None,
        };
        dispatch(self.stream(stream)?, &bound, &adding).map(drop)
    }

    fn read(&self) -> Result<[u64; BINS]> {
        let word = |index| u64::from(self.bins.word(index).load(Ordering::SeqCst));
        Ok(std::array::from_fn(|bin| {
            word(bin) | word(BINS + bin) << 32
        }))
    }
}
