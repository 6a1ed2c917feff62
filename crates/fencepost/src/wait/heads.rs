//! The markers that a wait for many is told of: one of each timeline, since a timeline completes in
//! order. For the first of many it is the lowest, for all of them the highest.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::inbox::{Ended, Inbox, Number};
use crate::{
    contract::{MarkerImpl, TimelineKnowledge},
    error::Result,
    fork::Process,
    panics::contain,
    sync::spin_until,
    timeline::{Awaited, Reached, Ticket, Waiter},
};

/// How long a wait asks a driver for itself, before it sleeps until the watcher tells. The driver's
/// own wait for one marker asks for as long as it takes.
const POLL: Duration = Duration::from_millis(5);

/// Of how many new markers the timelines are looked at for a moment before they are to tell. Where
/// one of them ends in that moment, it is not registered, and no thread has to tell of it: half the
/// cost of a wake-up. With more of them a look takes too long.
const FEW: usize = 4;

/// Markers that a thread waits for. Each is removed when it is returned as ended.
///
/// A marker is *new* until its timeline is to tell when it ends. It stays so while the thread looks
/// for itself, at its timeline or by asking its driver: where it is complete soon, that costs less.
pub(super) struct Heads {
    inbox: Arc<Inbox>,
    heads: Vec<Option<Head>>,
    free: Vec<usize>,
    new: Vec<Number>,
    /// How many of the new ones the last look has left.
    left: usize,
    added: u32,
    /// The storage of what the inbox gave last.
    spare: Vec<Ended>,
    /// A forked child may find the locks of the inbox and the timelines held.
    process: Process,
}

struct Head {
    number: Number,
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
            heads: Vec::new(),
            free: Vec::new(),
            new: Vec::new(),
            left: 0,
            added: 0,
            spare: Vec::new(),
            process: Process::this(),
        }
    }

    /// Waits for `marker` too, and gives the number by which its end is told.
    pub(super) fn add(&mut self, marker: Arc<dyn MarkerImpl>) -> Number {
        let place = self.free.pop().unwrap_or(self.heads.len());
        // A tell of the marker before comes at once or never, long before the count is back here.
        self.added = self.added.wrapping_add(1);
        let number = Number::new(self.added, place);
        let head = Head {
            number,
            marker,
            ticket: None,
        };
        match self.heads.get_mut(place) {
            Some(free) => *free = Some(head),
            None => self.heads.push(Some(head)),
        }
        self.new.push(number);
        number
    }

    /// Waits for the marker of this number no longer.
    pub(super) fn remove(&mut self, number: Number) {
        if let Some(head) = self.take_out(number)
            && self.process.is_this()
        {
            head.cancel();
        }
    }

    fn take_out(&mut self, number: Number) -> Option<Head> {
        let place = self.heads.get_mut(number.place())?;
        let head = place.take_if(|head| head.number == number)?;
        self.free.push(number.place());
        Some(head)
    }

    fn get(&self, number: Number) -> Option<&Head> {
        let head = self.heads.get(number.place())?.as_ref()?;
        (head.number == number).then_some(head)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.heads.len() == self.free.len()
    }

    /// Whether this process made it, and not one that this one was forked from.
    pub(super) fn is_of_this_process(&self) -> bool {
        self.process.is_this()
    }

    /// The markers and their numbers, in the order in which they were added.
    pub(super) fn markers(&self) -> Vec<(Number, &Arc<dyn MarkerImpl>)> {
        let heads = self.heads.iter().flatten();
        let mut markers: Vec<_> = heads.map(|head| (head.number, &head.marker)).collect();
        markers.sort_by_key(|(number, _)| *number);
        markers
    }

    /// The markers, for the search for deadlocks.
    pub(super) fn awaited(&self) -> Vec<Arc<dyn Awaited>> {
        let markers = self.markers().into_iter().map(|(_, marker)| marker.clone());
        markers.map(|marker| marker as Arc<dyn Awaited>).collect()
    }

    /// Any one of the markers.
    pub(super) fn any(&self) -> Option<&Arc<dyn MarkerImpl>> {
        self.heads.iter().flatten().map(|head| &head.marker).next()
    }

    /// Takes out what has ended, as far as that is told or new ones can be asked.
    pub(super) fn look(&mut self) -> Vec<Ended> {
        if !self.process.is_this() {
            // Nothing of the parent's ends here.
            return self.ask(|_| true);
        }
        // Else a set of thousands would be asked of each of them by every look, while what is added
        // always ends so soon that no wait is needed.
        if self.left > FEW {
            self.register(|_| true);
        }
        let mut ended = self.told();
        if ended.is_empty() {
            ended = self.ask_new();
        }
        self.left = self.new.len();
        ended
    }

    /// Asks the new ones, and takes out what has ended.
    fn ask_new(&mut self) -> Vec<Ended> {
        let mut ended = Vec::new();
        let mut new = std::mem::take(&mut self.new);
        new.retain(|number| match self.get(*number).map(Head::ask) {
            Some(Some(how)) => {
                ended.push((*number, how));
                false
            }
            Some(None) => true,
            None => false,
        });
        self.new = new;
        self.are_over(&ended);
        ended
    }

    /// Blocks until one has ended, and takes out all that have; none where `deadline` has passed.
    /// New ones were [looked](Heads::look) at before.
    pub(super) fn wait(&mut self, deadline: Option<Instant>) -> Vec<Ended> {
        if !self.process.is_this() {
            return self.ask(|_| true);
        }
        let mut ended = self.told();
        loop {
            let over = deadline.is_some_and(|deadline| Instant::now() >= deadline);
            if ended.is_empty() && !over {
                ended = self.poll(deadline);
            }
            if ended.is_empty() && !over {
                self.register(|_| true);
                self.inbox.sleep(deadline);
                ended = self.told();
            }
            if ended.is_empty() {
                // The watcher may tell a little later what a driver knows already.
                ended = self.ask(Head::is_to_be_asked);
            }
            // Without an end, what was told was of a marker that is no longer waited for.
            if over || !ended.is_empty() {
                return ended;
            }
        }
    }

    /// As [`wait`](Heads::wait), but does not block: if none has ended, `sleeper` is fired once one
    /// has.
    pub(super) fn wake_by(&mut self, mut sleeper: Waiter) -> Vec<Ended> {
        let ended = self.look();
        if !ended.is_empty() || !self.process.is_this() {
            return ended;
        }
        self.register(|_| true);
        while let Some(unused) = self.inbox.wake_by(sleeper) {
            let ended = self.told();
            if !ended.is_empty() {
                contain(|| drop(unused));
                return ended;
            }
            // What was told was of a marker that is no longer waited for.
            sleeper = unused;
        }
        Vec::new()
    }

    /// What the inbox holds, without what is no longer waited for.
    fn told(&mut self) -> Vec<Ended> {
        let mut told = std::mem::take(&mut self.spare);
        self.inbox.take(&mut told);
        // Their waiters are gone with the tell.
        told.retain(|(number, _)| self.take_out(*number).is_some());
        told
    }

    /// Gives back the list that another call has returned.
    pub(super) fn done_with(&mut self, mut ended: Vec<Ended>) {
        ended.clear();
        self.spare = ended;
    }

    /// Asks those that are `wanted`, and takes out what has ended.
    fn ask(&mut self, wanted: impl Fn(&Head) -> bool) -> Vec<Ended> {
        let heads = self.heads.iter().flatten();
        let asked = heads.filter(|head| wanted(head));
        let ended: Vec<_> = asked
            .filter_map(|head| Some((head.number, head.ask()?)))
            .collect();
        self.are_over(&ended);
        ended
    }

    fn are_over(&mut self, ended: &[Ended]) {
        for (number, _) in ended {
            self.remove(*number);
        }
    }

    /// Has the timelines tell of those new ones that are `wanted`.
    fn register(&mut self, wanted: impl Fn(&Head) -> bool) {
        let inbox = &self.inbox;
        let heads = &mut self.heads;
        self.new.retain(|number| {
            let head = heads.get_mut(number.place()).and_then(Option::as_mut);
            let Some(head) = head.filter(|head| head.number == *number) else {
                return false;
            };
            if !wanted(head) {
                return true;
            }
            let (number, told) = (*number, inbox.clone());
            let tell = Waiter::Call(Box::new(move |result| told.put((number, result))));
            match head.marker.notify(tell) {
                Ok(ticket) => head.ticket = ticket,
                Err(error) => inbox.put((number, Err(error))),
            }
            false
        });
    }

    /// Looks for a while, before the thread sleeps: for longer where there is a new marker that a
    /// driver alone knows of.
    fn poll(&mut self, deadline: Option<Instant>) -> Vec<Ended> {
        if self.new.len() > FEW {
            self.register(|head| !head.is_to_be_asked());
        }
        let mut new = self.new.iter().filter_map(|number| self.get(*number));
        match new.any(Head::is_to_be_asked) {
            true => self.poll_drivers(deadline),
            false => self.spin(deadline),
        }
    }

    /// Looks at the timelines of new markers, and at what is told of the others.
    fn spin(&mut self, deadline: Option<Instant>) -> Vec<Ended> {
        let ends = |number: &Number| {
            let head = self.get(*number);
            head.is_some_and(|head| head.marker.point().reached() != Reached::NotYet)
        };
        match spin_until(deadline, || {
            !self.inbox.is_empty() || self.new.iter().any(ends)
        }) {
            true => self.look(),
            false => Vec::new(),
        }
    }

    /// Asks of the new markers only. Of the others the watcher tells, and to ask of each of many
    /// takes long.
    fn poll_drivers(&mut self, deadline: Option<Instant>) -> Vec<Ended> {
        // No model has a driver.
        if cfg!(loom) {
            return Vec::new();
        }
        self.register(|head| !head.is_to_be_asked());
        let until = Instant::now() + POLL;
        let until = deadline.map_or(until, |deadline| deadline.min(until));
        while self.inbox.is_empty() && Instant::now() < until {
            let ended = self.ask_new();
            if !ended.is_empty() {
                return ended;
            }
            // The device may be made of threads that want this very core.
            std::thread::yield_now();
        }
        Vec::new()
    }
}

/// Leaves nothing behind on the timelines.
impl Drop for Heads {
    fn drop(&mut self) {
        if self.process.is_this() {
            for head in self.heads.iter().flatten() {
                head.cancel();
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::{Device, Gate};

    #[test]
    fn what_stays_pending_is_asked_by_one_look() {
        let device = Device::new_host(2);
        let gate = Gate::with_limit(&device, Duration::MAX).unwrap();
        let streams: Vec<_> = (0..10).map(|_| device.new_stream().unwrap()).collect();
        let mut heads = Heads::new();
        for stream in &streams {
            gate.wait(stream).unwrap();
            heads.add(stream.record().unwrap().imp().clone());
        }
        let idle = device.new_stream().unwrap();
        for left in [streams.len(), 0] {
            let number = heads.add(idle.record().unwrap().imp().clone());
            let ended = heads.look();
            assert!(ended.iter().map(|(ended, _)| *ended).eq([number]));
            assert_eq!(heads.new.len(), left);
        }
        gate.open();
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use crate::{
        error::Cause,
        place::Place,
        sync::{AtomicBool, Ordering, thread},
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
                        told.extend(ended.into_iter().map(|(id, how)| (id.place(), how.is_ok())));
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

    #[test]
    fn who_is_to_be_woken_is_woken_whatever_else_is_told() {
        loom::model(|| {
            let [gone, kept] = [(); 2].map(|()| Timeline::new(stream_core(), 0));
            let completes = {
                let gone = gone.clone();
                thread::spawn(move || gone.advance(1).fire())
            };
            let mut heads = Heads::new();
            let number = heads.add(first_of(&gone));
            heads.add(first_of(&kept));
            let nobody = || Waiter::Call(Box::new(|_| {}));
            let before = heads.wake_by(nobody());
            // Its waiter may be about to tell.
            heads.remove(number);
            let woken = Arc::new(AtomicBool::new(false));
            let wakes = woken.clone();
            let wake = move |_| wakes.store(true, Ordering::SeqCst);
            let ended = heads.wake_by(Waiter::Call(Box::new(wake)));
            assert!(ended.is_empty() && before.len() <= 1);
            kept.advance(1).fire();
            // The late tell may be what wakes.
            completes.join().unwrap();
            assert!(woken.load(Ordering::SeqCst));
        });
    }
}
