//! The values behind semaphores and flags, without the machine that they belong to. Pending work
//! holds these rather than the handles, since the machine owns the work.

use crate::Violation;
use crate::handler::{HandlerCall, Listener};
use crate::lock;
use crate::object::Object;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

/// The value of a semaphore, and the handlers that wait for it.
pub(crate) struct Timeline {
    pub(crate) object: Arc<Object>,
    inner: Mutex<Inner>,
}

struct Inner {
    value: u64,
    listeners: Vec<Listener>,
}

impl Timeline {
    pub(crate) fn new(object: Arc<Object>, value: u64) -> Timeline {
        Timeline {
            object,
            inner: Mutex::new(Inner {
                value,
                listeners: Vec::new(),
            }),
        }
    }

    /// The value. It does not check whether the semaphore was destroyed, since accepted work
    /// outlives that.
    pub(crate) fn value(&self) -> u64 {
        self.lock().value
    }

    /// Raises the value. False, with a violation, if `value` is not greater.
    pub(crate) fn raise(&self, value: u64) -> bool {
        let mut inner = self.lock();
        let current = inner.value;
        if value <= current {
            self.object.tracker().report(Violation::ValueNotGreater {
                semaphore: self.object.id(),
                current,
                value,
            });
            return false;
        }
        inner.value = value;
        true
    }

    pub(crate) fn listen(&self, listener: Listener) {
        self.lock().listeners.push(listener);
    }

    /// Takes out the handlers whose value is reached.
    pub(crate) fn due_handlers(&self) -> Vec<HandlerCall> {
        let mut inner = self.lock();
        let reached = inner.value;
        let (due, later) = std::mem::take(&mut inner.listeners)
            .into_iter()
            .partition(|listener| listener.value <= reached);
        inner.listeners = later;
        let call = |listener: Listener| HandlerCall {
            of: self.object.id(),
            handler: "reached",
            device: self.object.device(),
            weight: listener.weight,
            batch: None,
            call: Box::new(move || {
                (listener.call)(reached);
                drop(listener.counted);
            }),
        };
        due.into_iter().map(call).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        lock(&self.inner)
    }
}

/// The value of a flag or a gate.
#[derive(Debug)]
pub(crate) struct FlagValue {
    pub(crate) object: Arc<Object>,
    set: AtomicBool,
}

impl FlagValue {
    pub(crate) fn new(object: Arc<Object>, set: bool) -> FlagValue {
        FlagValue {
            object,
            set: AtomicBool::new(set),
        }
    }

    /// Whether it is set. It does not check whether the flag was destroyed, since accepted work
    /// outlives that.
    pub(crate) fn is_set(&self) -> bool {
        self.set.load(Ordering::SeqCst)
    }

    pub(crate) fn store(&self, set: bool) {
        self.set.store(set, Ordering::SeqCst);
    }
}
