//! Seeds: where they come from, and how a failing test names its own.

/// The environment variable that replays one seed in [`with_seeds`] and [`seed_or`].
pub const SEED_VARIABLE: &str = "FENCEPOST_SIM_SEED";

/// The seed in `FENCEPOST_SIM_SEED`, or `default` where that is unset or no number.
pub fn seed_or(default: u64) -> u64 {
    seed_from_env().unwrap_or(default)
}

/// Runs `test` with the seeds `0..count`, or only with the one in `FENCEPOST_SIM_SEED`. When it
/// panics, the seed and the way to replay it are printed.
///
/// A seed fixes the order of everything as long as one thread makes all calls and all steps. With a
/// [`Driver`](crate::Driver) or several calling threads it fixes only the scheduler's choices.
pub fn with_seeds(count: u64, mut test: impl FnMut(u64)) {
    let seeds = match seed_from_env() {
        Some(seed) => seed..seed.saturating_add(1),
        None => 0..count,
    };
    for seed in seeds {
        let _named = NameOnPanic(seed);
        test(seed);
    }
}

/// The first of the seeds `0..count` for which `shows` is true: proof that the scheduler can do
/// something.
///
/// `FENCEPOST_SIM_SEED` has no say here, since one seed cannot prove it.
pub fn find_seed(count: u64, shows: impl FnMut(&u64) -> bool) -> Option<u64> {
    (0..count).find(shows)
}

fn seed_from_env() -> Option<u64> {
    std::env::var(SEED_VARIABLE).ok()?.trim().parse().ok()
}

struct NameOnPanic(u64);

impl Drop for NameOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "simulated device: failed with seed {0}; replay with {SEED_VARIABLE}={0}",
                self.0
            );
        }
    }
}

/// SplitMix64 (<https://prng.di.unimi.it/splitmix64.c>): small, and the same on every machine and
/// in every release, which a seed in a bug report relies on.
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

    /// A number in `0..bound`, 0 for a bound of 0. The bias of the remainder does not matter for
    /// schedules.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    /// How eager something is to happen. The wide spread lets one batch or handler lag behind
    /// dozens of steps of the others, which even chances would almost never do.
    pub(crate) fn eagerness(&mut self) -> u64 {
        1 << (2 * self.below(4))
    }
}
