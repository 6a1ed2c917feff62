//! The state of a device, which its Objective-C object and all objects made from that share.

use crate::callbacks::Callbacks;
use crate::setup::Setup;
use fencepost_sim::{Queue, SimDevice, lock};
use objc2::rc::Retained;
use objc2::runtime::ProtocolObject;
use objc2_metal::MTLDevice;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// The host's clock when the machine was made. Times are seconds since a boot, so they are never
/// near zero.
pub(crate) const BOOT_NS: u64 = 1_000_000_000_000;

/// The device that an object was made from. Objects hold this rather than the class of devices,
/// which names theirs.
#[derive(Clone)]
pub(crate) struct DeviceRef {
    pub(crate) object: Retained<ProtocolObject<dyn MTLDevice>>,
    pub(crate) gpu: Arc<Gpu>,
}

/// The part of a device that the objects made from it share.
pub(crate) struct Gpu {
    pub(crate) sim: SimDevice,
    pub(crate) callbacks: Arc<Callbacks>,
    pub(crate) setup: Setup,
    /// Whether `newSharedEvent` returns an event now. A test may change it.
    pub(crate) shared_events: AtomicBool,
    removed: AtomicBool,
    /// How many threads are blocked in `commandBuffer`.
    pub(crate) blocked: AtomicUsize,
    queues: Mutex<Queues>,
}

struct Queues {
    made: usize,
    paused: bool,
}

impl Gpu {
    pub(crate) fn new(sim: SimDevice, callbacks: Arc<Callbacks>, setup: Setup) -> Gpu {
        Gpu {
            sim,
            callbacks,
            shared_events: AtomicBool::new(setup.shared_events),
            setup,
            removed: AtomicBool::new(false),
            blocked: AtomicUsize::new(0),
            queues: Mutex::new(Queues {
                made: 0,
                paused: false,
            }),
        }
    }

    /// A queue, which is paused if the device is. `None` on a removed device.
    pub(crate) fn new_queue(&self) -> Option<Queue> {
        let mut queues = lock(&self.queues);
        let queue = self.sim.new_queue().ok()?;
        let index = queue.id().index;
        queues.made = queues.made.max(index + 1);
        if queues.paused {
            self.sim.pause_queue(index);
        }
        Some(queue)
    }

    /// Pauses or resumes all queues, also those that are made later.
    pub(crate) fn set_paused(&self, paused: bool) {
        let mut queues = lock(&self.queues);
        queues.paused = paused;
        for index in 0..queues.made {
            // finds no queue if that one was dropped
            let _ = match paused {
                true => self.sim.pause_queue(index),
                false => self.sim.resume_queue(index),
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
