//! What every call goes through before it does anything.

use crate::codes::{
    CUDA_ERROR_DEINITIALIZED, CUDA_ERROR_NOT_INITIALIZED, CUDA_ERROR_NOT_PERMITTED,
    CUDA_ERROR_UNKNOWN, CUDA_SUCCESS, CUresult, Done,
};
use crate::control;
use crate::face::{FACE, Face};
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

pub(crate) static INITIALISED: AtomicBool = AtomicBool::new(false);
pub(crate) static TORN_DOWN: AtomicBool = AtomicBool::new(false);
/// The process that made the simulated machine: a fork has neither its threads nor, perhaps, its
/// locks.
static OWNER: AtomicU32 = AtomicU32::new(0);

thread_local! {
    /// Set in the thread that runs host functions.
    pub(crate) static IN_HOST_FUNCTION: Cell<bool> = const { Cell::new(false) };
    static THREAD: u64 = {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        NEXT.fetch_add(1, Ordering::Relaxed)
    };
}

/// Which thread this is; 0 for one whose thread-local storage is gone.
pub(crate) fn this_thread() -> u64 {
    THREAD.try_with(|thread| *thread).unwrap_or(0)
}

pub(crate) fn owned_here() {
    OWNER.store(std::process::id(), Ordering::SeqCst);
}

fn forked() -> bool {
    let owner = OWNER.load(Ordering::SeqCst);
    owner != 0 && owner != std::process::id()
}

/// A call that needs no machine: it may come before `cuInit`.
pub(crate) fn plain(name: &'static str, body: impl FnOnce() -> Done) -> CUresult {
    // before any lock: the child of a fork may never get one
    if forked() {
        return CUDA_ERROR_NOT_INITIALIZED;
    }
    let checked = || {
        if let Some(code) = control::on_call(name) {
            return Err(code);
        }
        if TORN_DOWN.load(Ordering::SeqCst) {
            return Err(CUDA_ERROR_DEINITIALIZED);
        }
        // cuLaunchHostFunc: a host function must not call the driver
        if IN_HOST_FUNCTION.try_with(Cell::get).unwrap_or(false) {
            control::violation(&format!("{name} was called in a host function"));
            return Err(CUDA_ERROR_NOT_PERMITTED);
        }
        body()
    };
    match catch_unwind(AssertUnwindSafe(checked)) {
        Ok(Ok(())) => CUDA_SUCCESS,
        Ok(Err(code)) => code,
        Err(_) => {
            control::violation(&format!("the stand-in panicked in {name}"));
            CUDA_ERROR_UNKNOWN
        }
    }
}

/// A call on the machine.
pub(crate) fn call(name: &'static str, body: impl FnOnce(&mut Face) -> Done) -> CUresult {
    call_then(name, body, |()| Ok(()))
}

/// A call on the machine that goes on without the lock: a wait, most of all.
pub(crate) fn call_then<T>(
    name: &'static str,
    body: impl FnOnce(&mut Face) -> Done<T>,
    then: impl FnOnce(T) -> Done,
) -> CUresult {
    plain(name, || {
        if !INITIALISED.load(Ordering::SeqCst) {
            return Err(CUDA_ERROR_NOT_INITIALIZED);
        }
        let (locked, room) = with_face(|face| {
            face.calling = name;
            (body(face), face.room())
        })?;
        room();
        then(locked?)
    })
}

/// Runs `body` with the machine, made on first use, locked.
pub(crate) fn with_face<R>(body: impl FnOnce(&mut Face) -> R) -> Done<R> {
    let mut face = FACE.lock().unwrap_or_else(PoisonError::into_inner);
    if face.is_none() {
        *face = Some(Face::new(None, None)?);
    }
    face.as_mut().map(body).ok_or(CUDA_ERROR_UNKNOWN)
}
