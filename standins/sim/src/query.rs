//! Timestamp queries.

use crate::Violation;
use crate::lock;
use crate::object::Object;
use std::sync::{Arc, Mutex, MutexGuard};

/// A timestamp query: work writes the device clock to it, and the host reads it. Cheap to clone;
/// all clones are the same query.
#[derive(Clone, Debug)]
pub struct TimestampQuery {
    pub(crate) object: Arc<Object>,
    value: Arc<Mutex<Option<u64>>>,
}

impl TimestampQuery {
    pub(crate) fn new(object: Arc<Object>) -> TimestampQuery {
        TimestampQuery {
            object,
            value: Arc::default(),
        }
    }

    /// The number by which violations name it.
    pub fn id(&self) -> u64 {
        self.object.id()
    }

    /// The timestamp, masked by the clock's valid bits; `None` until one is written. Never blocks.
    pub fn read(&self) -> Option<u64> {
        self.object.check("read a query");
        *self.lock()
    }

    /// Empties the query from the host. A violation while pending work uses it. Never blocks.
    pub fn reset(&self) {
        if self.object.in_use() {
            self.object
                .tracker()
                .report(Violation::ResetInUse { query: self.id() });
        }
        self.object.check("reset a query");
        self.clear();
    }

    /// Destroys the query, for APIs with an explicit destroy. A violation while pending work uses
    /// it.
    pub fn destroy(&self) {
        self.object.destroy();
    }

    pub(crate) fn clear(&self) {
        *self.lock() = None;
    }

    pub(crate) fn write(&self, masked_tick: u64) {
        let mut value = self.lock();
        if value.is_some() {
            self.object
                .tracker()
                .report(Violation::QueryNotReset { query: self.id() });
        } else {
            *value = Some(masked_tick);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<u64>> {
        lock(&self.value)
    }
}
