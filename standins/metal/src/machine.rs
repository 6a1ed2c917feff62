//! The one simulated machine of this process, and the C functions that return its devices.

use crate::callbacks::Callbacks;
use crate::device::Device;
use crate::gpu::{BOOT_NS, Gpu};
use crate::setup::Setup;
use crate::{dispatch, foundation, report};
use fencepost_sim::{Config, Order, SimDevice, Stepper, Sticky, lock};
use objc2::rc::Retained;
use objc2::runtime::AnyObject;
use std::io;
use std::ptr::null_mut;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

static MACHINE: Mutex<Option<Arc<Machine>>> = Mutex::new(None);

pub(crate) struct Machine {
    pub(crate) setup: Setup,
    pub(crate) root: SimDevice,
    /// The first is the system's default device.
    pub(crate) devices: Vec<Retained<Device>>,
    /// Other objects for the same devices, since no documentation says that Metal returns the same
    /// ones each time.
    pub(crate) copies: Vec<Retained<Device>>,
    pub(crate) callbacks: Arc<Callbacks>,
    _stepper: Stepper,
}

/// The machine; made now if there is none. `None` if the operating system cannot start a thread.
pub(crate) fn current() -> Option<Arc<Machine>> {
    let mut machine = lock(&MACHINE);
    if machine.is_none() {
        *machine = Machine::new(Setup::from_environment()).ok().map(Arc::new);
    }
    machine.clone()
}

/// Drops the machine, if there is one, and makes another.
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
            // tests measure by the device's clock how long the host blocked a queue
            follows_real_time: true,
            trace_capacity: 4096,
            ..Config::seeded(setup.seed)
        };
        let root = SimDevice::new(config.clone()).map_err(io::Error::other)?;
        let stepper = root.spawn_stepper()?;
        let callbacks = Arc::new(Callbacks::new()?);
        let (mut devices, mut copies) = (Vec::new(), Vec::new());
        for number in 0..setup.devices {
            let sim = match number {
                0 => root.clone(),
                _ => root.another(config.clone()).map_err(io::Error::other)?,
            };
            let gpu = Arc::new(Gpu::new(sim, callbacks.clone(), setup.clone()));
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

    /// Whether nothing is left to do, apart from callbacks that the test delays.
    fn is_quiescent(&self) -> bool {
        // work moves from the device to a worker, and from there to the device: a move during
        // these checks changes the count
        let before = dispatch::accepted();
        self.root.is_quiescent()
            && dispatch::is_idle()
            && self.root.is_quiescent()
            && dispatch::accepted() == before
    }

    pub(crate) fn wait_idle(&self, timeout: Duration) -> bool {
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

/// <https://developer.apple.com/documentation/metal/mtlcreatesystemdefaultdevice()>
#[unsafe(no_mangle)]
extern "C-unwind" fn MTLCreateSystemDefaultDevice() -> *mut AnyObject {
    if report::is_refused("MTLCreateSystemDefaultDevice") {
        return null_mut();
    }
    let machine = current();
    let first = machine.as_ref().and_then(|machine| machine.devices.first());
    first.map_or(null_mut(), |device| {
        Retained::into_raw(device.clone()).cast()
    })
}

/// <https://developer.apple.com/documentation/metal/mtlcopyalldevices()>
#[unsafe(no_mangle)]
extern "C-unwind" fn MTLCopyAllDevices() -> *mut AnyObject {
    let machine = current();
    let devices = machine.iter().flat_map(|machine| &machine.copies);
    foundation::list(
        devices
            .map(|device| device.clone().into_super().into_super())
            .collect(),
    )
}
