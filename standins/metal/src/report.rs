//! The log of calls, planned failures and violations.

use fencepost_sim::{CallLog, Planned, SimDevice, lock};
use objc2_metal::MTLCommandBufferError;
use std::sync::Mutex;

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

/// A planned failure of a command buffer.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) error: MTLCommandBufferError,
    pub(crate) text: String,
    /// How many of its commands run before it fails.
    pub(crate) after: usize,
}

/// Its planned failures make calls return nil.
static LOG: CallLog<()> = CallLog::new("Metal");
/// The failures that tests have planned for commits. Its lock is a leaf.
static COMMITS: Mutex<Option<Planned<Failure>>> = Mutex::new(None);

fn with_commits<R>(body: impl FnOnce(&mut Planned<Failure>) -> R) -> R {
    body(lock(&COMMITS).get_or_insert_default())
}

/// Clears the log and the planned failures, for a new machine with this seed.
pub(crate) fn start_over(seed: u64) {
    LOG.set_seed(seed);
    LOG.clear();
    with_commits(Planned::clear);
}

pub(crate) fn clear_faults() {
    LOG.clear_failures();
    with_commits(Planned::clear);
}

/// Prints a message with the way to replay the run.
pub(crate) fn note(text: &str) {
    LOG.note(text);
}

/// Records a use of Metal or of the runtime that its documentation forbids, and prints it.
pub(crate) fn violation(text: &str) {
    LOG.violation(text);
}

pub(crate) fn violations(device: Option<&SimDevice>) -> Vec<String> {
    LOG.all_violations(device)
}

pub(crate) fn clear_violations() {
    LOG.clear_violations();
}

/// Counts a call, and returns whether it must return nil.
pub(crate) fn is_refused(name: &'static str) -> bool {
    LOG.count(name).is_some()
}

/// Panics if the stand-in does not count calls of this name.
fn check_name(name: &str) {
    if !CALLS.contains(&name) {
        panic!("the stand-in does not count {name}: CALLS lists what it does");
    }
}

pub(crate) fn calls(name: &str) -> u64 {
    check_name(name);
    LOG.calls(name)
}

pub(crate) fn fail_call(name: &str, nth: u64, repeats: bool) {
    check_name(name);
    LOG.fail(name, nth, (), repeats);
}

pub(crate) fn fail_commit(nth: u64, failure: Failure) {
    with_commits(|commits| commits.add(nth, failure));
}

/// Counts a commit, and returns how its command buffer must fail, if at all.
pub(crate) fn commit_failure() -> Option<Failure> {
    with_commits(Planned::occur)
}
