//! Markers of work that its owner submits, at a time that only the owner knows.
//!
//! | `state` | meaning | who moves it on |
//! |---|---|---|
//! | `Reserved` | not submitted, as far as anybody was told | the one [`Reservation`](crate::Reservation) |
//! | `Submitted` | submitted: it is pending or complete | nobody |
//! | `Abandoned` | never to be submitted | nobody |

use std::{sync::Arc, time::Instant};

use super::{CountedMarker, Counter};
use crate::contract::MarkerImpl;
use crate::timeline::{Awaited, Point};
use crate::{
    clock::{Elapsed, Timestamp},
    error::{Error, Result},
    sync::{AtomicUsize, Ordering},
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

/// A marker with a counter of its own, that counts once.
pub(crate) struct ReservedMarker<C: Counter> {
    pub(crate) inner: CountedMarker<C>,
    state: Arc<State>,
}

impl<C: Counter> ReservedMarker<C> {
    pub(crate) fn new(inner: CountedMarker<C>, state: Arc<State>) -> ReservedMarker<C> {
        ReservedMarker { inner, state }
    }

    /// The marker, if it is known to be submitted.
    pub(crate) fn submitted(&self) -> Result<&CountedMarker<C>> {
        match self.state.0.load(Ordering::Acquire) {
            SUBMITTED => Ok(&self.inner),
            ABANDONED => Err(Error::Abandoned {
                marker: self.point().to_string(),
            }),
            _ => Err(Error::NotSubmitted {
                marker: self.point().to_string(),
            }),
        }
    }
}

impl<C: Counter> Awaited for ReservedMarker<C> {
    fn point(&self) -> &Point {
        self.inner.point()
    }

    fn query(&self) -> Result<bool> {
        match self.submitted() {
            Ok(inner) => inner.query(),
            Err(Error::NotSubmitted { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

impl<C: Counter> MarkerImpl for ReservedMarker<C> {
    fn is_known_complete(&self) -> bool {
        self.state.is_submitted() && self.inner.is_known_complete()
    }

    fn wait_until(&self, deadline: Option<Instant>) -> Result<bool> {
        self.submitted()?.wait_until(deadline)
    }

    fn ensure_watched(&self) -> Result<()> {
        self.submitted()?.ensure_watched()
    }

    fn timestamp(&self) -> Result<Timestamp> {
        self.submitted()?.timestamp()
    }

    fn elapsed(&self, end: &dyn MarkerImpl) -> Result<Elapsed> {
        let end: &dyn std::any::Any = end;
        let inner = self.submitted()?;
        match end.downcast_ref::<ReservedMarker<C>>() {
            Some(end) => inner.elapsed(end.submitted()?),
            None => match end.downcast_ref::<CountedMarker<C>>() {
                Some(end) => inner.elapsed(end),
                None => Err(Error::DeviceMismatch {
                    call: "elapsed",
                    left: self.point().to_string(),
                    right: "a marker of another kind".into(),
                }),
            },
        }
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use crate::sync::thread;

    #[test]
    fn what_is_told_is_seen_by_others() {
        loom::model(|| {
            let state = State::reserved();
            let seen = {
                let state = state.clone();
                thread::spawn(move || state.is_submitted())
            };
            state.submitted();
            // Either answer is right while it is being told; afterwards only one.
            let _ = seen.join().unwrap();
            assert!(state.is_submitted());
        });
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::panic::Location;

    use super::*;
    use crate::{
        clock::host_clock,
        core::{Callbacks, DeviceCore, Job, StreamCore},
        epochs::{Time, ValueAllocator},
    };

    struct Never;
    impl Callbacks for Never {
        fn call(&self, _: Job) {}
        fn panics(&self) -> u64 {
            0
        }
    }

    /// A time that tells more beside its like than alone, as one of a family with more valid bits
    /// than others have.
    struct Ticks(u64);
    impl Time for Ticks {
        fn timestamp(&self) -> Result<Timestamp> {
            Ok(Timestamp::new(self.0 & 0xf, host_clock()))
        }
        fn elapsed(&self, end: &Ticks) -> Result<Elapsed> {
            Ok(host_clock().between(64, self.0, end.0))
        }
    }

    struct Done;
    impl Counter for Done {
        type Time = Ticks;
        fn read(&self) -> Result<u64> {
            Ok(1)
        }
        fn wait(&self, _: &crate::epochs::Epoch, _: u64, _: Option<Instant>) -> Result<()> {
            Ok(())
        }
        fn watch(self: &Arc<Self>, _: &Arc<crate::epochs::Epoch>, _: u64) -> Result<()> {
            Ok(())
        }
    }

    #[test]
    fn times_are_compared_whole_whichever_marker_is_reserved() {
        let device = DeviceCore::new("", host_clock(), Arc::new(Never));
        let marker = |ticks| {
            let values = ValueAllocator::new(StreamCore::new(device.clone()));
            let time = |_| Ok::<_, Error>(Some(Ticks(ticks)));
            let place = values.record(time).unwrap();
            CountedMarker::new(Arc::new(Done), place, true, Location::caller())
        };
        let reserved = |ticks| {
            let state = State::reserved();
            state.submitted();
            ReservedMarker::new(marker(ticks), state)
        };
        for elapsed in [
            marker(1).elapsed(&marker(21)),
            reserved(1).elapsed(&marker(21)),
            reserved(1).elapsed(&reserved(21)),
            marker(1).elapsed(&reserved(21)),
        ] {
            assert_eq!(elapsed.unwrap().as_nanos_f64(), 20.0);
        }
    }
}
