//! The `cl_event`s of this crate, and when they are released.
//!
//! *Invariant: an event is released only once its command is over.* Of a command without an event,
//! or whose event nobody holds any more, PoCL 3.1 cannot tell that it has failed: it ends the process
//! ("PTHREAD ERROR in pocl_update_event_failed"). So every command of ours has an event, and one that
//! is dropped while it is pending goes to a list of its context.

use std::sync::atomic::{AtomicBool, Ordering};

use super::{
    account::{Answer, Native},
    context::Context,
    fault::name,
    loader::EventHandle,
};
use crate::{
    error::Cause,
    sync::{Mutex, lock},
};

/// The event of a command of ours.
pub(super) struct ClEvent {
    pub(super) context: &'static Context,
    pub(super) raw: EventHandle,
    /// Whether the driver has said that it is over.
    is_over: AtomicBool,
}

impl ClEvent {
    pub(super) fn new(context: &'static Context, raw: EventHandle) -> ClEvent {
        ClEvent {
            context,
            raw,
            is_over: AtomicBool::new(false),
        }
    }
}

impl Native for ClEvent {
    fn ask(&self) -> Answer {
        let answer = match self.context.status(self.raw) {
            Ok(0) => Answer::Complete,
            Ok(status) if status > 0 => return Answer::Pending,
            Ok(status) => Answer::Failed(Cause::new(format!(
                "work of the stream ended with {status}, {}",
                name(status)
            ))),
            Err(fault) => Answer::Failed(Cause::new(fault.to_string())),
        };
        self.is_over.store(true, Ordering::Relaxed);
        answer
    }
}

impl Drop for ClEvent {
    fn drop(&mut self) {
        let (context, raw) = (self.context, self.raw);
        if context.is_forked() {
            return;
        }
        match *self.is_over.get_mut() || context.is_over(raw) {
            true => context.release_event(raw),
            false => context.leftovers.add(context, raw),
        }
    }
}

/// Events that nobody holds, and that were pending when they were dropped.
pub(super) struct Leftovers(Mutex<List>);

struct List {
    events: Vec<EventHandle>,
    /// They are asked when there are that many: at a cost that is constant on average.
    sweep_at: usize,
}

const FIRST_SWEEP: usize = 32;

impl Leftovers {
    pub(super) fn new() -> Leftovers {
        Leftovers(Mutex::new(List {
            events: Vec::new(),
            sweep_at: FIRST_SWEEP,
        }))
    }

    fn add(&self, context: &Context, event: EventHandle) {
        let mut list = lock(&self.0);
        list.events.push(event);
        if list.events.len() < list.sweep_at {
            return;
        }
        let events = std::mem::take(&mut list.events);
        // The driver is asked without the lock.
        drop(list);
        let (over, pending): (Vec<_>, Vec<_>) = events
            .into_iter()
            .partition(|event| context.is_over(*event));
        for event in over {
            context.release_event(event);
        }
        let mut list = lock(&self.0);
        list.events.extend(pending);
        list.sweep_at = (list.events.len() * 2).max(FIRST_SWEEP);
    }
}
