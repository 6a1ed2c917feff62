//! How the watcher's thread of a device sleeps, and what it has to know of what it watches for
//! that. Knows no device.

#[cfg(not(target_vendor = "apple"))]
use std::time::Instant;
use std::{sync::Arc, time::Duration};

#[cfg(not(target_vendor = "apple"))]
use super::vulkan::{Fault, Table, Timeline};
use crate::{
    sync::park,
    watcher::{Sleep, Watched, pause_after},
};
#[cfg(not(target_vendor = "apple"))]
use crate::{
    sync::sleep,
    watcher::{LONGEST_PAUSE, SHORTEST_PAUSE},
};

/// Something that the thread watches. A device has three kinds of it, whose keys are addresses of
/// objects with an offset of 0, 1 or 2: no two of these objects start within two bytes.
pub(super) trait Watch: Watched {
    /// What to sleep for.
    #[cfg(not(target_vendor = "apple"))]
    fn due(&self) -> Due<'_>;

    /// A sleep for it ended, and it has not come: by a fault, or after a while.
    #[cfg(not(target_vendor = "apple"))]
    fn has_not_come(&self, fault: Option<&Fault>) {
        let _ = fault;
    }
}

impl Watched for Box<dyn Watch> {
    fn key(&self) -> (usize, u64) {
        (**self).key()
    }

    fn look(&self) -> bool {
        (**self).look()
    }
}

/// What to sleep for.
#[cfg(not(target_vendor = "apple"))]
pub(super) enum Due<'a> {
    At(&'a Timeline, u64),
    /// The thread polls.
    Poll,
}

/// Sleeps in the driver until one of several semaphores has reached its value; else pauses that
/// grow, with a look behind each.
pub(super) struct Sleeper {
    #[cfg(not(target_vendor = "apple"))]
    driver: Option<Driver>,
}

#[cfg(not(target_vendor = "apple"))]
struct Driver {
    table: Arc<Table>,
    /// Ends the sleep.
    wake: Timeline,
}

/// How long the thread sleeps before it looks whether a signal was lost.
#[cfg(not(target_vendor = "apple"))]
const SLICE: Duration = Duration::from_secs(1);

impl Sleeper {
    #[cfg(not(target_vendor = "apple"))]
    pub(super) fn new(table: Option<Arc<Table>>) -> Result<Sleeper, Fault> {
        let driver = match table {
            Some(table) => Some(Driver {
                wake: table.timeline()?,
                table,
            }),
            None => None,
        };
        Ok(Sleeper { driver })
    }

    #[cfg(target_vendor = "apple")]
    pub(super) fn new() -> Sleeper {
        Sleeper {}
    }

    /// Nobody sleeps any more, and the device is alive.
    pub(super) fn destroy(&self) {
        #[cfg(not(target_vendor = "apple"))]
        if let Some(driver) = &self.driver {
            driver.wake.destroy();
        }
    }
}

#[cfg(not(target_vendor = "apple"))]
impl Driver {
    /// Sleeps for a slice at most; `true` where something has come.
    fn sleep<'a>(
        &'a self,
        mut awaited: Vec<(&'a Timeline, u64)>,
        sequence: u64,
    ) -> Result<bool, Fault> {
        awaited.push((&self.wake, sequence));
        if !self.table.spins {
            return self.table.wait_any(&awaited, SLICE);
        }
        let end = Instant::now() + SLICE;
        let mut pause = SHORTEST_PAUSE;
        while !self.table.wait_any(&awaited, Duration::ZERO)? {
            if Instant::now() >= end {
                return Ok(false);
            }
            sleep(pause);
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        Ok(true)
    }
}

impl Sleep<Box<dyn Watch>> for Sleeper {
    fn sleep(&self, lowest: &[Arc<Box<dyn Watch>>], sequence: u64, quiet: Duration) {
        #[cfg(not(target_vendor = "apple"))]
        if let Some(driver) = &self.driver {
            let mut awaited = Vec::new();
            let mut polls = false;
            let mut signalled = None;
            for watch in lowest {
                match watch.due() {
                    Due::At(timeline, value) => {
                        awaited.push((timeline, value));
                        signalled = signalled.or(Some(watch));
                    }
                    Due::Poll => polls = true,
                }
            }
            if let (true, Some(watch)) = (polls && quiet >= SLICE, signalled) {
                watch.has_not_come(None);
            }
            if let (false, Some(watch)) = (polls, lowest.first()) {
                match driver.sleep(awaited, sequence) {
                    Ok(true) => {}
                    Ok(false) => watch.has_not_come(None),
                    Err(fault) => {
                        // The counters may not show a loss, so it is reported from here.
                        watch.has_not_come(Some(&fault));
                        // A wait that fails at once must not spin.
                        sleep(LONGEST_PAUSE);
                    }
                }
                return;
            }
        }
        let _ = (lowest, sequence);
        if !quiet.is_zero() {
            park(Some(pause_after(quiet)));
        }
    }

    fn wake(&self, sequence: u64) {
        #[cfg(not(target_vendor = "apple"))]
        if let Some(driver) = &self.driver {
            driver.wake.signal(sequence);
        }
        #[cfg(target_vendor = "apple")]
        let _ = sequence;
    }
}
