//! Seeds: where they come from, and how a failing test reports its own.

use std::hash::{BuildHasher, RandomState};

/// The environment variable with the seed that [`with_seeds`] and [`seed_or`] use.
pub const SEED_VARIABLE: &str = "FENCEPOST_SIM_SEED";

/// The seed in `FENCEPOST_SIM_SEED`, or `default` where that is unset or not a number.
pub fn seed_or(default: u64) -> u64 {
    seed_from_env().unwrap_or(default)
}

/// Runs `test` with the seeds `0..count`, or only with the one in `FENCEPOST_SIM_SEED`. If it
/// panics, the seed is printed with the way to replay it.
///
/// If one thread makes all calls and all steps, the seed determines the order of everything. With
/// a [`Stepper`](crate::Stepper) or several calling threads it determines only the scheduler's
/// choices.
pub fn with_seeds(count: u64, mut test: impl FnMut(u64)) {
    let seeds = match seed_from_env() {
        Some(seed) => seed..seed.saturating_add(1),
        None => 0..count,
    };
    for seed in seeds {
        let _print_on_panic = PrintOnPanic(seed);
        test(seed);
    }
}

/// The first of the seeds `0..count` for which `shows` is true. A test proves with it that the
/// scheduler can do something.
///
/// `FENCEPOST_SIM_SEED` has no effect here, since one seed cannot prove that.
pub fn find_seed(count: u64, shows: impl FnMut(&u64) -> bool) -> Option<u64> {
    (0..count).find(shows)
}

/// The seed in `FENCEPOST_SIM_SEED`, or a random one, for a process that no test has given a seed.
pub fn random_seed() -> u64 {
    // the standard library's only source of randomness is the keys of a hasher
    seed_or(RandomState::new().hash_one(0) >> 32)
}

fn seed_from_env() -> Option<u64> {
    std::env::var(SEED_VARIABLE).ok()?.trim().parse().ok()
}

struct PrintOnPanic(u64);

impl Drop for PrintOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "simulated device: failed with seed {0}; replay with {SEED_VARIABLE}={0}",
                self.0
            );
        }
    }
}

/// SplitMix64 (<https://prng.di.unimi.it/splitmix64.c>). It gives the same numbers on every machine
/// and in every release, which the seed of a bug report relies on.
#[derive(Debug)]
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Rng {
        Rng(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number in `0..bound`, or 0 for a bound of 0. The bias of the remainder does not matter
    /// here.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    /// A scheduling weight: 1, 4, 16 or 64. The wide spread lets one batch or handler lag dozens of
    /// steps behind the others, which almost never happens with equal weights.
    pub(crate) fn weight(&mut self) -> u64 {
        1 << (2 * self.below(4))
    }
}
