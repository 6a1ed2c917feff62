//! Why a call on the simulated device failed.

use crate::Kind;

/// Why a call failed. Faces translate it into their API's error codes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The device was lost, by a fault or a sticky failure: every later call on it says so.
    #[error("the device is lost: {0}")]
    DeviceLost(String),
    /// The last handle of the device was dropped; its pending work was thrown away.
    #[error("the device was closed")]
    DeviceClosed,
    /// No memory for a new object (only when a fault says so).
    #[error("out of memory")]
    OutOfMemory,
    /// The submit was refused by a fault; nothing of it runs.
    #[error("the submit failed")]
    SubmitFailed,
    /// The queue holds as many unfinished batches as it may.
    #[error("the queue is full: {0} batches are pending")]
    QueueFull(usize),
    /// An earlier failure sticks to the queue.
    #[error("the queue has failed: {0}")]
    QueueFailed(String),
    /// The object was destroyed before this call.
    #[error("the {0} was destroyed")]
    Destroyed(Kind),
    /// The object belongs to a device whose objects this one cannot use.
    #[error("the {0} belongs to another device")]
    OtherDevice(Kind),
    /// The recording may not be submitted now.
    #[error("the recording was submitted before")]
    AlreadySubmitted,
    /// A field of [`Config`](crate::Config) has a value that no device has.
    #[error("bad configuration: {0}")]
    BadConfig(&'static str),
}

/// How a wait with a timeout ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Waited {
    /// What was waited for has happened.
    Reached,
    /// The time was up first.
    TimedOut,
}
