//! What tests plan and count: functions of the library that no Vulkan has. [`crate::Control`] is
//! their safe wrapper.

use crate::boundary::{put_text, text};
use crate::calls;
use crate::face::{FACE, Face, SubmitFault, with_face};
use crate::options;
use crate::procs;
use ash::vk::{self, Handle};
use fencepost_sim::Fault as SimFault;
use std::collections::BTreeMap;
use std::ffi::{c_char, c_int};
use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

struct Plan {
    calls: BTreeMap<&'static str, u64>,
    faults: Vec<Fault>,
    violations: Vec<String>,
}

struct Fault {
    name: String,
    left: u64,
    code: vk::Result,
    /// Whether it strikes again and again.
    stays: bool,
}

/// Its lock is a leaf.
static PLAN: Mutex<Plan> = Mutex::new(Plan {
    calls: BTreeMap::new(),
    faults: Vec::new(),
    violations: Vec::new(),
});
static SEED: AtomicU64 = AtomicU64::new(0);

fn plan() -> MutexGuard<'static, Plan> {
    PLAN.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn use_seed(seed: u64) {
    SEED.store(seed, Ordering::SeqCst);
}

/// Tells the reader of a test's output what happened, and how to see it again.
pub(crate) fn note(text: &str) {
    let seed = SEED.load(Ordering::SeqCst);
    // not eprintln, which panics when there is no stderr any more
    let _ = writeln!(
        std::io::stderr(),
        "fencepost Vulkan stand-in: {text} (replay with FENCEPOST_SIM_SEED={seed})"
    );
}

/// Writes down a use that the specification forbids.
pub(crate) fn violation(text: &str) {
    note(text);
    plan().violations.push(text.into());
}

/// Counts a call; gives the result that was planned for it.
pub(crate) fn on_call(name: &'static str) -> Option<vk::Result> {
    let mut plan = plan();
    *plan.calls.entry(name).or_default() += 1;
    let mut due = None;
    for (place, fault) in plan.faults.iter_mut().enumerate() {
        if fault.name == name {
            fault.left = fault.left.saturating_sub(1);
            if fault.left == 0 && due.is_none() {
                due = Some((place, fault.code, fault.stays));
            }
        }
    }
    let (place, code, stays) = due?;
    if !stays {
        plan.faults.remove(place);
    }
    Some(code)
}

/// Throws the simulated machine away, with everything on it, and starts another, with the options
/// said since the last one. Counts, faults, stalls and violations are cleared.
#[unsafe(no_mangle)]
pub extern "C" fn fencepost_sim_restart(seed: u64) {
    let old = FACE.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(old) = old {
        // its waiters go on; and it is dropped without the lock, as that waits for its driver
        // thread
        old.keep_mapped();
        for (_, device) in old.devices.iter() {
            device.shared.sim.lose("the machine is gone");
        }
    }
    calls::release_stalled();
    {
        let mut plan = plan();
        plan.calls.clear();
        plan.faults.clear();
        plan.violations.clear();
    }
    match Face::new(Some(seed)) {
        Ok(face) => *FACE.lock().unwrap_or_else(PoisonError::into_inner) = Some(face),
        Err(code) => violation(&format!("no new machine: {code:?}")),
    }
}

/// Says an option for the next restart, in place of its variable. 0 if there is no such option.
///
/// # Safety
/// `name` is null or a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fencepost_sim_option(name: *const c_char, value: u64) -> c_int {
    // SAFETY: the caller's word
    let name = unsafe { text(name) };
    name.is_some_and(|name| options::say(name, value)).into()
}

/// The machine's seed.
#[unsafe(no_mangle)]
pub extern "C" fn fencepost_sim_seed() -> u64 {
    // the machine is made on first use, and its seed with it
    let _ = with_face(|_| ());
    SEED.load(Ordering::SeqCst)
}

/// How often a function was called; `u64::MAX` for a name that it does not have.
///
/// # Safety
/// `name` is null or a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fencepost_sim_calls(name: *const c_char) -> u64 {
    // SAFETY: the caller's word
    match unsafe { text(name) } {
        Some(name) if procs::is_function(&name) => plan().calls.get(&*name).copied().unwrap_or(0),
        _ => u64::MAX,
    }
}

/// The `nth` call of a function from now on, and with `stays` all after it, return `code` and do
/// nothing else. 0 if there is no such function.
///
/// # Safety
/// `name` is null or a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fencepost_sim_fail_call(
    name: *const c_char,
    nth: u64,
    code: i32,
    stays: c_int,
) -> c_int {
    // SAFETY: the caller's word
    match unsafe { text(name) } {
        Some(name) if procs::is_function(&name) => {
            plan().faults.push(Fault {
                name,
                left: nth.max(1),
                code: vk::Result::from_raw(code),
                stays: stays != 0,
            });
            1
        }
        _ => 0,
    }
}

/// Forgets all planned faults.
#[unsafe(no_mangle)]
pub extern "C" fn fencepost_sim_clear_faults() {
    plan().faults.clear();
    let _ = with_face(|face| face.submit_faults.clear());
}

/// Something happens to the `nth` submit from now on: 0 its work hangs until it is released, 1 it
/// signals nothing, 2 its work fails and the device is lost.
#[unsafe(no_mangle)]
pub extern "C" fn fencepost_sim_fault_submit(nth: u64, what: u32) {
    let fault = match what {
        0 => SubmitFault::Hang,
        1 => SubmitFault::Silent,
        _ => SubmitFault::Lose,
    };
    let _ = with_face(|face| face.submit_faults.push((nth.max(1), fault)));
}

/// Lets all batches go on that hang.
#[unsafe(no_mangle)]
pub extern "C" fn fencepost_sim_release_submits() {
    let _ = with_face(|face| {
        for gate in face.hanging.drain(..) {
            gate.open();
        }
    });
}

/// Every device made of the physical device with this number is lost after so many steps of the
/// scheduler; 0 is now.
#[unsafe(no_mangle)]
pub extern "C" fn fencepost_sim_lose_device(physical: usize, after_steps: u64) {
    let _ = with_face(|face| {
        let own = face.devices.iter().map(|(_, device)| &device.shared);
        for device in own.filter(|device| device.physical == physical) {
            if after_steps == 0 {
                device.lose("a test said so");
            } else {
                device.sim.inject(SimFault::LoseDevice { after_steps });
            }
        }
    });
}

/// The physical device with this number is gone for good: its devices are lost, and no other is
/// made of it.
#[unsafe(no_mangle)]
pub extern "C" fn fencepost_sim_remove_physical(physical: usize) {
    let _ = with_face(|face| {
        let own = face.physicals.iter().filter(|(_, p)| p.index == physical);
        let own: Vec<vk::PhysicalDevice> = own.map(|(handle, _)| handle).collect();
        for handle in own {
            if let Ok(it) = face.physicals.find_mut(handle) {
                it.lost = true;
            }
        }
    });
    fencepost_sim_lose_device(physical, 0);
}

/// Stops everything on a queue, or lets it go on. 0 if there is no such queue.
#[unsafe(no_mangle)]
pub extern "C" fn fencepost_sim_hang(queue: u64, on: c_int) -> c_int {
    let found = with_face(|face| {
        let queue = face.queues.peek(vk::Queue::from_raw(queue))?;
        let (device, index) = (&queue.shared.sim, queue.sim.id().index);
        Some(if on != 0 {
            device.pause_queue(index)
        } else {
            device.resume_queue(index)
        })
    });
    matches!(found, Ok(Some(true))).into()
}

/// The next call of a function stops before it does anything, with its objects in use, until stalls
/// are released. 0 if there is no such function.
///
/// # Safety
/// `name` is null or a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fencepost_sim_stall_call(name: *const c_char) -> c_int {
    // SAFETY: the caller's word
    match unsafe { text(name) } {
        Some(name) if procs::is_function(&name) => {
            calls::stall_next(name);
            1
        }
        _ => 0,
    }
}

/// How many calls are stopped.
#[unsafe(no_mangle)]
pub extern "C" fn fencepost_sim_stalled() -> usize {
    calls::stalled()
}

/// Lets stopped calls go on, and forgets those that were to stop.
#[unsafe(no_mangle)]
pub extern "C" fn fencepost_sim_release_stalled() {
    calls::release_stalled();
}

/// Waits until no work is pending on any device; 0 if there still is after so many milliseconds.
#[unsafe(no_mangle)]
pub extern "C" fn fencepost_sim_settle(milliseconds: u64) -> c_int {
    let found = with_face(|face| {
        let queues = face.queues.iter().map(|(_, queue)| queue.sim.clone());
        (face.root.clone(), queues.collect::<Vec<_>>())
    });
    let Ok((root, queues)) = found else {
        return 0;
    };
    // the work of a device that was destroyed is gone with it
    let idle = || queues.iter().all(|queue| queue.pending() == 0);
    let timeout = Some(Duration::from_millis(milliseconds));
    let _ = root.wait_until(timeout, idle);
    idle().into()
}

/// Copies what fits of a list of the pending work, a line each, with a zero at its end, and gives
/// its whole length.
///
/// # Safety
/// `to` is null or has room for `room` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fencepost_sim_pending_work(to: *mut c_char, room: usize) -> usize {
    let Ok(root) = with_face(|face| face.root.clone()) else {
        return 0;
    };
    let text = root.pending_work().join("\n");
    // SAFETY: the caller's word
    unsafe { put_text(&text, to, room) };
    text.len()
}

/// How many objects of a kind are alive, in the order of [`crate::Live`]'s fields.
#[unsafe(no_mangle)]
pub extern "C" fn fencepost_sim_live(kind: u32) -> u64 {
    let count = with_face(|face| match kind {
        0 => face.instances.len(),
        1 => face.devices.len(),
        2 => face.semaphores.len(),
        3 => face.fences.len(),
        4 => face.query_pools.len(),
        5 => face.command_pools.len(),
        6 => face.command_buffers.len(),
        7 => face.buffers.len(),
        8 => face.memories.len(),
        9 => face.set_layouts.len(),
        10 => face.descriptor_pools.len(),
        11 => face.descriptor_sets.len(),
        12 => face.pipeline_layouts.len(),
        13 => face.modules.len(),
        14 => face.caches.len(),
        15 => face.pipelines.len(),
        _ => 0,
    });
    count.unwrap_or(0) as u64
}

/// How many violations there were.
#[unsafe(no_mangle)]
pub extern "C" fn fencepost_sim_violations() -> usize {
    all_violations().len()
}

/// Copies what fits of a violation's text, with a zero at its end, and gives its whole length; 0 if
/// there is none.
///
/// # Safety
/// `to` is null or has room for `room` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fencepost_sim_violation(
    index: usize,
    to: *mut c_char,
    room: usize,
) -> usize {
    match all_violations().get(index) {
        Some(text) => {
            // SAFETY: the caller's word
            unsafe { put_text(text, to, room) };
            text.len()
        }
        None => 0,
    }
}

fn all_violations() -> Vec<String> {
    let mut all = plan().violations.clone();
    if let Ok(below) = with_face(|face| face.root.violations()) {
        all.extend(below.iter().map(ToString::to_string));
    }
    all
}

/// Forgets the violations so far, but for those that the simulated device itself has found.
#[unsafe(no_mangle)]
pub extern "C" fn fencepost_sim_clear_violations() {
    plan().violations.clear();
}
