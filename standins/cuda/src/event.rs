//! Events.

use crate::codes::CudaResult;
use crate::context::Context;
use crate::marker::Marker;
use crate::shared_event::SharedEvent;
use crate::types::CU_EVENT_DISABLE_TIMING;
use fencepost_sim::TimestampQuery;
use fencepost_sim::lock;
use std::ffi::c_uint;
use std::sync::{Arc, Mutex};

/// The latest record of an event.
#[derive(Clone, Debug)]
pub(crate) enum EventState {
    Unrecorded,
    Recorded(Arc<Marker>),
    /// Last recorded in a capture, behind these nodes.
    Captured {
        capture: u64,
        nodes: Vec<usize>,
    },
}

/// An event. All clones are the same event: a graph keeps one for each of its records and waits.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) context: Arc<Context>,
    pub(crate) flags: c_uint,
    state: Arc<Mutex<EventState>>,
    /// For an interprocess event, the part that it shares with other processes.
    pub(crate) shared: Option<Arc<SharedEvent>>,
}

impl Event {
    pub(crate) fn new(
        context: Arc<Context>,
        flags: c_uint,
        shared: Option<Arc<SharedEvent>>,
    ) -> Event {
        Event {
            context,
            flags,
            state: Arc::new(Mutex::new(EventState::Unrecorded)),
            shared,
        }
    }

    pub(crate) fn state(&self) -> EventState {
        let own = lock(&self.state);
        match (&*own, &self.shared) {
            // another process may have made the latest record
            (EventState::Unrecorded | EventState::Recorded(_), Some(shared)) => {
                match shared.recorded() {
                    0 => EventState::Unrecorded,
                    record => EventState::Recorded(Marker::of_shared_event(
                        &self.context.sticky_error,
                        shared.clone(),
                        record,
                    )),
                }
            }
            (own, _) => own.clone(),
        }
    }

    pub(crate) fn set_state(&self, state: EventState) {
        *lock(&self.state) = state;
    }

    /// The query for the timestamp of a record; `None` for an event without timing.
    pub(crate) fn new_query(&self) -> CudaResult<Option<TimestampQuery>> {
        if self.flags & CU_EVENT_DISABLE_TIMING != 0 {
            return Ok(None);
        }
        let query = self.context.device.new_query();
        query
            .map(Some)
            .map_err(|error| self.context.code_of(&error))
    }
}
