//! Markers that stand for raw events: for host streams, and for GPU streams of other APIs, which
//! cannot wait for a `CUevent`.

use std::sync::Arc;

use super::watched::{RawNative, RawWait};
use crate::{
    contract::{MarkerImpl, TimelineKnowledge},
    core::StreamCore,
    error::{Cause, Error, Result},
    place::Place,
    timeline::{Awaited, Point, Timeline, Waiter},
};

/// Complete once a look at the raw event finds nothing pending on it, and failed where it cannot be
/// asked. It is the only marker of a timeline that belongs to no stream, and the wait for the event
/// ends with it.
struct RawMarker {
    point: Point,
    wait: Arc<RawWait>,
}

/// A marker for what was recorded last on `native`, which a stream is made to wait for at `at`.
pub(super) fn marker(native: &Arc<RawNative>, at: Place) -> Result<Arc<dyn MarkerImpl>> {
    let stream = StreamCore::new(native.device.clone());
    stream.name.set(&format!("raw event {:p}", native.event.0));
    let timeline = Timeline::new(stream, 0);
    let watched = timeline.clone();
    let settle = Waiter::Call(Box::new(move |result| match result {
        Ok(()) => watched.advance(1).fire(),
        Err(error) => {
            let lost = matches!(error, Error::DeviceLost { .. });
            watched.fail(&Cause::of(&error), lost).fire();
        }
    }));
    Ok(Arc::new(RawMarker {
        wait: RawWait::begin(native, settle)?,
        point: Point {
            timeline,
            value: 1,
            at,
            timing: false,
        },
    }))
}

impl Drop for RawMarker {
    fn drop(&mut self) {
        self.wait.cancel();
    }
}

impl Awaited for RawMarker {
    fn point(&self) -> &Point {
        &self.point
    }
}

impl MarkerImpl for RawMarker {
    fn timeline_knowledge(&self) -> TimelineKnowledge {
        TimelineKnowledge::All
    }
}
