//! What the tests of the Metal backend on the stand-in share.
#![allow(dead_code)]

use std::{collections::BTreeMap, time::Duration};

use fencepost::{Device, metal};
use fencepost_sim_metal::{Control, Session, Setup};
use objc2::rc::autoreleasepool;

/// So long that a test which takes it has hung.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// The first device of the machine of now. Never the one that `Device::open` keeps, which may be of another machine.
pub(crate) fn gpu() -> Device {
    metal::fresh(0).unwrap()
}

/// Runs a test with a few seeds, each on a machine of its own, and sees that nothing is left: no object of Metal's, no
/// release too many, nothing done that Metal forbids.
pub(crate) fn with_gpu(test: impl Fn(&Device, &Session)) {
    fencepost_sim::with_seeds(5, |seed| {
        with_setup(Setup::seeded(seed), |session| {
            let device = gpu();
            test(&device, session);
        });
    });
}

pub(crate) fn with_setup(setup: Setup, test: impl FnOnce(&Session)) {
    let session = Control.session(setup);
    autoreleasepool(|_| test(&session));
    assert!(session.quiesce(PATIENCE), "{:?}", session.pending_work());
    assert_eq!(session.live(), BTreeMap::new());
    assert_eq!(session.violations(), Vec::<String>::new());
}
