//! Deadlocks of host work: which stream's work a thread is running, and whether a wait that it is
//! about to begin could ever end.
//!
//! Two promises rest on this. Host work that blocks on a marker does not take a worker away from
//! other streams. Host work that waits for something behind itself gets [`Error::WouldDeadlock`]
//! instead of a hang.
//!
//! # Finding a circle of waits
//!
//! Each stream publishes the waits that are not over: its queue is parked on a marker, the host
//! work that it is running blocks on one or many, or the host holds back a GPU's queue until one is
//! complete. With each goes which of the stream's own markers lie behind the wait. A wait ends with
//! its marker; a wait for the first of many, with any of theirs.
//!
//! Before a thread blocks, it searches from the markers that it is to block on along all waits in
//! front of them. A marker *comes after the work* if it is one of the thread's own stream, or
//! behind a wait that only such markers can end. A wait for all closes a circle if one of its
//! markers comes after the work; a wait for the first of many, if all of them do.
//!
//! *Every circle that is found is real.* The search is made twice, and must find the same markers
//! after the work. A marker completes once and for good, so a stream that waits for the same
//! pending markers in both searches waited for them in between: at that moment, all of the circle
//! existed. A wait with a deadline ends by itself and is not followed, except the wait that is
//! about to begin.
//!
//! *Every real circle is found.* It may close after the search, so a blocked thread repeats it at
//! growing intervals; the waits of a real circle never go away. One case is left out: a wait for
//! the first of many, of which one waits in another circle, counts as open until that circle is
//! reported by its own members.

use std::{
    cell::RefCell,
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    contract::MarkerImpl,
    core::{Blocked, StreamCore},
    error::{Error, Result},
    fork::Process,
    timeline::Awaited,
    waits::{Mark, Step},
};

/// Told when a thread that runs host work blocks, so that another thread can run other work. Calls
/// nest, and are made on that thread.
pub(crate) trait Blocking: Send + Sync {
    fn begin(&self);
    fn end(&self);
}

/// The host work that a thread is running.
#[derive(Clone)]
struct Running {
    /// `None` for a callback, which belongs to no stream.
    stream: Option<Arc<StreamCore>>,
    worker: Arc<dyn Blocking>,
    /// A child that was forked in the work may find the locks of the worker and the stream held.
    process: Process,
}

#[cfg(not(loom))]
thread_local! {
    static RUNNING: RefCell<Option<Running>> = const { RefCell::new(None) };
}
// loom runs its threads on one thread of the system, so they need loom's own locals.
#[cfg(loom)]
loom::thread_local! {
    static RUNNING: RefCell<Option<Running>> = RefCell::new(None);
}

/// Runs `work` as host work of `stream`, or as a callback, on the thread of `worker`.
pub(crate) fn enter<R>(
    stream: Option<&Arc<StreamCore>>,
    worker: &Arc<dyn Blocking>,
    work: impl FnOnce() -> R,
) -> R {
    struct Restore(Option<Running>);
    impl Drop for Restore {
        fn drop(&mut self) {
            let _ = RUNNING.try_with(|slot| slot.replace(self.0.take()));
        }
    }
    let running = Running {
        stream: stream.cloned(),
        worker: worker.clone(),
        process: Process::this(),
    };
    let _restore = Restore(RUNNING.with(|slot| slot.replace(Some(running))));
    work()
}

/// The host work that this thread is running; none in a child that was forked in it.
fn current() -> Option<Running> {
    RUNNING
        .try_with(|slot| slot.borrow().clone())
        .ok()
        .flatten()
        .filter(|running| running.process.is_this())
}

/// How long blocked host work sleeps before it walks again: at first, and at most.
const FIRST_INTERVAL: Duration = Duration::from_millis(1);
const MAX_INTERVAL: Duration = Duration::from_millis(50);

/// When a wait for several markers is over: with the first or the last of them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Over {
    First,
    Last,
}

/// Blocks on `marker` until it completes (`true`) or `deadline` passes (`false`).
pub(crate) fn block_on(marker: &Arc<dyn MarkerImpl>, deadline: Option<Instant>) -> Result<bool> {
    let Some(running) = current() else {
        return marker.wait_until(deadline);
    };
    let markers: [Arc<dyn Awaited>; 1] = [marker.clone()];
    let done = block_in_work(&running, &markers, Over::Last, deadline, |until| {
        Ok(marker.wait_until(until)?.then_some(()))
    });
    Ok(done?.is_some())
}

/// Blocks on the markers that `markers_of` gives, by `wait`, which returns `None` at its deadline.
pub(crate) fn block_on_many<S, T>(
    state: &mut S,
    markers_of: impl FnOnce(&S) -> Vec<Arc<dyn Awaited>>,
    over: Over,
    deadline: Option<Instant>,
    mut wait: impl FnMut(&mut S, Option<Instant>) -> Result<Option<T>>,
) -> Result<Option<T>> {
    let Some(running) = current() else {
        return wait(state, deadline);
    };
    let markers = markers_of(state);
    block_in_work(&running, &markers, over, deadline, |until| {
        wait(state, until)
    })
}

/// Runs `f`, which may block. If the caller is host work, another thread takes its place meanwhile.
pub(crate) fn blocking<R>(f: impl FnOnce() -> R) -> R {
    struct Goes<'a>(&'a Running);
    impl Drop for Goes<'_> {
        fn drop(&mut self) {
            // `f` may have forked.
            if self.0.process.is_this() {
                self.0.worker.end();
            }
        }
    }
    let Some(running) = current() else {
        return f();
    };
    running.worker.begin();
    let _goes = Goes(&running);
    f()
}

fn block_in_work<T>(
    running: &Running,
    markers: &[Arc<dyn Awaited>],
    over: Over,
    deadline: Option<Instant>,
    mut wait: impl FnMut(Option<Instant>) -> Result<Option<T>>,
) -> Result<Option<T>> {
    struct Unblock<'a>(&'a Running, Option<(&'a StreamCore, Vec<u64>)>);
    impl Drop for Unblock<'_> {
        fn drop(&mut self) {
            if let Some((stream, waits)) = &self.1 {
                waits.iter().for_each(|wait| stream.unblock(*wait));
            }
            self.0.worker.end();
        }
    }
    running.worker.begin();
    let mut unblock = Unblock(running, None);
    let Some(stream) = &running.stream else {
        return wait(deadline);
    };
    let waits = publish(stream, markers, over, deadline.is_none());
    unblock.1 = Some((stream, waits));
    let mut interval = FIRST_INTERVAL;
    loop {
        if let Some(cycle) = find_circle(stream, markers, over) {
            return Err(Error::WouldDeadlock { cycle });
        }
        let next = Instant::now() + interval;
        let until = deadline.map_or(next, |deadline| deadline.min(next));
        if let Some(done) = wait(Some(until))? {
            return Ok(Some(done));
        }
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Ok(None);
        }
        interval = (interval * 2).min(MAX_INTERVAL);
    }
}

/// Publishes that host work of `stream` blocks on `markers`.
fn publish(
    stream: &StreamCore,
    markers: &[Arc<dyn Awaited>],
    over: Over,
    for_ever: bool,
) -> Vec<u64> {
    let block = |marker: &Arc<dyn Awaited>, or: &[Arc<dyn Awaited>]| {
        stream.block(Blocked {
            marker: marker.clone(),
            or: or.to_vec(),
            for_ever,
            in_work: true,
            // Whatever is in front of running work is complete.
            after: 0,
        })
    };
    match (over, markers) {
        (Over::First, [first, or @ ..]) => vec![block(first, or)],
        _ => markers.iter().map(|marker| block(marker, &[])).collect(),
    }
}

/// The circle that would close if host work of `own` blocked on these markers, in words.
fn find_circle(own: &StreamCore, markers: &[Arc<dyn Awaited>], over: Over) -> Option<String> {
    let found = Search::from(own, markers).circle(over)?;
    let again = Search::from(own, markers).circle(over)?;
    if found.seen != again.seen {
        return None;
    }
    let (first, path) = found.path.split_first()?;
    let mut words = format!("host work of {own} waits for {}", first.point());
    if over == Over::First && markers.len() > 1 {
        words += &format!(" or one of {} others", markers.len() - 1);
    }
    for marker in path {
        words += &format!(", which waits for {}", marker.point());
    }
    words += match path.is_empty() {
        true => ", which comes after that very work",
        false => ", which comes after the waiting work",
    };
    Some(words)
}

/// A search along the waits of streams, from the markers that host work of a stream is to block on
/// back to that stream.
struct Search {
    found: Vec<Found>,
    /// How many of them the work is to block on: these come first.
    awaited: usize,
    /// The places of markers that come after the work, in the order in which that was learnt.
    held: Vec<usize>,
}

/// A marker that the search has come by.
struct Found {
    marker: Arc<dyn Awaited>,
    /// The waits of which this marker is one of those that end it: the marker that is behind the
    /// wait, and the number of the wait.
    ends: Vec<(usize, usize)>,
    /// For each wait in front of it, how many of those that end it may still complete.
    open: Vec<usize>,
    /// Once it is known to come after the work: the next marker on the way there.
    next: Option<Option<usize>>,
}

/// A circle: the way back, and all markers that it rests on.
struct Circle {
    path: Vec<Arc<dyn Awaited>>,
    seen: Vec<(u64, u64)>,
}

impl Search {
    /// Goes along all waits that have no deadline.
    fn from(own: &StreamCore, markers: &[Arc<dyn Awaited>]) -> Search {
        let mut search = Search {
            found: Vec::new(),
            awaited: 0,
            held: Vec::new(),
        };
        let mut places = HashMap::new();
        for marker in markers {
            search.place(&mut places, marker);
        }
        search.awaited = search.found.len();
        let mut at = 0;
        while let Some(found) = search.found.get(at) {
            let marker = found.marker.clone();
            let point = marker.point();
            if !marker.is_pending() {
                // Whatever waits for it goes on.
            } else if point.timeline.stream.id == own.id {
                search.hold(at, None);
            } else {
                for wait in point.timeline.stream.waits_in_front_of(point.value) {
                    if wait.for_ever {
                        search.follow(&mut places, at, &wait);
                    }
                }
            }
            at += 1;
        }
        search.spread();
        search
    }

    fn place(
        &mut self,
        places: &mut HashMap<(u64, u64), usize>,
        marker: &Arc<dyn Awaited>,
    ) -> usize {
        let next = self.found.len();
        let at = *places.entry(id(marker)).or_insert(next);
        if at == next {
            self.found.push(Found {
                marker: marker.clone(),
                ends: Vec::new(),
                open: Vec::new(),
                next: None,
            });
        }
        at
    }

    /// Goes along a wait that is in front of the marker at `behind`.
    fn follow(&mut self, places: &mut HashMap<(u64, u64), usize>, behind: usize, wait: &Blocked) {
        let number = self.found[behind].open.len();
        self.found[behind].open.push(1 + wait.or.len());
        for marker in std::iter::once(&wait.marker).chain(&wait.or) {
            let at = self.place(places, marker);
            self.found[at].ends.push((behind, number));
        }
    }

    /// The marker at `at` comes after the work, by way of the one at `next`.
    fn hold(&mut self, at: usize, next: Option<usize>) {
        if self.found[at].next.is_none() {
            self.found[at].next = Some(next);
            self.held.push(at);
        }
    }

    /// What is behind a wait that only markers after the work can end comes after the work too.
    fn spread(&mut self) {
        let mut done = 0;
        while let Some(&at) = self.held.get(done) {
            for (behind, number) in std::mem::take(&mut self.found[at].ends) {
                let open = &mut self.found[behind].open[number];
                *open -= 1;
                if *open == 0 {
                    self.hold(behind, Some(at));
                }
            }
            done += 1;
        }
    }

    /// The circle that the wait for them closes.
    fn circle(self, over: Over) -> Option<Circle> {
        let is_held = |at: &usize| self.found[*at].next.is_some();
        let first = match over {
            Over::First if !(0..self.awaited).all(|at| is_held(&at)) => return None,
            _ => (0..self.awaited).find(is_held)?,
        };
        let mut path = vec![self.found[first].marker.clone()];
        let mut at = first;
        while let Some(Some(next)) = self.found[at].next {
            path.push(self.found[next].marker.clone());
            at = next;
        }
        let held = self.held.iter().map(|at| id(&self.found[*at].marker));
        let mut seen: Vec<_> = held.collect();
        seen.sort_unstable();
        Some(Circle { path, seen })
    }
}

/// Which marker it is: no other has this stream and value.
fn id(marker: &Arc<dyn Awaited>) -> (u64, u64) {
    let point = marker.point();
    (point.timeline.stream.id, point.value)
}

/// A step to a marker of the library.
pub(crate) type AwaitedStep = Step<Arc<dyn Awaited>>;

impl Mark for Arc<dyn Awaited> {
    fn stream(&self) -> u64 {
        self.point().timeline.stream.id
    }

    fn position(&self) -> u64 {
        self.point().value
    }

    fn is_pending(&self) -> bool {
        matches!(self.query(), Ok(false))
    }
}

/// The step along `wait`.
pub(crate) fn behind(wait: Blocked) -> AwaitedStep {
    Step {
        marker: wait.marker,
        in_work: wait.in_work,
        on_device: false,
        after: wait.after,
    }
}
