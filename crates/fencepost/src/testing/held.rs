//! A marker that nothing completes.

use std::sync::Arc;

use crate::{
    clock::Timestamp,
    contract::MarkerImpl,
    error::Result,
    place::Place,
    timeline::{Awaited, Point, Timeline},
};

/// The first marker of `timeline`, which nobody advances.
pub(super) fn marker(timeline: Arc<Timeline>, timing: bool, at: Place) -> Arc<dyn MarkerImpl> {
    Arc::new(HeldMarker(Point {
        timeline,
        value: 1,
        at,
        timing,
    }))
}

struct HeldMarker(Point);

impl Awaited for HeldMarker {
    fn point(&self) -> &Point {
        &self.0
    }
}

impl MarkerImpl for HeldMarker {
    fn timestamp(&self) -> Result<Timestamp> {
        // Asked for of complete markers with timing only. Those with timing never complete.
        let clock = self.0.timeline.stream.device.clock.clone();
        Ok(Timestamp::new(0, clock))
    }
}
