//! Tests of the CUDA backend. Without NVIDIA's driver: the error says so. With it: the conformance
//! suite, its mutants, and what belongs to CUDA alone.
//!
//! Without a device, tests that need one count as skipped.
#![cfg(all(feature = "cuda", not(loom)))]

mod bare;
mod captures;
#[path = "../common/mod.rs"]
mod common;
mod contexts;
mod driver;
mod markers;
mod processes;
mod raw_events;
mod streams;
#[path = "../common/suite.rs"]
mod suite;

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use fencepost::{Backend, Device, cuda, testing};

/// The first GPU, if there is one, for one test at a time: tests share its queues and context.
fn gpu() -> Option<Gpu> {
    static ONE: Mutex<()> = Mutex::new(());
    let alone = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    match suite::missing(Backend::Cuda) {
        Some(why) => {
            common::skip(&common::test_name(), &why);
            None
        }
        None => Some(Gpu {
            device: Device::open("cuda:0").unwrap(),
            _alone: alone,
        }),
    }
}

struct Gpu {
    device: Device,
    _alone: MutexGuard<'static, ()>,
}

const PATIENCE: Duration = fencepost_sim::HANG_TIMEOUT;

#[test]
fn a_gpu_keeps_every_promise() {
    let Some(gpu) = gpu() else { return };
    let device = &gpu.device;
    println!("{device} is {}", cuda::model(device).unwrap());
    // Under compute-sanitizer, destroying a stream waits for its work, which it does not otherwise.
    // The variable names the case about that, to leave it out.
    let without = std::env::var("FENCEPOST_TEST_WITHOUT").unwrap_or_default();
    let passed = suite::keeps_every_promise(device, |case| case.name == without);
    assert!(passed >= 80, "only {passed} cases ran");
}

/// In a process of its own: some mutants leave threads behind that hang, and streams that stay
/// stalled.
#[test]
fn every_mutant_dies_by_every_case_that_claims_it() {
    let Some(gpu) = gpu() else { return };
    common::in_a_process_of_its_own(|| {
        suite::every_mutant_dies("mutants-cuda", "Mutants of the CUDA backend", || {
            testing::cuda::fresh(&gpu.device).unwrap()
        });
    });
}
