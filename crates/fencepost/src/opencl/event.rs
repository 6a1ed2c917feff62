//! The events of this crate's commands, what is asked of them, and when they are released.
//!
//! *Invariant: an event is released only once its command is over.* PoCL 3.1 cannot tell that a
//! command has failed without an event of it that somebody holds: it ends the process ("PTHREAD
//! ERROR in pocl_update_event_failed"). So every command of ours has an event. The account of
//! its stream holds that until it is over; one that is dropped before goes to a list.
//!
//! *Invariant: the event of a wait that has failed is never released.* Its command may fail by what
//! is in front of it, while the one that it waits for is pending. PoCL 3.1 tells it of that one's
//! end all the same, a moment after that has the status for it, and ends the process where the
//! event is gone ("PTHREAD ERROR in pocl_lock_events_inorder"). Nothing says when the moment is
//! over. Such an event is left for each stream that failed while it waited.

use std::sync::atomic::{AtomicBool, Ordering};
#[cfg(feature = "conformance")]
use std::time::{Duration, Instant};

use super::{
    account::{Answer, Native},
    fault::{Fault, Status, WAITED_FOR_FAILED, failed_work},
    loader::{EventHandle, Loader, ask},
    loss::ContextLoss,
};
use crate::{
    error::Cause,
    fork::Process,
    sync::{Mutex, lock},
};

/// `CL_COMPLETE`. What is above is pending, what is below has failed.
pub(super) const COMPLETE: Status = 0;

/// The events of one context. They live as long as the process.
pub(super) struct Events {
    loader: &'static Loader,
    /// The process that opened the context.
    process: Process,
    /// Those that nobody holds, and that were pending when they were dropped. An account holds its
    /// events until they are over, so these are events of the work of tests, of a lost device, or
    /// of one whose watcher could not be started.
    leftovers: Mutex<Leftovers>,
    /// What is asked of events may tell that the context is lost.
    pub(super) loss: ContextLoss,
}

struct Leftovers {
    events: Vec<EventHandle>,
    /// They are asked when there are that many: at a cost that is constant on average.
    sweep_at: usize,
}

const FIRST_SWEEP: usize = 32;

/// Compiling a kernel takes a second or two on a busy machine; a device that does not answer must
/// not keep the process alive.
#[cfg(feature = "conformance")]
const LONGEST_SETTLING: Duration = Duration::from_secs(10);

impl Events {
    pub(super) fn new(loader: &'static Loader, loss: ContextLoss) -> Events {
        Events {
            loader,
            process: Process::this(),
            leftovers: Mutex::new(Leftovers {
                events: Vec::new(),
                sweep_at: FIRST_SWEEP,
            }),
            loss,
        }
    }

    /// Whether this process was forked from the one that opened the context.
    pub(super) fn is_forked(&self) -> bool {
        !self.process.is_this()
    }

    /// The execution status of an event.
    #[inline]
    fn status(&self, event: EventHandle) -> Result<Status, Fault> {
        let mut status: Status = COMPLETE + 1;
        let (out, none) = ((&raw mut status).cast(), std::ptr::null_mut());
        let size = size_of::<Status>();
        // SAFETY: the event is alive: the caller holds its owner. A status is an int.
        unsafe {
            self.loader
                .event_info(event, ask::EVENT_STATUS, size, out, none)
        }?;
        Ok(status)
    }

    /// Whether the command of an event is known to be over, for good or ill.
    fn is_over(&self, event: EventHandle) -> bool {
        matches!(self.status(event), Ok(status) if status <= COMPLETE)
    }

    fn has_failed(&self, event: EventHandle) -> bool {
        matches!(self.status(event), Ok(status) if status < COMPLETE)
    }

    /// An error is dropped: the caller could do nothing about it.
    fn release(&self, event: EventHandle) {
        // SAFETY: the event is ours, and its last owner has let go.
        let _ = unsafe { self.loader.release_event(event) };
    }

    /// Releases it once it is over.
    fn release_later(&self, event: EventHandle) {
        let mut list = lock(&self.leftovers);
        list.events.push(event);
        let sweeps = list.events.len() >= list.sweep_at;
        drop(list);
        if sweeps {
            self.sweep();
        }
    }

    /// Releases those that nobody holds and that are over. Returns whether none is left.
    fn sweep(&self) -> bool {
        let events = std::mem::take(&mut lock(&self.leftovers).events);
        // The driver is asked without the lock.
        let (over, pending): (Vec<_>, Vec<_>) =
            events.into_iter().partition(|event| self.is_over(*event));
        for event in over {
            // It may be that of a wait.
            if !self.has_failed(event) {
                self.release(event);
            }
        }
        let mut list = lock(&self.leftovers);
        list.events.extend(pending);
        list.sweep_at = (list.events.len() * 2).max(FIRST_SWEEP);
        list.events.is_empty()
    }

    /// Waits for the commands whose events nobody holds, but not for long.
    #[cfg(feature = "conformance")]
    pub(super) fn settle(&self) {
        let began = Instant::now();
        while !self.sweep() && self.loss.lost().is_none() && began.elapsed() < LONGEST_SETTLING {
            crate::sync::sleep(Duration::from_millis(1));
        }
    }
}

/// The event of a command of ours.
pub(super) struct ClEvent {
    events: &'static Events,
    pub(super) raw: EventHandle,
    /// Whether its command waits for an event of a list.
    waits: bool,
    /// Whether the driver has said that it is over.
    is_over: AtomicBool,
}

impl ClEvent {
    pub(super) fn new(events: &'static Events, raw: EventHandle) -> ClEvent {
        ClEvent::of(events, raw, false)
    }

    /// That of a command with a wait list.
    pub(super) fn of_wait(events: &'static Events, raw: EventHandle) -> ClEvent {
        ClEvent::of(events, raw, true)
    }

    fn of(events: &'static Events, raw: EventHandle, waits: bool) -> ClEvent {
        ClEvent {
            events,
            raw,
            waits,
            is_over: AtomicBool::new(false),
        }
    }

    /// When its command had ended, in nanoseconds; 0 where the driver has no time.
    pub(super) fn time(&self) -> Result<u64, Fault> {
        let mut time = 0_u64;
        let (out, none) = ((&raw mut time).cast(), std::ptr::null_mut());
        let (loader, size) = (self.events.loader, size_of::<u64>());
        // SAFETY: the event is alive; a time is a u64.
        unsafe { loader.event_time(self.raw, ask::TIME_OF_END, size, out, none) }?;
        Ok(time)
    }

    /// Blocks until its command is over. A fault may tell that the context is lost: call it without
    /// any lock.
    pub(super) fn wait(&self) -> Result<(), Fault> {
        // SAFETY: the event is alive.
        let waited = unsafe { self.events.loader.wait_for_events(1, &raw const self.raw) };
        waited.inspect_err(|fault| drop(self.events.loss.look_at(*fault)))
    }
}

impl Native for ClEvent {
    /// A status that says complete is not believed alone: some drivers say so of what has failed,
    /// and fail a wait for it. The wait returns at once.
    fn ask(&self) -> Answer {
        let answer = match self.events.status(self.raw) {
            Ok(COMPLETE) => match self.wait() {
                Err(fault) if fault.code() == Some(WAITED_FOR_FAILED) => {
                    Answer::Failed(Cause::new(format!("work of the stream failed: {fault}")))
                }
                _ => Answer::Complete,
            },
            Ok(status) if status > COMPLETE => return Answer::Pending,
            Ok(status) => {
                let cause = Cause::new(failed_work(status));
                drop(self.events.loss.look_at_status(status, &cause));
                Answer::Failed(cause)
            }
            Err(fault) => {
                drop(self.events.loss.look_at(fault));
                // Its command may be pending.
                return Answer::Failed(Cause::new(fault.to_string()));
            }
        };
        self.is_over.store(true, Ordering::Relaxed);
        answer
    }

    fn is_over(&self) -> bool {
        let is_over = self.is_over.load(Ordering::Relaxed) || self.events.is_over(self.raw);
        self.is_over.store(is_over, Ordering::Relaxed);
        is_over
    }
}

impl Drop for ClEvent {
    fn drop(&mut self) {
        let events = self.events;
        if events.is_forked() {
            return;
        }
        match *self.is_over.get_mut() || events.is_over(self.raw) {
            true if self.waits && events.has_failed(self.raw) => {}
            true => events.release(self.raw),
            false => events.release_later(self.raw),
        }
    }
}
