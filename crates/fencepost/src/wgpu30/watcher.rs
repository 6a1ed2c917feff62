//! What the watcher's thread of a device watches, and how it sleeps.

#[cfg(not(target_vendor = "apple"))]
use std::time::Instant;
use std::{mem::forget, sync::Arc, time::Duration};

use super::{counter::Native, gpu::Gpu};
#[cfg(not(target_vendor = "apple"))]
use super::{
    signal::Signal,
    vulkan::{Fault, Table, Timeline},
};
use crate::{
    epochs::Epoch,
    panics::contain,
    sync::{Mutex, lock, park},
    watcher::{Sleep, Watched, pause_after},
};
#[cfg(not(target_vendor = "apple"))]
use crate::{
    sync::sleep,
    watcher::{LONGEST_PAUSE, SHORTEST_PAUSE},
};

/// What is watched.
pub(super) enum Watch {
    /// A marker that somebody waits for.
    Marker {
        native: Arc<Native>,
        epoch: Arc<Epoch>,
        value: u64,
    },
    /// The counter of a dropped stream, which must live until no submit raises it any more.
    Stream(Arc<Native>),
    /// A queue that no stream uses any more, to be dropped where a wait does no harm.
    Queue {
        gpu: Arc<Gpu>,
        queue: Mutex<Option<wgpu::Queue>>,
    },
}

impl Watch {
    pub(super) fn marker(native: &Arc<Native>, epoch: &Arc<Epoch>, value: u64) -> Watch {
        Watch::Marker {
            native: native.clone(),
            epoch: epoch.clone(),
            value,
        }
    }

    pub(super) fn queue(gpu: &Arc<Gpu>, queue: wgpu::Queue) -> Watch {
        Watch::Queue {
            gpu: gpu.clone(),
            queue: Mutex::new(Some(queue)),
        }
    }

    /// What to sleep for.
    #[cfg(not(target_vendor = "apple"))]
    fn due(&self) -> Due<'_> {
        let (native, value) = match self {
            Watch::Marker {
                native,
                epoch,
                value,
            } => (native, epoch.known_at(*value)),
            Watch::Stream(native) => (native, native.submitted()),
            Watch::Queue { .. } => return Due::Now,
        };
        match &native.signal {
            Signal::Semaphore(semaphore) => Due::At(semaphore, value),
            Signal::Told(_) => Due::Poll,
        }
    }

    /// The counter, if this waits for one.
    #[cfg(not(target_vendor = "apple"))]
    fn native(&self) -> Option<&Arc<Native>> {
        match self {
            Watch::Marker { native, .. } | Watch::Stream(native) => Some(native),
            Watch::Queue { .. } => None,
        }
    }
}

/// What to sleep for.
#[cfg(not(target_vendor = "apple"))]
enum Due<'a> {
    Now,
    At(&'a Timeline, u64),
    /// The thread polls.
    Poll,
}

impl Watched for Watch {
    fn key(&self) -> (usize, u64) {
        match self {
            Watch::Marker { epoch, value, .. } => (Arc::as_ptr(epoch) as usize, *value),
            // The offsets keep the three kinds apart: no two of these objects start within two
            // bytes.
            Watch::Stream(native) => (Arc::as_ptr(native) as usize + 1, 0),
            Watch::Queue { gpu, .. } => (Arc::as_ptr(gpu) as usize + 2, 0),
        }
    }

    fn look(&self) -> bool {
        match self {
            Watch::Marker {
                native,
                epoch,
                value,
            } => epoch.look_at(&**native, *value),
            Watch::Stream(native) => !native.is_pending(),
            Watch::Queue { queue, .. } => {
                let queue = lock(queue).take();
                // It waits, and calls callbacks of the user's.
                contain(|| drop(queue));
                true
            }
        }
    }
}

/// What could not be watched to its end lives until the process ends.
impl Drop for Watch {
    fn drop(&mut self) {
        match self {
            Watch::Queue { queue, .. } => forget(lock(queue).take()),
            Watch::Stream(native) if native.is_pending() => forget(native.clone()),
            _ => {}
        }
    }
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

impl Sleep<Watch> for Sleeper {
    fn sleep(&self, lowest: &[Arc<Watch>], sequence: u64, quiet: Duration) {
        #[cfg(not(target_vendor = "apple"))]
        if let Some(driver) = &self.driver {
            let mut awaited = Vec::new();
            let mut polls = false;
            for watch in lowest {
                match watch.due() {
                    Due::Now => return,
                    Due::At(timeline, value) => awaited.push((timeline, value)),
                    Due::Poll => polls = true,
                }
            }
            let native = lowest.iter().find_map(|watch| watch.native());
            if let (false, Some(native)) = (polls, native) {
                match driver.sleep(awaited, sequence) {
                    Ok(true) => {}
                    Ok(false) => drop(native.look_for_a_lost_signal()),
                    Err(fault) => {
                        // The counters may not show a loss, so it is reported from here.
                        native.gpu.failed(&fault);
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
