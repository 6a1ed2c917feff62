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

/// What the host's clock stood at when the machine came to be: times are seconds since some boot,
/// and never near zero.
pub(crate) const BOOT_NS: u64 = 1_000_000_000_000;

pub(crate) struct Machine {
    pub(crate) setup: Setup,
    pub(crate) root: SimDevice,
    /// The first is the system's default device.
    pub(crate) devices: Vec<Retained<Device>>,
    /// Other objects for the same devices: nothing says that Metal gives the same ones each time.
    pub(crate) copies: Vec<Retained<Device>>,
    pub(crate) callbacks: Arc<Callbacks>,
    _stepper: Stepper,
}

/// What the objects made from a device share.
pub(crate) struct Gpu {
    pub(crate) sim: SimDevice,
    pub(crate) callbacks: Arc<Callbacks>,
    pub(crate) command_buffers: usize,
    pub(crate) shared_events: AtomicBool,
    pub(crate) removed: AtomicBool,
    /// Threads inside `commandBuffer` that wait for a place.
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

/// The machine, made now if there is none. None if the operating system has no thread to give.
pub(crate) fn current() -> Option<Arc<Machine>> {
    let mut machine = lock(&MACHINE);
    if machine.is_none() {
        *machine = Machine::new(Setup::from_environment()).ok().map(Arc::new);
    }
    machine.clone()
}

/// Throws the machine away and starts another.
pub(crate) fn restart(setup: Setup) -> io::Result<()> {
    let old = lock(&MACHINE).take();
    // it waits for its thread, so not with the lock
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
            // tests hold queues from the host, and look at how long by the device's clock
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

    /// Whether nothing is left to do but what the test holds back.
    fn is_quiet(&self) -> bool {
        // work goes from the device to a worker and may come back; a hop in between shows in the
        // count
        let before = dispatch::accepted();
        self.root.is_quiescent()
            && dispatch::is_idle()
            && self.root.is_quiescent()
            && dispatch::accepted() == before
    }

    pub(crate) fn quiesce(&self, timeout: Duration) -> bool {
        let start = Instant::now();
        loop {
            if self.is_quiet() {
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
    /// A queue, stopped if the device is held. None on a device that was removed.
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
            // one that is gone has nothing to hold
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

/// Brings blocks to the threads that call them.
pub(crate) struct Callbacks {
    completion: Worker,
    /// What waits while the test holds callbacks back.
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
