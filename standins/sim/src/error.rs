//! Why a call on the simulated device failed.

use crate::ObjectKind;

/// Why a call failed. Stand-ins translate it into their API's error codes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The device was lost, by a fault or a sticky failure. Every later call on it fails with this.
    #[error("the device is lost: {0}")]
    DeviceLost(String),
    /// The last handle of the device was dropped, and its pending work with it.
    #[error("the device was closed")]
    DeviceClosed,
    /// There is no memory for a new object. Only a planned fault causes this.
    #[error("out of memory")]
    OutOfMemory,
    /// A planned fault refused the submit. None of its commands run.
    #[error("the submit failed")]
    SubmitFailed,
    /// The queue has as many pending batches as it may.
    #[error("the queue is full: {0} batches are pending")]
    QueueFull(usize),
    /// An earlier failure sticks to the queue.
    #[error("the queue has failed: {0}")]
    QueueFailed(String),
    /// The object was destroyed before this call.
    #[error("the {0} was destroyed")]
    Destroyed(ObjectKind),
    /// The object belongs to a device that does not share its objects with this one.
    #[error("the {0} belongs to another device")]
    OtherDevice(ObjectKind),
    /// The recording may not be submitted now.
    #[error("the recording was submitted before")]
    AlreadySubmitted,
    /// A field of [`Config`](crate::Config) has a value that no device can have.
    #[error("bad configuration: {0}")]
    BadConfig(&'static str),
}

/// How a wait with a timeout ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Waited {
    /// The awaited thing happened.
    Reached,
    /// The timeout ran out first.
    TimedOut,
}
