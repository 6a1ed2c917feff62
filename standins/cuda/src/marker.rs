//! Markers: the completion of everything submitted to a stream up to some point.

use crate::codes::CudaResult;
use crate::shared_event::SharedEvent;
use crate::sticky_error::StickyError;
use fencepost_sim::{Command, TimestampQuery};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A marker is complete once all work submitted to its stream before it is complete.
#[derive(Debug)]
pub(crate) struct Marker {
    done: AtomicBool,
    /// The sticky error of its context. Once that is set, a pending marker never completes.
    sticky_error: Arc<StickyError>,
    pub(crate) query: Option<TimestampQuery>,
    /// For a record that another process may have made: the shared event and the record's number.
    shared: Option<(Arc<SharedEvent>, u64)>,
}

impl Marker {
    pub(crate) fn new(
        sticky_error: &Arc<StickyError>,
        query: Option<TimestampQuery>,
    ) -> Arc<Marker> {
        Arc::new(Marker {
            done: AtomicBool::new(false),
            sticky_error: sticky_error.clone(),
            query,
            shared: None,
        })
    }

    pub(crate) fn of_shared_event(
        sticky_error: &Arc<StickyError>,
        event: Arc<SharedEvent>,
        record: u64,
    ) -> Arc<Marker> {
        Arc::new(Marker {
            done: AtomicBool::new(false),
            sticky_error: sticky_error.clone(),
            query: None,
            shared: Some((event, record)),
        })
    }

    pub(crate) fn complete(&self) {
        self.done.store(true, Ordering::SeqCst);
    }

    /// Whether another process may complete it. That wakes no thread of this process.
    pub(crate) fn is_shared(&self) -> bool {
        self.shared.is_some()
    }

    fn is_complete(&self) -> bool {
        let shared = self.shared.as_ref();
        self.done.load(Ordering::SeqCst)
            || shared.is_some_and(|(event, record)| event.is_complete(*record))
    }

    /// `None` while it is pending.
    pub(crate) fn result(&self) -> Option<CudaResult> {
        if self.is_complete() {
            return Some(Ok(()));
        }
        self.sticky_error.check().err().map(Err)
    }

    /// Whether it is complete, or its context has failed. Either ends the waits for it, so that no
    /// stream of another context hangs.
    pub(crate) fn settled(&self) -> bool {
        self.result().is_some()
    }

    /// A command that waits for it.
    pub(crate) fn wait(self: &Arc<Marker>) -> Command {
        let marker = self.clone();
        Command::wait_until(move || marker.settled())
    }
}
