//! Simulated devices.

use crate::clock::mask;
use crate::driver::Driver;
use crate::flag::{Recording, Reuse};
use crate::ledger::Object;
use crate::machine::Machine;
use crate::queue::QueueHandle;
use crate::state::State;
use crate::{
    Calibration, Config, Error, Fault, Flag, Gate, Kind, Live, Order, Queue, Semaphore, Slot,
    TraceEntry, Violation, Waited,
};
use std::sync::Arc;
use std::time::Duration;

/// One simulated device. Cheap to clone.
///
/// When the last clone is dropped its pending work is thrown away without running, waits for it
/// end, and calls on its queues fail with `DeviceClosed`; dropping never blocks.
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

/// Which of several semaphores a wait needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitFor {
    /// All of them.
    All,
    /// One of them.
    Any,
}

/// # Making things
///
/// Every `new_…` fails with `DeviceLost`, or `OutOfMemory` when a fault says so, and never blocks.
impl SimDevice {
    /// A device on a machine of its own: with its own scheduler, host clock, trace and counts.
    ///
    /// # Errors
    /// `BadConfig`.
    pub fn new(config: Config) -> Result<SimDevice, Error> {
        config.check()?;
        let machine = Machine::new(&config);
        Ok(SimDevice::add(machine, config))
    }

    /// Another device on the same machine. Of its configuration `seed`, `max_step_ns`,
    /// `follows_real_time` and `trace_capacity` mean nothing: those of the first device count.
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
        let object = self.object(Kind::Queue)?;
        let id = self.with(|state| state.add_queue(self.0.device, order))?;
        Ok(Queue(Arc::new(QueueHandle {
            machine: self.0.machine.clone(),
            id,
            _object: object,
        })))
    }

    /// A timeline semaphore with this value.
    pub fn new_semaphore(&self, value: u64) -> Result<Semaphore, Error> {
        Ok(Semaphore::new(
            self.object(Kind::Semaphore)?,
            Arc::downgrade(&self.0.machine),
            value,
        ))
    }

    /// A flag, set or not.
    pub fn new_flag(&self, set: bool) -> Result<Flag, Error> {
        Ok(Flag::new(
            self.object(Kind::Flag)?,
            Arc::downgrade(&self.0.machine),
            set,
        ))
    }

    /// An empty timestamp slot.
    pub fn new_slot(&self) -> Result<Slot, Error> {
        Ok(Slot::new(self.object(Kind::Slot)?))
    }

    /// A closed gate.
    pub fn new_gate(&self) -> Result<Gate, Error> {
        Ok(Gate(Flag::new(
            self.object(Kind::Gate)?,
            Arc::downgrade(&self.0.machine),
            false,
        )))
    }

    /// The identity of a recorded command buffer.
    pub fn new_recording(&self, reuse: Reuse) -> Result<Recording, Error> {
        Ok(Recording::new(self.object(Kind::Recording)?, reuse))
    }

    fn object(&self, kind: Kind) -> Result<Arc<Object>, Error> {
        self.with(|state| {
            if let Some(error) = state.device_error(self.0.device) {
                return Err(error);
            }
            if state
                .devices
                .get_mut(self.0.device)
                .is_some_and(|device| device.plan.creation())
            {
                return Err(Error::OutOfMemory);
            }
            Ok(Object::new(&self.0.machine.ledger, kind, self.0.device))
        })
    }
}

/// # Letting it run
///
/// Nothing happens on a device unless somebody steps its machine. One thread that makes all calls
/// and all steps is fully deterministic for a seed.
impl SimDevice {
    /// Lets one thing happen, anywhere on the machine; false if nothing may. Work and handlers run
    /// on this thread.
    pub fn step(&self) -> bool {
        self.0.machine.step()
    }

    /// Steps until nothing may happen, and tells how many steps that took. Never returns while
    /// handlers keep submitting.
    pub fn run_until_idle(&self) -> u64 {
        let mut steps = 0;
        while self.step() {
            steps += 1;
        }
        steps
    }

    /// Steps until `over` is true; false if nothing may happen before that.
    pub fn run_until(&self, mut over: impl FnMut() -> bool) -> bool {
        while !over() {
            if !self.step() {
                return over();
            }
        }
        true
    }

    /// A thread that keeps stepping until the `Driver` is dropped.
    ///
    /// # Errors
    /// The operating system has no thread to give.
    pub fn spawn_driver(&self) -> std::io::Result<Driver> {
        Driver::spawn(&self.0.machine, self.seed())
    }

    /// What every pending batch of the machine stands at, a line each: for a test that found the
    /// device stuck.
    pub fn pending_work(&self) -> Vec<String> {
        self.with(|state| {
            let mut lines = Vec::new();
            for (id, queue) in &state.queues {
                let hung = if queue.hung { " (hung)" } else { "" };
                for batch in &queue.in_flight {
                    let next = batch.commands.front();
                    lines.push(format!(
                        "{id}{hung}: batch {} is at command {}: {next:?}",
                        batch.id, batch.at
                    ));
                }
                for batch in &queue.waiting {
                    lines.push(format!("{id}{hung}: batch {} has not started", batch.id));
                }
                for batch in &queue.unreported {
                    lines.push(format!(
                        "{id}{hung}: batch {} has run and is not reported",
                        batch.id
                    ));
                }
            }
            lines
        })
    }
}

/// # Being done
impl SimDevice {
    /// Whether nothing is left to do on the machine: no batch is pending, no handler is due or
    /// running, and nothing that others own is being dropped. Listeners for values that were not
    /// reached do not count. Never blocks.
    pub fn is_quiet(&self) -> bool {
        self.0.machine.is_quiet()
    }
}

/// # Waiting on the host
///
/// Somebody else must step the machine meanwhile: a [`Driver`] or another thread. A timeout of
/// `None` waits for ever.
impl SimDevice {
    /// Blocks until all or any of the semaphores have reached their values, or the time is up.
    ///
    /// # Errors
    /// `Destroyed`; `DeviceLost` or `DeviceClosed` if this device is, and the values were not
    /// reached before.
    pub fn wait_semaphores(
        &self,
        which: WaitFor,
        semaphores: &[(&Semaphore, u64)],
        timeout: Option<Duration>,
    ) -> Result<Waited, Error> {
        for (semaphore, _) in semaphores {
            semaphore.value()?;
        }
        let reached = |(semaphore, value): &(&Semaphore, u64)| semaphore.reached() >= *value;
        self.0.machine.host_wait(timeout, |state| {
            let over = match which {
                WaitFor::All => semaphores.iter().all(reached),
                WaitFor::Any => semaphores.iter().any(reached),
            };
            if over {
                Some(Ok(()))
            } else {
                state.device_error(self.0.device).map(Err)
            }
        })
    }

    /// Blocks until no batch of this device is pending, or the time is up.
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

    /// Blocks until `over` is true, which is asked, with nothing locked, whenever something
    /// happened on the machine.
    pub fn wait_until(&self, timeout: Option<Duration>, over: impl FnMut() -> bool) -> Waited {
        self.0.machine.host_wait_unlocked(timeout, over)
    }
}

/// # Clocks
impl SimDevice {
    /// The device clock now, masked by its valid bits. Goes on only with steps, or
    /// [`SimDevice::advance`].
    pub fn tick(&self) -> u64 {
        self.with(|state| state.tick(self.0.device))
    }

    /// The machine's simulated time, which is the host clock that calibrations refer to.
    pub fn host_ns(&self) -> u64 {
        self.with(|state| state.now_ns)
    }

    /// Lets simulated time pass: for work that takes a known time, called from inside of it. Never
    /// blocks.
    pub fn advance(&self, ns: u64) {
        self.with(|state| {
            state.now_ns = state.now_ns.saturating_add(ns);
            state.touch();
        });
    }

    /// The mask of the valid bits: differences of timestamps are taken modulo it.
    pub fn tick_mask(&self) -> u64 {
        mask(self.config().valid_bits)
    }

    /// Reads both clocks at once, with the configured error.
    pub fn calibrate(&self) -> Calibration {
        self.with(|state| {
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
                device.plan.add(fault);
            }
        });
    }

    /// Loses the device now: what is pending fails, and every later call.
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

    /// Stops everything on the queue with this index until [`SimDevice::release`]; false if there
    /// is none.
    pub fn hang(&self, index: usize) -> bool {
        self.set_hung(index, true)
    }

    /// Lets a hung queue go on; false if there is none.
    pub fn release(&self, index: usize) -> bool {
        self.set_hung(index, false)
    }

    fn set_hung(&self, index: usize, hung: bool) -> bool {
        self.with(|state| {
            let queue = state.queues.get_mut(&crate::QueueId {
                device: self.0.device,
                index,
            });
            let found = queue.map(|queue| queue.hung = hung).is_some();
            state.touch();
            found
        })
    }
}

/// # Looking at it
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

    /// The latest things that happened on the machine, oldest first.
    pub fn trace(&self) -> Vec<TraceEntry> {
        self.with(|state| state.trace())
    }

    /// How many objects are alive on the machine, all devices together.
    pub fn live(&self) -> Live {
        self.0.machine.ledger.live()
    }

    /// What was done on the machine that the APIs forbid, in order.
    pub fn violations(&self) -> Vec<Violation> {
        self.0.machine.ledger.violations()
    }

    /// Writes down a violation that a face has found.
    pub fn report_violation(&self, violation: Violation) {
        self.0.machine.ledger.report(violation);
    }

    fn with<R>(&self, f: impl FnOnce(&mut State) -> R) -> R {
        self.0.machine.with(f)
    }
}
