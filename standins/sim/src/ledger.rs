//! What lives, and what the tests' code did wrong.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// What an object of the simulated device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A queue, counted until its last handle is gone.
    Queue,
    /// A timeline semaphore.
    Semaphore,
    /// A binary event.
    Flag,
    /// A place for one timestamp.
    Slot,
    /// Work that is held till the test opens it.
    Gate,
    /// The identity of a recorded command buffer.
    Recording,
    /// A callback that has been handed over and has neither run nor been dropped.
    Handler,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Queue => "queue",
            Kind::Semaphore => "semaphore",
            Kind::Flag => "flag",
            Kind::Slot => "slot",
            Kind::Gate => "gate",
            Kind::Recording => "recording",
            Kind::Handler => "handler",
        })
    }
}

/// How many objects of each kind are alive. A leak test compares it with `Live::default()`.
///
/// An object lives until it is destroyed, or until its last handle is gone and no pending work uses
/// it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Live {
    /// Queues with a handle.
    pub queues: usize,
    /// Semaphores.
    pub semaphores: usize,
    /// Flags.
    pub flags: usize,
    /// Timestamp slots.
    pub slots: usize,
    /// Gates.
    pub gates: usize,
    /// Recordings.
    pub recordings: usize,
    /// Handlers neither run nor dropped.
    pub handlers: usize,
}

/// A use of the device that its API forbids. Real drivers may ignore it, crash or hang; the
/// simulated device writes it down and carries on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// A timeline value was to be signalled that is not greater than the present one.
    #[error(
        "semaphore {semaphore} is at {current} and was signalled with {value}, which is not greater"
    )]
    ValueNotGreater {
        /// The semaphore.
        semaphore: u64,
        /// Its value, which stays.
        current: u64,
        /// The value refused.
        value: u64,
    },
    /// A destroyed object was used.
    #[error("{kind} {id} was used after it was destroyed: {by}")]
    UsedAfterDestroy {
        /// What it was.
        kind: Kind,
        /// Which one.
        id: u64,
        /// The call.
        by: &'static str,
    },
    /// An object was destroyed while pending work uses it.
    #[error("{kind} {id} was destroyed while pending work uses it")]
    DestroyedInUse {
        /// What it was.
        kind: Kind,
        /// Which one.
        id: u64,
    },
    /// The host reset a slot that pending work is going to write.
    #[error("slot {slot} was reset by the host while pending work uses it")]
    ResetInUse {
        /// The slot.
        slot: u64,
    },
    /// A timestamp was written to a slot that still holds one.
    #[error("slot {slot} was written again without a reset")]
    SlotNotReset {
        /// The slot, which keeps its first timestamp.
        slot: u64,
    },
    /// A recorded command buffer was submitted again where that is not allowed.
    #[error("recording {recording} was submitted again: {why}")]
    DoubleSubmit {
        /// The recording.
        recording: u64,
        /// Which rule it breaks.
        why: &'static str,
    },
    /// A timestamp was asked of a device whose clock has no valid bits.
    #[error("a timestamp was written on a device without timestamps")]
    NoTimestamps,
    /// A handler panicked; drivers end the process there.
    #[error("a handler panicked: {text}")]
    HandlerPanicked {
        /// What it said.
        text: String,
    },
    /// Found by a face that stands on the simulated device.
    #[error("{0}")]
    Reported(String),
}

/// One per machine. Its locks are leaves: nothing else is locked while they are held, so that
/// objects may be dropped anywhere.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    live: [AtomicUsize; 7],
    next_id: AtomicU64,
    violations: Mutex<Vec<Violation>>,
}

impl Ledger {
    pub(crate) fn report(&self, violation: Violation) {
        self.violations
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(violation);
    }

    pub(crate) fn violations(&self) -> Vec<Violation> {
        self.violations
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(crate) fn live(&self) -> Live {
        let count = |kind: Kind| self.live[kind as usize].load(Ordering::SeqCst);
        Live {
            queues: count(Kind::Queue),
            semaphores: count(Kind::Semaphore),
            flags: count(Kind::Flag),
            slots: count(Kind::Slot),
            gates: count(Kind::Gate),
            recordings: count(Kind::Recording),
            handlers: count(Kind::Handler),
        }
    }
}

/// The part every object has: its number, its place in the counts, and who uses it.
#[derive(Debug)]
pub(crate) struct Object {
    ledger: Arc<Ledger>,
    kind: Kind,
    id: u64,
    device: usize,
    uses: AtomicUsize,
    destroyed: AtomicBool,
}

impl Object {
    pub(crate) fn new(ledger: &Arc<Ledger>, kind: Kind, device: usize) -> Arc<Object> {
        ledger.live[kind as usize].fetch_add(1, Ordering::SeqCst);
        let id = ledger.next_id.fetch_add(1, Ordering::SeqCst);
        Arc::new(Object {
            ledger: ledger.clone(),
            kind,
            id,
            device,
            uses: AtomicUsize::new(0),
            destroyed: AtomicBool::new(false),
        })
    }

    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    pub(crate) fn device(&self) -> usize {
        self.device
    }

    pub(crate) fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
    }

    pub(crate) fn in_use(&self) -> bool {
        self.uses.load(Ordering::SeqCst) > 0
    }

    /// False, with the misuse written down, once the object was destroyed.
    pub(crate) fn check(&self, by: &'static str) -> bool {
        let destroyed = self.destroyed.load(Ordering::SeqCst);
        if destroyed {
            self.ledger.report(Violation::UsedAfterDestroy {
                kind: self.kind,
                id: self.id,
                by,
            });
        }
        !destroyed
    }

    pub(crate) fn destroy(&self) {
        if self.destroyed.swap(true, Ordering::SeqCst) {
            self.ledger.report(Violation::UsedAfterDestroy {
                kind: self.kind,
                id: self.id,
                by: "destroy",
            });
            return;
        }
        self.ledger.live[self.kind as usize].fetch_sub(1, Ordering::SeqCst);
        if self.in_use() {
            self.ledger.report(Violation::DestroyedInUse {
                kind: self.kind,
                id: self.id,
            });
        }
    }
}

impl Drop for Object {
    fn drop(&mut self) {
        if !*self.destroyed.get_mut() {
            self.ledger.live[self.kind as usize].fetch_sub(1, Ordering::SeqCst);
        }
    }
}

/// Held by pending work for each object it names.
#[derive(Debug)]
pub(crate) struct Use(Arc<Object>);

impl Use {
    pub(crate) fn of(object: &Arc<Object>) -> Use {
        object.uses.fetch_add(1, Ordering::SeqCst);
        Use(object.clone())
    }
}

impl Drop for Use {
    fn drop(&mut self) {
        self.0.uses.fetch_sub(1, Ordering::SeqCst);
    }
}
