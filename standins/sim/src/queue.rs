//! Queues, and what is submitted to them.

use crate::ledger::Object;
use crate::machine::Machine;
use crate::{Error, Flag, Gate, Order, Recording, Semaphore, Slot, Waited};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Which queue: its device's number on the machine, and its place in the order of creation on that
/// device, both from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueueId {
    /// The device's number.
    pub device: usize,
    /// The queue's place among all queues ever made on that device.
    pub index: usize,
}

impl fmt::Display for QueueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "queue {}.{}", self.device, self.index)
    }
}

/// One command of a batch.
#[non_exhaustive]
pub enum Command {
    /// Goes on once the semaphore has reached the value.
    Wait(Semaphore, u64),
    /// Signals the semaphore with the value.
    Signal(Semaphore, u64),
    /// Goes on once the flag is set.
    WaitFlag(Flag),
    /// Sets the flag.
    SetFlag(Flag),
    /// Resets the flag.
    ResetFlag(Flag),
    /// Goes on once the closure returns true (a stream that waits for a word in memory). It is
    /// asked again and again, with the machine locked: it must be quick and call nothing of this
    /// crate. A panic in it counts as false.
    WaitUntil(Box<dyn FnMut() -> bool + Send>),
    /// Host-visible work, run on the thread that steps the device, with nothing locked. A panic in
    /// it fails the batch.
    Run(Box<dyn FnOnce() + Send>),
    /// Writes the device clock to the slot.
    Timestamp(Slot),
    /// Empties the slot.
    ResetSlot(Slot),
    /// Work that runs until the test opens the gate.
    Gate(Gate),
    /// Work that fails, with this reason.
    Fail(String),
}

impl Command {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Command::Wait(..) => "wait",
            Command::Signal(..) => "signal",
            Command::WaitFlag(_) => "wait flag",
            Command::SetFlag(_) => "set flag",
            Command::ResetFlag(_) => "reset flag",
            Command::WaitUntil(_) => "wait until",
            Command::Run(_) => "run",
            Command::Timestamp(_) => "timestamp",
            Command::ResetSlot(_) => "reset slot",
            Command::Gate(_) => "gate",
            Command::Fail(_) => "fail",
        }
    }

    pub(crate) fn object(&self) -> Option<&Arc<Object>> {
        match self {
            Command::Wait(semaphore, _) | Command::Signal(semaphore, _) => Some(&semaphore.object),
            Command::WaitFlag(flag) | Command::SetFlag(flag) | Command::ResetFlag(flag) => {
                Some(&flag.object)
            }
            Command::Timestamp(slot) | Command::ResetSlot(slot) => Some(&slot.object),
            Command::Gate(gate) => Some(&gate.0.object),
            Command::WaitUntil(_) | Command::Run(_) | Command::Fail(_) => None,
        }
    }

    /// Waits order other work; a gate is work, however long it takes.
    pub(crate) fn is_wait(&self) -> bool {
        matches!(
            self,
            Command::Wait(..) | Command::WaitFlag(_) | Command::WaitUntil(_)
        )
    }
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Command::Wait(semaphore, value) | Command::Signal(semaphore, value) => {
                write!(
                    f,
                    "{} (semaphore {}, value {value})",
                    self.name(),
                    semaphore.id()
                )
            }
            _ => match self.object() {
                Some(object) => write!(f, "{} ({} {})", self.name(), object.kind(), object.id()),
                None => f.write_str(self.name()),
            },
        }
    }
}

pub(crate) type CompletedHandler = Box<dyn FnOnce(Outcome) + Send>;

/// A batch in the making: commands, and handlers that are told about it. A CUDA call, a Vulkan
/// submit, a Metal command buffer.
#[derive(Default)]
#[must_use = "nothing happens until it is submitted"]
pub struct Submission {
    pub(crate) commands: Vec<Command>,
    pub(crate) scheduled: Vec<Box<dyn FnOnce() + Send>>,
    pub(crate) completed: Vec<CompletedHandler>,
    pub(crate) recording: Option<Recording>,
}

impl Submission {
    /// An empty batch.
    pub fn new() -> Submission {
        Submission::default()
    }

    /// Adds any command.
    pub fn then(mut self, command: Command) -> Submission {
        self.commands.push(command);
        self
    }

    /// Adds [`Command::Wait`].
    pub fn wait(self, semaphore: &Semaphore, value: u64) -> Submission {
        self.then(Command::Wait(semaphore.clone(), value))
    }

    /// Adds [`Command::Signal`].
    pub fn signal(self, semaphore: &Semaphore, value: u64) -> Submission {
        self.then(Command::Signal(semaphore.clone(), value))
    }

    /// Adds [`Command::Run`].
    pub fn run(self, work: impl FnOnce() + Send + 'static) -> Submission {
        self.then(Command::Run(Box::new(work)))
    }

    /// Adds [`Command::Timestamp`].
    pub fn timestamp(self, slot: &Slot) -> Submission {
        self.then(Command::Timestamp(slot.clone()))
    }

    /// Adds [`Command::Gate`].
    pub fn gate(self, gate: &Gate) -> Submission {
        self.then(Command::Gate(gate.clone()))
    }

    /// Adds [`Command::Fail`].
    pub fn fail(self, reason: impl Into<String>) -> Submission {
        self.then(Command::Fail(reason.into()))
    }

    /// Calls `handler` some time after the batch has started, on the thread that steps the device.
    pub fn on_scheduled(mut self, handler: impl FnOnce() + Send + 'static) -> Submission {
        self.scheduled.push(Box::new(handler));
        self
    }

    /// Calls `handler` some time after the batch was reported complete or failed, on the thread
    /// that steps the device.
    pub fn on_completed(mut self, handler: impl FnOnce(Outcome) + Send + 'static) -> Submission {
        self.completed.push(Box::new(handler));
        self
    }

    /// Says which recorded command buffer this is, so that a double submit is refused and written
    /// down.
    pub fn recording(mut self, recording: &Recording) -> Submission {
        self.recording = Some(recording.clone());
        self
    }
}

impl fmt::Debug for Submission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Submission")
            .field("commands", &self.commands)
            .finish_non_exhaustive()
    }
}

/// How a batch ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The device clock when the batch started, masked; `None` if it never did.
    pub start: Option<u64>,
    /// The device clock when its last command had run, masked.
    pub end: u64,
    /// Why it failed, if it did.
    pub error: Option<String>,
}

/// How far a batch is, as the host may see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// Accepted, not started.
    Queued,
    /// Started. It stays so for a while after its last command: its signals may be seen earlier
    /// than its end.
    Running,
    /// Complete or failed.
    Ended(Outcome),
}

/// What the host sees of a batch; the machine writes it.
#[derive(Debug)]
pub(crate) struct View {
    pub(crate) status: Status,
    pub(crate) handlers_left: usize,
}

pub(crate) type SharedView = Arc<Mutex<View>>;

pub(crate) fn view(shared: &SharedView) -> MutexGuard<'_, View> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An accepted batch. Dropping it changes nothing for the device. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Batch {
    pub(crate) machine: Arc<Machine>,
    pub(crate) id: u64,
    pub(crate) view: SharedView,
}

impl Batch {
    /// Its number, as in the trace; later submits have greater numbers.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// How far it is. Never blocks.
    pub fn status(&self) -> Status {
        view(&self.view).status.clone()
    }

    /// Blocks until the batch has ended, well or not, or the time is up. Its handlers may still be
    /// to come. Somebody else must step the device meanwhile.
    pub fn wait(&self, timeout: Option<Duration>) -> Waited {
        self.wait_for(timeout, |view| matches!(view.status, Status::Ended(_)))
    }

    /// As [`Batch::wait`], and until its handlers have returned too, as Metal's
    /// `waitUntilCompleted`.
    pub fn wait_with_handlers(&self, timeout: Option<Duration>) -> Waited {
        self.wait_for(timeout, |view| {
            matches!(view.status, Status::Ended(_)) && view.handlers_left == 0
        })
    }

    fn wait_for(&self, timeout: Option<Duration>, over: impl Fn(&View) -> bool) -> Waited {
        let ended = self
            .machine
            .host_wait(timeout, |_| over(&view(&self.view)).then_some(Ok(())));
        // this wait has no error to give: a lost or closed device ends its batches
        ended.unwrap_or(Waited::Reached)
    }
}

/// A queue of a simulated device. Cheap to clone. Dropping the last clone lets pending work run on.
#[derive(Clone, Debug)]
pub struct Queue(pub(crate) Arc<QueueHandle>);

#[derive(Debug)]
pub(crate) struct QueueHandle {
    pub(crate) machine: Arc<Machine>,
    pub(crate) id: QueueId,
    /// Only counts.
    pub(crate) _object: Arc<Object>,
}

impl Queue {
    /// Which queue it is.
    pub fn id(&self) -> QueueId {
        self.0.id
    }

    /// How it orders its batches.
    pub fn order(&self) -> Result<Order, Error> {
        self.0
            .machine
            .with(|state| state.queue(self.0.id).map(|queue| queue.order))
    }

    /// Hands a batch to the device. Blocks only while the queue is full, and only if the
    /// configuration says so.
    ///
    /// # Errors
    /// The batch is then gone and nothing of it runs: `DeviceLost`, `DeviceClosed`, `QueueFailed`,
    /// `QueueFull`, `SubmitFailed` (a fault), `Destroyed` or `OtherDevice` for an object it names,
    /// `AlreadySubmitted`.
    pub fn submit(&self, submission: Submission) -> Result<Batch, Error> {
        self.0.machine.submit(self.0.id, submission)
    }

    /// How many batches have not been reported ended. Never blocks.
    pub fn pending(&self) -> usize {
        self.0
            .machine
            .with(|state| state.queue(self.0.id).map_or(0, |queue| queue.pending()))
    }

    /// Blocks until no batch is pending or the time is up. Somebody else must step the device
    /// meanwhile.
    ///
    /// # Errors
    /// `DeviceLost`, `DeviceClosed`; `QueueFailed` when an earlier failure sticks to the queue.
    pub fn wait_idle(&self, timeout: Option<Duration>) -> Result<Waited, Error> {
        let id = self.0.id;
        self.0.machine.host_wait(timeout, |state| {
            if let Some(error) = state.device_error(id.device) {
                return Some(Err(error));
            }
            match state.queue(id) {
                Err(error) => Some(Err(error)),
                Ok(queue) if queue.pending() > 0 => None,
                Ok(queue) => Some(
                    queue
                        .error
                        .clone()
                        .map_or(Ok(()), |why| Err(Error::QueueFailed(why))),
                ),
            }
        })
    }

    /// The failure that sticks to the queue, if one does. Never blocks.
    pub fn error(&self) -> Option<String> {
        self.0.machine.with(|state| {
            state
                .queue(self.0.id)
                .ok()
                .and_then(|queue| queue.error.clone())
        })
    }

    /// Makes a failed queue usable again. Never blocks.
    pub fn clear_error(&self) {
        self.0.machine.with(|state| {
            if let Some(queue) = state.queues.get_mut(&self.0.id) {
                queue.error = None;
            }
        });
    }
}

impl Drop for QueueHandle {
    fn drop(&mut self) {
        self.machine.with(|state| {
            if let Some(queue) = state.queues.get_mut(&self.id) {
                queue.orphan = true;
            }
            state.forget_if_done(self.id);
        });
    }
}
