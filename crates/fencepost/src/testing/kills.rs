//! Running every case against the mutants that it claims to kill.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Mutex, PoisonError},
    thread,
    time::Duration,
};

use super::{Case, Mutant, Options, Outcome, cases, mutated, run_case};
use crate::device::Device;

impl Options {
    /// For mutants. Most of them show because something never happens, so the limit is short.
    fn for_mutants() -> Options {
        Options {
            patience: Duration::from_secs(1),
            moment: Duration::from_millis(100),
        }
    }

    /// The same, with more time for threads that get no core.
    fn slower(&self) -> Options {
        Options {
            patience: self.patience * 4,
            moment: self.moment * 4,
        }
    }
}

/// Which case killed which mutant of one backend; made by [`kill_mutants`].
///
/// ```no_run
/// use fencepost::{Device, testing};
/// println!("{}", testing::kill_mutants(|| Device::new_host(2)));
/// ```
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct KillTable {
    /// For each mutant, the cases that claim to kill it, and whether they did.
    pub rows: BTreeMap<Mutant, Vec<(&'static str, Outcome)>>,
}

impl KillTable {
    /// What is wrong with the suite: cases that pass on a mutant that they claim to kill, and
    /// mutants that no case kills. A case that was skipped claims nothing.
    ///
    /// ```
    /// assert!(fencepost::testing::KillTable::default().complaints().len() > 0);
    /// ```
    pub fn complaints(&self) -> Vec<String> {
        let mut complaints = Vec::new();
        for mutant in Mutant::ALL {
            let row = self.rows.get(&mutant).map_or(&[][..], Vec::as_slice);
            let mut killed = false;
            for (case, outcome) in row {
                match outcome {
                    Outcome::Failed(_) => killed = true,
                    Outcome::Skipped(_) => {}
                    Outcome::Passed => {
                        complaints
                            .push(format!("{case} claims to kill {mutant}, but passes on it"));
                    }
                }
            }
            if !killed {
                complaints.push(format!("nobody kills {mutant}"));
            }
        }
        complaints
    }
}

impl fmt::Display for KillTable {
    /// A line for each mutant: its name, and the cases that killed it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (mutant, row) in &self.rows {
            let dead = row.iter().filter(|(_, o)| matches!(o, Outcome::Failed(_)));
            let names: Vec<_> = dead.map(|(case, _)| *case).collect();
            writeln!(f, "{mutant}: killed by {} cases", names.len())?;
            for name in names {
                writeln!(f, "  {name}")?;
            }
        }
        Ok(())
    }
}

/// Runs a case on a mutant. A thread that gets no core for a while may miss what is wrong, so a
/// case that passes is run again, more slowly: a mutant survives if the case passes each time.
fn run_on_mutant(case: &'static Case, mutant: Mutant, make: &impl Fn() -> Device) -> Outcome {
    const TRIES: usize = 4;
    let mut outcome = Outcome::Passed;
    let mut options = Options::for_mutants();
    for _ in 0..TRIES {
        outcome = run_case(case, &mutated(&make(), mutant), options);
        if outcome != Outcome::Passed {
            break;
        }
        options = options.slower();
    }
    outcome
}

/// Runs every case against the mutants it claims to kill, each on a fresh device from `make`,
/// several at a time since most of them only wait.
///
/// ```no_run
/// use fencepost::{Device, testing};
/// let table = testing::kill_mutants(|| Device::new_host(2));
/// assert!(table.complaints().is_empty(), "{:?}", table.complaints());
/// ```
pub fn kill_mutants(make: impl Fn() -> Device + Sync) -> KillTable {
    const AT_A_TIME: usize = 8;
    let claims = cases().flat_map(|case| case.kills.iter().map(move |&mutant| (case, mutant)));
    let claims = Mutex::new(claims);
    let table = Mutex::new(KillTable::default());
    fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
        mutex.lock().unwrap_or_else(PoisonError::into_inner)
    }
    thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(|| {
                loop {
                    let Some((case, mutant)) = locked(&claims).next() else {
                        return;
                    };
                    let outcome = run_on_mutant(case, mutant, &make);
                    let mut table = locked(&table);
                    let row = table.rows.entry(mutant).or_default();
                    row.push((case.name, outcome));
                    row.sort_by_key(|(name, _)| *name);
                }
            });
        }
    });
    table.into_inner().unwrap_or_else(PoisonError::into_inner)
}
