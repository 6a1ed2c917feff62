//! What tests plan and look at.

use crate::device::Device;
use crate::machine::{self, Machine};
use crate::queue::CommandQueue;
use crate::report::{self, Failure};
use crate::runtime;
use objc2::runtime::ProtocolObject;
use objc2_metal::{MTLCommandBufferError, MTLCommandQueue, MTLDevice};
use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::ops::Deref;
use std::str::FromStr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What kind of machine is simulated. `Setup::seeded(n)` is a plain one; change what the test is
/// about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setup {
    /// Drives every choice of the scheduler.
    pub seed: u64,
    /// How many devices there are. The first is the system's default; with none, that is nil.
    pub devices: usize,
    /// Whether there are shared events, or `newSharedEvent` gives nil, as in some sandboxes.
    pub shared_events: bool,
    /// How many uncompleted command buffers a queue may have before `commandBuffer` blocks, unless
    /// `newCommandQueueWithMaxCommandBufferCount:` says otherwise.
    pub command_buffers: usize,
    /// Over how many hardware channels the queues of a device are spread, so that one which stands
    /// at a wait stops others, and what comes later in itself; each has its own without it, and
    /// then a wait stops its buffer only.
    pub channels: Option<usize>,
    /// Whether handlers may be added to a command buffer while an encoder is open on it. macOS 26.4
    /// is reported to end the process then (<https://github.com/ml-explore/mlx/pull/3714>); PyTorch
    /// does so on every version.
    pub handlers_beside_encoders: bool,
    /// Whether the system says that it lacks what came with macOS 10.15.
    pub is_before_10_15: bool,
}

fn variable<T: FromStr>(name: &str) -> Option<T> {
    std::env::var(name).ok()?.trim().parse().ok()
}

impl Setup {
    /// Two devices that lack nothing.
    pub fn seeded(seed: u64) -> Setup {
        Setup {
            seed,
            devices: 2,
            shared_events: true,
            command_buffers: 64,
            channels: None,
            handlers_beside_encoders: false,
            is_before_10_15: false,
        }
    }

    /// As the environment says: see the crate's documentation. The seed is a random one without
    /// `FENCEPOST_SIM_SEED`.
    pub fn from_environment() -> Setup {
        // a hasher's keys are the one source of chance in the standard library
        let seed = fencepost_sim::seed_or(RandomState::new().hash_one(0) >> 32);
        let plain = Setup::seeded(seed);
        Setup {
            devices: variable("FENCEPOST_SIM_METAL_DEVICES").unwrap_or(plain.devices),
            shared_events: variable("FENCEPOST_SIM_METAL_SHARED_EVENTS") != Some(0),
            command_buffers: variable("FENCEPOST_SIM_METAL_COMMAND_BUFFERS")
                .filter(|&most| most > 0)
                .unwrap_or(plain.command_buffers),
            channels: variable("FENCEPOST_SIM_METAL_CHANNELS").filter(|&channels| channels > 0),
            handlers_beside_encoders: variable("FENCEPOST_SIM_METAL_HANDLERS_BESIDE_ENCODERS")
                == Some(1),
            ..plain
        }
    }
}

/// Plans faults and looks at what happened. Everything is about the one machine of this process,
/// which is made by the first call of Metal if no [`Session`] has made it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Control;

/// A machine of the caller's own. When it is dropped by a panic, the seed is printed.
#[derive(Debug)]
pub struct Session {
    seed: u64,
    _alone: MutexGuard<'static, ()>,
}

impl Drop for Session {
    fn drop(&mut self) {
        if std::thread::panicking() {
            report::note(&format!("the test failed with seed {}", self.seed));
        }
        // a test that failed while it held something back would otherwise leave threads waiting
        Control.release();
        Control.release_callbacks();
    }
}

impl Deref for Session {
    type Target = Control;

    fn deref(&self) -> &Control {
        &Control
    }
}

fn machine() -> Option<Arc<Machine>> {
    machine::current()
}

impl Control {
    /// A new machine, for the caller alone: others of this process wait until the session is
    /// dropped. Counts, faults and violations are cleared. Objects of the machine before are of no
    /// more use: nothing happens on them.
    ///
    /// # Panics
    /// The operating system has no thread to give.
    pub fn session(&self, setup: Setup) -> Session {
        static ALONE: Mutex<()> = Mutex::new(());
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let seed = setup.seed;
        if let Err(error) = machine::restart(setup) {
            panic!("no machine: {error}");
        }
        Session {
            seed,
            _alone: alone,
        }
    }

    /// The machine's seed.
    pub fn seed(&self) -> u64 {
        machine().map_or(0, |machine| machine.setup.seed)
    }

    // --- the environment

    /// Whether there are shared events on any device, from now on.
    pub fn shared_events(&self, there: bool) {
        self.each(|device| device.gpu().shared_events.store(there, Ordering::SeqCst));
    }

    fn each(&self, what: impl Fn(&Device)) {
        machine()
            .iter()
            .flat_map(|machine| &machine.devices)
            .for_each(|device| what(device));
    }

    // --- faults

    /// The `nth` call of a method from now on, counted from 1, gives nil (and, where it takes one,
    /// an error). The names are in [`CALLS`](crate::CALLS).
    ///
    /// # Panics
    /// There is no such name.
    pub fn refuse(&self, name: &str, nth: u64) {
        report::refuse(name, nth, false);
    }

    /// As [`Control::refuse`], and so do all calls after that one.
    ///
    /// # Panics
    /// There is no such name.
    pub fn refuse_from(&self, name: &str, nth: u64) {
        report::refuse(name, nth, true);
    }

    /// The command buffer of the `nth` commit from now on, counted from 1, ends in this error
    /// before anything in it has run: none of its signals comes. `code` is a
    /// [`MTLCommandBufferError`](objc2_metal::MTLCommandBufferError).
    pub fn fail_commit(&self, nth: u64, error: MTLCommandBufferError, text: &str) {
        self.fail_commit_after(nth, 0, error, text);
    }

    /// As [`Control::fail_commit`], after so many of its commands have run. Waits, signals, fills,
    /// copies and dispatches are commands; a spin that takes real time is two, and a command buffer
    /// without retained references has one more, a check, before each for every object that it
    /// uses.
    pub fn fail_commit_after(
        &self,
        nth: u64,
        after: usize,
        error: MTLCommandBufferError,
        text: &str,
    ) {
        let failure = Failure {
            error,
            text: text.into(),
            after,
        };
        report::fail_commit(nth, failure);
    }

    /// Forgets all planned faults.
    pub fn clear_faults(&self) {
        report::clear_faults();
    }

    /// Stops all queues of all devices, also those made later, until [`Control::release`]: what is
    /// committed stays pending.
    pub fn hold(&self) {
        self.each(|device| device.gpu().hold(true));
    }

    /// Lets all queues go on.
    pub fn release(&self) {
        self.each(|device| device.gpu().hold(false));
    }

    /// Stops one queue, or lets it go on; false if it is not the stand-in's.
    pub fn hold_queue(&self, queue: &ProtocolObject<dyn MTLCommandQueue>, held: bool) -> bool {
        CommandQueue::behind(queue).is_some_and(|queue| {
            let (sim, index) = (&queue.device_of().gpu().sim, queue.sim().id().index);
            if held {
                sim.pause_queue(index)
            } else {
                sim.resume_queue(index)
            }
        })
    }

    /// Keeps all handlers and listeners' blocks from being called until
    /// [`Control::release_callbacks`], as a busy system may: they then come after everything else.
    pub fn hold_callbacks(&self) {
        if let Some(machine) = machine() {
            machine.callbacks.hold();
        }
    }

    /// Calls what was held back, in the order in which it was due, and holds nothing back any more.
    pub fn release_callbacks(&self) {
        if let Some(machine) = machine() {
            machine.callbacks.release();
        }
    }

    /// How many calls are being held back.
    pub fn held_callbacks(&self) -> usize {
        machine().map_or(0, |machine| machine.callbacks.held())
    }

    /// Removes the device: what is pending on it fails, and everything after; what makes objects
    /// gives nil. Command buffers can still be made, and end in
    /// `MTLCommandBufferErrorDeviceRemoved`. False if it is not the stand-in's.
    pub fn remove(&self, device: &ProtocolObject<dyn MTLDevice>) -> bool {
        let known = Device::behind(device);
        if let Some(device) = known {
            device.gpu().remove();
        }
        known.is_some()
    }

    // --- looking

    /// How often a method was called: one of [`CALLS`](crate::CALLS).
    ///
    /// # Panics
    /// There is no such name.
    pub fn calls(&self, name: &str) -> u64 {
        report::calls(name)
    }

    /// How many threads are blocked in `commandBuffer`, since their queue is full.
    pub fn blocked(&self) -> usize {
        let mut blocked = 0;
        for device in machine().iter().flat_map(|machine| &machine.devices) {
            blocked += device.gpu().blocked.load(Ordering::SeqCst);
        }
        blocked
    }

    /// Waits until nothing is left to do: no work is pending, no callback is due or running,
    /// nothing is being freed. False if there still is when the time is up. What is held back, and
    /// listeners for values that were not reached, do not count.
    pub fn quiesce(&self, timeout: Duration) -> bool {
        machine().is_none_or(|machine| machine.quiesce(timeout))
    }

    /// The objects that are alive, by class, and blocks as `block`; classes of which there are none
    /// are not in it. A device counts while somebody holds it.
    pub fn live(&self) -> BTreeMap<String, usize> {
        runtime::live()
    }

    /// What was done that Metal's or the runtime's documentation forbids, in order.
    pub fn violations(&self) -> Vec<String> {
        let mut all = report::violations();
        if let Some(machine) = machine() {
            all.extend(machine.root.violations().iter().map(ToString::to_string));
        }
        all
    }

    /// Forgets the violations so far, but for those that the simulated device itself has found.
    pub fn clear_violations(&self) {
        report::clear_violations();
    }

    /// What every pending command buffer stands at, a line each: for a test that found the device
    /// stuck.
    pub fn pending_work(&self) -> Vec<String> {
        machine().map_or_else(Vec::new, |machine| machine.root.pending_work())
    }
}
