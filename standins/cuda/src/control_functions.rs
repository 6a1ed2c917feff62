//! What tests plan and inspect: exported functions that no CUDA driver has. [`crate::Control`] is
//! their safe wrapper.

use crate::codes::{
    CUDA_ERROR_CONTEXT_IS_DESTROYED, CUDA_ERROR_DEINITIALIZED, CUresult, CudaResult,
};
use crate::driver::{DRIVER, Driver, with_driver};
use crate::entry::DEINITIALIZED;
use crate::event::EventState;
use crate::log::LOG;
use crate::types::{CUdevice, CUevent, CUstream};
use fencepost_sim::{SimDevice, Waited, common_control_functions, lock};
use std::ffi::c_int;
use std::sync::atomic::Ordering;
use std::time::Duration;

fn root() -> Option<SimDevice> {
    with_driver(|driver| driver.root.clone()).ok()
}

common_control_functions! {
    log: LOG, code: CUresult, functions: crate::FUNCTIONS, root: root
}

/// Drops the simulated machine with everything on it, and creates another: with `devices` devices,
/// or with as many as `FENCEPOST_SIM_CUDA_DEVICES` says if that is negative. Counts, faults and
/// violations are cleared.
#[unsafe(no_mangle)]
pub extern "C" fn fencepost_sim_restart(seed: u64, devices: c_int) {
    let old = lock(&DRIVER).take();
    if let Some(old) = old {
        // ends all waits on it; it is dropped without the lock, since that joins its threads
        end_all(&old, CUDA_ERROR_CONTEXT_IS_DESTROYED);
    }
    DEINITIALIZED.store(false, Ordering::SeqCst);
    LOG.clear();
    match Driver::new(Some(seed), usize::try_from(devices).ok()) {
        Ok(new) => *lock(&DRIVER) = Some(new),
        Err(code) => LOG.violation(&format!("no new machine: {code}")),
    }
}

fn end_all(driver: &Driver, code: CUresult) {
    for (_, context) in driver.contexts.iter() {
        context.end(code);
    }
}

/// Forgets all planned faults.
#[unsafe(no_mangle)]
pub extern "C" fn fencepost_sim_clear_faults() {
    LOG.clear_failures();
    let _ = with_driver(|driver| {
        driver
            .gpus
            .iter_mut()
            .for_each(|gpu| gpu.launch_failures.clear())
    });
}

/// Makes the `nth` kernel launched on a device from now on fail with `code` when it runs. The error
/// sticks to its context.
#[unsafe(no_mangle)]
pub extern "C" fn fencepost_sim_fail_launch(device: CUdevice, nth: u64, code: CUresult) {
    let _ = with_driver(|driver| {
        if let Ok(gpu) = driver.gpu(device) {
            gpu.launch_failures.add(nth, code);
        }
    });
}

/// Makes every context of the device fail now with `code`, until it is reset.
#[unsafe(no_mangle)]
pub extern "C" fn fencepost_sim_fail_contexts(device: CUdevice, code: CUresult) {
    let _ = with_driver(|driver| {
        for (_, context) in driver.contexts.iter() {
            if Ok(context.gpu) == usize::try_from(device) {
                context.fail(code, "a planned failure");
            }
        }
    });
}

/// Loses the device until a restart: its contexts fail with `code`, and so does creating new ones.
#[unsafe(no_mangle)]
pub extern "C" fn fencepost_sim_lose_device(device: CUdevice, code: CUresult) {
    let _ = with_driver(|driver| {
        if let Ok(gpu) = driver.gpu(device) {
            gpu.lost = Some(code);
        }
    });
    fencepost_sim_fail_contexts(device, code);
}

/// Resets a device's primary context, as other code of the process might.
#[unsafe(no_mangle)]
pub extern "C" fn fencepost_sim_reset_primary(device: CUdevice) {
    let _ = with_driver(|driver| driver.reset_primary(device));
}

/// Makes every call and every wait in progress return `CUDA_ERROR_DEINITIALIZED` until a restart,
/// as at the end of a process.
#[unsafe(no_mangle)]
pub extern "C" fn fencepost_sim_deinitialize() {
    DEINITIALIZED.store(true, Ordering::SeqCst);
    let _ = with_driver(|driver| end_all(driver, CUDA_ERROR_DEINITIALIZED));
}

/// Whether the handle of a destroyed object is used for the next object, as by real drivers. It is
/// off at first, so that uses of destroyed objects are found; `FENCEPOST_SIM_CUDA_RECYCLE=1` turns
/// it on.
#[unsafe(no_mangle)]
pub extern "C" fn fencepost_sim_recycle_handles(on: c_int) {
    let _ = with_driver(|driver| driver.recycle = on != 0);
}

/// Whether `cuIpcOpenEventHandle` works in the exporting process, which then acts as two processes.
#[unsafe(no_mangle)]
pub extern "C" fn fencepost_sim_ipc_in_one_process(on: c_int) {
    let _ = with_driver(|driver| driver.ipc_in_one_process = on != 0);
}

/// Pauses or resumes a stream. 0 if there is no such stream.
#[unsafe(no_mangle)]
pub extern "C" fn fencepost_sim_pause(stream: CUstream, on: c_int) -> c_int {
    let found = with_driver(|driver| -> CudaResult<bool> {
        let key = driver.stream_key(stream)?;
        let stream = driver.stream_ref(key)?;
        let (device, index) = (&stream.context.device, stream.queue.id().index);
        Ok(if on != 0 {
            device.pause_queue(index)
        } else {
            device.resume_queue(index)
        })
    });
    matches!(found, Ok(Ok(true))).into()
}

/// Waits until no work is pending on any device. 0 if some still is after this many milliseconds.
#[unsafe(no_mangle)]
pub extern "C" fn fencepost_sim_wait_idle(milliseconds: u64) -> c_int {
    let Some(root) = root() else {
        return 0;
    };
    let idle = || root.pending_work().is_empty();
    let timeout = Some(Duration::from_millis(milliseconds));
    // another thread may have submitted more since
    (root.wait_until(timeout, idle) == Waited::Reached).into()
}

/// How many submissions may be pending on a stream before a call that adds one blocks until there
/// is space. Real drivers have such a limit: 1,020 timed records were measured. 0, the initial
/// value, is no limit. `FENCEPOST_SIM_CUDA_QUEUE_DEPTH` sets it too.
#[unsafe(no_mangle)]
pub extern "C" fn fencepost_sim_queue_depth(depth: usize) {
    let _ = with_driver(|driver| driver.queue_depth = depth);
}

/// Advances the machine's simulated time.
#[unsafe(no_mangle)]
pub extern "C" fn fencepost_sim_advance(ns: u64) {
    if let Some(root) = root() {
        root.advance(ns);
    }
}

/// From now on simulated time passes by the work's steps and by [`fencepost_sim_advance`] alone.
#[unsafe(no_mangle)]
pub extern "C" fn fencepost_sim_leave_real_time() {
    if let Some(root) = root() {
        root.leave_real_time();
    }
}

/// The device's clock at the last record of an event; `u64::MAX` where it has none.
#[unsafe(no_mangle)]
pub extern "C" fn fencepost_sim_event_tick(event: CUevent) -> u64 {
    let tick = with_driver(|driver| match driver.events.get(event).ok()?.state() {
        EventState::Recorded(marker) => marker.query.as_ref()?.read(),
        _ => None,
    });
    tick.ok().flatten().unwrap_or(u64::MAX)
}

/// How many objects of a kind are alive. The kinds are numbered like the fields of
/// [`crate::Live`].
#[unsafe(no_mangle)]
pub extern "C" fn fencepost_sim_live(kind: u32) -> u64 {
    let count = with_driver(|driver| match kind {
        0 => driver
            .streams
            .iter()
            .filter(|(_, s)| s.is_created())
            .count(),
        1 => driver.events.len(),
        2 => driver.gpus.iter().map(|gpu| gpu.retains as usize).sum(),
        3 => {
            let contexts = driver.contexts.iter();
            contexts.filter(|(_, context)| !context.destroyed()).count()
        }
        4 => driver.memory.live(true),
        5 => driver.memory.live(false),
        6 => driver.modules.len(),
        7 => driver.graphs.len(),
        8 => driver.execs.len(),
        9 => driver.captures.len(),
        _ => 0,
    });
    count.unwrap_or(0) as u64
}
