//! The log of the calls to a stand-in for a driver.

use crate::{Planned, SEED_VARIABLE, SimDevice, lock};
use std::collections::BTreeMap;
use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};

/// Counts the calls of a driver's functions, makes planned ones fail, and records violations.
/// `C` is how a call fails: usually an error code.
///
/// It is meant for a `static`. Its locks are leaves.
#[derive(Debug)]
pub struct CallLog<C> {
    /// The name of the stand-in, for messages.
    stand_in: &'static str,
    seed: AtomicU64,
    inner: Mutex<Inner<C>>,
}

#[derive(Debug)]
struct Inner<C> {
    calls: BTreeMap<&'static str, u64>,
    failures: BTreeMap<String, Planned<C>>,
    violations: Vec<String>,
}

impl<C: Clone> CallLog<C> {
    /// An empty log of the stand-in with this name.
    pub const fn new(stand_in: &'static str) -> CallLog<C> {
        CallLog {
            stand_in,
            seed: AtomicU64::new(0),
            inner: Mutex::new(Inner {
                calls: BTreeMap::new(),
                failures: BTreeMap::new(),
                violations: Vec::new(),
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner<C>> {
        lock(&self.inner)
    }

    /// Forgets all counts, failures and violations.
    pub fn clear(&self) {
        let mut inner = self.lock();
        inner.calls.clear();
        inner.failures.clear();
        inner.violations.clear();
    }

    /// The seed of the current machine.
    pub fn seed(&self) -> u64 {
        self.seed.load(Ordering::SeqCst)
    }

    /// Sets the seed that messages name.
    pub fn set_seed(&self, seed: u64) {
        self.seed.store(seed, Ordering::SeqCst);
    }

    /// Prints a message to stderr, with the way to replay the run.
    pub fn note(&self, text: &str) {
        let (stand_in, seed) = (self.stand_in, self.seed());
        // eprintln would panic where stderr is closed
        let _ = writeln!(
            std::io::stderr(),
            "fencepost {stand_in} stand-in: {text} (replay with {SEED_VARIABLE}={seed})"
        );
    }

    /// Records a use of the driver that its documentation forbids, and prints it.
    pub fn violation(&self, text: &str) {
        self.note(text);
        self.lock().violations.push(text.into());
    }

    /// The violations so far, in order.
    pub fn violations(&self) -> Vec<String> {
        self.lock().violations.clone()
    }

    /// The violations so far: first those of the log, then those that the machine of the simulated
    /// device has found.
    pub fn all_violations(&self, device: Option<&SimDevice>) -> Vec<String> {
        let mut all = self.violations();
        let found = device.map(SimDevice::violations).unwrap_or_default();
        all.extend(found.iter().map(ToString::to_string));
        all
    }

    /// Forgets the violations so far.
    pub fn clear_violations(&self) {
        self.lock().violations.clear();
    }

    /// Counts a call, and returns the failure that was planned for it.
    pub fn count(&self, name: &'static str) -> Option<C> {
        let mut inner = self.lock();
        *inner.calls.entry(name).or_default() += 1;
        inner.failures.get_mut(name)?.occur()
    }

    /// How often a function was called.
    pub fn calls(&self, name: &str) -> u64 {
        self.lock().calls.get(name).copied().unwrap_or(0)
    }

    /// Makes the `nth` call of a function from now on fail; with `repeats`, all later ones too.
    pub fn fail(&self, name: &str, nth: u64, failure: C, repeats: bool) {
        let mut inner = self.lock();
        let plans = inner.failures.entry(name.into()).or_default();
        match repeats {
            true => plans.add_from(nth, failure),
            false => plans.add(nth, failure),
        }
    }

    /// Forgets all planned failures.
    pub fn clear_failures(&self) {
        self.lock().failures.clear();
    }
}
