//! The state of a marker whose work the caller submits: it is reserved first, and the
//! [`Reservation`](crate::Reservation) then says what became of the work.
//!
//! | `State` | meaning | later |
//! |---|---|---|
//! | `RESERVED` | nobody has said that the work is submitted | one of the other two |
//! | `SUBMITTED` | the marker is pending or complete | stays |
//! | `ABANDONED` | the work is never submitted | stays |

use std::sync::Arc;

use crate::{
    contract::MarkerImpl,
    error::{Error, Result},
    sync::{AtomicUsize, Ordering},
    timeline::Point,
};

/// Shared by a reservation and its marker.
pub(crate) struct State(AtomicUsize);

const RESERVED: usize = 0;
const SUBMITTED: usize = 1;
const ABANDONED: usize = 2;

impl State {
    pub(crate) fn reserved() -> Arc<State> {
        Arc::new(State(AtomicUsize::new(RESERVED)))
    }

    pub(crate) fn submitted(&self) {
        self.0.store(SUBMITTED, Ordering::Release);
    }

    pub(crate) fn abandoned(&self) {
        self.0.store(ABANDONED, Ordering::Release);
    }

    /// An error unless the work of `marker` is known to be submitted.
    pub(super) fn check(&self, marker: &Point) -> Result<()> {
        let marker = || marker.to_string();
        match self.0.load(Ordering::Acquire) {
            SUBMITTED => Ok(()),
            ABANDONED => Err(Error::Abandoned { marker: marker() }),
            _ => Err(Error::NotSubmitted { marker: marker() }),
        }
    }

    pub(crate) fn is_submitted(&self) -> bool {
        self.0.load(Ordering::Acquire) == SUBMITTED
    }
}

/// What a reservation is made of.
pub(crate) struct Reserved {
    pub(crate) marker: Arc<dyn MarkerImpl>,
    pub(crate) state: Arc<State>,
    /// Lets the backend take back what the work would have used.
    pub(crate) abandon: Box<dyn FnOnce() + Send + Sync>,
}

impl Reserved {
    #[cfg_attr(loom, allow(dead_code))]
    pub(crate) fn new(
        marker: Arc<dyn MarkerImpl>,
        state: Arc<State>,
        abandon: impl FnOnce() + Send + Sync + 'static,
    ) -> Reserved {
        Reserved {
            marker,
            state,
            abandon: Box::new(abandon),
        }
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use crate::sync::thread;

    #[test]
    fn a_submission_is_seen_by_other_threads() {
        loom::model(|| {
            let state = State::reserved();
            let seen = {
                let state = state.clone();
                thread::spawn(move || state.is_submitted())
            };
            state.submitted();
            // Either answer is right during the call; afterwards only one is.
            let _ = seen.join().unwrap();
            assert!(state.is_submitted());
        });
    }
}
