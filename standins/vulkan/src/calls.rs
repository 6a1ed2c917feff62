//! What every call goes through before it does anything.

use crate::boundary::Done;
use crate::control;
use crate::face::{Face, with_face};
use crate::table::name_of;
use ash::vk::{self, Handle};
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

thread_local! {
    static CALLING: Cell<&'static str> = const { Cell::new("") };
    static THREAD: u64 = {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        NEXT.fetch_add(1, Ordering::Relaxed)
    };
}

/// A use that the specification forbids is written down, and the call goes on.
pub(crate) fn complain(what: &str) {
    let calling = CALLING.try_with(Cell::get).unwrap_or("");
    control::violation(&format!("{calling}: {what}"));
}

/// A use that the specification forbids is written down; this is the result of the call.
pub(crate) fn misuse(what: &str) -> vk::Result {
    complain(what);
    vk::Result::ERROR_VALIDATION_FAILED_EXT
}

/// The function being called on this thread, for violations.
pub(crate) fn now_in(name: &'static str) {
    let _ = CALLING.try_with(|calling| calling.set(name));
}

/// Which objects calls are using that no other thread may use meanwhile:
/// <https://docs.vulkan.org/spec/latest/chapters/fundamentals.html#fundamentals-threadingbehavior>.
/// Its lock is a leaf.
static BUSY: Mutex<Vec<Busy>> = Mutex::new(Vec::new());

struct Busy {
    handle: u64,
    thread: u64,
    by: &'static str,
    /// Nobody else may use it at all; otherwise only nobody alone.
    alone: bool,
}

/// Registered in [`BUSY`] while it lives.
pub(crate) struct Using {
    handles: Vec<u64>,
    thread: u64,
    alone: bool,
}

fn busy() -> MutexGuard<'static, Vec<Busy>> {
    BUSY.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Using {
    fn new(by: &'static str, handles: &[u64], alone: bool) -> Using {
        // a thread whose thread-local storage is gone is nobody in particular
        let thread = THREAD.try_with(|thread| *thread).unwrap_or(0);
        let handles: Vec<u64> = handles.iter().copied().filter(|&h| h != 0).collect();
        let mut overlaps = Vec::new();
        if !handles.is_empty() {
            let mut all = busy();
            for &handle in &handles {
                let clash =
                    |b: &&Busy| b.handle == handle && b.thread != thread && (b.alone || alone);
                overlaps.extend(all.iter().find(clash).map(|other| (handle, other.by)));
                all.push(Busy {
                    handle,
                    thread,
                    by,
                    alone,
                });
            }
        }
        for (handle, other) in overlaps {
            let handle = name_of(handle);
            complain(&format!("{handle} is in use by {other} on another thread"));
        }
        Using {
            handles,
            thread,
            alone,
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
            let own =
                |b: &Busy| (b.handle, b.thread, b.alone) == (*handle, self.thread, self.alone);
            if let Some(place) = all.iter().rposition(own) {
                all.swap_remove(place);
            }
        }
    }
}

static CALLS: AtomicU64 = AtomicU64::new(0);

/// A call goes on with these without the lock: nobody may destroy them meanwhile.
pub(crate) fn using(handles: impl IntoIterator<Item = u64>) -> Using {
    let by = CALLING.try_with(Cell::get).unwrap_or("");
    let handles: Vec<u64> = handles.into_iter().collect();
    Using::new(by, &handles, false)
}

/// Calls that a test holds up: the functions that are, and how many calls stand there. Its lock is
/// a leaf.
static STALLS: Mutex<(Vec<String>, usize)> = Mutex::new((Vec::new(), 0));
static STALLS_CHANGED: Condvar = Condvar::new();

fn stalls() -> MutexGuard<'static, (Vec<String>, usize)> {
    STALLS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The next call of the function stops before it does anything, its objects in use.
pub(crate) fn stall_next(name: String) {
    stalls().0.push(name);
}

/// How many calls are held up.
pub(crate) fn stalled() -> usize {
    stalls().1
}

pub(crate) fn release_stalled() {
    *stalls() = (Vec::new(), 0);
    STALLS_CHANGED.notify_all();
}

fn stall(name: &'static str) {
    let mut stalls = stalls();
    let Some(place) = stalls.0.iter().position(|planned| planned == name) else {
        return;
    };
    stalls.0.remove(place);
    stalls.1 += 1;
    while stalls.1 > 0 {
        stalls = STALLS_CHANGED
            .wait(stalls)
            .unwrap_or_else(PoisonError::into_inner);
    }
}

/// A call that does not need the machine, or that locks it itself. `target` is the handle that the
/// function is called on; `exclusive` are those that no other thread may use meanwhile.
pub(crate) fn plain(
    name: &'static str,
    target: u64,
    exclusive: &[u64],
    body: impl FnOnce() -> Done,
) -> vk::Result {
    now_in(name);
    let checked = || {
        let _alone = Using::new(name, exclusive, true);
        if !exclusive.is_empty() && CALLS.fetch_add(1, Ordering::Relaxed).is_multiple_of(16) {
            // on few cores two calls would hardly ever overlap
            std::thread::yield_now();
        }
        stall(name);
        if let Some(code) = control::on_call(name) {
            if code == vk::Result::ERROR_DEVICE_LOST {
                with_face(|face| face.lose_by(target))?;
            }
            return Err(code);
        }
        body()
    };
    match catch_unwind(AssertUnwindSafe(checked)) {
        Ok(Ok(())) => vk::Result::SUCCESS,
        Ok(Err(code)) => code,
        Err(_) => {
            control::violation(&format!("the stand-in panicked in {name}"));
            vk::Result::ERROR_UNKNOWN
        }
    }
}

/// A call on the machine.
pub(crate) fn call(
    name: &'static str,
    target: impl Handle,
    exclusive: &[u64],
    body: impl FnOnce(&mut Face) -> Done,
) -> vk::Result {
    call_then(name, target, exclusive, body, Ok)
}

/// A call on the machine that goes on without the lock: a wait, most of all.
pub(crate) fn call_then<T>(
    name: &'static str,
    target: impl Handle,
    exclusive: &[u64],
    body: impl FnOnce(&mut Face) -> Done<T>,
    then: impl FnOnce(T) -> Done,
) -> vk::Result {
    let target = target.as_raw();
    plain(name, target, exclusive, || {
        let locked = with_face(|face| {
            face.check_enabled(name, target)?;
            body(face)
        })?;
        then(locked?)
    })
}

/// A call that returns nothing.
pub(crate) fn void(
    name: &'static str,
    target: impl Handle,
    exclusive: &[u64],
    body: impl FnOnce(&mut Face) -> Done,
) {
    // what went wrong is among the violations
    let _ = call(name, target, exclusive, body);
}
