//! Logs in a device's memory.

use std::sync::Arc;

use super::{
    kernels::{Argument, Kernels},
    state::{State, state},
};
use crate::{
    error::{Error, Result},
    opencl::{
        context::Context,
        fault::Fault,
        loader::{MemoryHandle, QueueHandle},
        stream::ClStream,
    },
    testing::test_work::{Log, LogImpl},
};

/// A count, and behind it so many tokens.
const CAPACITY: usize = 16 * 1024;

struct DeviceLog {
    context: &'static Context,
    state: &'static State,
    memory: MemoryHandle,
}

pub(super) fn new(context: &'static Context) -> Result<Log> {
    let state = state(context)?;
    let failed = |fault| context.failed(fault);
    let memory = context.new_memory((1 + CAPACITY) * 4).map_err(failed)?;
    let log = DeviceLog {
        context,
        state,
        memory,
    };
    context.clear(state.queue, memory, 4).map_err(failed)?;
    // A blocking read ends behind the clear.
    log.words(1).map_err(failed)?;
    Ok(Log::on_device(Arc::new(log)))
}

/// Submits a kernel that appends `token` to `log`.
pub(super) fn append(stream: &ClStream, log: &Log, token: u32) -> Result<()> {
    let inner: &dyn std::any::Any = log.inner();
    let Some(log) = inner.downcast_ref::<DeviceLog>() else {
        return Err(Error::Unsupported {
            what: "a log of another device".into(),
            device: stream.context.name.clone(),
            remedy: "make the log on an OpenCL device".into(),
        });
    };
    // Those that were built for the device of the stream, which may be another one than the log's.
    let kernels = state(stream.context)?.kernels;
    log.append(stream.context, kernels, stream.queue, token)
        .map_err(|fault| stream.context.failed(fault))
}

impl DeviceLog {
    fn append(
        &self,
        context: &'static Context,
        kernels: Kernels,
        queue: QueueHandle,
        token: u32,
    ) -> Result<(), Fault> {
        let arguments = [
            Argument::Memory(self.memory),
            Argument::Word(token),
            Argument::Word(CAPACITY as u32),
        ];
        kernels.launch(context, queue, c"fencepost_append", (1, 1), &arguments)
    }

    /// The first `count` words, read on the suite's own queue.
    fn words(&self, count: usize) -> Result<Vec<u32>, Fault> {
        let mut words = vec![0_u32; count];
        let to = words.as_mut_ptr().cast();
        self.context
            .read(self.state.queue, self.memory, to, count * 4)?;
        Ok(words)
    }
}

impl LogImpl for DeviceLog {
    /// By the kernel, too, so that no token is lost.
    fn push(&self, token: u32) {
        let State { kernels, queue, .. } = *self.state;
        if self.append(self.context, kernels, queue, token).is_ok() {
            let _ = self.words(1);
        }
    }

    fn read(&self) -> Result<Vec<u32>> {
        let failed = |fault| self.context.failed(fault);
        let count = self.words(1).map_err(failed)?[0] as usize;
        let mut words = self.words(1 + count.min(CAPACITY)).map_err(failed)?;
        words.remove(0);
        Ok(words)
    }
}

impl Drop for DeviceLog {
    fn drop(&mut self) {
        // The driver frees it once no command uses it.
        self.context.release_memory(self.memory);
    }
}
