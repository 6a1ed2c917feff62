//! Timeline semaphores: a 64-bit value that only grows.

use crate::ledger::{Object, Violation};
use crate::machine::Machine;
use crate::state::{Notification, State};
use crate::trace::TraceEvent;
use crate::{Error, Waited};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

/// A value that only grows, starting where its creator says. Queues and the host wait for it to
/// reach a value and signal it. Cheap to clone; all clones are the same semaphore.
///
/// A Vulkan timeline semaphore, a Metal shared event, or (one value a record) a CUDA event.
#[derive(Clone)]
pub struct Semaphore {
    pub(crate) object: Arc<Object>,
    /// Weak, since pending work of the machine holds semaphores.
    machine: Weak<Machine>,
    timeline: Arc<Mutex<Timeline>>,
}

struct Timeline {
    value: u64,
    listeners: Vec<(u64, Listener)>,
}

struct Listener {
    call: Box<dyn FnOnce(u64) + Send>,
    /// Only counts.
    counted: Arc<Object>,
    eagerness: u64,
}

impl Semaphore {
    pub(crate) fn new(object: Arc<Object>, machine: Weak<Machine>, value: u64) -> Semaphore {
        Semaphore {
            object,
            machine,
            timeline: Arc::new(Mutex::new(Timeline {
                value,
                listeners: Vec::new(),
            })),
        }
    }

    /// Its number, as in the trace.
    pub fn id(&self) -> u64 {
        self.object.id()
    }

    /// The present value. Never blocks.
    ///
    /// # Errors
    /// `Destroyed`, also written down as a violation.
    pub fn value(&self) -> Result<u64, Error> {
        self.usable("read a semaphore")?;
        Ok(self.reached())
    }

    /// Sets the value from the host. A value that is not greater changes nothing and is a
    /// violation. Never blocks.
    ///
    /// # Errors
    /// `Destroyed`.
    pub fn signal(&self, value: u64) -> Result<(), Error> {
        self.usable("signal a semaphore")?;
        match self.machine.upgrade() {
            Some(machine) => machine.with(|state| {
                state.log(TraceEvent::Host {
                    kind: self.object.kind(),
                    id: self.id(),
                    value,
                });
                self.raise(state, value);
            }),
            None => {
                self.grow(value);
            }
        }
        Ok(())
    }

    /// Blocks until the value is reached or the time is up; `None` waits for ever. Somebody else
    /// must step the device meanwhile: a [`Driver`](crate::Driver) or another thread.
    ///
    /// # Errors
    /// `Destroyed`; `DeviceLost` or `DeviceClosed` when the device that made the semaphore is, and
    /// the value was not reached before.
    pub fn wait(&self, value: u64, timeout: Option<Duration>) -> Result<Waited, Error> {
        self.usable("wait for a semaphore")?;
        let Some(machine) = self.machine.upgrade() else {
            return if self.reached() >= value {
                Ok(Waited::Reached)
            } else {
                Err(Error::DeviceClosed)
            };
        };
        let device = self.object.device();
        machine.host_wait(timeout, |state| {
            if self.reached() >= value {
                Some(Ok(()))
            } else {
                state.device_error(device).map(Err)
            }
        })
    }

    /// Calls `handler` with the value then reached, some time after it is `value` or more: at once,
    /// late, and in any order among handlers, as the scheduler likes, on the thread that steps the
    /// device. Never blocks.
    ///
    /// # Errors
    /// `Destroyed`; `DeviceClosed` once the machine is gone.
    pub fn notify(
        &self,
        value: u64,
        handler: impl FnOnce(u64) + Send + 'static,
    ) -> Result<(), Error> {
        self.usable("listen to a semaphore")?;
        let machine = self.machine.upgrade().ok_or(Error::DeviceClosed)?;
        let counted = Object::new(
            self.object.ledger(),
            crate::Kind::Handler,
            self.object.device(),
        );
        machine.with(|state| {
            let eagerness = state.rng.eagerness();
            let listener = Listener {
                call: Box::new(handler),
                counted,
                eagerness,
            };
            self.lock().listeners.push((value, listener));
            self.fire(state);
        });
        Ok(())
    }

    /// Ends the semaphore's life, for APIs with an explicit destroy. A violation while pending work
    /// uses it; that work carries on as if it had not happened.
    pub fn destroy(&self) {
        self.object.destroy();
    }

    /// The value without the check for destruction: for work that was accepted before.
    pub(crate) fn reached(&self) -> u64 {
        self.lock().value
    }

    /// A signal by the device or the host.
    pub(crate) fn raise(&self, state: &mut State, value: u64) {
        if self.grow(value) {
            state.touch();
            self.fire(state);
        }
    }

    fn grow(&self, value: u64) -> bool {
        let mut timeline = self.lock();
        let current = timeline.value;
        if value <= current {
            self.object.ledger().report(Violation::ValueNotGreater {
                semaphore: self.id(),
                current,
                value,
            });
            return false;
        }
        timeline.value = value;
        true
    }

    fn fire(&self, state: &mut State) {
        let mut timeline = self.lock();
        let value = timeline.value;
        let (due, later) = std::mem::take(&mut timeline.listeners)
            .into_iter()
            .partition(|(at, _)| *at <= value);
        timeline.listeners = later;
        for (_, listener) in due {
            let Listener {
                call,
                counted,
                eagerness,
            } = listener;
            state.notify(Notification {
                of: self.id(),
                handler: "reached",
                device: self.object.device(),
                eagerness,
                report: None,
                call: Box::new(move || {
                    call(value);
                    drop(counted);
                }),
            });
        }
    }

    fn usable(&self, by: &'static str) -> Result<(), Error> {
        if self.object.check(by) {
            Ok(())
        } else {
            Err(Error::Destroyed(self.object.kind()))
        }
    }

    fn lock(&self) -> MutexGuard<'_, Timeline> {
        self.timeline.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Semaphore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Semaphore")
            .field("id", &self.id())
            .field("value", &self.reached())
            .finish_non_exhaustive()
    }
}
