//! The commands of a batch.

use crate::TimestampQuery;
use crate::object::Object;
use crate::timeline::{FlagValue, Timeline};
use std::fmt;
use std::sync::Arc;

/// One command of a batch. Constructors are listed below; most have a shorthand on
/// [`Submission`](crate::Submission).
pub struct Command(pub(crate) Op);

pub(crate) enum Op {
    Wait(Arc<Timeline>, u64),
    Signal(Arc<Timeline>, u64),
    WaitFlag(Arc<FlagValue>),
    SetFlag(Arc<FlagValue>),
    ResetFlag(Arc<FlagValue>),
    WaitUntil(Box<dyn FnMut() -> bool + Send>),
    Run(Box<dyn FnOnce() + Send>),
    Timestamp(TimestampQuery),
    ResetQuery(TimestampQuery),
    Gate(Arc<FlagValue>),
    Fail(String),
}

impl Op {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Op::Wait(..) => "wait",
            Op::Signal(..) => "signal",
            Op::WaitFlag(_) => "wait flag",
            Op::SetFlag(_) => "set flag",
            Op::ResetFlag(_) => "reset flag",
            Op::WaitUntil(_) => "wait until",
            Op::Run(_) => "run",
            Op::Timestamp(_) => "timestamp",
            Op::ResetQuery(_) => "reset query",
            Op::Gate(_) => "gate",
            Op::Fail(_) => "fail",
        }
    }

    pub(crate) fn object(&self) -> Option<&Arc<Object>> {
        match self {
            Op::Wait(timeline, _) | Op::Signal(timeline, _) => Some(&timeline.object),
            Op::WaitFlag(flag) | Op::SetFlag(flag) | Op::ResetFlag(flag) | Op::Gate(flag) => {
                Some(&flag.object)
            }
            Op::Timestamp(query) | Op::ResetQuery(query) => Some(&query.object),
            Op::WaitUntil(_) | Op::Run(_) | Op::Fail(_) => None,
        }
    }

    /// Whether it only orders other work. A gate does not: it is work of unknown length.
    pub(crate) fn is_wait(&self) -> bool {
        matches!(self, Op::Wait(..) | Op::WaitFlag(_) | Op::WaitUntil(_))
    }
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.0.name();
        match &self.0 {
            Op::Wait(timeline, value) | Op::Signal(timeline, value) => {
                let semaphore = timeline.object.id();
                write!(f, "{name} (semaphore {semaphore}, value {value})")
            }
            op => match op.object() {
                Some(object) => write!(f, "{name} ({} {})", object.kind(), object.id()),
                None => f.write_str(name),
            },
        }
    }
}
