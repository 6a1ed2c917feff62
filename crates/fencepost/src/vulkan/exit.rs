//! What happens to devices when the process ends.

use std::{
    sync::{Arc, Weak, atomic::AtomicBool},
    time::Duration,
};

use super::watcher::DeviceWatcher;
use crate::{
    exit::at_exit,
    sync::{Mutex, lock, sleep},
};

/// Has the device's watcher return from the driver before the process ends.
///
/// Drivers and layers clean up in exit handlers of their own, and a thread that is still inside
/// them then crashes (seen with the validation layer). Exit handlers run in the reverse order of
/// their registration, so ours, which is registered later, runs first. NVIDIA's driver also waits
/// in its handler for every queue to be idle, so ours opens every host gate.
pub(super) fn leave_at_exit(watcher: &Arc<DeviceWatcher>) {
    static ALL: Mutex<Vec<Weak<DeviceWatcher>>> = Mutex::new(Vec::new());
    static REGISTERED: AtomicBool = AtomicBool::new(false);
    extern "C" fn leave() {
        let Ok(all) = ALL.try_lock() else {
            return;
        };
        for watcher in all.iter().filter_map(Weak::upgrade) {
            let gpu = &watcher.gpu;
            // For a moment only: a driver that does not return must not keep the process alive.
            for _ in 0..200 {
                if gpu.is_forked() || watcher.leave() {
                    break;
                }
                sleep(Duration::from_millis(1));
            }
            if !gpu.is_forked() {
                watcher.open_all_gates();
            }
            gpu.exit();
            // Its drop would call the driver.
            std::mem::forget(watcher);
        }
    }
    let mut all = lock(&ALL);
    all.retain(|watcher| watcher.strong_count() > 0);
    all.push(Arc::downgrade(watcher));
    drop(all);
    at_exit(&REGISTERED, leave);
}
