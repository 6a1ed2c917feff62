//! What happened, in order.

use crate::{Kind, QueueId};
use std::fmt;

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceEntry {
    /// How many steps the scheduler had taken.
    pub step: u64,
    /// The machine's time.
    pub time_ns: u64,
    /// What happened.
    pub event: TraceEvent,
}

/// What happened.
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
        /// Its place in the batch.
        index: usize,
        /// What it is: `wait`, `signal`, `run`…
        command: &'static str,
    },
    /// A batch failed; what was left of it never runs.
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
        /// What was touched.
        kind: Kind,
        /// Which one.
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
