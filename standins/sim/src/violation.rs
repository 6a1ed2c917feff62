//! Uses of the device that its API forbids.

use crate::ObjectKind;

/// A use of the device that its API forbids. Real drivers may ignore it, crash or hang; the
/// simulated device records it and continues.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// A signal has a value that is not greater than the semaphore's.
    #[error(
        "semaphore {semaphore} is at {current} and was signalled with {value}, which is not greater"
    )]
    ValueNotGreater {
        /// The semaphore.
        semaphore: u64,
        /// Its value, which does not change.
        current: u64,
        /// The value of the signal.
        value: u64,
    },
    /// A destroyed object was used.
    #[error("{kind} {id} was used after it was destroyed: {by}")]
    UsedAfterDestroy {
        /// What the object was.
        kind: ObjectKind,
        /// Its number.
        id: u64,
        /// The call that used it.
        by: &'static str,
    },
    /// An object was destroyed while pending work uses it.
    #[error("{kind} {id} was destroyed while pending work uses it")]
    DestroyedInUse {
        /// What the object was.
        kind: ObjectKind,
        /// Its number.
        id: u64,
    },
    /// The host reset a query that pending work uses.
    #[error("query {query} was reset by the host while pending work uses it")]
    ResetInUse {
        /// The query.
        query: u64,
    },
    /// A timestamp was written to a query that already holds one.
    #[error("query {query} was written again without a reset")]
    QueryNotReset {
        /// The query, which keeps its first timestamp.
        query: u64,
    },
    /// A recorded command buffer was submitted again where that is not allowed.
    #[error("recording {recording} was submitted again: {why}")]
    DoubleSubmit {
        /// The recording.
        recording: u64,
        /// The rule that the submit breaks.
        why: &'static str,
    },
    /// A timestamp was written on a device whose clock has no valid bits.
    #[error("a timestamp was written on a device without timestamps")]
    NoTimestamps,
    /// A handler panicked. Real drivers end the process.
    #[error("a handler panicked: {text}")]
    HandlerPanicked {
        /// The panic's message.
        text: String,
    },
    /// A violation that a stand-in built on the simulated device has found.
    #[error("{0}")]
    Reported(String),
}
