//! Batches inside the machine.

use crate::command::{Command, Op};
use crate::handler::{CompletedHandler, HandlerCall};
use crate::object::Use;
use crate::status::HostView;
use std::collections::VecDeque;

/// A batch that was accepted and is not reported.
pub(crate) struct BatchState {
    pub(crate) id: u64,
    /// What is left to run.
    pub(crate) commands: VecDeque<Command>,
    /// The index of the next command in the whole batch.
    pub(crate) index: usize,
    /// Whether its next command is running on a stepping thread.
    pub(crate) busy: bool,
    /// Whether its next command may run. Set at the beginning of each step.
    pub(crate) ready: bool,
    pub(crate) weight: u64,
    pub(crate) report_weight: u64,
    /// After how many commands a planned fault strikes.
    pub(crate) fail_at: Option<usize>,
    pub(crate) error: Option<String>,
    pub(crate) start: Option<u64>,
    pub(crate) end: u64,
    pub(crate) view: HostView,
    pub(crate) scheduled: Vec<HandlerCall>,
    pub(crate) completed: Vec<CompletedHandler>,
    pub(crate) uses: Vec<Use>,
}

impl BatchState {
    pub(crate) fn next_op(&self) -> Option<&Op> {
        self.commands.front().map(|command| &command.0)
    }

    pub(crate) fn next_op_mut(&mut self) -> Option<&mut Op> {
        self.commands.front_mut().map(|command| &mut command.0)
    }

    /// Whether a planned fault strikes before the next command.
    pub(crate) fn fault_is_due(&self) -> bool {
        self.fail_at.is_some_and(|at| at <= self.index)
    }
}
