//! The markers that a wait for many is told of: one of each timeline, since a timeline completes in
//! order. For the first of many it is the lowest, for all of them the highest.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use super::inbox::{Ended, Inbox};
use crate::{
    contract::{MarkerImpl, TimelineKnowledge},
    error::Result,
    fork::Process,
    panics::contain,
    sync::spin_until,
    timeline::{Awaited, Ticket, Waiter},
};

/// How long a wait asks a driver for itself, before it sleeps until the watcher tells. The driver's
/// own wait for one marker asks for as long as it takes.
const POLL: Duration = Duration::from_millis(5);

/// Markers that a thread waits for. Each is removed when it is returned as ended.
///
/// A marker is *new* until its timeline is to tell when it ends. A GPU's stays so while the thread
/// asks for itself, which costs less than a watcher where it is complete soon.
pub(super) struct Heads {
    inbox: Arc<Inbox>,
    heads: BTreeMap<u64, Head>,
    new: Vec<u64>,
    next: u64,
    /// A forked child may find the locks of the inbox and the timelines held.
    process: Process,
}

struct Head {
    marker: Arc<dyn MarkerImpl>,
    ticket: Option<Ticket>,
}

impl Head {
    /// How it ended; `None` while it is pending.
    fn ask(&self) -> Option<Result<()>> {
        match self.marker.query() {
            Ok(false) => None,
            ended => Some(ended.map(drop)),
        }
    }

    /// Whether only a driver can tell that it has ended.
    fn is_to_be_asked(&self) -> bool {
        self.marker.timeline_knowledge() != TimelineKnowledge::All
    }

    fn cancel(&self) {
        if let Some(ticket) = self.ticket {
            drop(self.marker.point().timeline.cancel(ticket));
        }
    }
}

impl Heads {
    pub(super) fn new() -> Heads {
        Heads {
            inbox: Arc::new(Inbox::new()),
            heads: BTreeMap::new(),
            new: Vec::new(),
            next: 0,
            process: Process::this(),
        }
    }

    /// Waits for `marker` too, and gives the number by which its end is told.
    pub(super) fn add(&mut self, marker: Arc<dyn MarkerImpl>) -> u64 {
        let id = self.next;
        self.next += 1;
        self.new.push(id);
        let ticket = None;
        self.heads.insert(id, Head { marker, ticket });
        id
    }

    /// Waits for the marker of this number no longer.
    pub(super) fn remove(&mut self, id: u64) {
        if let Some(head) = self.heads.remove(&id)
            && self.process.is_this()
        {
            head.cancel();
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.heads.is_empty()
    }

    /// The markers and their numbers, in the order in which they were added.
    pub(super) fn markers(&self) -> impl DoubleEndedIterator<Item = (u64, &Arc<dyn MarkerImpl>)> {
        self.heads.iter().map(|(id, head)| (*id, &head.marker))
    }

    /// The markers, for the search for deadlocks.
    pub(super) fn awaited(&self) -> Vec<Arc<dyn Awaited>> {
        let markers = self.heads.values().map(|head| head.marker.clone());
        markers.map(|marker| marker as Arc<dyn Awaited>).collect()
    }

    /// Blocks until one has ended, and takes out all that have; none where `deadline` has passed.
    pub(super) fn wait(&mut self, deadline: Option<Instant>) -> Vec<Ended> {
        let ended = self.look();
        if !ended.is_empty() {
            return ended;
        }
        loop {
            let over = deadline.is_some_and(|deadline| Instant::now() >= deadline);
            if !over {
                self.register(|head| !head.is_to_be_asked());
                self.poll(deadline);
                self.register(|_| true);
                let inbox = &self.inbox;
                if !spin_until(deadline, || !inbox.is_empty()) {
                    inbox.sleep(deadline);
                }
            }
            let mut ended = self.told();
            if ended.is_empty() {
                // The watcher may tell a little later what a driver knows already.
                ended = self.ask_drivers();
            }
            // Without an end, what was told was of a marker that is no longer waited for.
            if over || !ended.is_empty() {
                return ended;
            }
        }
    }

    /// As [`wait`](Heads::wait), but does not block: if none has ended, `sleeper` is fired once one
    /// has.
    pub(super) fn wake_by(&mut self, sleeper: Waiter) -> Vec<Ended> {
        let ended = self.look();
        if !ended.is_empty() {
            return ended;
        }
        self.register(|_| true);
        match self.inbox.wake_by(sleeper) {
            None => Vec::new(),
            Some(unused) => {
                contain(|| drop(unused));
                self.told()
            }
        }
    }

    /// What has ended, as far as that is told or new ones can be asked.
    pub(super) fn look(&mut self) -> Vec<Ended> {
        if !self.process.is_this() {
            // Nothing of the parent's ends here.
            return self.take(|heads| heads.keys().copied().collect());
        }
        let ended = self.told();
        if !ended.is_empty() || self.new.is_empty() {
            return ended;
        }
        let new = std::mem::take(&mut self.new);
        let ended = self.take(|_| new.clone());
        self.new = new;
        if !ended.is_empty() {
            let heads = &self.heads;
            self.new.retain(|id| heads.contains_key(id));
        }
        ended
    }

    /// What the inbox holds, without what is no longer waited for.
    fn told(&mut self) -> Vec<Ended> {
        let mut told = self.inbox.take();
        told.retain(|(id, _)| match self.heads.remove(id) {
            Some(head) => {
                head.cancel();
                true
            }
            None => false,
        });
        told
    }

    fn ask_drivers(&mut self) -> Vec<Ended> {
        self.take(|heads| {
            let asked = heads.iter().filter(|(_, head)| head.is_to_be_asked());
            asked.map(|(id, _)| *id).collect()
        })
    }

    /// Asks some, and takes out what has ended.
    fn take(&mut self, asked: impl FnOnce(&BTreeMap<u64, Head>) -> Vec<u64>) -> Vec<Ended> {
        let mut ended = Vec::new();
        for id in asked(&self.heads) {
            if let Some(how) = self.heads.get(&id).and_then(Head::ask) {
                self.remove(id);
                ended.push((id, how));
            }
        }
        ended
    }

    /// Has the timelines tell of those new ones that are `wanted`.
    fn register(&mut self, wanted: impl Fn(&Head) -> bool) {
        let new = std::mem::take(&mut self.new);
        for id in new {
            let Some(head) = self.heads.get_mut(&id) else {
                continue;
            };
            if !wanted(head) {
                self.new.push(id);
                continue;
            }
            let inbox = self.inbox.clone();
            let tell = Waiter::Call(Box::new(move |result| inbox.put((id, result))));
            match head.marker.notify(tell) {
                Ok(ticket) => head.ticket = ticket,
                Err(error) => self.inbox.put((id, Err(error))),
            }
        }
    }

    /// Asks a driver for a while, if there is a new marker that it alone knows of.
    fn poll(&mut self, deadline: Option<Instant>) {
        // No model has a driver.
        if self.new.is_empty() || cfg!(loom) {
            return;
        }
        let until = Instant::now() + POLL;
        let until = deadline.map_or(until, |deadline| deadline.min(until));
        let (inbox, heads) = (&self.inbox, &self.heads);
        let asked: Vec<_> = heads.iter().filter(|(_, h)| h.is_to_be_asked()).collect();
        while inbox.is_empty() && Instant::now() < until {
            for (id, head) in &asked {
                if let Some(ended) = head.ask() {
                    inbox.put((**id, ended));
                }
            }
            // The device may be made of threads that want this very core.
            std::thread::yield_now();
        }
    }
}

/// Leaves nothing behind on the timelines.
impl Drop for Heads {
    fn drop(&mut self) {
        if self.process.is_this() {
            for head in self.heads.values() {
                head.cancel();
            }
        }
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use crate::{
        error::Cause,
        place::Place,
        sync::thread,
        timeline::{Point, Timeline, loom_tests::stream_core},
    };

    struct First(Point);

    impl Awaited for First {
        fn point(&self) -> &Point {
            &self.0
        }
    }

    impl MarkerImpl for First {
        fn timeline_knowledge(&self) -> TimelineKnowledge {
            TimelineKnowledge::All
        }
    }

    fn first_of(timeline: &Arc<Timeline>) -> Arc<dyn MarkerImpl> {
        Arc::new(First(Point {
            timeline: timeline.clone(),
            value: 1,
            at: Place::unknown(),
            timing: false,
        }))
    }

    #[test]
    fn each_that_ends_is_told_once_by_whichever_thread() {
        loom::model(|| {
            let timelines = [(); 2].map(|()| Timeline::new(stream_core(), 0));
            let completes = {
                let timeline = timelines[0].clone();
                thread::spawn(move || timeline.advance(1).fire())
            };
            let waits = {
                let markers = [first_of(&timelines[0]), first_of(&timelines[1])];
                thread::spawn(move || {
                    let mut heads = Heads::new();
                    let _ = markers.map(|marker| heads.add(marker));
                    let mut told = Vec::new();
                    while !heads.is_empty() {
                        let ended = heads.wait(None);
                        told.extend(ended.into_iter().map(|(id, how)| (id, how.is_ok())));
                    }
                    told.sort_unstable();
                    told
                })
            };
            timelines[1].fail(&Cause::new("loom"), false).fire();
            assert_eq!(waits.join().unwrap(), [(0, true), (1, false)]);
            completes.join().unwrap();
        });
    }

    #[test]
    fn what_is_no_longer_waited_for_is_not_told() {
        loom::model(|| {
            let [gone, kept] = [(); 2].map(|()| Timeline::new(stream_core(), 0));
            let completes = {
                let gone = gone.clone();
                thread::spawn(move || gone.advance(1).fire())
            };
            let waits = {
                let markers = [first_of(&gone), first_of(&kept)];
                thread::spawn(move || {
                    let mut heads = Heads::new();
                    let [gone, kept] = markers.map(|marker| heads.add(marker));
                    // Registers both, and returns at once.
                    let ended = heads.wake_by(Waiter::Thread(thread::current()));
                    heads.remove(gone);
                    let ended = match ended.is_empty() {
                        true => heads.wait(None),
                        false => ended,
                    };
                    (
                        ended.iter().map(|(id, _)| *id).collect::<Vec<_>>(),
                        [gone, kept],
                    )
                })
            };
            kept.advance(1).fire();
            let (told, [gone, kept]) = waits.join().unwrap();
            assert!(told.contains(&kept) || told == [gone], "{told:?}");
            completes.join().unwrap();
        });
    }
}
