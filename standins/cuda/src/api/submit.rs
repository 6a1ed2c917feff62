//! Submits work to streams.

use crate::codes::{CUDA_ERROR_INVALID_HANDLE, CudaResult};
use crate::context::Context;
use crate::driver::Driver;
use crate::log::LOG;
use crate::marker::Marker;
use crate::work::Work;
use fencepost_sim::{Command, TimestampQuery};
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

impl Driver {
    /// The commands of the simulated device that do the work.
    pub(crate) fn commands(&self, context: &Arc<Context>, work: &Work) -> CudaResult<Vec<Command>> {
        match work {
            Work::Wait {
                word,
                value,
                compare,
            } => {
                let (word, value, compare) = (word.clone(), *value, *compare);
                let matches = move || {
                    word.word(0)
                        .is_ok_and(|word| compare.matches(word.load(Ordering::SeqCst), value))
                };
                Ok(vec![Command::wait_until(matches)])
            }
            Work::Host(function) => {
                let done = context
                    .device
                    .new_flag(false)
                    .map_err(|error| context.code_of(&error))?;
                let wait = Command::wait_flag(&done);
                let (thread, function) = (self.host_functions.clone(), *function);
                Ok(vec![Command::run(move || thread.run(function, done)), wait])
            }
            Work::Kernel(kernel) if kernel.real_time().is_some() => {
                // a wait, not a command that blocks the scheduler, so that other streams continue
                let time = kernel.real_time().unwrap_or_default();
                let started = Arc::new(OnceLock::new());
                let start = started.clone();
                let start = move || {
                    let _ = start.set(Instant::now());
                };
                let over = move || started.get().is_none_or(|start| start.elapsed() >= time);
                Ok(vec![Command::run(start), Command::wait_until(over)])
            }
            _ => {
                // weak: a device owns its work, and would never be dropped if the work owned the
                // device
                let (work, memory) = (work.clone(), self.memory.clone());
                let context = Arc::downgrade(context);
                let run = move || {
                    let Some(context) = context.upgrade() else {
                        return;
                    };
                    if let Err(code) = work.run(&memory, &context) {
                        context.fail(code, "work on a stream failed");
                    }
                };
                Ok(vec![Command::run(run)])
            }
        }
    }

    /// Submits commands behind everything in a stream, and returns the marker behind them.
    pub(crate) fn submit(
        &mut self,
        stream: usize,
        commands: Vec<Command>,
        query: Option<TimestampQuery>,
    ) -> CudaResult<Arc<Marker>> {
        let dependencies = self.implicit_dependencies(stream)?;
        let stream = self
            .streams
            .get_mut(stream)
            .map_err(|_| CUDA_ERROR_INVALID_HANDLE)?;
        let (context, queue) = (&stream.context, &stream.queue);
        let marker = context.submit_to(queue, &dependencies, commands, query)?;
        stream.last = Some(marker.clone());
        if self.queue_depth > 0 && queue.pending() >= self.queue_depth {
            self.full_queue = Some((context.clone(), queue.clone()));
        }
        Ok(marker)
    }

    /// The markers that work of this stream waits for because of the legacy default stream:
    /// <https://docs.nvidia.com/cuda/cuda-driver-api/stream-sync-behavior.html>.
    pub(crate) fn implicit_dependencies(&self, stream: usize) -> CudaResult<Vec<Arc<Marker>>> {
        let own = self.stream_ref(stream)?;
        if own.is_legacy() {
            return Ok(self.last_markers(&own.context, false));
        }
        let legacy = self
            .defaults
            .get(&(own.context.id, None))
            .filter(|_| own.is_blocking())
            .and_then(|&legacy| self.streams.get(legacy).ok())
            .and_then(|legacy| legacy.last.clone());
        Ok(legacy
            .into_iter()
            .filter(|marker| !marker.settled())
            .collect())
    }

    /// Submits work to a stream, and returns the marker behind it. If the stream is being captured,
    /// adds the work to the graph, and returns `None`.
    pub(crate) fn push(&mut self, stream: usize, work: Work) -> CudaResult<Option<Arc<Marker>>> {
        let context = self.check_stream(stream)?;
        let work = match work {
            Work::Kernel(_) => self.planned_launch_failure(&context).unwrap_or(work),
            work => work,
        };
        if self.capture_work(stream, &work)? {
            return Ok(None);
        }
        let commands = self.commands(&context, &work)?;
        self.submit(stream, commands, None).map(Some)
    }

    /// Counts a launch. If a test has planned its failure, returns work that fails with the planned
    /// code.
    fn planned_launch_failure(&mut self, context: &Context) -> Option<Work> {
        let code = self.gpus.get_mut(context.gpu)?.launch_failures.occur()?;
        LOG.note("a planned launch failure");
        Some(Work::Trap(code))
    }
}
