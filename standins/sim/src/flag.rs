//! Flags (set or not), gates (work held by the test), and recordings (submitted or not).

use crate::ledger::{Object, Violation};
use crate::machine::Machine;
use crate::state::State;
use crate::trace::TraceEvent;
use crate::{Error, Waited};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

/// A binary event: a `VkEvent`, a fence, or, waited for and then reset, a binary semaphore. Cheap
/// to clone; all clones are the same flag.
#[derive(Clone, Debug)]
pub struct Flag {
    pub(crate) object: Arc<Object>,
    machine: Weak<Machine>,
    set: Arc<AtomicBool>,
}

impl Flag {
    pub(crate) fn new(object: Arc<Object>, machine: Weak<Machine>, set: bool) -> Flag {
        Flag {
            object,
            machine,
            set: Arc::new(AtomicBool::new(set)),
        }
    }

    /// Its number, as in the trace.
    pub fn id(&self) -> u64 {
        self.object.id()
    }

    /// Whether it is set. Never blocks.
    pub fn is_set(&self) -> bool {
        self.object.check("read a flag");
        self.reached()
    }

    /// Sets it from the host. Never blocks.
    pub fn set(&self) {
        self.change(true);
    }

    /// Resets it from the host. Never blocks.
    pub fn reset(&self) {
        self.change(false);
    }

    /// Blocks until it is set or the time is up; `None` waits for ever. Somebody else must step the
    /// device meanwhile.
    ///
    /// # Errors
    /// `Destroyed`; `DeviceLost` or `DeviceClosed` when the device that made it is, and it was not
    /// set before.
    pub fn wait(&self, timeout: Option<Duration>) -> Result<Waited, Error> {
        if !self.object.check("wait for a flag") {
            return Err(Error::Destroyed(self.object.kind()));
        }
        let Some(machine) = self.machine.upgrade() else {
            return if self.reached() {
                Ok(Waited::Reached)
            } else {
                Err(Error::DeviceClosed)
            };
        };
        let device = self.object.device();
        machine.host_wait(timeout, |state| {
            if self.reached() {
                Some(Ok(()))
            } else {
                state.device_error(device).map(Err)
            }
        })
    }

    /// Ends the flag's life, for APIs with an explicit destroy. A violation while pending work uses
    /// it.
    pub fn destroy(&self) {
        self.object.destroy();
    }

    pub(crate) fn reached(&self) -> bool {
        self.set.load(Ordering::SeqCst)
    }

    pub(crate) fn put(&self, state: &mut State, set: bool) {
        self.set.store(set, Ordering::SeqCst);
        state.touch();
    }

    fn change(&self, set: bool) {
        self.object.check("change a flag");
        match self.machine.upgrade() {
            Some(machine) => machine.with(|state| {
                state.log(TraceEvent::Host {
                    kind: self.object.kind(),
                    id: self.id(),
                    value: set.into(),
                });
                self.put(state, set);
            }),
            None => self.set.store(set, Ordering::SeqCst),
        }
    }
}

/// Work that runs until the test opens it: a kernel of unknown length. Cheap to clone; all clones
/// are the same gate.
#[derive(Clone, Debug)]
pub struct Gate(pub(crate) Flag);

impl Gate {
    /// Lets the work behind it finish, now and whenever it is submitted again. Never blocks.
    pub fn open(&self) {
        self.0.set();
    }

    /// Whether it was opened.
    pub fn is_open(&self) -> bool {
        self.0.is_set()
    }
}

/// How often a recorded command buffer may be submitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reuse {
    /// Once: a Metal command buffer, a Vulkan one recorded for one submit.
    Once,
    /// Again as soon as the earlier submit has completed: a plain Vulkan command buffer.
    WhenComplete,
}

/// The identity of a recorded command buffer, given to
/// [`Submission::recording`](crate::Submission::recording) so that a double submit is seen. Cheap
/// to clone; all clones are the same recording.
#[derive(Clone, Debug)]
pub struct Recording {
    pub(crate) object: Arc<Object>,
    reuse: Reuse,
    submits: Arc<AtomicU64>,
}

impl Recording {
    pub(crate) fn new(object: Arc<Object>, reuse: Reuse) -> Recording {
        Recording {
            object,
            reuse,
            submits: Arc::default(),
        }
    }

    /// Its number, as in a violation.
    pub fn id(&self) -> u64 {
        self.object.id()
    }

    pub(crate) fn check_submit(&self) -> Result<(), Error> {
        let why = match self.reuse {
            Reuse::Once if self.submits.load(Ordering::SeqCst) > 0 => "it may be submitted once",
            Reuse::WhenComplete if self.object.in_use() => "its earlier submit is still pending",
            _ => return Ok(()),
        };
        self.object.ledger().report(Violation::DoubleSubmit {
            recording: self.id(),
            why,
        });
        Err(Error::AlreadySubmitted)
    }

    pub(crate) fn submitted(&self) {
        self.submits.fetch_add(1, Ordering::SeqCst);
    }
}
