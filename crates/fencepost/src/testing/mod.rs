//! The conformance suite: the meaning of every operation, as cases that run on any device.
//!
//! `fencepost check` and the tests of every backend run it. Each case is named after the promise
//! that it checks.
//!
//! The suite is tested with mutants: devices that are wrong in one way each. A case names the
//! mutants that it kills. The tests of a backend run the cases on them, and fail if one survives
//! (feature `mutants`, which programs that run the suite need not have).
//!
//! No case asserts how long something takes. What must not happen is given a moment in which a
//! wrong implementation would show it; what must happen is given two minutes.
//!
//! ```
//! use fencepost::{Device, testing};
//!
//! let device = Device::open("host")?;
//! let summary = testing::run(&device, "query", |case, outcome, _| {
//!     println!("{}: {outcome:?}", case.name);
//! });
//! assert_eq!(summary.failed, 0);
//! # Ok::<(), fencepost::Error>(())
//! ```

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use crate::device::Device;

pub(crate) mod bytes;
mod cases;
mod context;
#[cfg(all(feature = "cuda", not(loom)))]
pub mod cuda;
#[cfg(feature = "mutants")]
mod held;
pub(crate) mod host;
#[cfg(feature = "mutants")]
mod kills;
#[cfg(has_metal)]
pub mod metal;
#[cfg(feature = "mutants")]
mod mutants;
#[cfg(all(feature = "opencl", not(loom)))]
pub mod opencl;
mod test_work;
#[cfg(all(feature = "vulkan", not(loom)))]
pub mod vulkan;
#[cfg(all(feature = "wgpu30", not(target_vendor = "apple"), not(loom)))]
pub mod wgpu30;
pub mod work;

use context::{Context, Options, Stop};
#[cfg(feature = "mutants")]
pub use kills::{KillTable, kill_mutants};
#[cfg(feature = "mutants")]
pub use mutants::{Mutant, mutated};

/// A check of one promise.
///
/// ```
/// for case in fencepost::testing::cases() {
///     println!("{}: {}, kills {:?}", case.about, case.name, case.kills);
/// }
/// ```
#[non_exhaustive]
pub struct Case {
    /// The promise, in a few words joined by underscores.
    pub name: &'static str,
    /// The operation that the promise is about.
    pub about: &'static str,
    /// The mutants that it kills: none if the code above the backends keeps the promise, so that no
    /// backend can break it.
    #[cfg(feature = "mutants")]
    pub kills: &'static [Mutant],
    run: fn(&Context) -> Result<(), Stop>,
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Case({}: {})", self.about, self.name)
    }
}

/// How a case ended.
///
/// ```
/// use fencepost::{Device, testing::{self, Outcome}};
/// testing::run(&Device::open("host")?, "unrecorded", |case, outcome, _| match outcome {
///     Outcome::Passed => println!("{} holds", case.name),
///     Outcome::Failed(why) => panic!("{}: {why}", case.name),
///     Outcome::Skipped(why) => println!("{} cannot be seen: {why}", case.name),
/// });
/// # Ok::<(), fencepost::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The promise is kept.
    Passed,
    /// It is broken; the text says what was seen.
    Failed(String),
    /// This device cannot show it; the text says why.
    Skipped(String),
}

/// How many cases passed, failed and were skipped.
///
/// ```
/// use fencepost::{Device, testing};
/// let summary = testing::run(&Device::open("host")?, "drop", |_, _, _| {});
/// assert_eq!((summary.failed, summary.skipped), (0, 0));
/// # Ok::<(), fencepost::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Summary {
    /// Kept promises.
    pub passed: usize,
    /// Broken ones.
    pub failed: usize,
    /// Cases that this device cannot show.
    pub skipped: usize,
}

impl fmt::Display for Summary {
    /// As in `40 passed, 0 failed, 2 skipped`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Summary {
            passed,
            failed,
            skipped,
        } = self;
        write!(f, "{passed} passed, {failed} failed, {skipped} skipped")
    }
}

/// All cases, in the order in which they run.
///
/// ```
/// use fencepost::testing;
/// assert!(testing::cases().any(|case| case.name == "query_is_true_without_a_record"));
/// ```
pub fn cases() -> impl Iterator<Item = &'static Case> {
    cases::ALL.iter().copied().flatten()
}

/// Runs the cases whose name contains `filter` on `device`, one after the other. Calls `report` as
/// each ends, with the time that it took.
///
/// A case that hangs counts as failed, and its thread is left behind.
///
/// ```
/// use fencepost::{Device, testing};
/// let summary = testing::run(&Device::open("host")?, "create", |_, _, _| {});
/// println!("{summary}");
/// # Ok::<(), fencepost::Error>(())
/// ```
pub fn run(
    device: &Device,
    filter: &str,
    mut report: impl FnMut(&Case, &Outcome, Duration),
) -> Summary {
    let mut summary = Summary::default();
    // All cases share it, so that it compiles its kernels once.
    let _work = work::of(device.imp());
    for case in cases().filter(|case| case.name.contains(filter)) {
        let start = Instant::now();
        let outcome = run_case(case, device, Options::default());
        match outcome {
            Outcome::Passed => summary.passed += 1,
            Outcome::Failed(_) => summary.failed += 1,
            Outcome::Skipped(_) => summary.skipped += 1,
        }
        report(case, &outcome, start.elapsed());
    }
    summary
}

fn run_case(case: &'static Case, device: &Device, options: Options) -> Outcome {
    let context = Context::new(device.clone(), options);
    let (tell, told) = mpsc::channel();
    let body = move || {
        let verdict = catch_unwind(AssertUnwindSafe(|| (case.run)(&context)));
        // The receiver is gone if the case counts as hung.
        let _ = tell.send(match verdict {
            Ok(Ok(())) => Outcome::Passed,
            Ok(Err(Stop::Broken(why))) => Outcome::Failed(why),
            Ok(Err(Stop::Skip(why))) => Outcome::Skipped(why),
            Err(_) => Outcome::Failed("the case panicked".into()),
        });
    };
    if let Err(error) = thread::Builder::new().name(case.name.into()).spawn(body) {
        return Outcome::Failed(format!("no thread to run the case: {error}"));
    }
    // Longer than any single wait in a case: none is longer than `patience`.
    told.recv_timeout(options.patience * 2)
        .unwrap_or_else(|_| Outcome::Failed("the case hangs".into()))
}
