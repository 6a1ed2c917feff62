//! Handlers: callbacks of batches and semaphores.

use crate::object::Object;
use crate::status::{HostView, Outcome};
use std::sync::Arc;

/// A handler that is due and waits until the scheduler picks it.
pub(crate) struct HandlerCall {
    /// The number of its batch or semaphore.
    pub(crate) of: u64,
    /// `scheduled`, `completed` or `reached`, for the trace.
    pub(crate) handler: &'static str,
    pub(crate) device: usize,
    pub(crate) weight: u64,
    /// The batch whose count of handlers falls once this one has returned.
    pub(crate) batch: Option<HostView>,
    pub(crate) call: Box<dyn FnOnce() + Send>,
}

/// A completed handler that is not due.
pub(crate) struct CompletedHandler {
    pub(crate) call: Box<dyn FnOnce(Outcome) + Send>,
    /// Held for the count of live handlers.
    pub(crate) counted: Arc<Object>,
}

/// A handler of a semaphore that is not due.
pub(crate) struct Listener {
    pub(crate) value: u64,
    pub(crate) call: Box<dyn FnOnce(u64) + Send>,
    /// Held for the count of live handlers.
    pub(crate) counted: Arc<Object>,
    pub(crate) weight: u64,
}
