//! The conformance suite: the meaning of every operation, as cases that run on any device.
//!
//! `fencepost check` runs it; so do every backend's own tests. Each case is named after the promise
//! it holds.
//!
//! A suite is worth what it kills. So each case says which mutants it kills, and a backend's
//! tests also run it against mutated devices, each wrong in one way, and fail when one survives
//! (feature `mutants`; programs that run the suite do without them).
//!
//! No case asserts how long something takes. What must not happen is given a moment in which a
//! wrong implementation would show it; what must happen is given 20 seconds.
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
mod held;
pub(crate) mod host;
#[cfg(feature = "mutants")]
mod kills;
#[cfg(has_metal)]
pub mod metal;
#[cfg(feature = "mutants")]
mod mutants;
#[cfg(all(feature = "vulkan", not(loom)))]
pub mod vulkan;
pub mod work;

use context::{Context, Stop};
#[cfg(feature = "mutants")]
pub use kills::{KillTable, kill_mutants};
#[cfg(feature = "mutants")]
pub use mutants::{Mutant, mutated};
pub(crate) use work::TestWork;

/// One promise, and how to see that it is kept.
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
    /// The operation whose meaning it belongs to.
    pub about: &'static str,
    /// The mutants it kills. None where the promise is kept above the backend, so that no wrong
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
    /// It is not; the text says what was seen.
    Failed(String),
    /// It cannot be seen on this device; the text says why.
    Skipped(String),
}

/// How many cases ended in which way.
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

/// How a run goes about it.
#[derive(Clone, Copy, Debug)]
struct Options {
    /// How long what must happen may take, before the case counts as failed.
    patience: Duration,
    /// How long what must not happen is given to happen.
    moment: Duration,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            patience: Duration::from_secs(20),
            moment: Duration::from_millis(20),
        }
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

/// Runs the cases whose name contains `filter` on `device`, one after the other, and tells `report`
/// of each as it ends, with the time it took.
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
    // The cases share it, so that what it compiles is compiled once.
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
        // Nobody listens any more once the case counts as hung.
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
    // Longer than any single wait in a case, each of which has patience as its limit.
    told.recv_timeout(options.patience * 2)
        .unwrap_or_else(|_| Outcome::Failed("the case hangs".into()))
}
