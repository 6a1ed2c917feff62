//! What the watcher's thread of a device watches, and how it sleeps.

use std::{
    mem::ManuallyDrop,
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use ash::{Device as Table, vk};

use super::{
    exit,
    fault::Fault,
    gate::GateTimeline,
    gpu::{Gpu, SLICE},
    native::{Native, Objects, Uses},
    queue::SemaphoreValue,
};
use crate::{
    epochs::{Counter, Epoch},
    error::{Error, Result},
    sync::{Mutex, lock, sleep},
    watcher::{Sleep, Watched, Watcher},
};

/// A device with the thread that waits for its semaphores, and the host gates on it.
pub(crate) struct DeviceWatcher {
    pub(super) gpu: Arc<Gpu>,
    watcher: Watcher<Watch, Sleeper>,
    /// The gate timelines of the streams that have one.
    gates: Mutex<Vec<Weak<GateTimeline>>>,
    /// The semaphores of reservations that are over, at most [`SPARE`], and their values.
    spare: Mutex<Vec<SemaphoreValue>>,
}

/// Enough for the reservations that are pending at one time in most programs.
const SPARE: usize = 64;

impl DeviceWatcher {
    pub(super) fn new(gpu: Arc<Gpu>) -> Result<Arc<DeviceWatcher>> {
        let wake = gpu.timeline_semaphore().map_err(|fault| Error::Backend {
            call: fault.call,
            code: fault.result.as_raw().into(),
            text: format!(
                "{}; enable timelineSemaphore when making the device",
                fault.result
            ),
        })?;
        let sleeper = Sleeper {
            device: gpu.device.clone(),
            wake,
            polls: gpu.spins,
        };
        Ok(Arc::new(DeviceWatcher {
            watcher: Watcher::new("fencepost-vulkan", sleeper),
            gpu,
            gates: Mutex::new(Vec::new()),
            spare: Mutex::new(Vec::new()),
        }))
    }

    /// Watches `watch` until it is settled.
    pub(super) fn watch(&self, watch: Watch) -> Result<()> {
        self.watcher.watch(watch)?;
        exit::used();
        Ok(())
    }

    /// Has the watcher look at all markers that it watches: some may have failed by now.
    pub(super) fn look_again(&self) {
        if !self.gpu.is_gone() {
            self.watcher.look_again();
        }
    }

    /// A gate timeline, whose gates are opened at the end of the process at the latest.
    pub(super) fn new_gate_timeline(&self) -> Result<Arc<GateTimeline>, Fault> {
        let timeline = Arc::new(GateTimeline::new(&self.gpu)?);
        let mut gates = lock(&self.gates);
        if gates.len() == gates.capacity() {
            // Swept only before it would grow, so that sweeping costs no more than growing.
            gates.retain(|timeline| timeline.strong_count() > 0);
        }
        gates.push(Arc::downgrade(&timeline));
        Ok(timeline)
    }

    /// A timeline semaphore that nobody uses, and its value.
    pub(super) fn take_spare(&self) -> Result<SemaphoreValue, Fault> {
        // Of a lost device the driver is asked, since it may say so.
        let spare = match self.gpu.lost() {
            Some(_) => None,
            None => lock(&self.spare).pop(),
        };
        spare.map_or_else(|| Ok((self.gpu.timeline_semaphore()?, 0)), Ok)
    }

    /// Keeps a timeline semaphore that nobody uses, with its value; `false` where enough are kept.
    pub(super) fn give_spare(&self, spare: SemaphoreValue) -> bool {
        let mut all = lock(&self.spare);
        let has_room = all.len() < SPARE;
        if has_room {
            all.push(spare);
        }
        has_room
    }

    /// Takes the thread out of the driver; `false` while it is still there.
    pub(super) fn leave(&self) -> bool {
        self.watcher.leave()
    }

    /// For the end of the process: opens all gates, and gives their timelines.
    pub(super) fn open_all_gates(&self) -> Vec<Arc<GateTimeline>> {
        let gates: Vec<_> = match self.gates.try_lock() {
            Ok(gates) => gates.iter().filter_map(Weak::upgrade).collect(),
            Err(_) => return Vec::new(),
        };
        for timeline in &gates {
            timeline.open_all();
        }
        gates
    }
}

impl Drop for DeviceWatcher {
    fn drop(&mut self) {
        self.watcher.close();
        if !self.gpu.is_gone() {
            let wake = self.watcher.sleeper().wake;
            let spare = lock(&self.spare).split_off(0);
            for semaphore in spare.into_iter().map(|(spare, _)| spare).chain([wake]) {
                // SAFETY: ours. Nobody sleeps on the one that wakes, since whatever is watched
                // keeps this watcher, and nobody uses the others.
                unsafe { self.gpu.device.destroy_semaphore(semaphore, None) };
            }
        }
    }
}

/// What is watched.
pub(super) enum Watch {
    /// A marker that somebody waits for.
    Marker {
        native: Arc<Native>,
        epoch: Arc<Epoch>,
        value: u64,
    },
    /// What the last batches of a dropped stream use.
    Uses {
        native: Arc<Native>,
        /// The value of the work timeline at which they are complete.
        until: SemaphoreValue,
        uses: Uses,
    },
    /// The objects of a dropped stream, to be destroyed once nothing of them is pending.
    Objects(ManuallyDrop<Box<Objects>>),
}

impl Watch {
    /// Watches the objects of a dropped stream.
    pub(super) fn objects(objects: Objects) -> Watch {
        Watch::Objects(ManuallyDrop::new(Box::new(objects)))
    }

    /// Whether the device has completed whatever uses the objects of a dropped stream.
    fn is_over(&self) -> bool {
        match self {
            Watch::Uses { native, until, .. } => {
                native.gpu.lost().is_some()
                    || native.gpu.counter(until.0).map_or_else(
                        |fault| fault.result == vk::Result::ERROR_DEVICE_LOST,
                        |reached| reached >= until.1,
                    )
            }
            Watch::Objects(objects) => objects.pending().is_none(),
            Watch::Marker { .. } => true,
        }
    }

    fn gpu(&self) -> &Arc<Gpu> {
        match self {
            Watch::Uses { native, .. } | Watch::Marker { native, .. } => &native.gpu,
            Watch::Objects(objects) => &objects.gpu,
        }
    }

    /// What to sleep for; `None` when it is due.
    fn due_at(&self) -> Option<SemaphoreValue> {
        match self {
            Watch::Marker {
                native,
                epoch,
                value,
            } => Some((native.marker_timeline, epoch.known_at(*value))),
            Watch::Uses { until, .. } => Some(*until),
            Watch::Objects(objects) => objects.pending(),
        }
    }
}

impl Watched for Watch {
    fn key(&self) -> (usize, u64) {
        match self {
            Watch::Marker { epoch, value, .. } => (Arc::as_ptr(epoch) as usize, *value),
            // The offsets keep the three kinds apart: no two of these objects start within two
            // bytes.
            Watch::Uses { native, .. } => (Arc::as_ptr(native) as usize + 2, 0),
            Watch::Objects(objects) => ((&raw const ***objects) as usize + 1, 0),
        }
    }

    fn look(&self) -> bool {
        match self {
            Watch::Marker {
                native,
                epoch,
                value,
            } => native.look_at(epoch, *value),
            Watch::Uses { .. } | Watch::Objects(_) => self.is_over(),
        }
    }
}

/// Destroys the objects if nothing pending uses them. Otherwise they live until the process ends.
impl Drop for Watch {
    fn drop(&mut self) {
        let over = !self.gpu().is_gone() && self.is_over();
        match self {
            Watch::Objects(objects) if over => {
                objects.destroy();
                // SAFETY: dropped once, here, and not used after.
                unsafe { ManuallyDrop::drop(objects) };
            }
            Watch::Uses { uses, .. } if !over => std::mem::forget(std::mem::take(uses)),
            _ => {}
        }
    }
}

/// Sleeps in the driver until one of several semaphores has reached its value.
struct Sleeper {
    device: Arc<Table>,
    /// Ends the sleep.
    wake: vk::Semaphore,
    /// Whether the thread polls with pauses, since the driver would spin.
    polls: bool,
}

impl Sleep<Watch> for Sleeper {
    fn sleep(&self, lowest: &[Arc<Watch>], sequence: u64, _: Duration) {
        let due_at: Option<Vec<_>> = lowest.iter().map(|watch| watch.due_at()).collect();
        let Some(due_at) = due_at else {
            // Something is due already.
            return;
        };
        let (mut semaphores, mut values): (Vec<_>, Vec<_>) = due_at.into_iter().unzip();
        semaphores.push(self.wake);
        values.push(sequence);
        let info = vk::SemaphoreWaitInfo::default()
            .flags(vk::SemaphoreWaitFlags::ANY)
            .semaphores(&semaphores)
            .values(&values);
        let timeout = if self.polls { Duration::ZERO } else { SLICE };
        let mut pause = Duration::from_micros(20);
        let end = Instant::now() + SLICE;
        loop {
            // SAFETY: timeline semaphores of this device. What is watched keeps them alive, and the
            // device.
            match unsafe {
                let nanos = timeout.as_nanos() as u64;
                self.device.wait_semaphores(&info, nanos)
            } {
                Err(vk::Result::TIMEOUT) if Instant::now() >= end => {
                    if let Some(watch) = lowest.first() {
                        watch.gpu().look_for_a_loss();
                    }
                    return;
                }
                Err(vk::Result::TIMEOUT) => {
                    sleep(pause);
                    pause = (pause * 2).min(Duration::from_millis(1));
                }
                Err(result) => {
                    // The counters may not show a loss, so it is reported from here.
                    if let Some(watch) = lowest.first() {
                        let call = "vkWaitSemaphores";
                        watch.gpu().failed(Fault { call, result });
                    }
                    // A wait that fails at once must not spin.
                    return sleep(Duration::from_millis(1));
                }
                Ok(()) => return,
            }
        }
    }

    fn wake(&self, sequence: u64) {
        let info = vk::SemaphoreSignalInfo::default()
            .semaphore(self.wake)
            .value(sequence);
        // SAFETY: ours, signalled under the watcher's lock with growing values, by somebody who
        // keeps the device alive.
        let _ = unsafe { self.device.signal_semaphore(&info) };
    }
}
