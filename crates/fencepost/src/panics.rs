//! Payloads of panics that were caught on a thread of the library.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

/// What host work of another language unwinds with: see [`crate::bindings::raised`].
pub(crate) struct Raised {
    pub(crate) what: String,
    pub(crate) payload: Arc<dyn Any + Send + Sync>,
}

/// How many there are.
static RAISING: AtomicUsize = AtomicUsize::new(0);

impl Raised {
    pub(crate) fn new(what: String, payload: Arc<dyn Any + Send + Sync>) -> Raised {
        RAISING.fetch_add(1, Ordering::SeqCst);
        Raised { what, payload }
    }

    /// Whether there is one whose work has not failed its stream yet.
    pub(crate) fn is_under_way() -> bool {
        RAISING.load(Ordering::SeqCst) != 0
    }
}

impl Drop for Raised {
    fn drop(&mut self) {
        RAISING.fetch_sub(1, Ordering::SeqCst);
    }
}

/// The message of a panic, as the panic hook would print it.
pub(crate) fn text_of(payload: &(dyn Any + Send)) -> String {
    if let Some(text) = payload.downcast_ref::<&str>() {
        (*text).into()
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text.clone()
    } else {
        "(a value that is no text)".into()
    }
}

/// Calls code of the user's. A panic in it is caught: the panic hook has told of it.
pub(crate) fn contain(call: impl FnOnce()) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(call)) {
        discard(payload);
    }
}

/// Drops the payload of a panic. If that panics too, the second payload is leaked.
pub(crate) fn discard(payload: Box<dyn Any + Send>) {
    if let Err(second) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        std::mem::forget(second);
    }
}
