//! The one simulated machine of this process, its devices, and the delivery of callbacks.

use crate::control::Setup;
use crate::device::Device;
use crate::dispatch::{self, Work, Worker};
use crate::report;
use fencepost_sim::{Config, Order, Queue, SimDevice, Stepper, Sticky};
use objc2::rc::Retained;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

static MACHINE: Mutex<Option<Arc<Machine>>> = Mutex::new(None);

/// The host's clock when the machine was made. Times are seconds since a boot, so they are never
/// near zero.
pub(crate) const BOOT_NS: u64 = 1_000_000_000_000;

pub(crate) struct Machine {
    pub(crate) setup: Setup,
    pub(crate) root: SimDevice,
    /// The first is the system's default device.
    pub(crate) devices: Vec<Retained<Device>>,
    /// Other objects for the same devices, since Metal is not documented to return the same ones each
    /// time.
    pub(crate) copies: Vec<Retained<Device>>,
    pub(crate) callbacks: Arc<Callbacks>,
    _stepper: Stepper,
}

/// The part of a device that the objects made from it share.
pub(crate) struct Gpu {
    pub(crate) sim: SimDevice,
    pub(crate) callbacks: Arc<Callbacks>,
    pub(crate) command_buffers: usize,
    pub(crate) shared_events: AtomicBool,
    pub(crate) removed: AtomicBool,
    /// How many threads are blocked in `commandBuffer`.
    pub(crate) blocked: AtomicUsize,
    queues: Mutex<Queues>,
}

struct Queues {
    made: usize,
    held: bool,
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The machine; made now if there is none. `None` if the operating system cannot start a thread.
pub(crate) fn current() -> Option<Arc<Machine>> {
    let mut machine = lock(&MACHINE);
    if machine.is_none() {
        *machine = Machine::new(Setup::from_environment()).ok().map(Arc::new);
    }
    machine.clone()
}

/// Drops the machine and makes another.
pub(crate) fn restart(setup: Setup) -> io::Result<()> {
    let old = lock(&MACHINE).take();
    // without the lock, since the drop joins the machine's thread
    drop(old);
    let new = Machine::new(setup)?;
    *lock(&MACHINE) = Some(Arc::new(new));
    Ok(())
}

impl Machine {
    fn new(setup: Setup) -> io::Result<Machine> {
        report::start_over(setup.seed);
        let config = Config {
            order: Order::Overlapping,
            sticky: Sticky::Batch,
            channels: setup.channels,
            initial_tick: BOOT_NS,
            // tests block queues from the host, and measure how long by the device's clock
            follows_real_time: true,
            trace_capacity: 4096,
            ..Config::seeded(setup.seed)
        };
        let root = SimDevice::new(config.clone()).map_err(io::Error::other)?;
        let stepper = root.spawn_stepper()?;
        let callbacks = Arc::new(Callbacks {
            completion: Worker::serial("Metal completion handlers (stand-in)")?,
            held: Mutex::new(None),
        });
        let (mut devices, mut copies) = (Vec::new(), Vec::new());
        for number in 0..setup.devices {
            let sim = match number {
                0 => root.clone(),
                _ => root.another(config.clone()).map_err(io::Error::other)?,
            };
            let gpu = Gpu {
                sim,
                callbacks: callbacks.clone(),
                command_buffers: setup.command_buffers,
                shared_events: AtomicBool::new(setup.shared_events),
                removed: AtomicBool::new(false),
                blocked: AtomicUsize::new(0),
                queues: Mutex::new(Queues {
                    made: 0,
                    held: false,
                }),
            };
            let gpu = Arc::new(gpu);
            devices.push(Device::make(gpu.clone()));
            copies.push(Device::make(gpu));
        }
        Ok(Machine {
            setup,
            root,
            devices,
            copies,
            callbacks,
            _stepper: stepper,
        })
    }

    /// Whether nothing is left to do, apart from what the test delays.
    fn is_quiescent(&self) -> bool {
        // work moves from the device to a worker and may come back: a move during these checks
        // changes the count
        let before = dispatch::accepted();
        self.root.is_quiescent()
            && dispatch::is_idle()
            && self.root.is_quiescent()
            && dispatch::accepted() == before
    }

    pub(crate) fn quiesce(&self, timeout: Duration) -> bool {
        let start = Instant::now();
        loop {
            if self.is_quiescent() {
                return true;
            }
            if start.elapsed() >= timeout {
                return false;
            }
            std::thread::sleep(Duration::from_micros(200));
        }
    }
}

impl Gpu {
    /// A queue, which is paused if the device is. `None` on a removed device.
    pub(crate) fn new_queue(&self) -> Option<Queue> {
        let mut queues = lock(&self.queues);
        let queue = self.sim.new_queue().ok()?;
        let index = queue.id().index;
        queues.made = queues.made.max(index + 1);
        if queues.held {
            self.sim.pause_queue(index);
        }
        Some(queue)
    }

    pub(crate) fn hold(&self, held: bool) {
        let mut queues = lock(&self.queues);
        queues.held = held;
        for index in 0..queues.made {
            // fails for a queue that was dropped
            let _ = if held {
                self.sim.pause_queue(index)
            } else {
                self.sim.resume_queue(index)
            };
        }
    }

    pub(crate) fn remove(&self) {
        self.removed.store(true, Ordering::SeqCst);
        self.sim.lose("the device was removed");
    }

    pub(crate) fn is_removed(&self) -> bool {
        self.removed.load(Ordering::SeqCst)
    }
}

/// Sends blocks to the threads that call them.
pub(crate) struct Callbacks {
    completion: Worker,
    /// The callbacks that a test delays.
    held: Mutex<Option<Vec<(Worker, Work)>>>,
}

impl Callbacks {
    /// Calls a command buffer's handler.
    pub(crate) fn complete(&self, work: Work) {
        self.deliver(&self.completion, work);
    }

    /// Calls a block on a dispatch queue.
    pub(crate) fn deliver(&self, worker: &Worker, work: Work) {
        let mut held = lock(&self.held);
        match &mut *held {
            Some(held) => held.push((worker.clone(), work)),
            None => {
                drop(held);
                worker.send(work);
            }
        }
    }

    pub(crate) fn hold(&self) {
        lock(&self.held).get_or_insert_default();
    }

    pub(crate) fn release(&self) {
        let held = lock(&self.held).take();
        for (worker, work) in held.into_iter().flatten() {
            worker.send(work);
        }
    }

    pub(crate) fn held(&self) -> usize {
        lock(&self.held).as_ref().map_or(0, Vec::len)
    }
}
