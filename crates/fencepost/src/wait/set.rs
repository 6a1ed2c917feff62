//! A set of markers to be waited for one after the other.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use super::{
    Waitable,
    addresses::ByTimeline,
    end_of, first_of,
    heads::Heads,
    inbox::{Ended, Number},
    lane_of,
    sealed::Target,
    timeout,
};
use crate::{
    contract::MarkerImpl,
    error::{Error, Result},
    timeline::{Reached, Waiter},
};

/// Events and markers to be waited for one after the other, in the order in which they end.
///
/// Each is registered once, however often the set is waited for, and comes out once: with the key
/// that it was [inserted](WaitSet::insert) with, and with how it ended. Those of one stream come in
/// their order, unless the stream's error is [cleared](crate::Stream::clear_error) between them;
/// those of several streams come in any.
///
/// They may be of any devices and backends. What a wait costs does not depend on how many there
/// are, but for their number of GPU streams, each of which is asked while the thread does not sleep
/// yet. Of an event it is the marker that was held when it was inserted. The set keeps its markers
/// alive. Dropping it forgets them, and changes nothing about the device's work.
///
/// ```
/// use fencepost::{Device, WaitSet};
/// let device = Device::open("host")?;
/// let mut set = WaitSet::new();
/// for name in ["one", "two", "three"] {
///     let stream = device.new_stream()?;
///     stream.launch(move || println!("{name} runs"))?;
///     set.insert(name, &stream.record()?);
/// }
/// while let Some((name, result)) = set.synchronize_next()? {
///     result?;
///     println!("{name} is done, {} left", set.len());
/// }
/// # Ok::<(), fencepost::Error>(())
/// ```
pub struct WaitSet<K> {
    /// What has ended, and was not taken out yet.
    ended: VecDeque<(K, Result<()>)>,
    /// What is pending, at the places of the heads.
    lanes: Vec<Option<Lane<K>>>,
    /// The places of the lanes of timelines, by the addresses of these.
    by_timeline: ByTimeline<usize>,
    heads: Heads,
    pending: usize,
    /// Numbers what is inserted.
    next: u64,
}

/// The markers of a timeline that are pending, or a marker that is to be asked. They complete in
/// order, so the first one is the head: the one that is waited for. They keep the timeline alive.
struct Lane<K> {
    head: Number,
    /// The value of the first one, and its number in the set.
    place: (u64, u64),
    first: Entry<K>,
    rest: BTreeMap<(u64, u64), Entry<K>>,
}

struct Entry<K> {
    key: K,
    marker: Arc<dyn MarkerImpl>,
    name: Option<String>,
}

impl<K> WaitSet<K> {
    /// An empty set.
    ///
    /// ```
    /// assert!(fencepost::WaitSet::<u32>::new().is_empty());
    /// ```
    pub fn new() -> WaitSet<K> {
        WaitSet {
            ended: VecDeque::new(),
            lanes: Vec::new(),
            by_timeline: ByTimeline::default(),
            heads: Heads::new(),
            pending: 0,
            next: 0,
        }
    }

    /// Waits for `of` too. It comes out with `key`, which need not be unique. Never waits for the
    /// device.
    ///
    /// Whatever is wrong with it, such as [`Error::Captured`], is how it has ended.
    ///
    /// ```
    /// use fencepost::{Device, Event, WaitSet};
    /// let device = Device::open("host")?;
    /// let mut set = WaitSet::new();
    /// set.insert("never recorded", &Event::new(&device));
    /// let (key, result) = set.synchronize_next()?.expect("it is in there");
    /// assert!(key == "never recorded" && result.is_ok());
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn insert(&mut self, key: K, of: &(impl Waitable + ?Sized)) {
        let marker = match of.target() {
            Ok(Some(Target(marker))) => marker,
            Ok(None) => return self.ended.push_back((key, Ok(()))),
            Err(error) => return self.ended.push_back((key, Err(error))),
        };
        let (ended, timeline) = (end_of(&marker), lane_of(&marker));
        if let Some(ended) = &ended
            && self.lane_at(timeline).is_none()
        {
            return self.ended.push_back((key, ended.clone()));
        }
        let name = of.event_name();
        self.add(Entry { key, marker, name });
        if ended.is_some() {
            self.settle_lane(timeline);
        }
    }

    /// See [`crate::bindings::insert_complete`].
    pub(crate) fn insert_complete(&mut self, key: K) {
        self.ended.push_back((key, Ok(())));
    }

    fn add(&mut self, entry: Entry<K>) {
        if !self.heads.is_of_this_process() {
            let device = "this set of waits".into();
            return self
                .ended
                .push_back((entry.key, Err(Error::Forked { device })));
        }
        let place = (entry.marker.point().value, self.next);
        self.next += 1;
        self.pending += 1;
        let timeline = lane_of(&entry.marker);
        let known = self.lane_at(timeline);
        let Some(mut lane) = known.and_then(|at| self.lanes.get_mut(at)?.take()) else {
            return self.put(timeline, place, entry, BTreeMap::new());
        };
        if place > lane.place {
            lane.rest.insert(place, entry);
            let at = lane.head.place();
            self.lanes[at] = Some(lane);
            return;
        }
        self.heads.remove(lane.head);
        lane.rest.insert(lane.place, lane.first);
        self.put(timeline, place, entry, lane.rest);
    }

    /// The place of the lane of this timeline, if markers of it are pending.
    fn lane_at(&self, timeline: Option<usize>) -> Option<usize> {
        self.by_timeline.get(&timeline?).copied()
    }

    /// Moves out what has ended of a timeline, of which nobody may have been told yet.
    fn settle_lane(&mut self, timeline: Option<usize>) {
        let lane = self
            .lane_at(timeline)
            .and_then(|at| self.lanes[at].as_ref());
        let ended = lane.and_then(|lane| Some((lane.head, end_of(&lane.first.marker)?)));
        if let Some((head, ended)) = ended {
            self.heads.remove(head);
            self.settle(vec![(head, ended)]);
        }
    }

    /// Puts a lane there, and waits for its first marker.
    fn put(
        &mut self,
        timeline: Option<usize>,
        place: (u64, u64),
        first: Entry<K>,
        rest: BTreeMap<(u64, u64), Entry<K>>,
    ) {
        let head = self.heads.add(first.marker.clone());
        let at = head.place();
        if let Some(timeline) = timeline {
            self.by_timeline.insert(timeline, at);
        }
        if at >= self.lanes.len() {
            self.lanes.resize_with(at + 1, || None);
        }
        self.lanes[at] = Some(Lane {
            head,
            place,
            first,
            rest,
        });
    }

    /// Blocks the calling thread until one has ended, and takes it out: its key, and how it ended,
    /// `Ok` if it is complete and its failure if it has failed. `None` if the set is empty.
    ///
    /// The thread asks GPUs for up to 5 ms, then it sleeps. Inside host work, other streams go on
    /// while this blocks.
    ///
    /// # Errors
    /// [`Error::WouldDeadlock`] when called from host work that all of them wait for. The set stays
    /// as it is. What ends the wait for one of them alone is how that one has ended.
    ///
    /// # References
    /// - those of [`synchronize_any`](crate::synchronize_any)
    ///
    /// ```
    /// let mut set = fencepost::WaitSet::new();
    /// set.insert(7, &fencepost::Device::open("host")?.new_stream()?.record()?);
    /// assert!(matches!(set.synchronize_next()?, Some((7, Ok(())))));
    /// assert!(set.synchronize_next()?.is_none());
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn synchronize_next(&mut self) -> Result<Option<(K, Result<()>)>> {
        self.synchronize_next_timeout(Duration::MAX)
    }

    /// As [`synchronize_next`](WaitSet::synchronize_next), but for no longer than `limit`. With a
    /// limit of zero it only looks.
    ///
    /// # Errors
    /// [`Error::Timeout`] where the limit has passed: it tells what the first and last few of those
    /// left wait for. The set stays as it is. Those of
    /// [`synchronize_next`](WaitSet::synchronize_next).
    ///
    /// ```
    /// use std::time::Duration;
    /// let mut set = fencepost::WaitSet::new();
    /// set.insert(7, &fencepost::Device::open("host")?.new_stream()?.record()?);
    /// assert!(set.synchronize_next_timeout(Duration::from_secs(5))?.is_some());
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn synchronize_next_timeout(&mut self, limit: Duration) -> Result<Option<(K, Result<()>)>> {
        match self.next_until(Instant::now().checked_add(limit))? {
            Some((key, ended)) => Ok(Some((key, ended.map_err(Error::seen)))),
            None if self.is_empty() => Ok(None),
            None => Err(self.timeout(limit)),
        }
    }

    /// Blocks until one has ended, and takes it out: its failure counts as not seen. `None` if the
    /// set is empty or `deadline` has passed.
    pub(crate) fn next_until(
        &mut self,
        deadline: Option<Instant>,
    ) -> Result<Option<(K, Result<()>)>> {
        if self.ended.is_empty() && self.pending != 0 {
            let ended = first_of(&mut self.heads, deadline)?;
            self.settle(ended);
        }
        Ok(self.ended.pop_front())
    }

    /// Takes one out that has ended, without blocking: its failure counts as not seen.
    pub(crate) fn look(&mut self) -> Option<(K, Result<()>)> {
        if self.ended.is_empty() && self.pending != 0 {
            let mut ended = self.heads.look();
            if ended.is_empty() {
                ended = self.heads.wait(Some(Instant::now()));
            }
            self.settle(ended);
        }
        self.ended.pop_front()
    }

    /// The error of a wait that has ended at `limit`.
    pub(crate) fn timeout(&self, limit: Duration) -> Error {
        timeout(&self.heads, limit, |head| {
            let lane = self.lanes.get(head.place())?.as_ref();
            lane.and_then(|lane| lane.first.name.clone())
        })
    }

    /// As [`synchronize_next`](WaitSet::synchronize_next), for a task: the waker of `cx` is woken
    /// once one has ended. It needs no runtime of its own, and works in any. Only the waker of the
    /// last call is woken.
    ///
    /// ```
    /// # let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    /// # runtime.block_on(async {
    /// use std::future::poll_fn;
    /// use fencepost::{Device, WaitSet};
    /// let mut set = WaitSet::new();
    /// set.insert(7, &Device::open("host")?.new_stream()?.record()?);
    /// while let Some((key, result)) = poll_fn(|cx| set.poll_next(cx)).await {
    ///     println!("{key}: {result:?}");
    /// }
    /// # Ok::<(), fencepost::Error>(())
    /// # }).unwrap();
    /// ```
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<(K, Result<()>)>> {
        self.wake_by(|| Waiter::Waker(cx.waker().clone()));
        match self.ended.pop_front() {
            Some((key, ended)) => Poll::Ready(Some((key, ended.map_err(Error::seen)))),
            None if self.is_empty() => Poll::Ready(None),
            None => Poll::Pending,
        }
    }

    /// Has what `sleeper` makes fired once one has ended, unless one has.
    fn wake_by(&mut self, sleeper: impl FnOnce() -> Waiter) {
        if self.ended.is_empty() && self.pending != 0 {
            let ended = self.heads.wake_by(sleeper());
            self.settle(ended);
        }
    }

    /// Calls `callback` on a thread for callbacks once one has ended, unless one has: then it
    /// returns `false`. Replaces the callback before.
    pub(crate) fn call_back(&mut self, callback: impl FnOnce() + Send + 'static) -> bool {
        if let Some(first) = self.heads.any() {
            let callbacks = first.point().timeline.stream.device.callbacks.clone();
            self.wake_by(|| Waiter::Callback(callbacks, Box::new(|_| callback())));
        }
        self.ended.is_empty() && self.pending != 0
    }

    /// Moves what has ended out of its lanes, and waits for the next one of each.
    fn settle(&mut self, mut ended: Vec<Ended>) {
        // Put back once all are out: the place of one that has ended is free for the head of
        // another.
        let mut left = Vec::new();
        for (head, result) in ended.drain(..) {
            let lane = self.lanes.get_mut(head.place()).and_then(Option::take);
            let Some(mut lane) = lane else {
                continue;
            };
            let timeline = lane_of(&lane.first.marker);
            self.ends(lane.first, result);
            let next = loop {
                let Some((place, next)) = lane.rest.pop_first() else {
                    break None;
                };
                let point = next.marker.point();
                match point.reached() {
                    Reached::NotYet => break Some((place, next)),
                    _ => {
                        let result = point.timeline.check(point.value).map(drop);
                        self.ends(next, result);
                    }
                }
            };
            match next {
                Some((place, next)) => left.push((timeline, place, next, lane.rest)),
                None => {
                    timeline.map(|timeline| self.by_timeline.remove(&timeline));
                }
            }
        }
        for (timeline, place, next, rest) in left {
            self.put(timeline, place, next, rest);
        }
        self.heads.done_with(ended);
    }

    fn ends(&mut self, entry: Entry<K>, result: Result<()>) {
        self.pending -= 1;
        self.ended.push_back((entry.key, result));
    }

    /// How many are in the set: those that were not taken out yet.
    ///
    /// ```
    /// assert_eq!(fencepost::WaitSet::<u32>::new().len(), 0);
    /// ```
    pub fn len(&self) -> usize {
        self.pending + self.ended.len()
    }

    /// Whether nothing is in the set.
    ///
    /// ```
    /// assert!(fencepost::WaitSet::<u32>::new().is_empty());
    /// ```
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<K> Default for WaitSet<K> {
    fn default() -> WaitSet<K> {
        WaitSet::new()
    }
}

impl<K> fmt::Debug for WaitSet<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WaitSet")
            .field("pending", &self.pending)
            .field("ended", &self.ended.len())
            .finish()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::{Device, Gate};

    #[test]
    fn streams_that_end_together_leave_each_others_markers_alone() {
        let device = Device::new_host(2);
        let (one, two) = (device.new_stream().unwrap(), device.new_stream().unwrap());
        let closed = Gate::with_limit(&device, Duration::MAX).unwrap();
        let mut set = WaitSet::new();
        let (first, other) = (one.record().unwrap(), two.record().unwrap());
        closed.wait(&one).unwrap();
        let later = one.record().unwrap();
        // Nobody has asked yet, so that both are pending as far as the set knows.
        for (key, marker) in [("first", &first), ("later", &later), ("other", &other)] {
            let (marker, name) = (marker.imp().clone(), None);
            set.add(Entry { key, marker, name });
        }
        let next = |set: &mut WaitSet<_>| set.synchronize_next().unwrap().map(|(key, _)| key);
        assert_eq!(next(&mut set), Some("first"));
        assert_eq!(next(&mut set), Some("other"));
        closed.open();
        assert_eq!(next(&mut set), Some("later"));
        assert_eq!(next(&mut set), None);
    }
}
