//! Sticky errors of contexts.

use crate::codes::{CUresult, CudaResult};
use std::sync::atomic::{AtomicU32, Ordering};

/// The first error of a context, which every later call on the context returns.
#[derive(Debug, Default)]
pub(crate) struct StickyError(AtomicU32);

impl StickyError {
    /// The error; 0 if there is none.
    pub(crate) fn code(&self) -> CUresult {
        self.0.load(Ordering::SeqCst)
    }

    pub(crate) fn check(&self) -> CudaResult {
        match self.code() {
            0 => Ok(()),
            code => Err(code),
        }
    }

    /// Sets the error if there is none. Returns whether it did.
    pub(crate) fn set_first(&self, code: CUresult) -> bool {
        self.0
            .compare_exchange(0, code, Ordering::SeqCst, Ordering::SeqCst)
            .is_ok()
    }

    /// Sets the error in place of any earlier one.
    pub(crate) fn replace(&self, code: CUresult) {
        self.0.store(code, Ordering::SeqCst);
    }
}
