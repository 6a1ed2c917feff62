//! What happens to devices when the process ends.

use std::{
    sync::{Arc, Weak, atomic::AtomicU64},
    time::Duration,
};

use super::gpu::Gpu;
use crate::{
    exit::at_exit_of_use,
    fork::PerProcess,
    sync::{Mutex, lock, sleep},
};

static ALL: PerProcess<Mutex<Vec<Weak<Gpu>>>> = PerProcess::new();

fn all() -> &'static Mutex<Vec<Weak<Gpu>>> {
    ALL.get_or_make(|_| Mutex::new(Vec::new()))
}

/// Has the device's watcher return from the driver before the process ends: a thread that is still
/// inside a driver or layer when that cleans up crashes.
pub(super) fn leave_at_exit(gpu: &Arc<Gpu>) {
    let mut all = lock(all());
    all.retain(|gpu| gpu.strong_count() > 0);
    all.push(Arc::downgrade(gpu));
    drop(all);
    used();
}

/// Something was done that the handler has to undo. Layers register exit handlers of their own when
/// they are first needed, and those that are registered last run first.
pub(super) fn used() {
    static USES: AtomicU64 = AtomicU64::new(0);
    at_exit_of_use(&USES, leave);
}

extern "C" fn leave() {
    let Ok(all) = all().try_lock() else {
        return;
    };
    for gpu in all.iter().filter_map(Weak::upgrade) {
        if !gpu.is_gone() {
            // For a moment only: a driver that does not return must not keep the process alive.
            for _ in 0..200 {
                if gpu.leave() {
                    break;
                }
                sleep(Duration::from_millis(1));
            }
        }
        gpu.exit();
        // Its drop would call the driver.
        std::mem::forget(gpu);
    }
}
