//! What is kept for the test work of a context: its kernels, and the memory of its logs.

use std::sync::{OnceLock, atomic::AtomicU32};

use super::kernels::Kernels;
use crate::{
    cuda::context::Context,
    error::Result,
    sync::{Mutex, lock},
};

/// The bytes of a log's memory.
pub(super) const BYTES: usize = 1 << 16;

/// A log's memory: a count, a capacity, and the tokens.
#[derive(Clone, Copy)]
pub(super) struct Pages {
    pub(super) host: usize,
    pub(super) device: u64,
}

impl Pages {
    pub(super) fn word(&self, index: usize) -> &AtomicU32 {
        debug_assert!(index < BYTES / 4);
        // SAFETY: within page-locked memory that is never freed, aligned, and read and written by
        // host and device as whole words only.
        unsafe { AtomicU32::from_ptr((self.host + index * 4) as *mut u32) }
    }
}

/// What a context keeps for tests. Never freed, as the context itself.
#[derive(Default)]
pub(super) struct State {
    kernels: OnceLock<Result<Kernels>>,
    /// Logs that are free.
    pub(super) logs: Mutex<Vec<Pages>>,
}

pub(super) fn state(context: &'static Context) -> &'static State {
    static STATES: Mutex<Vec<(&'static Context, &'static State)>> = Mutex::new(Vec::new());
    let mut states = lock(&STATES);
    let known = states.iter().find(|(of, _)| std::ptr::eq(*of, context));
    if let Some((_, state)) = known {
        return state;
    }
    let state = Box::leak(Box::default());
    states.push((context, state));
    state
}

impl State {
    /// Loads the kernels, once.
    pub(super) fn kernels(&self, context: &Context) -> Result<Kernels> {
        self.kernels.get_or_init(|| Kernels::load(context)).clone()
    }
}
