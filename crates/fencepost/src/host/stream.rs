//! A serial queue of host work.
//!
//! # The protocol
//!
//! | phase | the operations in `ops` | who owns the queue |
//! |---|---|---|
//! | `Idle` | none | nobody |
//! | `Scheduled` | any | the pool |
//! | `Running` | any | the one worker that runs it |
//! | `Parked` | any, behind a wait for a pending marker | the waiter on that marker |
//!
//! *Invariant: outside `Idle` there is exactly one owner, and ownership changes under the lock.*
//! Only the owner runs operations, so they run one at a time and in order. None is left behind: a
//! submitter that finds `Idle` becomes the owner and gives the queue to the pool; any other
//! submitter only appends.
//!
//! Values are allocated under the lock, in the order of `ops`. The timeline advances to a value
//! only when everything before it is done. A failure empties `ops`. A failed timeline accepts no
//! operation, until `clear_error` replaces it.

use std::{
    any::Any,
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Weak},
    time::Duration,
};

use super::cache;
use crate::contract::{MarkerImpl, StreamImpl, TimelineKnowledge};
use crate::timeline::Point;
use crate::{
    clock::{Elapsed, Timestamp, host_clock, host_ticks},
    core::{Blocked, DeviceCore, Doing, HostWork, StreamCore, Work},
    deadlock::{self, Blocking},
    error::{Cause, Error, Result},
    panics::{Raised, contain, discard, text_of},
    place::Place,
    sync::{AtomicU64, Mutex, Ordering, lock},
    timeline::{Awaited, Timeline, Waiter, Wake},
    workers::{Pool, Task, coarse_nanos},
};

pub(super) struct HostStream {
    /// This stream, for giving it to the pool.
    me: Weak<HostStream>,
    core: Arc<StreamCore>,
    pool: Arc<Pool>,
    queue: Mutex<Queue>,
}

struct Queue {
    ops: VecDeque<Op>,
    phase: Phase,
    timeline: Arc<Timeline>,
    /// The last value allocated.
    last: u64,
    /// The closure that runs: where it was launched, and when it started, by [`coarse_nanos`].
    running: Option<(Place, u64)>,
    /// The marker that the queue was parked on, and its failure: for the worker that runs it next.
    upstream: Option<(Arc<dyn MarkerImpl>, Error)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Idle,
    Scheduled,
    Running,
    Parked,
}

enum Op {
    Work(Work, Place),
    Mark(Arc<HostMarker>),
    Wait(Arc<dyn MarkerImpl>),
}

/// How many operations a worker runs before it puts the queue behind the others in the pool.
const BATCH: usize = 256;

impl HostStream {
    pub(super) fn new(device: Arc<DeviceCore>, pool: Arc<Pool>) -> Arc<HostStream> {
        let core = StreamCore::new(device);
        let stream = Arc::new_cyclic(|me: &Weak<HostStream>| HostStream {
            me: me.clone(),
            queue: Mutex::new(Queue {
                ops: VecDeque::new(),
                phase: Phase::Idle,
                timeline: Timeline::new(core.clone(), 0),
                last: 0,
                running: None,
                upstream: None,
            }),
            core,
            pool,
        });
        let host_work: Weak<dyn HostWork> = stream.me.clone();
        drop(stream.core.host_work.set(host_work));
        stream
    }

    /// Runs the queue until it is empty or parked, or for one batch.
    fn run_queue(self: Arc<Self>) {
        let mut queue = lock(&self.queue);
        queue.phase = Phase::Running;
        if let Some((marker, error)) = queue.upstream.take() {
            drop(queue);
            return self.fail_by_wait(&marker, &error);
        }
        for _ in 0..BATCH {
            match queue.ops.pop_front() {
                None => {
                    queue.phase = Phase::Idle;
                    return;
                }
                Some(Op::Mark(marker)) => {
                    let wake = marker.complete();
                    if !wake.is_empty() {
                        drop(queue);
                        wake.fire();
                        queue = lock(&self.queue);
                    }
                }
                Some(Op::Work(work, at)) => {
                    queue.running = Some((at, coarse_nanos()));
                    drop(queue);
                    let ended = run(work, at);
                    if self.pool.is_forked() {
                        // A child that was forked in the work. The failure is the parent's.
                        return std::mem::forget(ended);
                    }
                    if let Err((cause, raised)) = ended {
                        self.fail_with(&cause);
                        // Only now: it counts as raising until the stream has failed.
                        drop(raised);
                        return;
                    }
                    queue = lock(&self.queue);
                    queue.running = None;
                }
                Some(Op::Wait(marker)) => {
                    // The query may wake others, and dropping a marker may call a driver: a waker
                    // may launch on this stream.
                    drop(queue);
                    match marker.query() {
                        Ok(true) => drop(marker),
                        Ok(false) => return self.park_on(marker),
                        Err(error) => return self.fail_by_wait(&marker, &error),
                    }
                    queue = lock(&self.queue);
                }
            }
        }
        queue.phase = Phase::Scheduled;
        drop(queue);
        self.pool.push(self.clone());
    }

    /// Makes a waiter on `marker` the queue's owner. Called by its owner, without the lock.
    fn park_on(self: &Arc<Self>, marker: Arc<dyn MarkerImpl>) {
        lock(&self.queue).phase = Phase::Parked;
        let wait = self.core.block(Blocked {
            marker: marker.clone(),
            or: Vec::new(),
            for_ever: true,
            in_work: false,
            // A parked queue has completed whatever is in front of it.
            after: 0,
        });
        let stream = self.clone();
        let awaited = marker.clone();
        let woken = marker.notify(Waiter::Call(Box::new(move |result| {
            stream.resume(wait, result.err().map(|error| (awaited, error)));
        })));
        if let Err(error) = woken {
            self.resume(wait, Some((marker, error)));
        }
    }

    /// The marker that the queue was parked on is complete, or has failed. Gives the queue to the
    /// pool and runs nothing itself, so that completions and failures which travel over thousands
    /// of streams do not recurse.
    fn resume(self: &Arc<Self>, wait: u64, upstream: Option<(Arc<dyn MarkerImpl>, Error)>) {
        self.core.unblock(wait);
        let mut queue = lock(&self.queue);
        queue.phase = Phase::Scheduled;
        queue.upstream = upstream;
        drop(queue);
        self.pool.push(self.clone());
    }

    fn fail_by_wait(&self, marker: &Arc<dyn MarkerImpl>, error: &Error) {
        self.fail_with(&Cause::of(error).through(marker.to_string()));
    }

    /// Ends the timeline: what is queued never runs. Called by the queue's owner.
    fn fail_with(&self, cause: &Cause) {
        let mut queue = lock(&self.queue);
        // The timeline fails before the queue is idle. Else a record in between would complete,
        // although it lies behind the failure.
        let wake = queue.timeline.fail(cause, false);
        queue.phase = Phase::Idle;
        queue.running = None;
        let skipped = std::mem::take(&mut queue.ops);
        drop(queue);
        wake.fire();
        for op in skipped {
            if let Op::Work(work, _) = op {
                // Dropping a closure drops its captures, which is code of the user's.
                contain(|| drop(work));
            }
        }
    }

    /// Appends `op`, and gives the queue to the pool if it is idle.
    fn submit(&self, op: Op) -> Result<()> {
        self.pool.start()?;
        let mut queue = lock(&self.queue);
        if queue.timeline.has_failed() {
            let failure = queue.timeline.failure();
            drop(queue);
            return failure.map_or(Ok(()), Err);
        }
        queue.ops.push_back(op);
        if queue.phase != Phase::Idle {
            return Ok(());
        }
        // The caller has a reference, so this always succeeds.
        let Some(stream) = self.me.upgrade() else {
            return Ok(());
        };
        queue.phase = Phase::Scheduled;
        drop(queue);
        self.pool.push(stream);
        Ok(())
    }
}

impl HostWork for HostStream {
    fn doing(&self) -> Doing {
        let queue = lock(&self.queue);
        if let Some((at, since)) = queue.running {
            let time = Duration::from_nanos(coarse_nanos().saturating_sub(since));
            return Doing::Runs { at, time };
        }
        let next = match queue.phase {
            Phase::Scheduled => queue.ops.iter().find_map(|op| match op {
                Op::Work(_, at) => Some(*at),
                Op::Mark(_) | Op::Wait(_) => None,
            }),
            Phase::Idle | Phase::Running | Phase::Parked => None,
        };
        drop(queue);
        next.map_or(Doing::GoesOn, |at| Doing::NotStarted {
            at,
            exhausted: self.pool.exhausted(),
        })
    }
}

/// Runs work launched at `at`, and says why it failed if it did.
fn run(work: Work, at: Place) -> Result<(), (Cause, Option<Box<Raised>>)> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(())) => Ok(()),
        Ok(Err(returned)) => Err((Cause::of_returned(*returned, at), None)),
        Err(payload) => Err(cause_of(payload, at)),
    }
}

/// The cause of work launched at `at` that unwound with `payload`.
fn cause_of(payload: Box<dyn Any + Send>, at: Place) -> (Cause, Option<Box<Raised>>) {
    match payload.downcast::<Raised>() {
        Ok(raised) => {
            let root = format!("host work launched at {at} raised {}", &raised.what);
            (Cause::of_raised(root, raised.payload.clone()), Some(raised))
        }
        Err(payload) => {
            let what = text_of(&*payload);
            discard(payload);
            let root = format!("host work launched at {at} panicked: {what}");
            (Cause::of_panic(root), None)
        }
    }
}

impl Task for HostStream {
    fn run(self: Arc<Self>, worker: &Arc<dyn Blocking>) {
        let stream = self.clone();
        deadlock::enter(Some(&stream.core), worker, || {
            self.run_queue();
        });
    }
}

impl StreamImpl for HostStream {
    fn core(&self) -> &Arc<StreamCore> {
        &self.core
    }

    fn mark(&self, timing: bool, at: Place) -> Result<Arc<dyn MarkerImpl>> {
        let mut queue = lock(&self.queue);
        queue.last += 1;
        self.core.recorded.store(queue.last, Ordering::Release);
        let marker = Arc::new(HostMarker {
            point: Point {
                timeline: queue.timeline.clone(),
                value: queue.last,
                at,
                timing,
            },
            ticks: AtomicU64::new(0),
        });
        if queue.phase != Phase::Idle {
            queue.ops.push_back(Op::Mark(marker.clone()));
        } else if !queue.timeline.has_failed() {
            // Everything before it is complete, and no other thread has the marker yet.
            marker.stamp();
            queue.timeline.advance_alone(queue.last);
        }
        Ok(marker)
    }

    fn wait(&self, marker: &Arc<dyn MarkerImpl>) -> Result<()> {
        // A marker that never completes is refused now, not when the stream comes to the wait.
        if let TimelineKnowledge::Nothing = marker.timeline_knowledge()
            && let Err(error @ Error::Captured { .. }) = marker.query()
        {
            return Err(error);
        }
        match self.submit(Op::Wait(marker.clone())) {
            // The stream's markers report its failure.
            Err(Error::StreamFailed { .. }) => Ok(()),
            other => other,
        }
    }

    fn completed(&self) -> u64 {
        lock(&self.queue).timeline.completed()
    }

    fn failure(&self) -> Option<Error> {
        let timeline = lock(&self.queue).timeline.clone();
        timeline.failure()
    }

    fn clear_error(&self) -> Result<()> {
        let mut queue = lock(&self.queue);
        if !queue.timeline.has_failed() {
            return Ok(());
        }
        let next = Timeline::new(self.core.clone(), queue.last);
        let failed = std::mem::replace(&mut queue.timeline, next);
        drop(queue);
        // Dropped without the lock: its cause may hold an error of the user's.
        drop(failed);
        Ok(())
    }

    fn overwrite_cache(&self, at: Place) -> Result<()> {
        let write = || {
            std::hint::black_box(vec![1_u8; cache::bytes() * 2]);
            Ok(())
        };
        self.launch(Box::new(write), at)
    }

    fn launch(&self, work: Work, at: Place) -> Result<()> {
        self.submit(Op::Work(work, at))
    }
}

struct HostMarker {
    point: Point,
    /// When it completed, on the host's clock; 0 until then. Written before the timeline advances,
    /// so a thread that sees the marker complete sees its time.
    ticks: AtomicU64,
}

impl HostMarker {
    /// Completes the marker: everything before it is done. Called under the queue's lock, so that a
    /// later marker never has an earlier time.
    fn complete(&self) -> Wake {
        self.stamp();
        self.point.timeline.advance(self.point.value)
    }

    fn stamp(&self) {
        if self.point.timing {
            self.ticks.store(host_ticks(), Ordering::Relaxed);
        }
    }
}

impl Awaited for HostMarker {
    fn point(&self) -> &Point {
        &self.point
    }
}

impl MarkerImpl for HostMarker {
    fn timeline_knowledge(&self) -> TimelineKnowledge {
        TimelineKnowledge::All
    }

    fn elapsed_at_once(&self, end: &dyn MarkerImpl) -> Option<Elapsed> {
        let timed = self.point.timing && end.point().timing;
        timed.then(|| self.elapsed(end).ok())?
    }

    fn timestamp(&self) -> Result<Timestamp> {
        Ok(Timestamp::new(
            self.ticks.load(Ordering::Relaxed),
            host_clock(),
        ))
    }
}

/// The first marker of `timeline`. Advancing the timeline completes it.
#[cfg(all(test, loom))]
#[track_caller]
pub(super) fn marker_on(timeline: Arc<Timeline>) -> Arc<dyn MarkerImpl> {
    Arc::new(HostMarker {
        point: Point {
            timeline,
            value: 1,
            at: Place::caller(),
            timing: false,
        },
        ticks: AtomicU64::new(0),
    })
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::Device;

    /// Its query, and dropping it, run code of the user's, as the wakers of a driver's timeline do.
    struct Calling {
        point: Point,
        call: Box<dyn Fn() + Send + Sync>,
    }

    impl Awaited for Calling {
        fn point(&self) -> &Point {
            &self.point
        }

        fn query(&self) -> Result<bool> {
            (self.call)();
            Ok(true)
        }
    }

    impl MarkerImpl for Calling {
        fn wait_until(&self, _: Option<std::time::Instant>) -> Result<bool> {
            self.query()
        }

        fn timestamp(&self) -> Result<Timestamp> {
            Ok(Timestamp::new(0, host_clock()))
        }
    }

    impl Drop for Calling {
        fn drop(&mut self) {
            (self.call)();
        }
    }

    #[test]
    fn what_a_wait_wakes_may_launch_on_the_stream_that_waits() {
        let stream = Device::new_host(1).new_stream().unwrap();
        let (ran, runs) = mpsc::channel();
        let own = stream.clone();
        let marker: Arc<dyn MarkerImpl> = Arc::new(Calling {
            point: Point {
                timeline: Timeline::new(stream.imp().core().clone(), 0),
                value: 1,
                at: Place::caller(),
                timing: false,
            },
            call: Box::new(move || {
                let ran = ran.clone();
                own.launch(move || ran.send(()).unwrap_or(())).unwrap();
            }),
        });
        stream.imp().wait(&marker).unwrap();
        drop(marker);
        let patience = Duration::from_secs(60);
        for which in ["by the query", "by the drop"] {
            assert!(runs.recv_timeout(patience).is_ok(), "launched {which}");
        }
    }
}
