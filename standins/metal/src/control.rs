//! What tests plan and inspect.

use crate::device::Device;
use crate::machine;
use crate::queue::CommandQueue;
use crate::report::{self, Failure};
use crate::runtime;
use crate::setup::Setup;
use fencepost_sim::lock;
use objc2::runtime::ProtocolObject;
use objc2_metal::{MTLCommandBufferError, MTLCommandQueue, MTLDevice};
use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

/// Plans faults and inspects the one machine of this process. The first call of Metal makes the
/// machine if no [`Session`] has made it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Control;

/// A machine for one test alone. If a panic drops it, the seed is printed.
#[derive(Debug)]
pub struct Session {
    seed: u64,
    _exclusive: MutexGuard<'static, ()>,
}

impl Drop for Session {
    fn drop(&mut self) {
        if std::thread::panicking() {
            report::note(&format!("the test failed with seed {}", self.seed));
        }
        // a test that failed while work or callbacks were paused would leave threads blocked
        Control.resume_all();
        Control.resume_callbacks();
    }
}

impl Deref for Session {
    type Target = Control;

    fn deref(&self) -> &Control {
        &Control
    }
}

impl Control {
    /// A new machine, for the caller alone: other callers in this process block until the session
    /// is dropped. Counts, faults and violations are cleared. Work on objects of the earlier
    /// machine no longer runs.
    ///
    /// # Panics
    /// The operating system cannot start a thread.
    pub fn session(&self, setup: Setup) -> Session {
        static EXCLUSIVE: Mutex<()> = Mutex::new(());
        let exclusive = lock(&EXCLUSIVE);
        let seed = setup.seed;
        if let Err(error) = machine::restart(setup) {
            panic!("no machine: {error}");
        }
        Session {
            seed,
            _exclusive: exclusive,
        }
    }

    /// The machine's seed.
    pub fn seed(&self) -> u64 {
        machine::current().map_or(0, |machine| machine.setup.seed)
    }

    // --- the environment

    /// Whether `newSharedEvent` returns events from now on, on all devices.
    pub fn shared_events(&self, there: bool) {
        self.for_each_device(|device| device.gpu().shared_events.store(there, Ordering::SeqCst));
    }

    fn for_each_device(&self, apply: impl Fn(&Device)) {
        machine::current()
            .iter()
            .flat_map(|machine| &machine.devices)
            .for_each(|device| apply(device));
    }

    // --- faults

    /// Makes the `nth` call of a method from now on, counted from 1, return nil. A method with an
    /// `error:` argument sets it too. The names are in [`CALLS`](crate::CALLS).
    ///
    /// # Panics
    /// There is no such name.
    pub fn fail_call(&self, name: &str, nth: u64) {
        report::fail_call(name, nth, false);
    }

    /// As [`Control::fail_call`], for that call and all later ones.
    ///
    /// # Panics
    /// There is no such name.
    pub fn fail_calls_from(&self, name: &str, nth: u64) {
        report::fail_call(name, nth, true);
    }

    /// Makes the command buffer of the `nth` commit from now on, counted from 1, fail with this
    /// error before any of its commands has run, so that none of its signals comes.
    pub fn fail_commit(&self, nth: u64, error: MTLCommandBufferError, text: &str) {
        self.fail_commit_after(nth, 0, error, text);
    }

    /// As [`Control::fail_commit`], after this many of its commands have run. Waits, signals,
    /// fills, copies and dispatches are commands; a spin that takes real time is two. A command
    /// buffer without retained references has another command, a check, for each object that a
    /// command uses.
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

    /// Stops all work of a queue until [`Control::resume`].
    ///
    /// # Panics
    /// The queue is not the stand-in's.
    pub fn pause(&self, queue: &ProtocolObject<dyn MTLCommandQueue>) {
        self.set_paused(queue, true);
    }

    /// Resumes a paused queue.
    ///
    /// # Panics
    /// The queue is not the stand-in's.
    pub fn resume(&self, queue: &ProtocolObject<dyn MTLCommandQueue>) {
        self.set_paused(queue, false);
    }

    fn set_paused(&self, queue: &ProtocolObject<dyn MTLCommandQueue>, paused: bool) {
        let found = CommandQueue::from_protocol(queue).is_some_and(|queue| {
            let (sim, index) = (&queue.device_of().gpu.sim, queue.sim().id().index);
            match paused {
                true => sim.pause_queue(index),
                false => sim.resume_queue(index),
            }
        });
        assert!(found, "no such queue");
    }

    /// As [`Control::pause`], for all queues of all devices, also those that are made later.
    pub fn pause_all(&self) {
        self.for_each_device(|device| device.gpu().set_paused(true));
    }

    /// Resumes all queues.
    pub fn resume_all(&self) {
        self.for_each_device(|device| device.gpu().set_paused(false));
    }

    /// Delays all handlers and listeners' blocks until [`Control::resume_callbacks`], as a busy
    /// system may.
    pub fn pause_callbacks(&self) {
        if let Some(machine) = machine::current() {
            machine.callbacks.pause();
        }
    }

    /// Calls the delayed callbacks in the order in which they were due, and delays no more.
    pub fn resume_callbacks(&self) {
        if let Some(machine) = machine::current() {
            machine.callbacks.resume();
        }
    }

    /// How many callbacks are delayed.
    pub fn paused_callbacks(&self) -> usize {
        machine::current().map_or(0, |machine| machine.callbacks.paused())
    }

    /// Removes the device: its pending and later work fails, and methods that make objects return
    /// nil. Command buffers can still be made, and fail with `MTLCommandBufferErrorDeviceRemoved`.
    /// False if it is not the stand-in's.
    pub fn remove(&self, device: &ProtocolObject<dyn MTLDevice>) -> bool {
        let known = Device::from_protocol(device);
        if let Some(device) = known {
            device.gpu().remove();
        }
        known.is_some()
    }

    // --- inspection

    /// How often a method was called: one of [`CALLS`](crate::CALLS).
    ///
    /// # Panics
    /// There is no such name.
    pub fn calls(&self, name: &str) -> u64 {
        report::calls(name)
    }

    /// How many threads are blocked in `commandBuffer` on a full queue.
    pub fn blocked(&self) -> usize {
        let mut blocked = 0;
        for device in machine::current()
            .iter()
            .flat_map(|machine| &machine.devices)
        {
            blocked += device.gpu().blocked.load(Ordering::SeqCst);
        }
        blocked
    }

    /// Waits until no work is pending, no callback is due or running, and nothing is being freed.
    /// False if that is not so when the timeout runs out. Delayed callbacks, and listeners for
    /// values that are not reached, do not count.
    #[must_use]
    pub fn wait_idle(&self, timeout: Duration) -> bool {
        machine::current().is_none_or(|machine| machine.wait_idle(timeout))
    }

    /// The number of live objects of each class, and of blocks as `block`. Classes without objects
    /// are absent. A device counts while code outside the stand-in holds it.
    pub fn live(&self) -> BTreeMap<String, usize> {
        runtime::live()
    }

    /// The uses so far that Metal's or the runtime's documentation forbids, in order.
    pub fn violations(&self) -> Vec<String> {
        let machine = machine::current();
        report::violations(machine.as_ref().map(|machine| &machine.root))
    }

    /// Forgets the violations so far, except for those that the simulated device has found.
    pub fn clear_violations(&self) {
        report::clear_violations();
    }

    /// The pending command buffers, one line each. For a test that has found the device stuck.
    pub fn pending_work(&self) -> Vec<String> {
        machine::current().map_or_else(Vec::new, |machine| machine.root.pending_work())
    }
}

/// The number of violations so far, for tests in other languages. Each was printed.
#[unsafe(no_mangle)]
extern "C" fn fencepost_sim_metal_violations() -> usize {
    Control.violations().len()
}
