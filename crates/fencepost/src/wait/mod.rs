//! Waiting for many: the first of them, or all.

use std::{sync::Arc, time::Duration, time::Instant};

use crate::{
    contract::{MarkerImpl, TimelineKnowledge},
    deadlock::{self, Over},
    error::{Error, Result},
    event::Event,
    explain,
    marker::Marker,
    timeline::Reached,
};

mod addresses;
mod heads;
mod inbox;
mod set;

use addresses::ByTimeline;
use heads::Heads;
use inbox::{Ended, Number};
pub use set::WaitSet;

/// What a thread can wait for together with others: a [`Marker`], an [`Event`], CUDA's
/// `cuda::RawEvent`, and references to them.
///
/// Of an event it is the marker that the event holds when the wait begins. One that was never
/// recorded is complete. No other crate can implement it.
///
/// For a list of several kinds, name the trait at its first member:
///
/// ```
/// use fencepost::{Device, Event, Waitable, synchronize_all};
/// let device = Device::open("host")?;
/// let stream = device.new_stream()?;
/// let (event, marker) = (Event::new(&device), stream.record()?);
/// event.record(&stream)?;
/// synchronize_all([&event as &dyn Waitable, &marker])?;
/// # Ok::<(), fencepost::Error>(())
/// ```
pub trait Waitable: Sealed {}

impl<T: Sealed + ?Sized> Waitable for T {}

mod sealed {
    use std::sync::Arc;

    use crate::{contract::MarkerImpl, error::Result};

    /// A marker that is waited for.
    // Nobody else can name it.
    #[allow(missing_debug_implementations)]
    pub struct Target(pub(super) Arc<dyn MarkerImpl>);

    pub trait Sealed {
        /// The marker, whether it has ended or not; none where there is none, or where it is known
        /// to be complete and has no place among others of its stream.
        fn target(&self) -> Result<Option<Target>>;

        /// As [`target`](Sealed::target), but none where the marker is known to be complete.
        fn pending(&self) -> Result<Option<Target>> {
            super::pending(self.target()?)
        }

        /// The name of the event.
        fn event_name(&self) -> Option<String>;
    }
}

use sealed::{Sealed, Target};

impl Sealed for Marker {
    fn target(&self) -> Result<Option<Target>> {
        Ok(Some(Target(self.imp().clone())))
    }

    fn event_name(&self) -> Option<String> {
        None
    }
}

impl Sealed for Event {
    fn target(&self) -> Result<Option<Target>> {
        match self.device().core().check_fork() {
            Ok(()) => Ok(self.marker().map(|marker| Target(marker.imp().clone()))),
            // A thread of the parent may hold the lock of the slot.
            Err(_) if self.peek() == Some(true) => Ok(None),
            Err(forked) => Err(forked),
        }
    }

    fn pending(&self) -> Result<Option<Target>> {
        match self.peek() {
            Some(true) => Ok(None),
            _ => pending(self.target()?),
        }
    }

    fn event_name(&self) -> Option<String> {
        self.name()
    }
}

#[cfg(all(feature = "cuda", not(loom)))]
impl Sealed for crate::cuda::RawEvent {
    fn target(&self) -> Result<Option<Target>> {
        Ok(self.pending_marker()?.map(Target))
    }

    fn event_name(&self) -> Option<String> {
        None
    }
}

impl<T: Sealed + ?Sized> Sealed for &T {
    fn target(&self) -> Result<Option<Target>> {
        (**self).target()
    }

    fn pending(&self) -> Result<Option<Target>> {
        (**self).pending()
    }

    fn event_name(&self) -> Option<String> {
        (**self).event_name()
    }
}

impl<T: Sealed + ?Sized> Sealed for Arc<T> {
    fn target(&self) -> Result<Option<Target>> {
        (**self).target()
    }

    fn pending(&self) -> Result<Option<Target>> {
        (**self).pending()
    }

    fn event_name(&self) -> Option<String> {
        (**self).event_name()
    }
}

impl<T: Sealed + ?Sized> Sealed for Box<T> {
    fn target(&self) -> Result<Option<Target>> {
        (**self).target()
    }

    fn pending(&self) -> Result<Option<Target>> {
        (**self).pending()
    }

    fn event_name(&self) -> Option<String> {
        (**self).event_name()
    }
}

fn pending(target: Option<Target>) -> Result<Option<Target>> {
    match target.as_ref().and_then(|Target(marker)| end_of(marker)) {
        None => Ok(target),
        Some(ended) => ended.map(|()| None),
    }
}

/// How the marker has ended, as far as its timeline tells, without a call of a driver.
fn end_of(marker: &Arc<dyn MarkerImpl>) -> Option<Result<()>> {
    let point = marker.point();
    match (marker.timeline_knowledge(), point.reached()) {
        (TimelineKnowledge::Nothing, _) | (_, Reached::NotYet) => None,
        (_, Reached::Yes) => Some(Ok(())),
        (_, Reached::Failed) => Some(point.timeline.check(point.value).map(drop)),
    }
}

/// The timeline that tells of a marker, by its address; none for a marker that is to be asked.
fn lane_of(marker: &Arc<dyn MarkerImpl>) -> Option<usize> {
    match marker.timeline_knowledge() {
        TimelineKnowledge::Nothing => None,
        _ => Some(Arc::as_ptr(&marker.point().timeline).addr()),
    }
}

/// Blocks the calling thread until the first of these events and markers has ended, and returns its
/// index in the list and how it ended: `Ok` if it is complete, its failure if it has failed. Where
/// several have, it is one of them: the first of those of which that was known.
///
/// They may be of any devices and backends. For each stream one marker is waited for, since a
/// stream's markers complete in order. So what a wake-up costs depends on the number of streams. A
/// loop over many waits better by a [`WaitSet`].
///
/// The thread asks GPUs for up to 5 ms, then it sleeps. Inside host work, other streams go on while
/// this blocks.
///
/// # Errors
/// - [`Error::NothingToWaitFor`] for an empty list.
/// - [`Error::WouldDeadlock`] when called from host work that all of them wait for.
/// - What ends the wait for one of them alone is how that one has ended: its failure,
///   [`Error::Captured`], [`Error::NotSubmitted`], [`Error::Backend`] or [`Error::Forked`].
///
/// # References
/// - those of [`Marker::synchronize`]; CUDA:
///   [`cuEventQuery`](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__EVENT.html)
///
/// ```
/// use fencepost::{Device, synchronize_any};
/// let device = Device::open("host")?;
/// let mut markers = Vec::new();
/// for name in ["one", "two"] {
///     let stream = device.new_stream()?;
///     stream.launch(move || println!("{name}"))?;
///     markers.push(stream.record()?);
/// }
/// let (first, result) = synchronize_any(&markers)?;
/// println!("{} ended first: {result:?}", markers[first]);
/// # Ok::<(), fencepost::Error>(())
/// ```
pub fn synchronize_any<T: Waitable>(
    of: impl IntoIterator<Item = T>,
) -> Result<(usize, Result<()>)> {
    any(of, Duration::MAX)
}

/// As [`synchronize_any`], but for no longer than `limit`. With a limit of zero it only looks.
///
/// # Errors
/// [`Error::Timeout`] where the limit has passed: it tells what the first and last few of those
/// left wait for. Those of [`synchronize_any`].
///
/// ```
/// use std::time::Duration;
/// use fencepost::{Device, synchronize_any_timeout};
/// let stream = Device::open("host")?.new_stream()?;
/// let (first, result) = synchronize_any_timeout([stream.record()?], Duration::from_secs(5))?;
/// assert!(first == 0 && result.is_ok());
/// # Ok::<(), fencepost::Error>(())
/// ```
pub fn synchronize_any_timeout<T: Waitable>(
    of: impl IntoIterator<Item = T>,
    limit: Duration,
) -> Result<(usize, Result<()>)> {
    any(of, limit)
}

/// Blocks the calling thread until all of these events and markers are complete, or until one of
/// them has failed: then it returns that failure at once, while others may be pending. Of an empty
/// list all are complete.
///
/// They may be of any devices and backends. How it waits is as in [`synchronize_any`].
///
/// # Errors
/// The first failure that becomes known, and of several at once that of the first in the list;
/// [`Error::Captured`]; [`Error::NotSubmitted`]; [`Error::Backend`] where no thread can be started
/// to watch one; [`Error::WouldDeadlock`] when called from host work that one of them waits for;
/// [`Error::Forked`].
///
/// # References
/// - those of [`synchronize_any`]
///
/// ```
/// use fencepost::{Device, Event, synchronize_all};
/// let device = Device::open("host")?;
/// let events = [Event::new(&device), Event::new(&device)];
/// for event in &events {
///     event.record(&device.new_stream()?)?;
/// }
/// synchronize_all(&events)?;
/// # Ok::<(), fencepost::Error>(())
/// ```
pub fn synchronize_all<T: Waitable>(of: impl IntoIterator<Item = T>) -> Result<()> {
    all(of, Duration::MAX)
}

/// As [`synchronize_all`], but for no longer than `limit`, which is one for all of them. With a
/// limit of zero it only looks.
///
/// # Errors
/// [`Error::Timeout`] where the limit has passed: it tells what the first and last few of those
/// left wait for. Those of [`synchronize_all`].
///
/// ```
/// use std::time::Duration;
/// use fencepost::{Device, synchronize_all_timeout};
/// let device = Device::open("host")?;
/// let markers = [device.new_stream()?.record()?, device.new_stream()?.record()?];
/// synchronize_all_timeout(&markers, Duration::from_secs(5))?;
/// # Ok::<(), fencepost::Error>(())
/// ```
pub fn synchronize_all_timeout<T: Waitable>(
    of: impl IntoIterator<Item = T>,
    limit: Duration,
) -> Result<()> {
    all(of, limit)
}

/// One marker of each lane, and its index in the caller's list.
#[derive(Default)]
struct Chosen {
    list: Vec<(usize, Arc<dyn MarkerImpl>)>,
    by_lane: ByTimeline<usize>,
}

impl Chosen {
    /// Adds the marker at `index`, or puts it in place of the one of its lane where its value is
    /// `better` than that one's.
    fn add(&mut self, index: usize, Target(marker): Target, better: fn(&u64, &u64) -> bool) {
        let at = lane_of(&marker).map(|lane| *self.by_lane.entry(lane).or_insert(self.list.len()));
        match at.and_then(|at| self.list.get_mut(at)) {
            None => self.list.push((index, marker)),
            Some(known) if better(&marker.point().value, &known.1.point().value) => {
                *known = (index, marker);
            }
            Some(_) => {}
        }
    }

    /// The markers to wait for, and the indices of those at their places.
    fn heads(self) -> (Heads, Vec<usize>) {
        let mut heads = Heads::new();
        let indices = self.list.into_iter().map(|(index, marker)| {
            heads.add(marker);
            index
        });
        let indices = indices.collect();
        (heads, indices)
    }
}

fn any<T: Waitable>(
    of: impl IntoIterator<Item = T>,
    limit: Duration,
) -> Result<(usize, Result<()>)> {
    let deadline = Instant::now().checked_add(limit);
    let items: Vec<T> = of.into_iter().collect();
    let mut chosen = Chosen::default();
    for (index, item) in items.iter().enumerate() {
        match item.pending() {
            Ok(None) => return Ok((index, Ok(()))),
            Err(error) => return Ok((index, Err(error.seen()))),
            Ok(Some(marker)) => chosen.add(index, marker, u64::lt),
        }
    }
    if chosen.list.is_empty() {
        let call = "synchronize_any";
        return Err(Error::NothingToWaitFor { call });
    }
    let (mut heads, indices) = chosen.heads();
    let first = first_of(&mut heads, deadline)?.into_iter().min_by_key(id);
    let Some((id, result)) = first else {
        return Err(timeout(&heads, limit, |id| {
            items[indices[id.place()]].event_name()
        }));
    };
    Ok((indices[id.place()], result.map_err(Error::seen)))
}

fn id((id, _): &Ended) -> Number {
    *id
}

/// Blocks until one has ended; none where `deadline` has passed.
fn first_of(heads: &mut Heads, deadline: Option<Instant>) -> Result<Vec<Ended>> {
    let ended = heads.look();
    if !ended.is_empty() {
        return Ok(ended);
    }
    let wait = |heads: &mut Heads, deadline| {
        let ended = heads.wait(deadline);
        Ok((!ended.is_empty()).then_some(ended))
    };
    let found = deadlock::block_on_many(heads, Heads::awaited, Over::First, deadline, wait);
    Ok(found?.unwrap_or_default())
}

fn all<T: Waitable>(of: impl IntoIterator<Item = T>, limit: Duration) -> Result<()> {
    let deadline = Instant::now().checked_add(limit);
    let items: Vec<T> = of.into_iter().collect();
    let mut chosen = Chosen::default();
    for (index, item) in items.iter().enumerate() {
        if let Some(marker) = item.pending().map_err(Error::seen)? {
            chosen.add(index, marker, u64::gt);
        }
    }
    let (mut heads, indices) = chosen.heads();
    if all_of(&mut heads, deadline).map_err(Error::seen)? {
        return Ok(());
    }
    Err(timeout(&heads, limit, |id| {
        items[indices[id.place()]].event_name()
    }))
}

/// Blocks until all are complete (`true`), one has failed, or `deadline` has passed (`false`).
fn all_of(heads: &mut Heads, deadline: Option<Instant>) -> Result<bool> {
    fn complete(mut ended: Vec<Ended>) -> Result<()> {
        ended.sort_by_key(id);
        ended.into_iter().try_for_each(|(_, result)| result)
    }
    complete(heads.look())?;
    if heads.is_empty() {
        return Ok(true);
    }
    let wait = |heads: &mut Heads, deadline| {
        while !heads.is_empty() {
            let ended = heads.wait(deadline);
            if ended.is_empty() {
                return Ok(None);
            }
            complete(ended)?;
        }
        Ok(Some(()))
    };
    let done = deadlock::block_on_many(heads, Heads::awaited, Over::Last, deadline, wait);
    Ok(done?.is_some())
}

/// How many of those left are told at each end of the list.
const TOLD: usize = 2;

/// The error of a wait that has ended at `limit`, with these left. `name` is the name of an event,
/// by the number of its marker.
fn timeout(heads: &Heads, limit: Duration, name: impl Fn(Number) -> Option<String>) -> Error {
    let left = heads.markers();
    // One line about a single marker is no shorter than to tell of it.
    let left_out = match left.len().saturating_sub(2 * TOLD) {
        0 | 1 => 0,
        many => many,
    };
    let tell = |(id, marker): &(Number, &Arc<dyn MarkerImpl>)| {
        explain::timed_out(marker, limit).with_event(name(*id))
    };
    let mut told = left.iter().take(TOLD).map(tell).collect::<Vec<_>>();
    told.extend(left.iter().skip(TOLD + left_out).map(tell));
    let others = told.split_off(told.len().min(1));
    match told.pop() {
        Some(first) => Error::Timeout(Box::new(first.with_others(others, left_out))),
        None => Error::NothingToWaitFor { call: "a wait" },
    }
}
