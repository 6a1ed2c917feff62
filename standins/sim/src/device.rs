//! Simulated devices.

use crate::clock::mask;
use crate::machine::Machine;
use crate::object::Object;
use crate::queue::QueueHandle;
use crate::state::State;
use crate::timeline::{FlagValue, Timeline};
use crate::{
    Calibration, Config, Error, Fault, Flag, Gate, Live, ObjectKind, Order, Queue, QueueId,
    Recording, Reuse, Semaphore, Stepper, TimestampQuery, TraceEntry, Violation, Waited,
};
use std::sync::Arc;
use std::time::Duration;

/// One simulated device. Cheap to clone.
///
/// Dropping the last clone closes the device and never blocks. Pending work is dropped without
/// running, waits for it end, and calls on its queues fail with `DeviceClosed`.
#[derive(Clone, Debug)]
pub struct SimDevice(Arc<DeviceHandle>);

#[derive(Debug)]
struct DeviceHandle {
    machine: Arc<Machine>,
    device: usize,
    seed: u64,
}

impl Drop for DeviceHandle {
    fn drop(&mut self) {
        self.machine.with(|state| state.close(self.device));
    }
}

/// Which of several semaphores a wait waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitFor {
    /// All of them.
    All,
    /// One of them.
    Any,
}

/// # Creating devices and objects
///
/// Every `new_…` method fails with `DeviceLost`, or with `OutOfMemory` if that fault is planned.
/// None of them blocks.
impl SimDevice {
    /// A device on a machine of its own, which has its own scheduler, host clock, trace and counts.
    ///
    /// # Errors
    /// `BadConfig`.
    pub fn new(config: Config) -> Result<SimDevice, Error> {
        config.check()?;
        let machine = Machine::new(&config);
        Ok(SimDevice::add(machine, config))
    }

    /// Another device on the same machine. Its configuration's `seed`, `max_step_ns`,
    /// `follows_real_time` and `trace_capacity` are ignored; the first device's apply.
    ///
    /// # Errors
    /// `BadConfig`.
    pub fn another(&self, config: Config) -> Result<SimDevice, Error> {
        config.check()?;
        Ok(SimDevice::add(
            self.0.machine.clone(),
            Config {
                seed: self.seed(),
                ..config
            },
        ))
    }

    fn add(machine: Arc<Machine>, config: Config) -> SimDevice {
        let seed = config.seed;
        let device = machine.with(|state| state.add_device(config));
        SimDevice(Arc::new(DeviceHandle {
            machine,
            device,
            seed,
        }))
    }

    /// A queue with the configured order.
    pub fn new_queue(&self) -> Result<Queue, Error> {
        self.make_queue(None)
    }

    /// A queue with an order of its own.
    pub fn new_queue_with(&self, order: Order) -> Result<Queue, Error> {
        self.make_queue(Some(order))
    }

    fn make_queue(&self, order: Option<Order>) -> Result<Queue, Error> {
        let object = self.new_object(ObjectKind::Queue)?;
        let id = self.with(|state| state.add_queue(self.0.device, order))?;
        Ok(Queue(Arc::new(QueueHandle {
            machine: self.0.machine.clone(),
            id,
            _object: object,
        })))
    }

    /// A timeline semaphore with this value.
    pub fn new_semaphore(&self, value: u64) -> Result<Semaphore, Error> {
        let timeline = Timeline::new(self.new_object(ObjectKind::Semaphore)?, value);
        Ok(Semaphore::new(timeline, Arc::downgrade(&self.0.machine)))
    }

    /// A flag, set or not.
    pub fn new_flag(&self, set: bool) -> Result<Flag, Error> {
        self.new_flag_of(ObjectKind::Flag, set)
    }

    /// An empty timestamp query.
    pub fn new_query(&self) -> Result<TimestampQuery, Error> {
        Ok(TimestampQuery::new(self.new_object(ObjectKind::Query)?))
    }

    /// A closed gate.
    pub fn new_gate(&self) -> Result<Gate, Error> {
        self.new_flag_of(ObjectKind::Gate, false).map(Gate)
    }

    /// The identity of a recorded command buffer.
    pub fn new_recording(&self, reuse: Reuse) -> Result<Recording, Error> {
        Ok(Recording::new(
            self.new_object(ObjectKind::Recording)?,
            reuse,
        ))
    }

    fn new_flag_of(&self, kind: ObjectKind, set: bool) -> Result<Flag, Error> {
        let value = FlagValue::new(self.new_object(kind)?, set);
        Ok(Flag::new(value, Arc::downgrade(&self.0.machine)))
    }

    fn new_object(&self, kind: ObjectKind) -> Result<Arc<Object>, Error> {
        self.with(|state| {
            if let Some(error) = state.device_error(self.0.device) {
                return Err(error);
            }
            if state
                .devices
                .get_mut(self.0.device)
                .is_some_and(|device| device.faults.creation())
            {
                return Err(Error::OutOfMemory);
            }
            Ok(Object::new(&self.0.machine.tracker, kind, self.0.device))
        })
    }
}

/// # Stepping
///
/// Nothing happens on a device unless a thread steps its machine. If one thread makes all calls
/// and all steps, a seed determines everything.
impl SimDevice {
    /// Makes one step, on any device of the machine; false if none is permitted. Work and handlers
    /// run on this thread.
    pub fn step(&self) -> bool {
        self.0.machine.step()
    }

    /// Steps until no step is permitted, and returns the number of steps. Never returns while
    /// handlers keep submitting.
    pub fn run_until_idle(&self) -> u64 {
        let mut steps = 0;
        while self.step() {
            steps += 1;
        }
        steps
    }

    /// Steps until `over` is true; false if no step is permitted before that.
    pub fn run_until(&self, mut over: impl FnMut() -> bool) -> bool {
        while !over() {
            if !self.step() {
                return over();
            }
        }
        true
    }

    /// Starts a thread that steps the machine until the `Stepper` is dropped.
    ///
    /// # Errors
    /// The operating system cannot start a thread.
    pub fn spawn_stepper(&self) -> std::io::Result<Stepper> {
        Stepper::spawn(&self.0.machine, self.seed())
    }

    /// The state of every pending batch of the machine, one line each. For a test that has found
    /// the device stuck.
    pub fn pending_work(&self) -> Vec<String> {
        self.with(|state| {
            let mut lines = Vec::new();
            for (id, queue) in &state.queues {
                let paused = if queue.paused { " (paused)" } else { "" };
                for batch in &queue.in_flight {
                    let next = batch.commands.front();
                    lines.push(format!(
                        "{id}{paused}: batch {} is at command {}: {next:?}",
                        batch.id, batch.index
                    ));
                }
                for batch in &queue.waiting {
                    lines.push(format!("{id}{paused}: batch {} has not started", batch.id));
                }
                for batch in &queue.unreported {
                    lines.push(format!(
                        "{id}{paused}: batch {} has run and is not reported",
                        batch.id
                    ));
                }
            }
            lines
        })
    }
}

/// # Waiting on the host
///
/// Another thread, such as a [`Stepper`], must step the machine meanwhile. A timeout of `None` has
/// no limit.
impl SimDevice {
    /// Whether the machine has nothing left to do: no batch is pending, no handler is due or
    /// running, and no caller's value is being dropped. Handlers for values that are not reached
    /// do not count. Never blocks.
    pub fn is_quiescent(&self) -> bool {
        self.0.machine.is_quiescent()
    }

    /// Blocks until all or any of the semaphores have reached their values, or the timeout runs
    /// out.
    ///
    /// # Errors
    /// `Destroyed`. `DeviceLost` or `DeviceClosed` if this device is lost or closed before the
    /// values are reached.
    pub fn wait_semaphores(
        &self,
        which: WaitFor,
        semaphores: &[(&Semaphore, u64)],
        timeout: Option<Duration>,
    ) -> Result<Waited, Error> {
        for (semaphore, _) in semaphores {
            semaphore.value()?;
        }
        let reached = |(semaphore, value): &(&Semaphore, u64)| semaphore.timeline.value() >= *value;
        self.0
            .machine
            .wait_on_device(self.0.device, timeout, || match which {
                WaitFor::All => semaphores.iter().all(reached),
                WaitFor::Any => semaphores.iter().any(reached),
            })
    }

    /// Blocks until no batch of this device is pending, or the timeout runs out.
    ///
    /// # Errors
    /// `DeviceLost`.
    pub fn wait_idle(&self, timeout: Option<Duration>) -> Result<Waited, Error> {
        self.0.machine.host_wait(timeout, |state| {
            if let Some(error) = state.device_error(self.0.device) {
                return Some(Err(error));
            }
            (!state.active.iter().any(|id| id.device == self.0.device)).then_some(Ok(()))
        })
    }

    /// Blocks until `over` is true or the timeout runs out. `over` is evaluated with no lock held,
    /// whenever something has changed on the machine.
    pub fn wait_until(&self, timeout: Option<Duration>, over: impl FnMut() -> bool) -> Waited {
        self.0.machine.host_wait_unlocked(timeout, over)
    }
}

/// # Clocks
impl SimDevice {
    /// The device clock now, masked by its valid bits. It advances with steps, with
    /// [`SimDevice::advance`], and with real time where the configuration says so.
    pub fn tick(&self) -> u64 {
        self.with(|state| {
            state.follow_real_time();
            state.tick(self.0.device)
        })
    }

    /// The machine's simulated time, which is the host clock of calibrations.
    pub fn host_ns(&self) -> u64 {
        self.with(|state| {
            state.follow_real_time();
            state.now_ns
        })
    }

    /// Advances simulated time. Work that takes a known time calls it while it runs. Never blocks.
    pub fn advance(&self, ns: u64) {
        self.with(|state| {
            state.now_ns = state.now_ns.saturating_add(ns);
            state.touch();
        });
    }

    /// From now on the clock no longer follows real time: it moves with steps and with
    /// [`SimDevice::advance`] alone, so that nothing depends on how fast the caller is.
    pub fn leave_real_time(&self) {
        self.with(|state| {
            state.follow_real_time();
            state.real_time = None;
        });
    }

    /// The mask of the valid bits. Differences of timestamps are computed under it.
    pub fn tick_mask(&self) -> u64 {
        mask(self.config().valid_bits)
    }

    /// Reads both clocks at once, with the configured error.
    pub fn calibrate(&self) -> Calibration {
        self.with(|state| {
            state.follow_real_time();
            let uncertainty_ns = state
                .devices
                .get(self.0.device)
                .map_or(0, |d| d.config.calibration_error_ns);
            let late = state.rng.below(uncertainty_ns.saturating_add(1));
            let host_ns = match state.rng.below(2) {
                0 => state.now_ns.saturating_add(late),
                _ => state.now_ns.saturating_sub(late),
            };
            Calibration {
                device_tick: state.tick(self.0.device),
                host_ns,
                uncertainty_ns,
            }
        })
    }
}

/// # Faults
impl SimDevice {
    /// Plans a fault.
    pub fn inject(&self, fault: Fault) {
        self.with(|state| {
            if let Some(device) = state.devices.get_mut(self.0.device) {
                device.faults.add(fault);
            }
        });
    }

    /// Loses the device now: its pending batches and all later calls fail.
    pub fn lose(&self, why: &str) {
        self.with(|state| state.lose(self.0.device, why.into()));
    }

    /// Why the device is lost, if it is.
    pub fn lost(&self) -> Option<String> {
        self.with(|state| {
            state
                .devices
                .get(self.0.device)
                .and_then(|device| device.lost.clone())
        })
    }

    /// Stops all work on the queue with this index until [`SimDevice::resume_queue`]. False if
    /// there is no such queue.
    pub fn pause_queue(&self, index: usize) -> bool {
        self.set_paused(index, true)
    }

    /// Resumes a paused queue. False if there is no such queue.
    pub fn resume_queue(&self, index: usize) -> bool {
        self.set_paused(index, false)
    }

    fn set_paused(&self, index: usize, paused: bool) -> bool {
        self.with(|state| {
            let queue = state.queues.get_mut(&QueueId {
                device: self.0.device,
                index,
            });
            let found = queue.map(|queue| queue.paused = paused).is_some();
            state.touch();
            found
        })
    }
}

/// # Inspecting
impl SimDevice {
    /// The configuration.
    pub fn config(&self) -> Config {
        self.with(|state| match state.devices.get(self.0.device) {
            Some(device) => device.config.clone(),
            None => Config::seeded(self.seed()),
        })
    }

    /// The machine's seed.
    pub fn seed(&self) -> u64 {
        self.0.seed
    }

    /// The device's number on its machine, from 0.
    pub fn number(&self) -> usize {
        self.0.device
    }

    /// The latest events of the machine, oldest first.
    pub fn trace(&self) -> Vec<TraceEntry> {
        self.with(|state| state.trace())
    }

    /// How many objects are alive on all devices of the machine.
    pub fn live(&self) -> Live {
        self.0.machine.tracker.live()
    }

    /// The violations on the machine so far, in order.
    pub fn violations(&self) -> Vec<Violation> {
        self.0.machine.tracker.violations()
    }

    /// Records a violation that a stand-in has found.
    pub fn report_violation(&self, violation: Violation) {
        self.0.machine.tracker.report(violation);
    }

    fn with<R>(&self, f: impl FnOnce(&mut State) -> R) -> R {
        self.0.machine.with(f)
    }
}
