//! Recordings: the identities of recorded command buffers.

use crate::object::Object;
use crate::{Error, Violation};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// How often a recorded command buffer may be submitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reuse {
    /// Once: a Metal command buffer, or a Vulkan one recorded for one submit.
    Once,
    /// Again as soon as the earlier submit is complete: any other Vulkan command buffer.
    WhenComplete,
}

/// The identity of a recorded command buffer. Pass it to
/// [`Submission::recording`](crate::Submission::recording), so that a double submit is found.
/// Cheap to clone; all clones are the same recording.
#[derive(Clone, Debug)]
pub struct Recording {
    pub(crate) object: Arc<Object>,
    reuse: Reuse,
    submits: Arc<AtomicU64>,
}

impl Recording {
    pub(crate) fn new(object: Arc<Object>, reuse: Reuse) -> Recording {
        Recording {
            object,
            reuse,
            submits: Arc::default(),
        }
    }

    /// The number by which violations name it.
    pub fn id(&self) -> u64 {
        self.object.id()
    }

    pub(crate) fn check_submit(&self) -> Result<(), Error> {
        let why = match self.reuse {
            Reuse::Once if self.submits.load(Ordering::SeqCst) > 0 => "it may be submitted once",
            Reuse::WhenComplete if self.object.in_use() => "its earlier submit is still pending",
            _ => return Ok(()),
        };
        self.object.tracker().report(Violation::DoubleSubmit {
            recording: self.id(),
            why,
        });
        Err(Error::AlreadySubmitted)
    }

    pub(crate) fn count_submit(&self) {
        self.submits.fetch_add(1, Ordering::SeqCst);
    }
}
