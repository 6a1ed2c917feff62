//! Contexts and GPUs.

use crate::codes::{
    CUDA_ERROR_CONTEXT_IS_DESTROYED, CUDA_ERROR_INVALID_CONTEXT, CUDA_ERROR_LAUNCH_FAILED,
    CUDA_ERROR_OUT_OF_MEMORY, CUresult, CudaResult,
};
use crate::log::LOG;
use crate::marker::Marker;
use crate::sticky_error::StickyError;
use fencepost_sim::lock;
use fencepost_sim::{Command, Error, Planned, Queue, SimDevice, Submission, TimestampQuery};
use std::cell::RefCell;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

thread_local! {
    /// The stack of current contexts, the current one last.
    static STACK: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
}

/// The stack of the calling thread.
pub(crate) fn stack<R>(body: impl FnOnce(&mut Vec<usize>) -> R) -> CudaResult<R> {
    // a thread that is ending has no current context
    STACK
        .try_with(|stack| body(&mut stack.borrow_mut()))
        .map_err(|_| CUDA_ERROR_INVALID_CONTEXT)
}

/// The calling thread's current context, or 0.
pub(crate) fn current_handle() -> usize {
    stack(|stack| stack.last().copied().unwrap_or(0)).unwrap_or(0)
}

/// A context is one simulated device. A reset replaces it by another, which has no sticky error.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) id: u64,
    pub(crate) gpu: usize,
    pub(crate) device: SimDevice,
    pub(crate) sticky_error: Arc<StickyError>,
    /// The last markers of destroyed streams whose work still runs, and whether each was a blocking
    /// stream.
    destroyed_streams: Mutex<Vec<(bool, Arc<Marker>)>>,
}

impl Context {
    pub(crate) fn new(id: u64, gpu: usize, device: SimDevice) -> Arc<Context> {
        Arc::new(Context {
            id,
            gpu,
            device,
            sticky_error: Arc::default(),
            destroyed_streams: Mutex::default(),
        })
    }

    pub(crate) fn destroyed(&self) -> bool {
        self.sticky_error.code() == CUDA_ERROR_CONTEXT_IS_DESTROYED
    }

    /// Sets the sticky error. All pending work of the context is dropped.
    pub(crate) fn fail(&self, code: CUresult, why: &str) {
        if self.sticky_error.set_first(code) {
            LOG.note(&format!("context {} fails with {code}: {why}", self.id));
        }
        self.device.lose(why);
    }

    /// Makes every later call, and every wait in progress, return this error.
    pub(crate) fn end(&self, code: CUresult) {
        self.sticky_error.replace(code);
        self.device.lose("the context has ended");
    }

    pub(crate) fn keep_destroyed_stream(&self, blocking: bool, last: Arc<Marker>) {
        let mut all = self.lock_destroyed_streams();
        all.retain(|(_, marker)| !marker.settled());
        all.push((blocking, last));
    }

    /// The last markers of destroyed streams: of all, or of the blocking ones.
    pub(crate) fn destroyed_streams(&self, all: bool) -> Vec<Arc<Marker>> {
        self.lock_destroyed_streams()
            .iter()
            .filter(|(blocking, _)| all || *blocking)
            .map(|(_, marker)| marker.clone())
            .collect()
    }

    fn lock_destroyed_streams(&self) -> MutexGuard<'_, Vec<(bool, Arc<Marker>)>> {
        lock(&self.destroyed_streams)
    }

    /// Blocks until the markers are complete or their context has failed.
    pub(crate) fn wait_all(&self, markers: &[Arc<Marker>]) -> CudaResult {
        for marker in markers {
            // another process cannot wake a thread of this one, so a wait for its records polls
            let poll = marker.is_shared().then_some(Duration::from_millis(1));
            while !marker.settled() {
                let _ = self.device.wait_until(poll, || marker.settled());
            }
            marker.result().unwrap_or(Ok(()))?;
        }
        Ok(())
    }

    /// Submits commands to a queue, behind `dependencies`, and returns the marker behind them.
    pub(crate) fn submit_to(
        &self,
        queue: &Queue,
        dependencies: &[Arc<Marker>],
        commands: Vec<Command>,
        query: Option<TimestampQuery>,
    ) -> CudaResult<Arc<Marker>> {
        let marker = Marker::new(&self.sticky_error, query);
        let waits = dependencies.iter().map(Marker::wait);
        let mut submission = waits
            .chain(commands)
            .fold(Submission::new(), Submission::then);
        if let Some(query) = &marker.query {
            submission = submission.timestamp(query);
        }
        let behind = marker.clone();
        submission = submission.run(move || behind.complete());
        queue
            .submit(submission)
            .map_err(|error| self.code_of(&error))?;
        Ok(marker)
    }

    /// The API's code for an error of the simulated device.
    pub(crate) fn code_of(&self, error: &Error) -> CUresult {
        match (self.sticky_error.code(), error) {
            (0, Error::OutOfMemory) => CUDA_ERROR_OUT_OF_MEMORY,
            (0, _) => CUDA_ERROR_LAUNCH_FAILED,
            (code, _) => code,
        }
    }
}

/// One GPU and its primary context.
#[derive(Debug, Default)]
pub(crate) struct Gpu {
    /// The primary context's handle. It never changes: after a reset it names the next context.
    pub(crate) primary: Option<usize>,
    pub(crate) retains: u32,
    /// Why the device is lost, if it is.
    pub(crate) lost: Option<CUresult>,
    /// The launches that a test has planned to fail.
    pub(crate) launch_failures: Planned<CUresult>,
}
