//! What tests plan and count: functions of the library that no driver has. [`crate::Control`] is
//! their safe wrapper.

use crate::boundary::{put_text, text};
use crate::codes::{CUDA_ERROR_DEINITIALIZED, CUresult};
use crate::context::CUdevice;
use crate::entry::{TORN_DOWN, with_face};
use crate::face::{FACE, Face};
use crate::stream::CUstream;
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
    code: CUresult,
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
        "fencepost CUDA stand-in: {text} (replay with FENCEPOST_SIM_SEED={seed})"
    );
}

/// Writes down a use of the driver that its documentation forbids.
pub(crate) fn violation(text: &str) {
    note(text);
    plan().violations.push(text.into());
}

/// Counts a call; gives the error that was planned for it.
pub(crate) fn on_call(name: &'static str) -> Option<CUresult> {
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

/// Throws the simulated machine away, with everything on it, and starts another: `devices` of them,
/// or as many as `FENCEPOST_SIM_CUDA_DEVICES` says if that is negative. Counts, faults and
/// violations are cleared.
#[unsafe(no_mangle)]
pub extern "C" fn fencepost_sim_restart(seed: u64, devices: c_int) {
    let old = FACE.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(old) = old {
        // its waiters go on; and it is dropped without the lock, as that waits for its driver
        // thread
        end_all(&old, crate::codes::CUDA_ERROR_CONTEXT_IS_DESTROYED);
    }
    TORN_DOWN.store(false, Ordering::SeqCst);
    {
        let mut plan = plan();
        plan.calls.clear();
        plan.faults.clear();
        plan.violations.clear();
    }
    match Face::new(Some(seed), usize::try_from(devices).ok()) {
        Ok(face) => *FACE.lock().unwrap_or_else(PoisonError::into_inner) = Some(face),
        Err(code) => violation(&format!("no new machine: {code}")),
    }
}

fn end_all(face: &Face, code: CUresult) {
    for (_, context) in face.contexts.iter() {
        context.end(code);
    }
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
        Ok(name) if crate::FUNCTIONS.contains(&&*name) => {
            plan().calls.get(&*name).copied().unwrap_or(0)
        }
        _ => u64::MAX,
    }
}

/// The `nth` call of a function from now on returns `code` and does nothing else. 0 if there is no
/// such function.
///
/// # Safety
/// `name` is null or a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fencepost_sim_fail_call(
    name: *const c_char,
    nth: u64,
    code: CUresult,
) -> c_int {
    // SAFETY: the caller's word
    unsafe { fail(name, nth, code, false) }
}

/// The `nth` call of a function from now on and all after it return `code` and do nothing else.
///
/// # Safety
/// `name` is null or a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fencepost_sim_fail_calls_from(
    name: *const c_char,
    nth: u64,
    code: CUresult,
) -> c_int {
    // SAFETY: the caller's word
    unsafe { fail(name, nth, code, true) }
}

/// # Safety
/// `name` is null or a C string.
unsafe fn fail(name: *const c_char, nth: u64, code: CUresult, stays: bool) -> c_int {
    // SAFETY: the caller's word
    match unsafe { text(name) } {
        Ok(name) if crate::FUNCTIONS.contains(&&*name) => {
            plan().faults.push(Fault {
                name,
                left: nth.max(1),
                code,
                stays,
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
    let _ = with_face(|face| {
        face.gpus
            .iter_mut()
            .for_each(|gpu| gpu.bad_launches.clear())
    });
}

/// The `nth` kernel launched on a device from now on fails with `code`, which sticks to its
/// context, when it runs.
#[unsafe(no_mangle)]
pub extern "C" fn fencepost_sim_fail_launch(device: CUdevice, nth: u64, code: CUresult) {
    let _ = with_face(|face| {
        if let Ok(gpu) = face.gpu(device) {
            gpu.bad_launches.push((nth.max(1), code));
        }
    });
}

/// Every context of the device fails now with `code`, until it is reset.
#[unsafe(no_mangle)]
pub extern "C" fn fencepost_sim_fail_contexts(device: CUdevice, code: CUresult) {
    let _ = with_face(|face| {
        for (_, context) in face.contexts.iter() {
            if Ok(context.gpu) == usize::try_from(device) {
                context.fail(code, "a planned failure");
            }
        }
    });
}

/// The device is gone for good: its contexts fail with `code`, and so does making new ones.
#[unsafe(no_mangle)]
pub extern "C" fn fencepost_sim_lose_device(device: CUdevice, code: CUresult) {
    let _ = with_face(|face| {
        if let Ok(gpu) = face.gpu(device) {
            gpu.lost = Some(code);
        }
    });
    fencepost_sim_fail_contexts(device, code);
}

/// Resets a device's primary context, as some other part of the program might.
#[unsafe(no_mangle)]
pub extern "C" fn fencepost_sim_reset_primary(device: CUdevice) {
    let _ = with_face(|face| face.reset_primary(device));
}

/// From now on, until a restart, every call and every wait under way returns
/// `CUDA_ERROR_DEINITIALIZED`, as at the end of a process.
#[unsafe(no_mangle)]
pub extern "C" fn fencepost_sim_deinitialize() {
    TORN_DOWN.store(true, Ordering::SeqCst);
    let _ = with_face(|face| end_all(face, CUDA_ERROR_DEINITIALIZED));
}

/// Whether the handle of a destroyed object is given to the next one, as real drivers do. Off at
/// first, so that uses of destroyed objects are found; `FENCEPOST_SIM_CUDA_RECYCLE=1` turns it on.
#[unsafe(no_mangle)]
pub extern "C" fn fencepost_sim_recycle_handles(on: c_int) {
    let _ = with_face(|face| face.recycle = on != 0);
}

/// Whether `cuIpcOpenEventHandle` works in the exporting process, which then stands for both.
#[unsafe(no_mangle)]
pub extern "C" fn fencepost_sim_ipc_in_one_process(on: c_int) {
    let _ = with_face(|face| face.ipc_in_one_process = on != 0);
}

/// Stops everything in a stream, or lets it go on. 0 if there is no such stream.
#[unsafe(no_mangle)]
pub extern "C" fn fencepost_sim_hang(stream: CUstream, on: c_int) -> c_int {
    let found = with_face(|face| {
        let key = face.stream(stream)?;
        let stream = face.stream_ref(key)?;
        let (device, index) = (&stream.context.device, stream.queue.id().index);
        Ok::<_, CUresult>(if on != 0 {
            device.pause_queue(index)
        } else {
            device.resume_queue(index)
        })
    });
    matches!(found, Ok(Ok(true))).into()
}

/// Waits until no work is pending on any device; 0 if there still is after so many milliseconds.
#[unsafe(no_mangle)]
pub extern "C" fn fencepost_sim_settle(milliseconds: u64) -> c_int {
    let Ok(root) = with_face(|face| face.root.clone()) else {
        return 0;
    };
    let idle = || root.pending_work().is_empty();
    let timeout = Some(Duration::from_millis(milliseconds));
    let _ = root.wait_until(timeout, idle);
    idle().into()
}

/// How many pieces of work a stream takes before a call that adds one more blocks until there is
/// room, as drivers do (1,020 timed records were measured); 0, as at first, for any number.
/// `FENCEPOST_SIM_CUDA_QUEUE_DEPTH` says it too.
#[unsafe(no_mangle)]
pub extern "C" fn fencepost_sim_queue_depth(depth: usize) {
    let _ = with_face(|face| face.depth = depth);
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
        0 => face.streams.iter().filter(|(_, s)| s.is_made()).count(),
        1 => face.events.len(),
        2 => face.gpus.iter().map(|gpu| gpu.retains as usize).sum(),
        3 => {
            let alive = |(_, context): &(usize, &std::sync::Arc<crate::context::Context>)| {
                !context.destroyed()
            };
            face.contexts.iter().filter(alive).count()
        }
        4 => face.memory.live(true),
        5 => face.memory.live(false),
        6 => face.modules.len(),
        7 => face.graphs.len(),
        8 => face.execs.len(),
        9 => face.captures.len(),
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
