//! Shared events that wgpu's submits signal.

use std::ops::Deref;

use objc2::{rc::Retained, runtime::ProtocolObject};
use objc2_metal::{MTLDevice as _, MTLSharedEvent};
use wgpu::hal::{api::Metal, metal as hal};

/// Whether the two are one queue. Where they are not Metal's, nothing but wgpu can tell.
pub(super) fn is_one(one: &wgpu::Queue, two: &wgpu::Queue) -> bool {
    // SAFETY: nothing is destroyed through them.
    let hal = [one, two].map(|queue| unsafe { queue.as_hal::<Metal>() });
    match hal {
        [Some(one), Some(two)] => std::ptr::eq(one.as_raw(), two.as_raw()),
        [None, None] => one == two,
        _ => false,
    }
}

/// A queue as wgpu-hal has it, which lives as long as this.
pub(super) struct HalQueue(Box<dyn Deref<Target = hal::Queue> + Send + Sync>);

impl HalQueue {
    /// `None` for a queue of another API.
    pub(super) fn of(queue: &wgpu::Queue) -> Option<HalQueue> {
        // SAFETY: nothing is destroyed through it.
        let hal = unsafe { queue.as_hal::<Metal>() }?;
        Some(HalQueue(Box::new(hal)))
    }
}

pub(super) struct Event(Retained<ProtocolObject<dyn MTLSharedEvent>>);

impl Event {
    /// `None` for a device of another API, and where the system gives no shared event, as in some
    /// sandboxes.
    pub(super) fn new(device: &wgpu::Device) -> Option<Event> {
        // SAFETY: nothing is destroyed through it.
        let hal = unsafe { device.as_hal::<Metal>() }?;
        hal.raw_device().newSharedEvent().map(Event)
    }

    /// Its value. Never blocks.
    pub(super) fn value(&self) -> u64 {
        self.0.signaledValue()
    }

    pub(super) fn stage(&self, queue: &HalQueue, value: u64) {
        queue.0.add_signal_event(self.0.clone(), value);
    }

    pub(super) fn withdraw(&self, queue: &HalQueue) -> bool {
        queue.0.remove_signal_event(&self.0)
    }
}

// SAFETY: Metal's events may be used by any thread.
unsafe impl Send for Event {}
// SAFETY: as above.
unsafe impl Sync for Event {}
