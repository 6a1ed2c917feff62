//! What the host sees of a batch.

use crate::lock;
use std::sync::{Arc, Mutex, MutexGuard};

/// How a batch ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The device clock when the batch started, masked; `None` if it never started.
    pub start: Option<u64>,
    /// The device clock when its last command had run, masked.
    pub end: u64,
    /// Why the batch failed, if it did.
    pub error: Option<String>,
}

/// The state of a batch, as the host may see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// Accepted, not started.
    Queued,
    /// Started. A batch stays in this state for a while after its last command, so the host may
    /// see its signals before its end.
    Running,
    /// Complete or failed.
    Ended(Outcome),
}

/// What the host sees of a batch. The machine writes it.
#[derive(Clone, Debug)]
pub(crate) struct HostView(Arc<Mutex<View>>);

#[derive(Debug)]
pub(crate) struct View {
    pub(crate) status: Status,
    /// How many of its handlers have not returned.
    pub(crate) handlers_left: usize,
}

impl HostView {
    pub(crate) fn queued(handlers: usize) -> HostView {
        HostView(Arc::new(Mutex::new(View {
            status: Status::Queued,
            handlers_left: handlers,
        })))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, View> {
        lock(&self.0)
    }
}
