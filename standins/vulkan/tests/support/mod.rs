//! Helpers for the tests. Every test has its own machine, and leaves no object on it.

#![allow(dead_code, unused_imports, reason = "no test file uses all of it")]

mod commands;
mod gpu;
mod kernel;
mod submit;
mod sync;
mod words;

use ash::vk::Handle;
use fencepost_sim_vulkan::{Control, Live, Session};
use std::sync::OnceLock;
use std::time::Duration;

pub(crate) use gpu::{Gpu, Setup, entry, families, instance, make_device, physicals};
pub(crate) use submit::Batch;

/// A timeout that only a hang reaches.
pub(crate) const HANG_TIMEOUT: Duration = fencepost_sim::HANG_TIMEOUT;
pub(crate) const FOREVER: u64 = u64::MAX;

pub(crate) fn control() -> &'static Control {
    static CONTROL: OnceLock<Control> = OnceLock::new();
    CONTROL.get_or_init(Control::linked)
}

/// Runs a test with device 0, with the seeds `0..count` or the one in the environment.
pub(crate) fn with_seeds(count: u64, test: impl Fn(&Session<'_>, &Gpu)) {
    fencepost_sim::with_seeds(count, |seed| with_seed(seed, &[], Setup::default(), &test));
}

pub(crate) fn with_seed(
    seed: u64,
    options: &[(&str, u64)],
    setup: Setup,
    test: impl Fn(&Session<'_>, &Gpu),
) {
    let session = control().session(seed, options);
    let gpu = Gpu::new(setup);
    test(&session, &gpu);
    gpu.destroy();
    assert!(
        session.wait_idle(HANG_TIMEOUT),
        "{}",
        session.pending_work()
    );
    assert_eq!(session.live(), Live::default());
    assert_eq!(session.violations(), Vec::<String>::new());
}

pub(crate) trait ExpectViolations {
    fn clear_violations_of(&self, texts: &[&str]);
}

impl ExpectViolations for Session<'_> {
    /// Forgets the violations, which must contain these texts, in this order.
    fn clear_violations_of(&self, texts: &[&str]) {
        let found = self.violations();
        assert_eq!(found.len(), texts.len(), "{found:#?}");
        for (found, text) in found.iter().zip(texts) {
            assert!(found.contains(text), "{found:?} has no {text:?}");
        }
        self.clear_violations();
    }
}

/// A handle that the stand-in never returned.
pub(crate) fn made_up<H: Handle>() -> H {
    H::from_raw(0xdead_beef)
}
