//! The conformance suite: the meaning of every operation, as cases that run on any device.
//!
//! `fencepost check` runs it; so do every backend's own tests. Each case is named after the promise
//! it holds, and says which [`Mutant`]s it kills: a suite is worth what it kills.

use std::{
    fmt,
    time::{Duration, Instant},
};

use crate::device::Device;

pub mod work;

/// One promise, and how to see that it is kept.
#[non_exhaustive]
pub struct Case {
    /// The promise, in a few words joined by underscores.
    pub name: &'static str,
}

/// How a case ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The promise is kept.
    Passed,
    /// It is not; the text says what was seen.
    Failed(String),
    /// It cannot be seen on this device; the text says why.
    Skipped(String),
}

/// How many cases ended in which way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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
pub fn cases() -> &'static [Case] {
    &[]
}

/// Runs the cases whose name contains `filter` on `device`, and tells `report` of each as it ends.
pub fn run(
    device: &Device,
    filter: &str,
    mut report: impl FnMut(&Case, &Outcome, Duration),
) -> Summary {
    let mut summary = Summary::default();
    for case in cases().iter().filter(|case| case.name.contains(filter)) {
        let start = Instant::now();
        let outcome = Outcome::Passed;
        let _ = device;
        match outcome {
            Outcome::Passed => summary.passed += 1,
            Outcome::Failed(_) => summary.failed += 1,
            Outcome::Skipped(_) => summary.skipped += 1,
        }
        report(case, &outcome, start.elapsed());
    }
    summary
}
