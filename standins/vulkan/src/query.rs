//! Query pools.

use crate::table::Child;
use crate::usage::{LOG, VkResult, invalid_usage};
use ash::vk::{self, Handle};
use fencepost_sim::lock;
use std::ops::Range;
use std::sync::{Arc, Mutex};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Query {
    /// Never reset since the pool was created.
    Undefined,
    Unavailable,
    Available(u64),
}

/// The queries of a pool. Submitted work writes them. No other lock is taken while its lock is
/// held.
#[derive(Clone, Debug)]
pub(crate) struct Queries(Arc<Mutex<Vec<Query>>>);

impl Queries {
    pub(crate) fn new(count: u32) -> Queries {
        let queries = vec![Query::Undefined; count as usize];
        Queries(Arc::new(Mutex::new(queries)))
    }

    pub(crate) fn with<R>(&self, body: impl FnOnce(&mut [Query]) -> R) -> R {
        body(&mut lock(&self.0))
    }

    pub(crate) fn reset(&self, range: Range<usize>) {
        self.with(|all| all[range].fill(Query::Unavailable));
    }

    /// Writes a timestamp, from the device.
    pub(crate) fn write(&self, index: usize, tick: u64) {
        let before = self.with(|all| {
            let before = all[index];
            if before == Query::Unavailable {
                all[index] = Query::Available(tick);
            }
            before
        });
        if before != Query::Unavailable {
            LOG.violation(&format!(
                "a timestamp was written to query {index}, which was not reset"
            ));
        }
    }
}

#[derive(Debug)]
pub(crate) struct QueryPool {
    pub(crate) device: vk::Device,
    pub(crate) count: u32,
    pub(crate) queries: Queries,
}

impl Child for QueryPool {
    fn parent(&self) -> u64 {
        self.device.as_raw()
    }
}

impl QueryPool {
    pub(crate) fn range(&self, first: u32, count: u32) -> VkResult<Range<usize>> {
        let end = first
            .checked_add(count)
            .filter(|end| *end <= self.count && count > 0);
        let Some(end) = end else {
            let have = self.count;
            return Err(invalid_usage(&format!(
                "{count} queries from {first} on are not all in a pool of {have}"
            )));
        };
        Ok(first as usize..end as usize)
    }
}

/// The key under which one query is marked as in use. It equals no handle, since handles end with
/// four zero bits.
pub(crate) fn query_key(pool: vk::QueryPool, index: usize) -> u64 {
    // in practice the serial number of a pool has less than 24 bits, and an index fits above it
    pool.as_raw() ^ 1 ^ (index as u64) << 28
}
