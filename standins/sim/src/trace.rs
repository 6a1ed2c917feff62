//! The trace: what happened on a machine, in order.

use crate::{ObjectKind, QueueId};
use std::fmt;

/// One event of the trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceEntry {
    /// How many steps the scheduler had made before.
    pub step: u64,
    /// The machine's simulated time.
    pub time_ns: u64,
    /// What happened.
    pub event: TraceEvent,
}

/// What can happen on a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TraceEvent {
    /// A batch was accepted.
    Submitted {
        /// Its queue.
        queue: QueueId,
        /// The batch.
        batch: u64,
    },
    /// A submit was refused.
    Refused {
        /// Its queue.
        queue: QueueId,
    },
    /// A submit blocked, since the queue is full.
    Blocked {
        /// Its queue.
        queue: QueueId,
    },
    /// A batch started.
    Started {
        /// Its queue.
        queue: QueueId,
        /// The batch.
        batch: u64,
    },
    /// A command ran.
    Ran {
        /// Its queue.
        queue: QueueId,
        /// Its batch.
        batch: u64,
        /// Its index in the batch.
        index: usize,
        /// Its name: `wait`, `signal`, `run`…
        command: &'static str,
    },
    /// A batch failed. Its remaining commands never run.
    Failed {
        /// Its queue.
        queue: QueueId,
        /// The batch.
        batch: u64,
    },
    /// A batch was reported complete, or failed.
    Completed {
        /// Its queue.
        queue: QueueId,
        /// The batch.
        batch: u64,
        /// Whether all of it ran.
        ok: bool,
    },
    /// A handler was called.
    Delivered {
        /// The number of its semaphore or batch.
        of: u64,
        /// `scheduled`, `completed` or `reached`.
        handler: &'static str,
    },
    /// The host signalled a semaphore, changed a flag or opened a gate.
    Host {
        /// What was changed.
        kind: ObjectKind,
        /// Its number.
        id: u64,
        /// The new value.
        value: u64,
    },
    /// A device was lost.
    Lost {
        /// The device's number.
        device: usize,
    },
}

impl fmt::Display for TraceEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "step {:>5}  {:>9} ns  ", self.step, self.time_ns)?;
        match &self.event {
            TraceEvent::Submitted { queue, batch } => write!(f, "{queue}: batch {batch} submitted"),
            TraceEvent::Refused { queue } => write!(f, "{queue}: submit refused"),
            TraceEvent::Blocked { queue } => write!(f, "{queue}: submit blocks"),
            TraceEvent::Started { queue, batch } => write!(f, "{queue}: batch {batch} started"),
            TraceEvent::Ran {
                queue,
                batch,
                index,
                command,
            } => {
                write!(f, "{queue}: batch {batch} command {index}: {command}")
            }
            TraceEvent::Failed { queue, batch } => write!(f, "{queue}: batch {batch} failed"),
            TraceEvent::Completed { queue, batch, ok } => {
                write!(
                    f,
                    "{queue}: batch {batch} reported {}",
                    if *ok { "complete" } else { "failed" }
                )
            }
            TraceEvent::Delivered { of, handler } => write!(f, "{handler} handler of {of} called"),
            TraceEvent::Host { kind, id, value } => write!(f, "host: {kind} {id} = {value}"),
            TraceEvent::Lost { device } => write!(f, "device {device} lost"),
        }
    }
}
