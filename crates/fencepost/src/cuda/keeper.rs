//! What keeps the time of a context: a thread that records anchors while anybody holds a
//! [`Guard`].
//!
//! # The protocol
//!
//! | `next` | means | who moves it on |
//! |---|---|---|
//! | `Some(Next { pending: None, .. })` | no anchor is recorded | a round records one |
//! | `Some(Next { pending: Some(_), .. })` | one is recorded, and perhaps not complete | a round measures its link, adds it to the anchors, and records the next one |
//! | `None` | a round is going on, or the keeper has ended after a fault | that round |
//!
//! A round takes `next` out, so that no lock is held while the driver is called, and two rounds of
//! one keeper never run at once. Two keepers may, where one ends while the next begins: each link
//! says which anchor it was measured from, and is not added behind another one. A pending anchor
//! that is not complete is left alone: the link becomes longer, and says how exact it still is. The
//! anchors stay when the guards are gone, so that times may be asked for later, and the next keeper
//! goes on from the last of them.

use std::{
    any::Any,
    sync::{Arc, Weak},
    time::Duration,
};

use super::{
    anchors::{Anchors, EXACT_MILLIS, Span},
    context::{Context, prepare_watcher},
    driver::{EventHandle, StreamHandle},
    fault::{Fault, Meaning},
    pools::Kind,
    ticker::Ticker,
};
use crate::{
    bindings::TIME_KEEPER,
    clock::Elapsed,
    error::{Error, Result},
    sync::{Mutex, lock},
};

/// How often an anchor is recorded: a thread may be woken 50 ms late, and links stay exact.
const PAUSE: Duration = Duration::from_millis(200);

const KIND: Kind = Kind {
    timing: true,
    blocking: false,
};

/// The times that a context keeps.
pub(super) struct Kept {
    anchors: Anchors<Event>,
    guard: Mutex<Weak<Guard>>,
}

/// An event of the pool.
struct Event {
    context: &'static Context,
    raw: EventHandle,
}

/// Keeps the time while it lives. All guards of a context are clones of one.
struct Guard {
    #[cfg_attr(not(feature = "conformance"), allow(dead_code))]
    keeper: Arc<Keeper>,
    _ticker: Ticker,
}

struct Keeper {
    context: &'static Context,
    stream: StreamHandle,
    next: Mutex<Option<Next>>,
}

struct Next {
    pending: Option<Event>,
    /// Events that were recorded one right after the other, to see the clock's steps by.
    burst: Vec<Event>,
}

impl Kept {
    pub(super) fn new() -> Kept {
        Kept {
            anchors: Anchors::new(),
            guard: Mutex::new(Weak::new()),
        }
    }
}

impl Event {
    fn record(context: &'static Context, stream: StreamHandle) -> Result<Event, Fault> {
        let raw = context.pools.take_event(KIND)?;
        let event = Event { context, raw };
        context.calls.record(raw, stream)?;
        Ok(event)
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        self.context.pools.give_event(KIND, self.raw);
    }
}

impl Context {
    /// Records anchors from now on, until all guards are dropped. Each gets the same guard.
    pub(super) fn keep_time(&'static self) -> Result<Arc<dyn Any + Send + Sync>> {
        self.check_fork()?;
        if let Some(lost) = self.lost() {
            return Err(lost);
        }
        if let Some(guard) = lock(&self.kept.guard).upgrade() {
            return Ok(guard);
        }
        let keeper = Keeper::new(self).map_err(|fault| self.failed(fault, None))?;
        // Before any work that is submitted from now on.
        keeper.round().map_err(|fault| self.failed(fault, None))?;
        let guard = Arc::new(Guard::start(keeper)?);
        let mut held = lock(&self.kept.guard);
        if let Some(first) = held.upgrade() {
            drop(held);
            // Another thread was quicker.
            drop(guard);
            return Ok(first);
        }
        *held = Arc::downgrade(&guard);
        Ok(guard)
    }

    /// The time between two events, which the driver gave as `millis`: over anchors, where there
    /// are some and the driver's number has lost something.
    #[inline]
    pub(super) fn interval(&self, events: (EventHandle, EventHandle), millis: f32) -> Elapsed {
        let at_once = self.interval_at_once(millis);
        at_once.unwrap_or_else(|| self.long_interval(events, millis))
    }

    /// As [`interval`](Context::interval); `None` where anchors are to be asked.
    #[inline(always)]
    pub(super) fn interval_at_once(&self, millis: f32) -> Option<Elapsed> {
        let is_long = millis.abs() >= EXACT_MILLIS;
        (!is_long || !self.kept.anchors.any()).then(|| self.clock.millis(millis))
    }

    #[cold]
    fn long_interval(&self, events: (EventHandle, EventHandle), millis: f32) -> Elapsed {
        let kept = self.kept_interval(events, millis);
        kept.unwrap_or_else(|| self.clock.millis(millis))
    }

    /// `None` where the anchors tell no more than the driver does.
    fn kept_interval(&self, events: (EventHandle, EventHandle), millis: f32) -> Option<Elapsed> {
        self.check_fork().ok()?;
        let measure = |anchor: &Event, event: &EventHandle| self.span(anchor.raw, *event).ok()?;
        let kept = self.kept.anchors.between(&events.0, &events.1, measure)?;
        let alone = Span::of(millis, None);
        (kept.off < alone.off).then(|| Elapsed::within(kept.nanos, kept.off, self.clock.clone()))
    }

    /// The time between two events; `None` while one of them is pending.
    fn span(&self, start: EventHandle, end: EventHandle) -> Result<Option<Span>, Fault> {
        let millis = self.calls.elapsed(start, end)?;
        Ok(millis.map(|millis| Span::of(millis, self.clock.step())))
    }

    /// Records an anchor, as the keeper's thread does each so often; for tests, which have no time
    /// to wait. Blocks while that thread is in a round of its own, and until the anchor that is
    /// pending is complete.
    #[cfg(feature = "conformance")]
    pub(crate) fn anchor_now(&'static self) -> Result<()> {
        self.check_fork()?;
        let guard = lock(&self.kept.guard).upgrade();
        let Some(guard) = guard else {
            return Ok(());
        };
        loop {
            let recorded = guard.keeper.round();
            if recorded.map_err(|fault| self.failed(fault, None))? {
                return Ok(());
            }
            std::thread::yield_now();
        }
    }
}

impl Guard {
    fn start(keeper: Arc<Keeper>) -> Result<Guard> {
        let (rounds, mut first) = (keeper.clone(), true);
        let round = move || {
            if std::mem::take(&mut first) {
                prepare_watcher();
            }
            match rounds.round() {
                Ok(_) => true,
                Err(fault) => match fault.meaning() {
                    Meaning::Refused => true,
                    Meaning::Gone => false,
                    // The next call on the device says so, and the next `keep_time` too.
                    _ => {
                        drop(rounds.context.failed(fault, None));
                        false
                    }
                },
            }
        };
        let ticker = Ticker::start(TIME_KEEPER, PAUSE, round).map_err(|error| Error::Backend {
            call: "std::thread::Builder::spawn",
            code: error.raw_os_error().unwrap_or(-1).into(),
            text: format!("{error}; end some threads, or raise the process's limit"),
        })?;
        Ok(Guard {
            keeper,
            _ticker: ticker,
        })
    }
}

/// So many events tell the steps of the clock.
const BURST: usize = 24;

impl Keeper {
    fn new(context: &'static Context) -> Result<Arc<Keeper>, Fault> {
        Ok(Arc::new(Keeper {
            context,
            stream: context.pools.take_stream()?,
            next: Mutex::new(Some(Next {
                pending: None,
                burst: Vec::new(),
            })),
        }))
    }

    /// Adds the pending anchor if it is complete, and records the next one; behind it a burst,
    /// where the clock's steps are not known yet. `false` where it has recorded none, since another
    /// round is going on or the pending anchor is not complete.
    fn round(&self) -> Result<bool, Fault> {
        let Some(mut next) = lock(&self.next).take() else {
            return Ok(false);
        };
        let done = self.go_on(&mut next);
        *lock(&self.next) = Some(next);
        done
    }

    fn go_on(&self, next: &mut Next) -> Result<bool, Fault> {
        let (context, anchors) = (self.context, &self.context.kept.anchors);
        context.calls.check_alive()?;
        if let [.., last] = &next.burst[..]
            && context.calls.query(last.raw)?
        {
            self.see_steps(&std::mem::take(&mut next.burst))?;
        }
        if let Some(pending) = next.pending.take() {
            if !context.calls.query(pending.raw)? {
                next.pending = Some(pending);
                return Ok(false);
            }
            let last = anchors.last();
            let link = match &last {
                Some(last) => context.span(last.event.raw, pending.raw)?,
                None => Some(Span::of(0.0, None)),
            };
            if let Some(link) = link {
                anchors.add(pending, last.as_ref(), link);
            }
        }
        next.pending = Some(Event::record(context, self.stream)?);
        let clock = &context.clock;
        if next.burst.is_empty() && clock.step().is_none() && clock.is_learning() {
            for _ in 0..BURST {
                next.burst.push(Event::record(context, self.stream)?);
            }
        }
        Ok(true)
    }

    /// Has the clock see the times between events that were recorded one right after the other.
    fn see_steps(&self, burst: &[Event]) -> Result<(), Fault> {
        for pair in burst.windows(2) {
            let millis = self.context.calls.elapsed(pair[0].raw, pair[1].raw)?;
            if let Some(millis) = millis {
                let _ = self.context.clock.millis(millis);
            }
        }
        Ok(())
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.context.pools.give_stream(self.stream);
    }
}
