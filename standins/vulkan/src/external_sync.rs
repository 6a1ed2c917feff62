//! External synchronization: which calls in progress use which objects.

use crate::table::name_of;
use crate::usage::{current_call, report_invalid_usage};
use fencepost_sim::lock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};

thread_local! {
    static THREAD: u64 = {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        NEXT.fetch_add(1, Ordering::Relaxed)
    };
}

/// The objects that calls in progress use. Two calls that overlap in one may violate external
/// synchronization:
/// <https://docs.vulkan.org/spec/latest/chapters/fundamentals.html#fundamentals-threadingbehavior>.
/// No other lock is taken while its lock is held.
static BUSY: Mutex<Vec<Busy>> = Mutex::new(Vec::new());

struct Busy {
    handle: u64,
    thread: u64,
    by: &'static str,
    /// Whether the use excludes all other uses, or only exclusive ones.
    exclusive: bool,
}

/// The objects that one call uses. They are registered in [`BUSY`] until this is dropped.
pub(crate) struct Using {
    handles: Vec<u64>,
    thread: u64,
    exclusive: bool,
}

fn busy() -> MutexGuard<'static, Vec<Busy>> {
    lock(&BUSY)
}

impl Using {
    pub(crate) fn new(by: &'static str, handles: &[u64], exclusive: bool) -> Using {
        // 0 once the thread-local storage of this thread is destroyed
        let thread = THREAD.try_with(|thread| *thread).unwrap_or(0);
        let handles: Vec<u64> = handles.iter().copied().filter(|&h| h != 0).collect();
        let mut overlaps = Vec::new();
        if !handles.is_empty() {
            let mut all = busy();
            for &handle in &handles {
                let clash = |b: &&Busy| {
                    b.handle == handle && b.thread != thread && (b.exclusive || exclusive)
                };
                overlaps.extend(all.iter().find(clash).map(|other| (handle, other.by)));
                all.push(Busy {
                    handle,
                    thread,
                    by,
                    exclusive,
                });
            }
        }
        for (handle, other) in overlaps {
            let handle = name_of(handle);
            report_invalid_usage(&format!("{handle} is in use by {other} on another thread"));
        }
        Using {
            handles,
            thread,
            exclusive,
        }
    }
}

impl Drop for Using {
    fn drop(&mut self) {
        if self.handles.is_empty() {
            return;
        }
        let mut all = busy();
        for handle in &self.handles {
            let own = |b: &Busy| {
                (b.handle, b.thread, b.exclusive) == (*handle, self.thread, self.exclusive)
            };
            if let Some(place) = all.iter().rposition(own) {
                all.swap_remove(place);
            }
        }
    }
}

/// Registers objects that a call uses without the driver's lock. No other thread may destroy them
/// until the result is dropped.
pub(crate) fn using(handles: impl IntoIterator<Item = u64>) -> Using {
    let by = current_call();
    let handles: Vec<u64> = handles.into_iter().collect();
    Using::new(by, &handles, false)
}
