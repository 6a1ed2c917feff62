//! What is kept for the test work of a context: its kernels, and a queue of its own.

use super::kernels::Kernels;
use crate::{
    error::Result,
    opencl::{
        context::Context,
        loader::{MemoryHandle, QueueHandle},
    },
    sync::{Mutex, lock},
};

/// What a context keeps for tests. Never released, as the context itself.
pub(super) struct State {
    pub(super) kernels: Kernels,
    /// For what the host reads and writes, so that no stream of a test holds it up.
    pub(super) queue: QueueHandle,
    /// What `spin` writes to.
    pub(super) word: MemoryHandle,
}

pub(super) fn state(context: &'static Context) -> Result<&'static State> {
    static STATES: Mutex<Vec<(&'static Context, &'static State)>> = Mutex::new(Vec::new());
    let mut states = lock(&STATES);
    let known = states.iter().find(|(of, _)| std::ptr::eq(*of, context));
    if let Some((_, state)) = known {
        return Ok(state);
    }
    let failed = |fault| context.failed(fault);
    let state = &*Box::leak(Box::new(State {
        kernels: Kernels::build(context)?,
        queue: context.new_queue().map_err(failed)?,
        word: context.new_memory(4).map_err(failed)?,
    }));
    states.push((context, state));
    Ok(state)
}
