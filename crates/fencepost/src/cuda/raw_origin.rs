//! Where a raw event was recorded, for the arrows of traces.
//!
//! Others may record the event too, which nobody here is told of: then an arrow begins where it was
//! last recorded through this library. Nothing is noted while nobody observes.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use crate::{
    core::StreamCore,
    observe::{self, Wait},
    sync::{Mutex, lock},
};

/// The last point at which a raw event was recorded, if that is known.
pub(super) struct Origin {
    /// Whether there is a point, to be looked at without the lock.
    is_known: AtomicBool,
    point: Mutex<Option<StreamPoint>>,
}

/// A point of a stream, by the last value in front of it.
#[derive(Clone)]
pub(super) struct StreamPoint {
    pub(super) stream: Arc<StreamCore>,
    pub(super) after: u64,
}

impl Origin {
    pub(super) fn new(point: Option<StreamPoint>) -> Origin {
        Origin {
            is_known: AtomicBool::new(point.is_some()),
            point: Mutex::new(point),
        }
    }

    /// The event was recorded on `stream`; on none where it became a node of a graph, which has no
    /// place on a stream.
    #[inline]
    pub(super) fn is_recorded(&self, stream: Option<&Arc<StreamCore>>) {
        let is_observed = observe::any();
        if is_observed || self.is_known.load(Ordering::Relaxed) {
            let stream = stream.filter(|_| is_observed);
            self.note(stream.map(|stream| StreamPoint {
                stream: stream.clone(),
                after: stream.recorded.load(Ordering::Acquire),
            }));
        }
    }

    #[cold]
    fn note(&self, point: Option<StreamPoint>) {
        let mut known = lock(&self.point);
        self.is_known.store(point.is_some(), Ordering::Relaxed);
        let before = std::mem::replace(&mut *known, point);
        drop(known);
        drop(before);
    }

    /// Tells who observes that `stream` waits for the event, from now on.
    #[inline]
    pub(super) fn is_awaited(&self, stream: &Arc<StreamCore>) {
        if observe::any() && self.is_known.load(Ordering::Relaxed) {
            self.tell(stream);
        }
    }

    #[cold]
    fn tell(&self, waiting: &Arc<StreamCore>) {
        let point = lock(&self.point).clone();
        if let Some(point) = point {
            observe::waits(&Wait {
                awaited: &point.stream,
                value: point.after,
                waiting,
                after: waiting.recorded.load(Ordering::Acquire),
            });
        }
    }
}
