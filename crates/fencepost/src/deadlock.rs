//! Deadlocks of host work: which stream's work a thread is running, and whether a wait that it is
//! about to begin could ever end.
//!
//! Two promises rest on this. Host work that blocks on a marker does not take a worker away from
//! other streams. Host work that waits for something behind itself gets [`Error::WouldDeadlock`]
//! instead of a hang.
//!
//! # Finding a circle of waits
//!
//! A serial stream waits for at most one marker at a time: its queue is parked on one, the host
//! work that it is running blocks on one, or the host holds back a GPU's queue until one is
//! complete. Each stream publishes that marker, and which of its own markers lie behind the wait.
//! Before a thread blocks on a marker, it walks from that marker's stream to the marker that this
//! stream waits for, and so on, until a stream waits for nothing or the walk is back at the
//! thread's own stream. A GPU's queue may have further waits behind the first; each is the first
//! once those in front of it are over.
//!
//! *Every circle that is found is real.* The walk is made twice. A marker completes once and for
//! good, so a stream that is blocked on the same pending marker in both walks was blocked on it in
//! between: at that moment, all edges of the circle existed. A wait with a deadline ends by itself
//! and is no edge, except the wait that is about to begin.
//!
//! *Every real circle is found.* It may close after the walk, so a blocked thread repeats the walk
//! at growing intervals; the edges of a real circle never go away.

use std::{
    cell::RefCell,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    contract::MarkerImpl,
    core::{Blocked, StreamCore},
    error::{Error, Result},
    fork::Process,
    timeline::Awaited,
    waits::{Mark, Step, Stop, walk},
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

/// Blocks on `marker` until it completes (`true`) or `deadline` passes (`false`).
pub(crate) fn block_on(marker: &Arc<dyn MarkerImpl>, deadline: Option<Instant>) -> Result<bool> {
    match current() {
        None => marker.wait_until(deadline),
        Some(running) => block_in_work(&running, marker, deadline),
    }
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

fn block_in_work(
    running: &Running,
    marker: &Arc<dyn MarkerImpl>,
    deadline: Option<Instant>,
) -> Result<bool> {
    struct Unblock<'a>(&'a Running, Option<(&'a StreamCore, u64)>);
    impl Drop for Unblock<'_> {
        fn drop(&mut self) {
            if let Some((stream, wait)) = self.1 {
                stream.unblock(wait);
            }
            self.0.worker.end();
        }
    }
    running.worker.begin();
    let mut unblock = Unblock(running, None);
    let Some(stream) = &running.stream else {
        return marker.wait_until(deadline);
    };
    let wait = stream.block(Blocked {
        marker: marker.clone(),
        for_ever: deadline.is_none(),
        in_work: true,
        // Whatever is in front of running work is complete.
        after: 0,
    });
    unblock.1 = Some((stream, wait));
    let mut interval = FIRST_INTERVAL;
    loop {
        if let Some(cycle) = find_circle(stream, marker) {
            return Err(Error::WouldDeadlock { cycle });
        }
        let next = Instant::now() + interval;
        let until = deadline.map_or(next, |deadline| deadline.min(next));
        if marker.wait_until(Some(until))? {
            return Ok(true);
        }
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Ok(false);
        }
        interval = (interval * 2).min(MAX_INTERVAL);
    }
}

/// The circle that would close if host work of `own` blocked on `marker`, in words.
fn find_circle(own: &StreamCore, marker: &Arc<dyn MarkerImpl>) -> Option<String> {
    let path = back_to(own, marker)?;
    let again = back_to(own, marker)?;
    if !path
        .iter()
        .map(|step| step.marker.point())
        .eq(again.iter().map(|step| step.marker.point()))
    {
        return None;
    }
    let mut words = format!("host work of {own} waits for {marker}");
    for step in &path[1..] {
        words += &format!(", which waits for {}", step.marker.point());
    }
    words += if path.len() == 1 {
        ", which comes after that very work"
    } else {
        ", which comes after the waiting work"
    };
    Some(words)
}

/// The walk from `marker` back to `own`. `None` where it ends elsewhere.
fn back_to(own: &StreamCore, marker: &Arc<dyn MarkerImpl>) -> Option<Vec<AwaitedStep>> {
    let for_ever = |marker: &Arc<dyn Awaited>| {
        let point = marker.point();
        let wait = point.timeline.stream.blocked();
        let wait = wait.filter(|wait| wait.for_ever);
        wait.and_then(|wait| behind(wait, point.value))
    };
    let first: Arc<dyn Awaited> = marker.clone();
    match walk(first, Some(own.id), for_ever) {
        (path, Stop::Own) => Some(path),
        // A circle without `own` in it is reported by its members.
        _ => None,
    }
}

/// A step to a marker of the library.
pub(crate) type AwaitedStep = Step<Arc<dyn Awaited>>;

impl Mark for Arc<dyn Awaited> {
    fn stream(&self) -> u64 {
        self.point().timeline.stream.id
    }

    fn is_pending(&self) -> bool {
        matches!(self.query(), Ok(false))
    }
}

/// The step from the marker at `value`, if that lies behind `wait`.
pub(crate) fn behind(wait: Blocked, value: u64) -> Option<AwaitedStep> {
    (wait.after < value).then_some(Step {
        marker: wait.marker,
        in_work: wait.in_work,
        on_device: false,
    })
}
