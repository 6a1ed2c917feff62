//! What a thread knows while it runs host work: which stream it is, and whom to tell when it is
//! about to block. From this come two promises: host work that blocks on a marker takes no worker
//! from the other streams, and host work that waits for what lies behind itself gets
//! [`Error::WouldDeadlock`] instead of a hang.
//!
//! # Finding a circle
//!
//! A serial stream waits for at most one marker at a time: its queue is parked on one, the host
//! work it is running blocks on one, or a GPU's queue is held for one of another backend. Each
//! publishes that marker on its stream, and which of the stream's own markers lie behind the wait.
//! Starting from the marker that we are about to block on, the walk goes from its stream to the
//! marker that holds it up there, and so on, until a stream waits for nothing or the walk is back
//! at our own. A GPU's queue may have further waits behind the first; they come first in their
//! turn.
//!
//! *A circle that is found is real.* The walk looks twice. A marker completes once and for good, so
//! a stream that is blocked on the same pending marker in both passes was blocked on it in between:
//! all edges held at one moment, the one between the passes. Waits with a deadline end by
//! themselves and are no edges, except our own, which is about to begin.
//!
//! *A circle that is real is found.* It can close after we looked, so a blocked thread looks again,
//! in growing steps; the edges of a real circle are still there.

use std::{
    cell::RefCell,
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    contract::MarkerImpl,
    core::{Blocked, StreamCore},
    error::{Error, Result},
    timeline::Awaited,
};

/// Told when a thread that runs host work blocks, so that others can go on meanwhile.
pub(crate) trait Blocking: Send + Sync {
    fn begin(&self);
    fn end(&self);
}

#[derive(Clone)]
struct Running {
    /// `None` in a callback, which belongs to no stream.
    stream: Option<Arc<StreamCore>>,
    pool: Arc<dyn Blocking>,
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

/// Runs `work` as host work of `stream`, or as a callback, on a thread of `pool`.
pub(crate) fn enter<R>(
    stream: Option<&Arc<StreamCore>>,
    pool: &Arc<dyn Blocking>,
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
        pool: pool.clone(),
    };
    let _restore = Restore(RUNNING.with(|slot| slot.replace(Some(running))));
    work()
}

/// The stream whose host work this thread is running.
fn current() -> Option<Running> {
    RUNNING
        .try_with(|slot| slot.borrow().clone())
        .ok()
        .flatten()
}

/// How long a blocked piece of host work sleeps before it first looks for a circle again.
const FIRST_LOOK: Duration = Duration::from_millis(1);
const LONGEST_LOOK: Duration = Duration::from_millis(50);

/// Blocks on `marker` until it completes (`true`) or `deadline` passes (`false`).
pub(crate) fn block_on(marker: &Arc<dyn MarkerImpl>, deadline: Option<Instant>) -> Result<bool> {
    match current() {
        None => marker.wait_until(deadline),
        Some(running) => block_in_work(&running, marker, deadline),
    }
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
            self.0.pool.end();
        }
    }
    running.pool.begin();
    let mut unblock = Unblock(running, None);
    let Some(stream) = &running.stream else {
        return marker.wait_until(deadline);
    };
    let wait = stream.block(Blocked {
        marker: marker.clone(),
        for_ever: deadline.is_none(),
        in_work: true,
        // Running work is behind whatever is complete.
        after: 0,
    });
    unblock.1 = Some((stream, wait));
    let mut look = FIRST_LOOK;
    loop {
        if let Some(cycle) = find_circle(stream, marker) {
            return Err(Error::WouldDeadlock { cycle });
        }
        let next = Instant::now() + look;
        let until = deadline.map_or(next, |deadline| deadline.min(next));
        if marker.wait_until(Some(until))? {
            return Ok(true);
        }
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Ok(false);
        }
        look = (look * 2).min(LONGEST_LOOK);
    }
}

/// The circle that blocking host work of `own` on `marker` closes, in words.
fn find_circle(own: &StreamCore, marker: &Arc<dyn MarkerImpl>) -> Option<String> {
    let path = walk(own, marker)?;
    let again = walk(own, marker)?;
    if !path
        .iter()
        .map(|m| m.point())
        .eq(again.iter().map(|m| m.point()))
    {
        return None;
    }
    let mut words = format!("host work of {own} waits for {marker}");
    for marker in &path[1..] {
        words += &format!(", which waits for {}", marker.point());
    }
    words += if path.len() == 1 {
        ", which comes after that very work"
    } else {
        ", which comes after the waiting work"
    };
    Some(words)
}

/// The pending markers from `marker` back to `own`; `None` when the way ends elsewhere.
fn walk(own: &StreamCore, marker: &Arc<dyn MarkerImpl>) -> Option<Vec<Arc<dyn Awaited>>> {
    let mut path: Vec<Arc<dyn Awaited>> = vec![marker.clone()];
    let mut seen = HashSet::new();
    loop {
        let last = path.last()?;
        let stream = &last.point().timeline.stream;
        if !matches!(last.query(), Ok(false)) {
            return None;
        }
        if stream.id == own.id {
            return Some(path);
        }
        // A circle that we are not part of is for its own members to report.
        if !seen.insert(stream.id) {
            return None;
        }
        let value = last.point().value;
        let next = stream
            .blocked()
            .filter(|blocked| blocked.for_ever && blocked.after < value)?;
        path.push(next.marker);
    }
}

/// What holds `stream` up, in words, for the text of a timeout.
pub(crate) fn held_up_by(stream: &StreamCore) -> Option<String> {
    let blocked = stream.blocked()?;
    let who = if blocked.in_work {
        "its host work"
    } else {
        "it"
    };
    let point = blocked.marker.point();
    Some(format!(
        "{who} waits for {point}, recorded at {}; that stream has completed {} of {} markers",
        point.at,
        point.timeline.completed(),
        point
            .timeline
            .stream
            .recorded
            .load(crate::sync::Ordering::Relaxed),
    ))
}
