//! Flags, which are binary events, and gates.

use crate::machine::Machine;
use crate::timeline::FlagValue;
use crate::trace::TraceEvent;
use crate::{Error, Waited};
use std::sync::{Arc, Weak};
use std::time::Duration;

/// A binary event: a `VkEvent`, a fence, or, if each wait is followed by a reset, a binary
/// semaphore. Cheap to clone; all clones are the same flag.
#[derive(Clone, Debug)]
pub struct Flag {
    pub(crate) value: Arc<FlagValue>,
    machine: Weak<Machine>,
}

impl Flag {
    pub(crate) fn new(value: FlagValue, machine: Weak<Machine>) -> Flag {
        Flag {
            value: Arc::new(value),
            machine,
        }
    }

    /// The number by which the trace and violations name it.
    pub fn id(&self) -> u64 {
        self.value.object.id()
    }

    /// Whether it is set. Never blocks.
    pub fn is_set(&self) -> bool {
        self.value.object.check("read a flag");
        self.value.is_set()
    }

    /// Sets it from the host. Never blocks.
    pub fn set(&self) {
        self.store(true);
    }

    /// Resets it from the host. Never blocks.
    pub fn reset(&self) {
        self.store(false);
    }

    /// Blocks until the flag is set or the timeout runs out; `None` has no limit. Another thread
    /// must step the device meanwhile.
    ///
    /// # Errors
    /// `Destroyed`. `DeviceLost` or `DeviceClosed` if the device that made the flag is lost or
    /// closed before the flag is set.
    pub fn wait(&self, timeout: Option<Duration>) -> Result<Waited, Error> {
        let object = &self.value.object;
        if !object.check("wait for a flag") {
            return Err(Error::Destroyed(object.kind()));
        }
        let Some(machine) = self.machine.upgrade() else {
            return match self.value.is_set() {
                true => Ok(Waited::Reached),
                false => Err(Error::DeviceClosed),
            };
        };
        machine.wait_on_device(object.device(), timeout, || self.value.is_set())
    }

    /// Destroys the flag, for APIs with an explicit destroy. A violation while pending work uses
    /// it.
    pub fn destroy(&self) {
        self.value.object.destroy();
    }

    fn store(&self, set: bool) {
        self.value.object.check("change a flag");
        match self.machine.upgrade() {
            Some(machine) => machine.with(|state| {
                state.log(TraceEvent::Host {
                    kind: self.value.object.kind(),
                    id: self.id(),
                    value: set.into(),
                });
                self.value.store(set);
                state.touch();
            }),
            None => self.value.store(set),
        }
    }
}

/// Work that runs until the test opens the gate, such as a kernel of unknown length. Cheap to
/// clone; all clones are the same gate.
#[derive(Clone, Debug)]
pub struct Gate(pub(crate) Flag);

impl Gate {
    /// Lets its work finish, also work that is submitted later. Never blocks.
    pub fn open(&self) {
        self.0.set();
    }

    /// Whether it was opened.
    pub fn is_open(&self) -> bool {
        self.0.is_set()
    }
}
