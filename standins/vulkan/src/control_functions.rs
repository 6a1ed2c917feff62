//! What tests plan and inspect: exported functions that no Vulkan driver has. [`crate::Control`] is
//! their safe wrapper.

use crate::batch::SubmitFault;
use crate::driver::{DRIVER, Driver, with_driver};
use crate::entry;
use crate::options;
use crate::usage::LOG;
use ash::vk;
use fencepost_sim::ffi::read_text;
use fencepost_sim::{Fault, SimDevice, Waited, common_control_functions, lock};
use std::ffi::{c_char, c_int};
use std::time::Duration;

fn root() -> Option<SimDevice> {
    with_driver(|driver| driver.root.clone()).ok()
}

common_control_functions! {
    log: LOG, code: vk::Result, functions: crate::FUNCTIONS, root: root
}

/// Drops the simulated machine with everything on it, and creates another, with the options set
/// since the last restart. Counts, faults, stalls and violations are cleared.
#[unsafe(no_mangle)]
pub extern "C" fn fencepost_sim_restart(seed: u64) {
    let old = lock(&DRIVER).take();
    if let Some(old) = old {
        // ends all waits on it; it is dropped without the lock, since that joins its thread
        old.keep_mapped_memory();
        for (_, device) in old.devices.iter() {
            device.shared.sim.lose("the machine is dropped");
        }
    }
    entry::release_stalled();
    LOG.clear();
    match Driver::new(Some(seed)) {
        Ok(new) => *lock(&DRIVER) = Some(new),
        Err(code) => LOG.violation(&format!("no new machine: {code:?}")),
    }
}

/// Sets an option for the next restart, in place of its variable. 0 if there is no such option.
///
/// # Safety
/// `name` is null or a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fencepost_sim_option(name: *const c_char, value: u64) -> c_int {
    // SAFETY: the caller vouches for it
    let name = unsafe { read_text(name) };
    name.is_some_and(|name| options::set(name, value)).into()
}

/// Forgets all planned faults.
#[unsafe(no_mangle)]
pub extern "C" fn fencepost_sim_clear_faults() {
    LOG.clear_failures();
    let _ = with_driver(|driver| driver.submit_faults.clear());
}

/// Plans a fault for the `nth` submit from now on. 0: its work hangs until it is released. 1: it
/// signals nothing. 2: its work fails and the device is lost.
#[unsafe(no_mangle)]
pub extern "C" fn fencepost_sim_fault_submit(nth: u64, what: u32) {
    let fault = match what {
        0 => SubmitFault::Hang,
        1 => SubmitFault::Silent,
        _ => SubmitFault::Lose,
    };
    let _ = with_driver(|driver| driver.submit_faults.add(nth, fault));
}

/// Lets the work of all hanging submits finish.
#[unsafe(no_mangle)]
pub extern "C" fn fencepost_sim_release_submits() {
    let _ = with_driver(|driver| {
        for gate in driver.hanging.drain(..) {
            gate.open();
        }
    });
}

/// Loses every device of the physical device with this number after this many steps of the
/// scheduler; 0 is now.
#[unsafe(no_mangle)]
pub extern "C" fn fencepost_sim_lose_device(physical: usize, after_steps: u64) {
    let _ = with_driver(|driver| {
        let own = driver.devices.iter().map(|(_, device)| &device.shared);
        for device in own.filter(|device| device.physical == physical) {
            if after_steps == 0 {
                device.lose("a planned failure");
            } else {
                device.sim.inject(Fault::LoseDevice { after_steps });
            }
        }
    });
}

/// Removes the physical device with this number: its devices are lost, and creating another fails.
#[unsafe(no_mangle)]
pub extern "C" fn fencepost_sim_remove_physical(physical: usize) {
    let _ = with_driver(|driver| {
        let own = driver.physicals.iter().filter(|(_, p)| p.index == physical);
        let own: Vec<vk::PhysicalDevice> = own.map(|(handle, _)| handle).collect();
        for handle in own {
            if let Ok(it) = driver.physicals.find_mut(handle) {
                it.lost = true;
            }
        }
    });
    fencepost_sim_lose_device(physical, 0);
}

/// Pauses or resumes a queue. 0 if there is no such queue.
#[unsafe(no_mangle)]
pub extern "C" fn fencepost_sim_pause(queue: vk::Queue, on: c_int) -> c_int {
    let found = with_driver(|driver| {
        let queue = driver.queues.peek(queue)?;
        let (device, index) = (&queue.shared.sim, queue.sim.id().index);
        Some(if on != 0 {
            device.pause_queue(index)
        } else {
            device.resume_queue(index)
        })
    });
    matches!(found, Ok(Some(true))).into()
}

/// Makes the next call of a function stop at its beginning, with its objects in use, until stalled
/// calls are released. 0 if there is no such function.
///
/// # Safety
/// `name` is null or a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fencepost_sim_stall_call(name: *const c_char) -> c_int {
    // SAFETY: the caller vouches for it
    let name = unsafe { function_name(name) };
    name.map(entry::stall_next).is_some().into()
}

/// How many calls are stalled.
#[unsafe(no_mangle)]
pub extern "C" fn fencepost_sim_stalled() -> usize {
    entry::stalled()
}

/// Lets stalled calls continue, and forgets planned stalls.
#[unsafe(no_mangle)]
pub extern "C" fn fencepost_sim_release_stalled() {
    entry::release_stalled();
}

/// Waits until no work is pending on any device. 0 if some still is after this many milliseconds.
#[unsafe(no_mangle)]
pub extern "C" fn fencepost_sim_wait_idle(milliseconds: u64) -> c_int {
    let found = with_driver(|driver| {
        let queues = driver.queues.iter().map(|(_, queue)| queue.sim.clone());
        (driver.root.clone(), queues.collect::<Vec<_>>())
    });
    let Ok((root, queues)) = found else {
        return 0;
    };
    // the queues of destroyed devices have no pending work
    let idle = || queues.iter().all(|queue| queue.pending() == 0);
    let timeout = Some(Duration::from_millis(milliseconds));
    // another thread may have submitted more since
    (root.wait_until(timeout, idle) == Waited::Reached).into()
}

/// How many objects of a kind are alive. The kinds are numbered like the fields of
/// [`crate::Live`].
#[unsafe(no_mangle)]
pub extern "C" fn fencepost_sim_live(kind: u32) -> u64 {
    let count = with_driver(|driver| match kind {
        0 => driver.instances.len(),
        1 => driver.devices.len(),
        2 => driver.semaphores.len(),
        3 => driver.fences.len(),
        4 => driver.query_pools.len(),
        5 => driver.command_pools.len(),
        6 => driver.command_buffers.len(),
        7 => driver.buffers.len(),
        8 => driver.memories.len(),
        9 => driver.set_layouts.len(),
        10 => driver.descriptor_pools.len(),
        11 => driver.descriptor_sets.len(),
        12 => driver.pipeline_layouts.len(),
        13 => driver.modules.len(),
        14 => driver.caches.len(),
        15 => driver.pipelines.len(),
        _ => 0,
    });
    count.unwrap_or(0) as u64
}
