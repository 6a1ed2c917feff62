//! Timeline semaphores: a 64-bit value that only grows.

use crate::handler::Listener;
use crate::machine::Machine;
use crate::object::Object;
use crate::timeline::Timeline;
use crate::trace::TraceEvent;
use crate::{Error, ObjectKind, Waited};
use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

/// A timeline semaphore: a value that only grows. Queues and the host signal it and wait for it.
/// Cheap to clone; all clones are the same semaphore.
///
/// It stands for a Vulkan timeline semaphore, a Metal shared event, or a CUDA event whose records
/// are numbered.
#[derive(Clone)]
pub struct Semaphore {
    pub(crate) timeline: Arc<Timeline>,
    machine: Weak<Machine>,
}

impl Semaphore {
    pub(crate) fn new(timeline: Timeline, machine: Weak<Machine>) -> Semaphore {
        Semaphore {
            timeline: Arc::new(timeline),
            machine,
        }
    }

    fn object(&self) -> &Arc<Object> {
        &self.timeline.object
    }

    /// The number by which the trace and violations name it.
    pub fn id(&self) -> u64 {
        self.object().id()
    }

    /// The current value. Never blocks.
    ///
    /// # Errors
    /// `Destroyed`, which is a violation too.
    pub fn value(&self) -> Result<u64, Error> {
        self.check("read a semaphore")?;
        Ok(self.timeline.value())
    }

    /// Sets the value from the host. A value that is not greater changes nothing and is a
    /// violation. Never blocks.
    ///
    /// # Errors
    /// `Destroyed`.
    pub fn signal(&self, value: u64) -> Result<(), Error> {
        self.check("signal a semaphore")?;
        match self.machine.upgrade() {
            Some(machine) => machine.with(|state| {
                state.log(TraceEvent::Host {
                    kind: self.object().kind(),
                    id: self.id(),
                    value,
                });
                state.signal(&self.timeline, value);
            }),
            None => {
                self.timeline.raise(value);
            }
        }
        Ok(())
    }

    /// Blocks until the value is reached or the timeout runs out; `None` has no limit. Another
    /// thread, such as a [`Stepper`](crate::Stepper), must step the device meanwhile.
    ///
    /// # Errors
    /// `Destroyed`. `DeviceLost` or `DeviceClosed` if the device that made the semaphore is lost
    /// or closed before the value is reached.
    pub fn wait(&self, value: u64, timeout: Option<Duration>) -> Result<Waited, Error> {
        self.check("wait for a semaphore")?;
        let reached = || self.timeline.value() >= value;
        match self.machine.upgrade() {
            Some(machine) => machine.wait_on_device(self.object().device(), timeout, reached),
            None if reached() => Ok(Waited::Reached),
            None => Err(Error::DeviceClosed),
        }
    }

    /// Calls `handler` some time after the semaphore has reached `value`, with the value then
    /// reached, on the thread that steps the device. The scheduler chooses when, and in which
    /// order among handlers. Never blocks.
    ///
    /// # Errors
    /// `Destroyed`. `DeviceClosed` once the machine is gone.
    pub fn notify(
        &self,
        value: u64,
        handler: impl FnOnce(u64) + Send + 'static,
    ) -> Result<(), Error> {
        self.check("listen to a semaphore")?;
        let machine = self.machine.upgrade().ok_or(Error::DeviceClosed)?;
        let object = self.object();
        let counted = Object::new(object.tracker(), ObjectKind::Handler, object.device());
        machine.with(|state| {
            self.timeline.listen(Listener {
                value,
                call: Box::new(handler),
                counted,
                weight: state.rng.weight(),
            });
            state.queue_due_handlers(&self.timeline);
        });
        Ok(())
    }

    /// Destroys the semaphore, for APIs with an explicit destroy. A violation while pending work
    /// uses it; that work is not affected.
    pub fn destroy(&self) {
        self.object().destroy();
    }

    fn check(&self, by: &'static str) -> Result<(), Error> {
        match self.object().check(by) {
            true => Ok(()),
            false => Err(Error::Destroyed(self.object().kind())),
        }
    }
}

impl fmt::Debug for Semaphore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Semaphore")
            .field("id", &self.id())
            .field("value", &self.timeline.value())
            .finish_non_exhaustive()
    }
}
