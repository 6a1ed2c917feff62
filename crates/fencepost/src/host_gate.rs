//! Waits of GPU streams for markers that their device cannot see.
//!
//! A stream of one API cannot wait on the device for a marker of another API. So its backend
//! submits a wait for a *host gate*, something that only the host signals: a word of memory, a
//! semaphore, a user event or a shared event. The host opens the gate once it has seen the marker.
//! What every backend does around its own kind of gate is here.
//!
//! *Invariant: a gate that is waited for is opened once, whatever happens.* It opens when the
//! marker is complete, when the marker has failed (after what lies behind the gate was marked as
//! failed), and when nobody can watch the marker. A forked child never opens a gate of its parent.

// wgpu has no gates, and takes the errors of waits from here.
#![cfg_attr(
    not(any(feature = "cuda", feature = "vulkan", has_metal)),
    allow(dead_code)
)]

use std::sync::Arc;

use crate::{
    contract::{MarkerImpl, StreamImpl},
    core::{Blocked, StreamCore},
    error::{Cause, Error, Result},
    fork::Process,
    timeline::Waiter,
};

/// A stream that can be held by a host gate.
pub(crate) trait HostGated: StreamImpl {
    /// Holds the stream, and whatever shares its hardware queue, until the host has seen `marker`
    /// complete.
    fn block_until(&self, marker: &Arc<dyn MarkerImpl>) -> Result<()>;

    /// Ends the stream here: what is recorded from now on fails with `cause`, once everything
    /// submitted so far is complete.
    fn fail_from_here(&self, cause: &Cause);

    /// Waits for a marker that the device cannot see, through the host if it is pending and
    /// `through_host` allows that.
    fn wait_unseen(&self, marker: &Arc<dyn MarkerImpl>, through_host: bool) -> Result<()> {
        match marker.query() {
            Ok(true) => Ok(()),
            Ok(false) if through_host => self.block_until(marker),
            Ok(false) => Err(foreign_wait(self.core().to_string(), &**marker, true)),
            // It never completes: such a wait is a mistake in the call, not a failure of the work.
            Err(error @ Error::Captured { .. }) => Err(error),
            Err(error) => {
                self.check_may_wait()?;
                self.fail_from_here(&failed_wait(marker.to_string(), &error));
                Ok(())
            }
        }
    }

    /// Ends the stream if `marker`, which it is to wait for, has failed.
    fn fail_by_wait(&self, marker: &Arc<dyn MarkerImpl>) {
        if let Err(error) = marker.query() {
            self.fail_from_here(&failed_wait(marker.to_string(), &error));
        }
    }
}

/// The error of a wait that would stall a hardware queue without the caller's consent, which can be
/// given where the stream `may_hold`.
pub(crate) fn foreign_wait(stream: String, marker: &dyn MarkerImpl, may_hold: bool) -> Error {
    Error::ForeignWait {
        stream,
        marker: marker.to_string(),
        may_hold,
    }
}

/// The cause of a stream that waited for `marker`, which failed with `error`.
pub(crate) fn failed_wait(marker: String, error: &Error) -> Cause {
    Cause::of(error).through(marker)
}

/// A submitted wait for a host gate.
pub(crate) trait GateWait: Send + 'static {
    /// The marker is complete, or has failed: then what lies behind the gate is to fail with this
    /// cause. Not called where nobody can watch the marker.
    fn settle(&mut self, result: Result<(), Cause>);

    /// Opens the gate. Called once, last.
    fn open(&mut self);
}

/// Opens the gate of `wait` once `marker` is complete or has failed. `published` are the waits of
/// the streams that the gate holds.
///
/// # Errors
/// What keeps the marker from being watched. The gate is open then.
pub(crate) fn open_after(
    marker: &Arc<dyn MarkerImpl>,
    wait: impl GateWait,
    published: Vec<PublishedWait>,
) -> Result<()> {
    let text = marker.to_string();
    let mut gate = OpenOnDrop {
        wait,
        published,
        process: Process::this(),
    };
    let call = Waiter::Call(Box::new(move |result: Result<()>| {
        let result = result.map_err(|error| failed_wait(text, &error));
        gate.settle(result);
    }));
    // A waiter that is refused is dropped, which opens the gate.
    marker.notify(call).map(drop)
}

struct OpenOnDrop<W: GateWait> {
    wait: W,
    published: Vec<PublishedWait>,
    process: Process,
}

impl<W: GateWait> OpenOnDrop<W> {
    fn settle(&mut self, result: Result<(), Cause>) {
        self.wait.settle(result);
    }
}

impl<W: GateWait> Drop for OpenOnDrop<W> {
    fn drop(&mut self) {
        if !self.process.is_this() {
            // The gate is the parent's, and a thread of the parent may have held the locks.
            std::mem::forget(std::mem::take(&mut self.published));
            return;
        }
        // Before it opens: whoever sees the stream go on must not find it published as waiting.
        self.published.clear();
        self.wait.open();
    }
}

/// A stream's wait for a marker, which the search for deadlocks sees until this is dropped.
pub(crate) struct PublishedWait {
    stream: Arc<StreamCore>,
    number: u64,
}

impl PublishedWait {
    /// What is recorded on `stream` behind the value `after` waits for `marker`.
    pub(crate) fn new(
        stream: &Arc<StreamCore>,
        marker: &Arc<dyn MarkerImpl>,
        after: u64,
    ) -> PublishedWait {
        PublishedWait {
            number: stream.block(Blocked {
                marker: marker.clone(),
                or: Vec::new(),
                for_ever: true,
                in_work: false,
                after,
            }),
            stream: stream.clone(),
        }
    }
}

impl Drop for PublishedWait {
    fn drop(&mut self) {
        self.stream.unblock(self.number);
    }
}
