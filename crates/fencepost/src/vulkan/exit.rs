//! What happens to devices when the process ends.

use std::{
    sync::{Arc, Weak, atomic::AtomicU64},
    time::Duration,
};

use super::watcher::DeviceWatcher;
use crate::{
    exit::at_exit_of_use,
    sync::{Mutex, lock, sleep},
};

static ALL: Mutex<Vec<Weak<DeviceWatcher>>> = Mutex::new(Vec::new());

/// Has the device's watcher return from the driver before the process ends.
///
/// Drivers and layers clean up in exit handlers of their own, and a thread that is still inside
/// them then crashes (seen with the validation layer). Exit handlers run in the reverse order of
/// their registration, so ours, which is registered later, runs first. NVIDIA's driver also waits
/// in its handler for every queue to be idle, so ours opens every host gate.
pub(super) fn leave_at_exit(watcher: &Arc<DeviceWatcher>) {
    let mut all = lock(&ALL);
    all.retain(|watcher| watcher.strong_count() > 0);
    all.push(Arc::downgrade(watcher));
    drop(all);
    used();
}

/// Something was done that the handler has to undo.
///
/// Layers make what they clean up when it is first needed, after the device was made: with the
/// validation layer 1.4.364, opening a gate crashed when the only handler was registered with the
/// device. So it is registered again.
pub(super) fn used() {
    static USES: AtomicU64 = AtomicU64::new(0);
    at_exit_of_use(&USES, leave);
}

extern "C" fn leave() {
    let Ok(all) = ALL.try_lock() else {
        return;
    };
    for watcher in all.iter().filter_map(Weak::upgrade) {
        let gpu = &watcher.gpu;
        if !gpu.is_gone() {
            // For a moment only: a driver that does not return must not keep the process alive.
            for _ in 0..200 {
                if watcher.leave() {
                    break;
                }
                sleep(Duration::from_millis(1));
            }
            // Their drops would call the driver.
            std::mem::forget(watcher.open_all_gates());
        }
        gpu.exit();
        // Its drop would call the driver.
        std::mem::forget(watcher);
    }
}

/// Opens all host gates before the process ends. The devices work on.
pub(crate) fn open_all_gates() {
    let watchers: Vec<_> = match ALL.try_lock() {
        Ok(all) => all.iter().filter_map(Weak::upgrade).collect(),
        Err(_) => return,
    };
    for watcher in watchers {
        drop(watcher.open_all_gates());
    }
}
