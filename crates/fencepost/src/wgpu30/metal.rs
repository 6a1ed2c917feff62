//! Shared events that wgpu's submits signal.

use objc2::{rc::Retained, runtime::ProtocolObject};
use objc2_metal::{MTLDevice as _, MTLSharedEvent};
use wgpu::hal::api::Metal;

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

    pub(super) fn stage(&self, queue: &wgpu::Queue, value: u64) -> bool {
        // SAFETY: nothing is destroyed through it.
        let Some(queue) = (unsafe { queue.as_hal::<Metal>() }) else {
            return false;
        };
        let replaced = queue.remove_signal_event(&self.0);
        queue.add_signal_event(self.0.clone(), value);
        replaced
    }

    pub(super) fn withdraw(&self, queue: &wgpu::Queue) -> bool {
        // SAFETY: nothing is destroyed through it.
        let queue = unsafe { queue.as_hal::<Metal>() };
        queue.is_some_and(|queue| queue.remove_signal_event(&self.0))
    }
}

// SAFETY: Metal's events may be used by any thread.
unsafe impl Send for Event {}
// SAFETY: as above.
unsafe impl Sync for Event {}
