//! The live streams of a device.

use std::sync::{Arc, Weak};

use crate::sync::{Mutex, lock};

/// The streams made so far, without owning them. Dead ones are swept out whenever as many were
/// added as were alive after the last sweep, so a stream costs a constant share of sweeping.
pub(crate) struct Streams<S>(Mutex<List<S>>);

struct List<S> {
    streams: Vec<Weak<S>>,
    sweep_at: usize,
}

const FIRST_SWEEP: usize = 64;

impl<S> Streams<S> {
    pub(crate) fn new() -> Streams<S> {
        Streams(Mutex::new(List {
            streams: Vec::new(),
            sweep_at: FIRST_SWEEP,
        }))
    }

    pub(crate) fn add(&self, stream: &Arc<S>) {
        let mut list = lock(&self.0);
        if list.streams.len() >= list.sweep_at {
            list.streams.retain(|stream| stream.strong_count() > 0);
            list.sweep_at = (list.streams.len() * 2).max(FIRST_SWEEP);
        }
        list.streams.push(Arc::downgrade(stream));
    }

    pub(crate) fn alive(&self) -> Vec<Arc<S>> {
        let list = lock(&self.0);
        list.streams.iter().filter_map(Weak::upgrade).collect()
    }
}
