//! The objects of a simulated machine: their numbers, how many are alive, and which are in use.

use crate::Violation;
use crate::lock;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// What an object of a simulated device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ObjectKind {
    /// A queue, counted until its last handle is dropped.
    Queue,
    /// A timeline semaphore.
    Semaphore,
    /// A binary event.
    Flag,
    /// A timestamp query.
    Query,
    /// Work that runs until the test opens it.
    Gate,
    /// The identity of a recorded command buffer.
    Recording,
    /// A callback that has been registered and has neither run nor been dropped.
    Handler,
}

impl fmt::Display for ObjectKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ObjectKind::Queue => "queue",
            ObjectKind::Semaphore => "semaphore",
            ObjectKind::Flag => "flag",
            ObjectKind::Query => "query",
            ObjectKind::Gate => "gate",
            ObjectKind::Recording => "recording",
            ObjectKind::Handler => "handler",
        })
    }
}

/// Which queue: its device's number on the machine, and its index in the order of creation on that
/// device. Both count from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueueId {
    /// The device's number.
    pub device: usize,
    /// The queue's index among all queues ever made on that device.
    pub index: usize,
}

impl fmt::Display for QueueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "queue {}.{}", self.device, self.index)
    }
}

/// How many objects of each kind are alive. A leak test compares it with `Live::default()`.
///
/// An object lives until it is destroyed, or until its last handle is dropped and no pending work
/// uses it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Live {
    /// Queues with a handle.
    pub queues: usize,
    /// Semaphores.
    pub semaphores: usize,
    /// Flags.
    pub flags: usize,
    /// Timestamp queries.
    pub queries: usize,
    /// Gates.
    pub gates: usize,
    /// Recordings.
    pub recordings: usize,
    /// Handlers neither run nor dropped.
    pub handlers: usize,
}

/// Counts the objects of one machine and records its violations.
///
/// Its locks are leaves: no other lock is taken while one of them is held, so an object may be
/// dropped anywhere.
#[derive(Debug, Default)]
pub(crate) struct ObjectTracker {
    live: [AtomicUsize; 7],
    next_id: AtomicU64,
    violations: Mutex<Vec<Violation>>,
}

impl ObjectTracker {
    pub(crate) fn report(&self, violation: Violation) {
        lock(&self.violations).push(violation);
    }

    pub(crate) fn violations(&self) -> Vec<Violation> {
        lock(&self.violations).clone()
    }

    pub(crate) fn live(&self) -> Live {
        let count = |kind: ObjectKind| self.live[kind as usize].load(Ordering::SeqCst);
        Live {
            queues: count(ObjectKind::Queue),
            semaphores: count(ObjectKind::Semaphore),
            flags: count(ObjectKind::Flag),
            queries: count(ObjectKind::Query),
            gates: count(ObjectKind::Gate),
            recordings: count(ObjectKind::Recording),
            handlers: count(ObjectKind::Handler),
        }
    }
}

/// What every object has: a number, its place in the counts, and how many pieces of work use it.
#[derive(Debug)]
pub(crate) struct Object {
    tracker: Arc<ObjectTracker>,
    kind: ObjectKind,
    id: u64,
    device: usize,
    uses: AtomicUsize,
    destroyed: AtomicBool,
}

impl Object {
    pub(crate) fn new(
        tracker: &Arc<ObjectTracker>,
        kind: ObjectKind,
        device: usize,
    ) -> Arc<Object> {
        tracker.live[kind as usize].fetch_add(1, Ordering::SeqCst);
        let id = tracker.next_id.fetch_add(1, Ordering::SeqCst);
        Arc::new(Object {
            tracker: tracker.clone(),
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

    pub(crate) fn kind(&self) -> ObjectKind {
        self.kind
    }

    pub(crate) fn device(&self) -> usize {
        self.device
    }

    pub(crate) fn tracker(&self) -> &Arc<ObjectTracker> {
        &self.tracker
    }

    pub(crate) fn in_use(&self) -> bool {
        self.uses.load(Ordering::SeqCst) > 0
    }

    /// Whether the object is not destroyed. A destroyed one is reported as a violation.
    pub(crate) fn check(&self, by: &'static str) -> bool {
        let destroyed = self.destroyed.load(Ordering::SeqCst);
        if destroyed {
            self.tracker.report(Violation::UsedAfterDestroy {
                kind: self.kind,
                id: self.id,
                by,
            });
        }
        !destroyed
    }

    pub(crate) fn destroy(&self) {
        if self.destroyed.swap(true, Ordering::SeqCst) {
            self.tracker.report(Violation::UsedAfterDestroy {
                kind: self.kind,
                id: self.id,
                by: "destroy",
            });
            return;
        }
        self.tracker.live[self.kind as usize].fetch_sub(1, Ordering::SeqCst);
        if self.in_use() {
            self.tracker.report(Violation::DestroyedInUse {
                kind: self.kind,
                id: self.id,
            });
        }
    }
}

impl Drop for Object {
    fn drop(&mut self) {
        if !*self.destroyed.get_mut() {
            self.tracker.live[self.kind as usize].fetch_sub(1, Ordering::SeqCst);
        }
    }
}

/// One use of an object by pending work. The object is in use while one of these exists.
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
