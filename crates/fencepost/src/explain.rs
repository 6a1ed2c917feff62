//! Why a wait does not end, in words: the chain of waits from a pending marker to what is stuck.

use std::{sync::Arc, time::Duration};

use crate::{
    contract::MarkerImpl,
    core::{Blocked, Doing, StreamCore},
    deadlock::{AwaitedStep, behind},
    error::{Error, Timeout},
    sync::Ordering,
    timeline::{Awaited, Point, Reached},
    waits::{End, Explanation, Node, Step, Stop, Waiter, What, tell, walk},
};

/// The error of a wait for `marker` that has ended at `limit`.
pub(crate) fn timeout(marker: &Arc<dyn MarkerImpl>, limit: Duration) -> Error {
    Error::Timeout(Box::new(timed_out(marker, limit)))
}

/// As [`timeout`], for the texts of waits for many.
pub(crate) fn timed_out(marker: &Arc<dyn MarkerImpl>, limit: Duration) -> Timeout {
    let point = marker.point();
    let stream = &point.timeline.stream;
    let explanation = explain(marker);
    Timeout {
        limit,
        marker: point.value,
        stream: stream.to_string(),
        recorded_at: point.at,
        completed: point.timeline.completed(),
        recorded: stream.recorded.load(Ordering::Relaxed),
        event: None,
        held_up_by: explanation.text,
        lacks_places: explanation.lacks_places,
        others: Vec::new(),
        left_out: 0,
    }
}

/// Why `marker` is pending.
pub(crate) fn explain(marker: &Arc<dyn MarkerImpl>) -> Explanation {
    let first: Arc<dyn Awaited> = marker.clone();
    let (steps, stop) = walk(first, |marker| {
        let point = marker.point();
        next_of(&point.timeline.stream, point.value)
    });
    let end = match (stop, steps.last()) {
        (Stop::Circle, _) => End::Circle("only a deadline ends"),
        (Stop::NoWait, Some(last)) => end_of(last.marker.point()),
        _ => End::GoesOn,
    };
    let on_device = steps.iter().any(|step| step.on_device);
    tell(steps.len(), |at| node_at(&steps, at), on_device, &end)
}

/// What the marker of a stream at a value waits for: what the host knows of, else what the device
/// has been told.
fn next_of(stream: &StreamCore, value: u64) -> Option<AwaitedStep> {
    let mut waits = stream.waits_in_front_of(value);
    // Of many that host work waits for, some are over.
    let is_pending = |wait: &Blocked| wait.marker.point().reached() == Reached::NotYet;
    let first = waits.iter().position(is_pending).unwrap_or(0);
    let known = (first < waits.len()).then(|| behind(waits.swap_remove(first)));
    known.or_else(|| {
        let (point, after) = stream.device_wait(value)?;
        Some(Step {
            marker: Arc::new(Awaiting(point)),
            in_work: false,
            on_device: true,
            after,
        })
    })
}

/// The point of a marker that may be gone.
struct Awaiting(Point);

impl Awaited for Awaiting {
    fn point(&self) -> &Point {
        &self.0
    }
}

fn end_of(point: &Point) -> End {
    match point.timeline.stream.doing() {
        Some(Doing::Runs { at, time }) => End::Runs { at, time },
        Some(Doing::NotStarted { at, exhausted }) => End::NotStarted { at, exhausted },
        Some(Doing::GoesOn) => End::GoesOn,
        None if point.timeline.stream.is_gate => End::Closed,
        None => End::Native {
            complete: point.timeline.completed(),
        },
    }
}

fn node_at(steps: &[AwaitedStep], at: usize) -> Node {
    let step = &steps[at];
    let point = step.marker.point();
    let stream = &*point.timeline.stream;
    let before = at.checked_sub(1).map(|before| steps[before].marker.point());
    let doing = before.and_then(|before| before.timeline.stream.doing());
    let waiter = match (step.in_work, doing) {
        (false, _) => Waiter::Stream,
        (true, Some(Doing::Runs { at, .. })) => Waiter::Work(Some(at)),
        (true, _) => Waiter::Work(None),
    };
    Node {
        stream: stream.short(),
        full: stream.to_string(),
        value: point.value,
        at: point.at,
        what: match stream.is_gate {
            true => What::Gate,
            false => What::Marker,
        },
        waiter,
    }
}
