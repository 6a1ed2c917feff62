//! What happens to devices when the process ends.

use std::{
    sync::{Arc, Weak, atomic::AtomicU64},
    time::Duration,
};

use crate::{
    exit::at_exit_of_use,
    fork::PerProcess,
    sync::{AtomicBool, Mutex, Ordering, lock, sleep},
};

static ALL: PerProcess<Mutex<Vec<Known>>> = PerProcess::new();

fn all() -> &'static Mutex<Vec<Known>> {
    ALL.get_or_make(|_| Mutex::new(Vec::new()))
}

/// A device, as the end of the process meets it.
pub(super) trait Leave: Send + Sync + 'static {
    /// Whether the driver must not be called any more.
    fn is_gone(&self) -> bool;

    /// Takes the watcher's thread out of the driver; `false` while it is still there.
    fn leave(&self) -> bool;

    /// The driver is not called any more.
    fn exit(&self);
}

struct Known {
    device: Weak<dyn Leave>,
    destroyed: Arc<AtomicBool>,
}

/// Tells that a device is destroyed: it is dropped behind all else of it. From when the last owner
/// begins to drop a device, a `Weak` of it is of no use.
pub(super) struct Destroyed(Arc<AtomicBool>);

impl Destroyed {
    pub(super) fn not_yet() -> Destroyed {
        Destroyed(Arc::new(AtomicBool::new(false)))
    }
}

impl Drop for Destroyed {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Has the device's watcher return from the driver before the process ends: a thread that is still
/// inside a driver or layer when that cleans up crashes.
pub(super) fn leave_at_exit(device: Weak<dyn Leave>, destroyed: &Destroyed) {
    let mut all = lock(all());
    all.retain(|known| !known.destroyed.load(Ordering::Acquire));
    all.push(Known {
        device,
        destroyed: destroyed.0.clone(),
    });
    drop(all);
    used();
}

/// Something was done that the handler has to undo. Layers register exit handlers of their own when
/// they are first needed, and those that are registered last run first.
pub(super) fn used() {
    static USES: AtomicU64 = AtomicU64::new(0);
    at_exit_of_use(&USES, leave);
}

/// The watcher's thread is about to take a device apart, which a layer may do with what it has
/// registered an exit handler for since. Registered for each device: layers register handlers with
/// each, and with fewer of ours the validation layer 1.4.364 crashed at the exit. The system
/// keeps some 32 bytes of it.
pub(super) fn will_be_destroyed() {
    at_exit_of_use(&AtomicU64::new(0), leave);
}

/// Waits for a moment only: a driver that does not return must not keep the process alive.
fn wait_until(over: impl Fn() -> bool) {
    for _ in 0..200 {
        if over() {
            break;
        }
        sleep(Duration::from_millis(1));
    }
}

extern "C" fn leave() {
    let Ok(all) = all().try_lock() else {
        return;
    };
    for known in all.iter() {
        let Some(device) = known.device.upgrade() else {
            wait_until(|| known.destroyed.load(Ordering::Acquire));
            continue;
        };
        if !device.is_gone() {
            wait_until(|| device.leave());
        }
        device.exit();
        // Its drop would call the driver.
        std::mem::forget(device);
    }
}
