//! Logs in memory that host and device see.

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
    metal::stream::MtlStream,
    testing::test_work::{Log, LogImpl},
};

const WORDS: usize = 1 << 14;

pub(super) fn new(state: &Arc<State>) -> Result<Log> {
    Ok(Log::on_device(Arc::new(MtlLog {
        memory: Memory::new(&state.gpu, WORDS * 4)?,
        state: state.clone(),
    })))
}

/// Work that appends `token` to `log`; `Ok(false)` behind a failure.
pub(super) fn append(stream: &MtlStream, log: &Log, token: u32) -> Result<bool> {
    let log: &dyn Any = log.inner();
    let Some(log) = log
        .downcast_ref::<MtlLog>()
        .filter(|log| Arc::ptr_eq(&log.state.gpu, &stream.gpu))
    else {
        return Err(Error::Unsupported {
            what: "a log of another device".into(),
            device: stream.gpu.core.name.clone(),
            remedy: "make the log on this device".into(),
        });
    };
    let work = Dispatch {
        kernel: &log.state.kernels()?.append,
        memory: &[&log.memory],
        groups: 1,
        word: token,
        zeroed: None,
    };
    dispatch(stream, &work)
}

/// A count, and the tokens.
struct MtlLog {
    state: Arc<State>,
    memory: Arc<Memory>,
}

impl LogImpl for MtlLog {
    fn push(&self, token: u32) {
        let at = self.memory.word(0).fetch_add(1, Ordering::SeqCst) as usize;
        if at < WORDS - 1 {
            self.memory.word(1 + at).store(token, Ordering::SeqCst);
        }
    }

    fn read(&self) -> Result<Vec<u32>> {
        let count = self.memory.word(0).load(Ordering::SeqCst) as usize;
        Ok((0..count.min(WORDS - 1))
            .map(|at| self.memory.word(1 + at).load(Ordering::SeqCst))
            .collect())
    }
}
