//! Logs in memory that host and device see.

use std::{
    any::Any,
    sync::{Arc, atomic::Ordering},
};

use super::{
    dispatch::{Dispatch, dispatch},
    kernels::Kernels,
    memory::{Bound, for_kernels},
};
use crate::{
    error::{Error, Result},
    testing::test_work::{Log, LogImpl},
    vulkan::stream::VkStream,
};

const WORDS: usize = 1 << 14;

pub(super) fn new(kernels: &Arc<Kernels>) -> Result<Log> {
    let memory = for_kernels(&kernels.gpu, WORDS * 4)?;
    let bound = Bound::new(kernels, vec![memory])?;
    Ok(Log::on_device(Arc::new(VkLog { bound })))
}

/// Submits a kernel that writes `token`; `Ok(false)` behind a failure.
pub(super) fn append(stream: &VkStream, log: &Log, token: u32) -> Result<bool> {
    let log: &dyn Any = log.inner();
    let Some(log) = log
        .downcast_ref::<VkLog>()
        .filter(|log| Arc::ptr_eq(&log.bound.kernels.gpu, &stream.gpu))
    else {
        return Err(Error::Unsupported {
            what: "a log of another device".into(),
            device: stream.gpu.name.clone(),
            remedy: "make the log on this device".into(),
        });
    };
    let work = Dispatch {
        pipeline: log.bound.kernels.append,
        groups: 1,
        word: token,
        zeroed: None,
    };
    dispatch(stream, &log.bound, &work)
}

/// The memory of a log: a count, and the tokens.
struct VkLog {
    bound: Arc<Bound>,
}

impl LogImpl for VkLog {
    fn push(&self, token: u32) {
        let memory = &self.bound.memory[0];
        let at = memory.word(0).fetch_add(1, Ordering::SeqCst) as usize;
        if at < WORDS - 1 {
            memory.word(1 + at).store(token, Ordering::SeqCst);
        }
    }

    fn read(&self) -> Result<Vec<u32>> {
        let memory = &self.bound.memory[0];
        let count = memory.word(0).load(Ordering::SeqCst) as usize;
        Ok((0..count.min(WORDS - 1))
            .map(|at| memory.word(1 + at).load(Ordering::SeqCst))
            .collect())
    }
}
