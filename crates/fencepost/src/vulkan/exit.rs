//! What happens to devices when the process ends.

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use super::watcher::DeviceWatcher;
use crate::{
    exit::at_exit,
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
/// device. So it is registered again, as often as doubling the number of uses allows.
pub(super) fn used() {
    static USES: AtomicU64 = AtomicU64::new(0);
    let uses = USES.fetch_add(1, Ordering::Relaxed) + 1;
    if uses.is_power_of_two() {
        at_exit(&AtomicBool::new(false), leave);
    }
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
            watcher.open_all_gates();
        }
        gpu.exit();
        // Its drop would call the driver.
        std::mem::forget(watcher);
    }
}
