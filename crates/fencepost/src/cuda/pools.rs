//! The native events and streams of one context that are free to be used again.
//!
//! - **Events are pooled by their flags.** An event goes back when its marker's last owner lets go,
//!   also while it is pending: `cuEventRecord` on a pending event replaces what it captured and
//!   leaves waits made before alone
//!   ([`cuStreamWaitEvent`](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__STREAM.html)).
//! - **Streams are not destroyed, they are used again.** `cuStreamDestroy` waits while another
//!   thread is blocked in the driver's full queue, and a drop must not. So a dropped stream goes to
//!   a pool, and the next new one is the first there that has nothing left to do.

use std::{collections::VecDeque, sync::TryLockError};

use super::{
    calls::Calls,
    driver::{EventHandle, StreamHandle},
    fault::{Fault, Meaning},
};
use crate::sync::{Mutex, lock};

pub(super) struct Pools {
    calls: Calls,
    events: [Mutex<Vec<EventHandle>>; 4],
    streams: Mutex<VecDeque<StreamHandle>>,
}

/// Which pool an event belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kind {
    pub(super) timing: bool,
    /// Threads that synchronize sleep instead of spinning.
    pub(super) blocking: bool,
}

impl Kind {
    fn index(self) -> usize {
        usize::from(self.timing) | usize::from(self.blocking) << 1
    }

    /// `CU_EVENT_BLOCKING_SYNC` is 1, `CU_EVENT_DISABLE_TIMING` is 2.
    fn flags(self) -> u32 {
        u32::from(self.blocking) | u32::from(!self.timing) << 1
    }
}

/// Of the streams dropped lately some may be busy: so many are asked, then making one is cheaper.
const STREAMS_TO_ASK: usize = 4;

impl Pools {
    pub(super) fn new(calls: Calls) -> Pools {
        Pools {
            calls,
            events: [const { Vec::new() }; 4].map(Mutex::new),
            streams: Mutex::new(VecDeque::new()),
        }
    }

    /// An event to record, from the pool or new.
    pub(super) fn take_event(&self, kind: Kind) -> Result<EventHandle, Fault> {
        if let Some(event) = lock(&self.events[kind.index()]).pop() {
            return Ok(event);
        }
        self.calls.create_event(kind.flags())
    }

    /// Takes an event back. Calls no driver, so it is safe at any time, also after the driver is
    /// gone.
    pub(super) fn give_event(&self, kind: Kind, event: EventHandle) {
        self.put_back(&self.events[kind.index()], |events| events.push(event));
    }

    /// A stream that has nothing to do: a dropped one, or a new one.
    pub(super) fn take_stream(&self) -> Result<StreamHandle, Fault> {
        self.calls.check_alive()?;
        for _ in 0..STREAMS_TO_ASK {
            let Some(stream) = lock(&self.streams).pop_front() else {
                break;
            };
            // Out of the pool nobody else has it, and the context is alive.
            match self.calls.is_idle(stream) {
                Ok(true) => return Ok(stream),
                Ok(false) => lock(&self.streams).push_back(stream),
                // Its owner left it in the middle of a capture.
                Err(fault) if fault.meaning() != Meaning::Fatal => {
                    lock(&self.streams).push_back(stream);
                }
                Err(fault) => return Err(fault),
            }
        }
        self.calls.create_stream()
    }

    /// Takes a stream back, perhaps with work still to do. Calls no driver.
    pub(super) fn give_stream(&self, stream: StreamHandle) {
        self.put_back(&self.streams, |streams| streams.push_back(stream));
    }

    /// Puts something into a pool, from a drop.
    fn put_back<T>(&self, pool: &Mutex<T>, put: impl FnOnce(&mut T)) {
        // In a forked child the lock may be held by a thread of the parent, which never lets go.
        for _ in 0..1000 {
            match pool.try_lock() {
                Ok(mut pool) => return put(&mut pool),
                Err(TryLockError::Poisoned(pool)) => return put(&mut pool.into_inner()),
                Err(TryLockError::WouldBlock) => std::hint::spin_loop(),
            }
        }
        if !self.calls.is_forked() {
            put(&mut lock(pool));
        }
    }
}
