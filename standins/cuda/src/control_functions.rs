//! What tests plan and inspect: exported functions that no CUDA driver has. [`crate::Control`] is
//! their safe wrapper.

use crate::codes::{
    CUDA_ERROR_CONTEXT_IS_DESTROYED, CUDA_ERROR_DEINITIALIZED, CUresult, CudaResult,
};
use crate::driver::{DRIVER, Driver, with_driver};
use crate::entry::DEINITIALIZED;
use crate::log::LOG;
use crate::types::{CUdevice, CUstream};
use fencepost_sim::ffi::{read_text, write_text};
use std::ffi::{c_char, c_int};
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Drops the simulated machine with everything on it, and makes another: with `devices` devices, or
/// with as many as `FENCEPOST_SIM_CUDA_DEVICES` says if that is negative. Counts, faults and
/// violations are cleared.
#[unsafe(no_mangle)]
pub extern "C" fn fencepost_sim_restart(seed: u64, devices: c_int) {
    let old = DRIVER.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(old) = old {
        // ends all waits on it; it is dropped without the lock, since that joins its threads
        end_all(&old, CUDA_ERROR_CONTEXT_IS_DESTROYED);
    }
    DEINITIALIZED.store(false, Ordering::SeqCst);
    LOG.clear();
    match Driver::new(Some(seed), usize::try_from(devices).ok()) {
        Ok(new) => *DRIVER.lock().unwrap_or_else(PoisonError::into_inner) = Some(new),
        Err(code) => LOG.violation(&format!("no new machine: {code}")),
    }
}

fn end_all(driver: &Driver, code: CUresult) {
    for (_, context) in driver.contexts.iter() {
        context.end(code);
    }
}

/// The machine's seed.
#[unsafe(no_mangle)]
pub extern "C" fn fencepost_sim_seed() -> u64 {
    // makes the machine, and with it the seed, if there is none
    let _ = with_driver(|_| ());
    LOG.seed()
}

/// The text, if it is the name of a function of the stand-in.
///
/// # Safety
/// `name` is null or a C string.
unsafe fn function_name(name: *const c_char) -> Option<String> {
    // SAFETY: the caller vouches for it
    unsafe { read_text(name) }.filter(|name| crate::FUNCTIONS.contains(&&**name))
}

/// How often a function was called; `u64::MAX` if the stand-in has no function of that name.
///
/// # Safety
/// `name` is null or a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fencepost_sim_calls(name: *const c_char) -> u64 {
    // SAFETY: the caller vouches for it
    unsafe { function_name(name) }.map_or(u64::MAX, |name| LOG.calls(&name))
}

/// Makes the `nth` call of a function from now on return `code` and do nothing else; with
/// `repeats`, all later calls too. 0 if there is no such function.
///
/// # Safety
/// `name` is null or a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fencepost_sim_fail_call(
    name: *const c_char,
    nth: u64,
    code: CUresult,
    repeats: c_int,
) -> c_int {
    // SAFETY: the caller vouches for it
    let name = unsafe { function_name(name) };
    name.map(|name| LOG.fail(&name, nth, code, repeats != 0))
        .is_some()
        .into()
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

/// Loses the device for good: its contexts fail with `code`, and so does making new ones.
#[unsafe(no_mangle)]
pub extern "C" fn fencepost_sim_lose_device(device: CUdevice, code: CUresult) {
    let _ = with_driver(|driver| {
        if let Ok(gpu) = driver.gpu(device) {
            gpu.lost = Some(code);
        }
    });
    fencepost_sim_fail_contexts(device, code);
}

/// Resets a device's primary context, as another part of the program might.
#[unsafe(no_mangle)]
pub extern "C" fn fencepost_sim_reset_primary(device: CUdevice) {
    let _ = with_driver(|driver| driver.reset_primary(device));
}

/// Makes every call and every wait under way return `CUDA_ERROR_DEINITIALIZED` until a restart, as
/// at the end of a process.
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

/// Whether `cuIpcOpenEventHandle` works in the exporting process, which then stands for two
/// processes.
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
    let Ok(root) = with_driver(|driver| driver.root.clone()) else {
        return 0;
    };
    let idle = || root.pending_work().is_empty();
    let timeout = Some(Duration::from_millis(milliseconds));
    let _ = root.wait_until(timeout, idle);
    idle().into()
}

/// How many pieces of work a stream holds before a call that adds one blocks until there is space,
/// as in real drivers (1,020 timed records were measured). 0, the initial value, is any number.
/// `FENCEPOST_SIM_CUDA_QUEUE_DEPTH` sets it too.
#[unsafe(no_mangle)]
pub extern "C" fn fencepost_sim_queue_depth(depth: usize) {
    let _ = with_driver(|driver| driver.queue_depth = depth);
}

/// Lists the pending work, one line each. Copies what fits, with a terminating zero, and returns
/// the full length.
///
/// # Safety
/// `to` is null or has space for `size` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fencepost_sim_pending_work(to: *mut c_char, size: usize) -> usize {
    let Ok(root) = with_driver(|driver| driver.root.clone()) else {
        return 0;
    };
    let text = root.pending_work().join("\n");
    // SAFETY: the caller vouches for it
    unsafe { write_text(&text, to, size) };
    text.len()
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

/// The number of violations so far.
#[unsafe(no_mangle)]
pub extern "C" fn fencepost_sim_violations() -> usize {
    all_violations().len()
}

/// Copies what fits of a violation's text, with a terminating zero, and returns the full length; 0
/// if there is no such violation.
///
/// # Safety
/// `to` is null or has space for `size` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fencepost_sim_violation(
    index: usize,
    to: *mut c_char,
    size: usize,
) -> usize {
    let all = all_violations();
    let Some(text) = all.get(index) else {
        return 0;
    };
    // SAFETY: the caller vouches for it
    unsafe { write_text(text, to, size) };
    text.len()
}

fn all_violations() -> Vec<String> {
    let mut all = LOG.violations();
    if let Ok(of_device) = with_driver(|driver| driver.root.violations()) {
        all.extend(of_device.iter().map(ToString::to_string));
    }
    all
}

/// Forgets the violations so far, except for those that the simulated device has found.
#[unsafe(no_mangle)]
pub extern "C" fn fencepost_sim_clear_violations() {
    LOG.clear_violations();
}
