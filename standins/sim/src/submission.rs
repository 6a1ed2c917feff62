//! Batches before they are submitted.

use crate::command::{Command, Op};
use crate::{Flag, Gate, Outcome, Recording, Semaphore, TimestampQuery};
use std::fmt;

impl Command {
    /// Continues once the semaphore has reached the value.
    pub fn wait(semaphore: &Semaphore, value: u64) -> Command {
        Command(Op::Wait(semaphore.timeline.clone(), value))
    }

    /// Signals the semaphore with the value.
    pub fn signal(semaphore: &Semaphore, value: u64) -> Command {
        Command(Op::Signal(semaphore.timeline.clone(), value))
    }

    /// Continues once the flag is set.
    pub fn wait_flag(flag: &Flag) -> Command {
        Command(Op::WaitFlag(flag.value.clone()))
    }

    /// Sets the flag.
    pub fn set_flag(flag: &Flag) -> Command {
        Command(Op::SetFlag(flag.value.clone()))
    }

    /// Resets the flag.
    pub fn reset_flag(flag: &Flag) -> Command {
        Command(Op::ResetFlag(flag.value.clone()))
    }

    /// Continues once the condition is true, such as that a word in memory has a value.
    ///
    /// The machine evaluates the condition repeatedly with its lock held: it must be quick and call
    /// nothing of this crate. A panic in it counts as false.
    pub fn wait_until(condition: impl FnMut() -> bool + Send + 'static) -> Command {
        Command(Op::WaitUntil(Box::new(condition)))
    }

    /// Runs a closure on the thread that steps the device, with no lock held. A panic in it fails
    /// the batch.
    pub fn run(work: impl FnOnce() + Send + 'static) -> Command {
        Command(Op::Run(Box::new(work)))
    }

    /// Writes the device clock to the query.
    pub fn timestamp(query: &TimestampQuery) -> Command {
        Command(Op::Timestamp(query.clone()))
    }

    /// Empties the query.
    pub fn reset_query(query: &TimestampQuery) -> Command {
        Command(Op::ResetQuery(query.clone()))
    }

    /// Runs until the test opens the gate.
    pub fn gate(gate: &Gate) -> Command {
        Command(Op::Gate(gate.0.value.clone()))
    }

    /// Fails, with this reason.
    pub fn fail(reason: impl Into<String>) -> Command {
        Command(Op::Fail(reason.into()))
    }
}

/// A batch that is not submitted: its commands, and the handlers of its progress. It stands for a
/// CUDA call, a Vulkan submit or a Metal command buffer.
#[derive(Default)]
#[must_use = "nothing happens until it is submitted"]
pub struct Submission {
    pub(crate) commands: Vec<Command>,
    pub(crate) scheduled: Vec<Box<dyn FnOnce() + Send>>,
    pub(crate) completed: Vec<Box<dyn FnOnce(Outcome) + Send>>,
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

    /// Adds [`Command::wait`].
    pub fn wait(self, semaphore: &Semaphore, value: u64) -> Submission {
        self.then(Command::wait(semaphore, value))
    }

    /// Adds [`Command::signal`].
    pub fn signal(self, semaphore: &Semaphore, value: u64) -> Submission {
        self.then(Command::signal(semaphore, value))
    }

    /// Adds [`Command::run`].
    pub fn run(self, work: impl FnOnce() + Send + 'static) -> Submission {
        self.then(Command::run(work))
    }

    /// Adds [`Command::timestamp`].
    pub fn timestamp(self, query: &TimestampQuery) -> Submission {
        self.then(Command::timestamp(query))
    }

    /// Adds [`Command::gate`].
    pub fn gate(self, gate: &Gate) -> Submission {
        self.then(Command::gate(gate))
    }

    /// Adds [`Command::fail`].
    pub fn fail(self, reason: impl Into<String>) -> Submission {
        self.then(Command::fail(reason))
    }

    /// Calls `handler` some time after the batch has started, on the thread that steps the device.
    pub fn on_scheduled(mut self, handler: impl FnOnce() + Send + 'static) -> Submission {
        self.scheduled.push(Box::new(handler));
        self
    }

    /// Calls `handler` some time after the batch is reported complete or failed, on the thread
    /// that steps the device.
    pub fn on_completed(mut self, handler: impl FnOnce(Outcome) + Send + 'static) -> Submission {
        self.completed.push(Box::new(handler));
        self
    }

    /// Says which recorded command buffer this batch is. A double submit of it is then refused and
    /// a violation.
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
