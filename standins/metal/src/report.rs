//! What tests plan, and what was done that Metal forbids.

use objc2_metal::MTLCommandBufferError;
use std::collections::BTreeMap;
use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The methods and functions whose calls are counted, and which can be made to return nil.
pub const CALLS: &[&str] = &[
    "MTLCreateSystemDefaultDevice",
    "blitCommandEncoder",
    "commandBuffer",
    "computeCommandEncoder",
    "newBufferWithLength:options:",
    "newCommandQueue",
    "newComputePipelineStateWithFunction:error:",
    "newFunctionWithName:",
    "newLibraryWithSource:options:error:",
    "newSharedEvent",
];

struct Plan {
    calls: BTreeMap<&'static str, u64>,
    refusals: Vec<Refusal>,
    failures: Vec<(u64, Failure)>,
    violations: Vec<String>,
}

struct Refusal {
    name: &'static str,
    left: u64,
    /// Whether it strikes again and again.
    stays: bool,
}

/// How a command buffer ends that does not end well.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) error: MTLCommandBufferError,
    pub(crate) text: String,
    /// How many of its commands run before.
    pub(crate) after: usize,
}

/// Its lock is a leaf.
static PLAN: Mutex<Plan> = Mutex::new(Plan {
    calls: BTreeMap::new(),
    refusals: Vec::new(),
    failures: Vec::new(),
    violations: Vec::new(),
});
static SEED: AtomicU64 = AtomicU64::new(0);

fn plan() -> MutexGuard<'static, Plan> {
    PLAN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Forgets everything, for a machine with this seed.
pub(crate) fn start_over(seed: u64) {
    SEED.store(seed, Ordering::SeqCst);
    let mut plan = plan();
    plan.calls.clear();
    plan.violations.clear();
    drop(plan);
    clear_faults();
}

pub(crate) fn clear_faults() {
    let mut plan = plan();
    plan.refusals.clear();
    plan.failures.clear();
}

/// Tells the reader of a test's output what happened, and how to see it again.
pub(crate) fn note(text: &str) {
    let seed = SEED.load(Ordering::SeqCst);
    // not eprintln, which panics when there is no stderr any more
    let _ = writeln!(
        std::io::stderr(),
        "fencepost Metal stand-in: {text} (replay with {}={seed})",
        fencepost_sim::SEED_VARIABLE
    );
}

/// Writes down a use of Metal or of the runtime that its documentation forbids.
pub(crate) fn violation(text: &str) {
    note(text);
    plan().violations.push(text.into());
}

pub(crate) fn violations() -> Vec<String> {
    plan().violations.clone()
}

/// How many violations there were, for tests that are not written in Rust; each was printed.
#[unsafe(no_mangle)]
extern "C" fn fencepost_sim_metal_violations() -> usize {
    crate::Control.violations().len()
}

pub(crate) fn clear_violations() {
    plan().violations.clear();
}

/// Counts a call; says whether it is to return nil.
pub(crate) fn is_refused(name: &'static str) -> bool {
    let mut plan = plan();
    *plan.calls.entry(name).or_default() += 1;
    let mut due = None;
    for (place, refusal) in plan.refusals.iter_mut().enumerate() {
        if refusal.name == name {
            refusal.left = refusal.left.saturating_sub(1);
            if refusal.left == 0 && due.is_none() {
                due = Some((place, refusal.stays));
            }
        }
    }
    if let Some((place, false)) = due {
        plan.refusals.remove(place);
    }
    due.is_some()
}

fn known(name: &str) -> &'static str {
    match CALLS.iter().find(|known| **known == name) {
        Some(known) => known,
        None => panic!("the stand-in does not count {name}: CALLS lists what it does"),
    }
}

pub(crate) fn calls(name: &str) -> u64 {
    plan().calls.get(known(name)).copied().unwrap_or(0)
}

pub(crate) fn refuse(name: &str, nth: u64, stays: bool) {
    let name = known(name);
    plan().refusals.push(Refusal {
        name,
        left: nth.max(1),
        stays,
    });
}

pub(crate) fn fail_commit(nth: u64, failure: Failure) {
    plan().failures.push((nth.max(1), failure));
}

/// Counts a commit; says how its command buffer is to fail, if it is.
pub(crate) fn commit_failure() -> Option<Failure> {
    let mut plan = plan();
    let mut due = None;
    for (place, (left, _)) in plan.failures.iter_mut().enumerate() {
        *left = left.saturating_sub(1);
        if *left == 0 && due.is_none() {
            due = Some(place);
        }
    }
    due.map(|place| plan.failures.remove(place).1)
}
