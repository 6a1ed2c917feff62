//! What a backend provides: a counter for each stream, and where times come from.

use std::{sync::Arc, time::Instant};

use super::epoch::Epoch;
#[cfg(any(feature = "vulkan", feature = "wgpu30"))]
use crate::error::{Cause, Error};
use crate::{
    clock::{Elapsed, Timestamp},
    error::Result,
};

/// A stream's native counter.
pub(crate) trait Counter: Send + Sync + 'static {
    /// What a timed marker keeps until its time is asked for.
    type Time: Time;

    /// The counter's value. Never blocks. On an error, every stream that it concerns has failed.
    fn read(&self) -> Result<u64>;

    /// Blocks until the counter has reached `native`, or until `deadline`. It may return early: the
    /// caller looks again. A backend whose markers are completed by callbacks waits on `epoch`.
    fn wait(&self, epoch: &Epoch, native: u64, deadline: Option<Instant>) -> Result<()>;

    /// Makes sure that somebody settles `epoch` once the counter has reached `native`.
    fn watch(self: &Arc<Self>, epoch: &Arc<Epoch>, native: u64) -> Result<()>;

    /// Reads the counter for a watcher's thread, and settles `epoch`. Returns whether `native` is
    /// over. Call it without any lock.
    #[cfg(any(feature = "vulkan", feature = "wgpu30"))]
    fn look_at(&self, epoch: &Epoch, native: u64) -> bool {
        match self.read() {
            Ok(counter) => {
                epoch.settle(counter);
                counter >= native || epoch.timeline.has_failed()
            }
            // A loss fails the streams that are alive. The marker's may be dropped, or be that of a
            // reservation.
            Err(error) => {
                let lost = matches!(error, Error::DeviceLost { .. });
                epoch.timeline.fail(&Cause::of(&error), lost).fire();
                true
            }
        }
    }
}

/// Where the time of a complete marker comes from.
pub(crate) trait Time: Send + Sync + 'static {
    /// Called for a complete marker only.
    fn timestamp(&self) -> Result<Timestamp>;

    /// The time to `end`, both complete and of one device.
    fn elapsed(&self, end: &Self) -> Result<Elapsed> {
        self.timestamp()?.elapsed(&end.timestamp()?)
    }
}
