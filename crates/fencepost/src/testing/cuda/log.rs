//! Logs in page-locked memory, which the device writes to directly.

use std::sync::{Arc, atomic::Ordering};

use super::state::{BYTES, Pages, state};
use crate::{
    cuda::{context::Context, stream::CudaStream},
    error::{Error, Result},
    sync::lock,
    testing::test_work::{Log, LogImpl},
};

const CAPACITY: usize = BYTES / 4 - 2;

pub(super) fn new(context: &'static Context) -> Result<Log> {
    let state = state(context);
    state.kernels(context)?;
    let used = lock(&state.logs).pop();
    let pages = match used {
        Some(pages) => pages,
        None => {
            let (host, device) = context
                .calls
                .allocate_page_locked(BYTES)
                .map_err(|fault| context.failed(fault, None))?;
            Pages { host, device }
        }
    };
    pages.word(0).store(0, Ordering::SeqCst);
    pages.word(1).store(CAPACITY as u32, Ordering::SeqCst);
    Ok(Log::on_device(Arc::new(PageLockedLog { context, pages })))
}

/// Submits a kernel that appends `token` to `log`.
pub(super) fn append(stream: &CudaStream, log: &Log, token: u32) -> Result<()> {
    let context = stream.context;
    let kernels = state(context).kernels(context)?;
    let Some(pages) = log.device_address() else {
        return Err(Error::Unsupported {
            what: "a log of another device".into(),
            device: context.name.clone(),
            remedy: "make the log on a CUDA device".into(),
        });
    };
    kernels.append(stream, pages, token)
}

struct PageLockedLog {
    context: &'static Context,
    pages: Pages,
}

impl LogImpl for PageLockedLog {
    fn push(&self, token: u32) {
        let at = self.pages.word(0).fetch_add(1, Ordering::SeqCst) as usize;
        if at < CAPACITY {
            self.pages.word(2 + at).store(token, Ordering::SeqCst);
        }
    }

    fn read(&self) -> Result<Vec<u32>> {
        let count = self.pages.word(0).load(Ordering::SeqCst) as usize;
        Ok((0..count.min(CAPACITY))
            .map(|at| self.pages.word(2 + at).load(Ordering::SeqCst))
            .collect())
    }

    fn device_address(&self) -> Option<u64> {
        Some(self.pages.device)
    }
}

impl Drop for PageLockedLog {
    fn drop(&mut self) {
        // A case that failed may have left work behind that still writes here. A later case then
        // sees tokens that are not its own, and fails too; it cannot pass wrongly.
        lock(&state(self.context).logs).push(self.pages);
    }
}
