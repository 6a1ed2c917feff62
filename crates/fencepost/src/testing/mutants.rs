//! Devices that are wrong in one way each, around any backend's device.
//!
//! They use nothing but the contract, so they exist for every backend. A case that passes on a
//! mutant that it claims to kill proves nothing about any other device either.

use std::{
    any::Any,
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use super::{
    bytes::ByteCounterImpl,
    held,
    test_work::{Gate, Log, TestWork},
};
use crate::timeline::Point;
use crate::{
    clock::{Elapsed, Timestamp},
    contract::{Backend, DeviceImpl, DeviceRef, Look, MarkerImpl, Sample, StreamImpl},
    core::{DeviceCore, StreamCore, Work},
    deadlock,
    device::Device,
    error::{Error, Result},
    place::Place,
    timeline::{Awaited, Timeline},
};

/// One way in which a backend can be wrong.
///
/// ```
/// use fencepost::testing::Mutant;
/// assert_eq!(Mutant::WaitDoesNothing.to_string(), "WaitDoesNothing");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Mutant {
    /// A stream's wait holds nothing back.
    WaitDoesNothing,
    /// A stream's wait blocks the thread that asks for it.
    WaitBlocksTheCaller,
    /// A stream waits for the latest marker of the other stream, not for the one it was given.
    WaitForTheLatest,
    /// A stream that waits for a failed marker goes on as if nothing had happened.
    FailureStopsAtTheWait,
    /// Every marker says that it is complete.
    QueryAlwaysTrue,
    /// A failed marker says that it is pending.
    FailureLooksPending,
    /// Blocking on a marker returns at once.
    SynchronizeReturnsEarly,
    /// Blocking on a marker ignores the deadline.
    DeadlineIgnored,
    /// A recorded marker never reaches the device.
    RecordNotSubmitted,
    /// Recording waits until the marker is complete.
    RecordBlocks,
    /// A marker completes before the work in front of it.
    SignalBeforeTheWork,
    /// A marker has the time of the one before it.
    TimeOfTheWrongMarker,
    /// The time from a later to an earlier marker is 0 in place of a negative number.
    NegativeTimeClamped,
    /// Times are whole milliseconds, and do not say so.
    TimeTruncated,
    /// The next record forgets that the stream failed.
    FirstErrorForgotten,
    /// A correlation is off by an hour.
    CorrelationOff,
    /// A wait for the first of many tells of the one behind it in the list.
    FirstOfManyIsAnother,
    /// A wait for all of many forgets the last of the list.
    LastOfManyForgotten,
    /// A wait for many takes a failure for completion.
    FailureOfManySwallowed,
    /// A set that is waited for tells of the first of its markers again and again.
    SetTellsTheFirstAgain,
    /// A span of a stream ends before the work in it.
    SpanEndsEarly,
    /// An arrow of a trace begins where that of another wait does.
    ArrowOfAnotherWait,
}

impl Mutant {
    /// Every mutant.
    ///
    /// ```
    /// # use fencepost::testing::Mutant;
    /// assert!(Mutant::ALL.contains(&Mutant::QueryAlwaysTrue));
    /// ```
    pub const ALL: [Mutant; 22] = [
        Mutant::WaitDoesNothing,
        Mutant::WaitBlocksTheCaller,
        Mutant::WaitForTheLatest,
        Mutant::FailureStopsAtTheWait,
        Mutant::QueryAlwaysTrue,
        Mutant::FailureLooksPending,
        Mutant::SynchronizeReturnsEarly,
        Mutant::DeadlineIgnored,
        Mutant::RecordNotSubmitted,
        Mutant::RecordBlocks,
        Mutant::SignalBeforeTheWork,
        Mutant::TimeOfTheWrongMarker,
        Mutant::NegativeTimeClamped,
        Mutant::TimeTruncated,
        Mutant::FirstErrorForgotten,
        Mutant::CorrelationOff,
        Mutant::FirstOfManyIsAnother,
        Mutant::LastOfManyForgotten,
        Mutant::FailureOfManySwallowed,
        Mutant::SetTellsTheFirstAgain,
        Mutant::SpanEndsEarly,
        Mutant::ArrowOfAnotherWait,
    ];
}

impl fmt::Display for Mutant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// `device` with the defect that `mutant` names.
///
/// ```
/// use fencepost::{Device, Event, testing::{Mutant, mutated}};
/// let device = mutated(&Device::new_host(1), Mutant::RecordNotSubmitted);
/// let event = Event::new(&device);
/// event.record(&device.default_stream())?;
/// assert!(!event.query()?, "nothing was submitted before it, and still it is pending");
/// # Ok::<(), fencepost::Error>(())
/// ```
pub fn mutated(device: &Device, mutant: Mutant) -> Device {
    Device::new(DeviceRef::new(MutantDevice {
        inner: device.clone(),
        shared: Arc::new(Shared {
            mutant,
            latest: Mutex::new(HashMap::new()),
        }),
    }))
}

struct Shared {
    mutant: Mutant,
    /// The latest marker of each stream.
    latest: Mutex<HashMap<u64, Arc<dyn MarkerImpl>>>,
}

struct MutantDevice {
    inner: Device,
    shared: Arc<Shared>,
}

/// What is wrong with a device, if it is a mutant. Waits for many and traces are above the
/// backends, so the suite's own calls of them are wrong for it: see
/// [`Context`](super::context::Context).
pub(super) fn defect_of(device: &dyn DeviceImpl) -> Option<Mutant> {
    let device: &dyn Any = device;
    let device = device.downcast_ref::<MutantDevice>()?;
    Some(device.shared.mutant)
}

/// The device inside, if `device` is a mutant.
pub(super) fn wrapped_by(device: &dyn DeviceImpl) -> Option<&dyn DeviceImpl> {
    let device: &dyn Any = device;
    let mutant = device.downcast_ref::<MutantDevice>()?;
    Some(mutant.inner.imp())
}

/// The test work of a mutant around a device whose own is `inner`.
pub(super) fn work_around(inner: Arc<dyn TestWork>) -> Arc<dyn TestWork> {
    Arc::new(MutantWork(inner))
}

struct MutantStream {
    inner: Arc<dyn StreamImpl>,
    /// An idle stream, for markers that complete too early.
    idle: Arc<dyn StreamImpl>,
    shared: Arc<Shared>,
}

struct MutantMarker {
    inner: Arc<dyn MarkerImpl>,
    /// The marker before this one on its stream.
    before: Option<Arc<dyn MarkerImpl>>,
    mutant: Mutant,
}

impl MutantDevice {
    fn wrap(&self, inner: Arc<dyn StreamImpl>, idle: Arc<dyn StreamImpl>) -> Arc<dyn StreamImpl> {
        Arc::new(MutantStream {
            inner,
            idle,
            shared: self.shared.clone(),
        })
    }
}

impl DeviceImpl for MutantDevice {
    fn core(&self) -> &Arc<DeviceCore> {
        self.inner.imp().core()
    }

    fn backend(&self) -> Backend {
        self.inner.imp().backend()
    }

    fn uuid(&self) -> Option<[u8; 16]> {
        self.inner.imp().uuid()
    }

    fn check_can_hold(&self) -> Result<()> {
        self.inner.imp().check_can_hold()
    }

    fn prepare_thread(&self) {
        self.inner.imp().prepare_thread();
    }

    fn default_stream(&self) -> Arc<dyn StreamImpl> {
        let inner = self.inner.imp().default_stream();
        let idle = self
            .inner
            .imp()
            .new_stream()
            .unwrap_or_else(|_| inner.clone());
        self.wrap(inner, idle)
    }

    fn new_stream(&self) -> Result<Arc<dyn StreamImpl>> {
        Ok(self.wrap(
            self.inner.imp().new_stream()?,
            self.inner.imp().new_stream()?,
        ))
    }

    fn keep_time(&self) -> Result<Option<Arc<dyn Any + Send + Sync>>> {
        self.inner.imp().keep_time()
    }

    fn streams(&self) -> Vec<Arc<dyn StreamImpl>> {
        let streams = self.inner.imp().streams().into_iter();
        streams.map(|s| self.wrap(s.clone(), s)).collect()
    }

    fn correlate(&self, at: Place, look: Look<'_>) -> Result<Sample> {
        let mut sample = self.inner.imp().correlate(at, look)?;
        if self.shared.mutant == Mutant::CorrelationOff {
            sample.host += Duration::from_secs(3600);
        }
        Ok(sample)
    }
}

impl MutantStream {
    /// The backend's own marker that a mutant's marker wraps, if it wraps one.
    fn genuine(&self, marker: &Arc<dyn MarkerImpl>) -> Option<Arc<dyn MarkerImpl>> {
        let ours = (&**marker as &dyn Any).downcast_ref::<MutantMarker>()?;
        Some(ours.inner.clone())
    }

    fn wait_by(
        &self,
        marker: &Arc<dyn MarkerImpl>,
        wait: impl Fn(&Arc<dyn MarkerImpl>) -> Result<()>,
    ) -> Result<()> {
        let genuine = self.genuine(marker).unwrap_or_else(|| marker.clone());
        match self.shared.mutant {
            Mutant::WaitDoesNothing => Ok(()),
            Mutant::WaitBlocksTheCaller => {
                let _ = deadlock::block_on(&genuine, None);
                wait(&genuine)
            }
            Mutant::WaitForTheLatest => {
                let latest = self
                    .shared
                    .latest
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .get(&marker.point().timeline.stream.id)
                    .cloned();
                wait(&latest.unwrap_or(genuine))
            }
            Mutant::FailureStopsAtTheWait if genuine.query().is_err() => Ok(()),
            _ => wait(&genuine),
        }
    }
}

impl StreamImpl for MutantStream {
    fn core(&self) -> &Arc<StreamCore> {
        self.inner.core()
    }

    fn mark(&self, timing: bool, at: Place) -> Result<Arc<dyn MarkerImpl>> {
        let mutant = self.shared.mutant;
        if mutant == Mutant::FirstErrorForgotten {
            self.inner.clear_error()?;
        }
        let inner = match mutant {
            Mutant::SignalBeforeTheWork => self.idle.mark(timing, at)?,
            // Of a stream that does not exist: nothing completes it.
            Mutant::RecordNotSubmitted => {
                let timeline = Timeline::new(StreamCore::new(self.core().device.clone()), 0);
                held::marker(timeline, timing, at)
            }
            _ => self.inner.mark(timing, at)?,
        };
        if mutant == Mutant::RecordBlocks {
            inner.wait_until(None)?;
        }
        let mut latest = self
            .shared
            .latest
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let before = latest.insert(self.core().id, inner.clone());
        Ok(Arc::new(MutantMarker {
            inner,
            before,
            mutant,
        }))
    }

    fn wait(&self, marker: &Arc<dyn MarkerImpl>) -> Result<()> {
        self.wait_by(marker, |marker| self.inner.wait(marker))
    }

    fn check_may_wait(&self) -> Result<()> {
        self.inner.check_may_wait()
    }

    fn wait_foreign(&self, marker: &Arc<dyn MarkerImpl>) -> Result<()> {
        self.wait_by(marker, |marker| self.inner.wait_foreign(marker))
    }

    fn completed(&self) -> u64 {
        self.inner.completed()
    }

    fn failure(&self) -> Option<Error> {
        self.inner.failure()
    }

    fn clear_error(&self) -> Result<()> {
        self.inner.clear_error()
    }

    fn launch(&self, work: Work, at: Place) -> Result<()> {
        self.inner.launch(work, at)
    }
}

/// The backend's own test work, on the backend's own streams.
struct MutantWork(Arc<dyn TestWork>);

impl MutantWork {
    /// The backend's own stream that a mutant's stream wraps.
    fn genuine(stream: &dyn StreamImpl) -> &dyn StreamImpl {
        match (stream as &dyn Any).downcast_ref::<MutantStream>() {
            Some(ours) => &*ours.inner,
            None => stream,
        }
    }
}

impl TestWork for MutantWork {
    fn new_log(&self) -> Result<Log> {
        self.0.new_log()
    }

    fn gate(&self, stream: &dyn StreamImpl, at: Place) -> Result<Gate> {
        self.0.gate(Self::genuine(stream), at)
    }

    fn append(&self, stream: &dyn StreamImpl, log: &Log, token: u32) -> Result<()> {
        self.0.append(Self::genuine(stream), log, token)
    }

    fn fail(&self, stream: &dyn StreamImpl, text: &str) -> Result<()> {
        self.0.fail(Self::genuine(stream), text)
    }

    fn spin(&self, stream: &dyn StreamImpl, amount: u64) -> Result<()> {
        self.0.spin(Self::genuine(stream), amount)
    }

    fn shares_order(&self, one: &dyn StreamImpl, two: &dyn StreamImpl) -> bool {
        self.0.shares_order(Self::genuine(one), Self::genuine(two))
    }

    fn byte_counter(&self, capacity: usize) -> Result<Arc<dyn ByteCounterImpl>> {
        self.0.byte_counter(capacity)
    }
}

impl MutantMarker {
    /// The marker whose time this one has.
    fn timed(&self) -> &Arc<dyn MarkerImpl> {
        match (&self.before, self.mutant) {
            (Some(before), Mutant::TimeOfTheWrongMarker)
                if before.point().timing && matches!(before.query(), Ok(true)) =>
            {
                before
            }
            _ => &self.inner,
        }
    }
}

impl Awaited for MutantMarker {
    fn point(&self) -> &Point {
        self.inner.point()
    }

    fn query(&self) -> Result<bool> {
        match self.mutant {
            Mutant::QueryAlwaysTrue => Ok(true),
            Mutant::FailureLooksPending => Ok(self.inner.query().unwrap_or(false)),
            _ => self.inner.query(),
        }
    }
}

impl MarkerImpl for MutantMarker {
    fn wait_until(&self, deadline: Option<Instant>) -> Result<bool> {
        match self.mutant {
            Mutant::SynchronizeReturnsEarly => Ok(true),
            Mutant::DeadlineIgnored => self.inner.wait_until(None),
            _ => self.inner.wait_until(deadline),
        }
    }

    fn ensure_watched(&self) -> Result<()> {
        self.inner.ensure_watched()
    }

    fn timestamp(&self) -> Result<Timestamp> {
        self.timed().timestamp()
    }

    fn elapsed(&self, end: &dyn MarkerImpl) -> Result<Elapsed> {
        let end = match (end as &dyn Any).downcast_ref::<MutantMarker>() {
            Some(end) => &**end.timed(),
            None => end,
        };
        let elapsed = self.timed().elapsed(end)?;
        match self.mutant {
            Mutant::NegativeTimeClamped if elapsed.is_negative() => {
                self.inner.elapsed(&*self.inner)
            }
            Mutant::TimeTruncated => {
                let nanos = elapsed.as_millis_f64().trunc() * 1e6;
                Ok(Elapsed::new(nanos, elapsed.clock().clone()))
            }
            _ => Ok(elapsed),
        }
    }
}
