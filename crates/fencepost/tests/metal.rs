//! The Metal backend on the stand-in for Metal: the conformance suite, its mutants, and what belongs to Metal alone.
//! Nothing here counts as Apple hardware. Where there is no Metal, that the library says so.
#![cfg(not(loom))]

#[cfg(not(any(target_vendor = "apple", metal_sim)))]
#[test]
fn without_metal_it_is_an_error_that_says_what_brings_it() {
    let found = fencepost::Device::list()
        .into_iter()
        .find(|found| found.backend == fencepost::Backend::Metal)
        .unwrap();
    let why = found.missing.unwrap();
    assert!(why.contains("a Mac brings it"), "{why}");
    let error = fencepost::Device::open("metal").unwrap_err();
    assert!(error.to_string().contains(&why), "{error}");
}

#[cfg(metal_sim)]
mod common;
#[cfg(metal_sim)]
#[path = "metal/support.rs"]
mod support;

#[cfg(metal_sim)]
mod stand_in {
    use std::{
        sync::{Mutex, mpsc},
        time::Duration,
    };

    use fencepost::{
        Device, Error, Event,
        conformance::{self, Outcome, work},
        metal,
    };
    use fencepost_sim_metal::Setup;

    use super::{
        common,
        support::{PATIENCE, gpu, with_gpu, with_setup},
    };

    /// Runs the whole suite, and returns how many cases passed.
    fn keeps_every_promise(device: &Device) -> usize {
        println!("{device}, clock: {}", device.clock());
        let (mut passed, mut failed) = (0, Vec::new());
        for case in conformance::cases() {
            conformance::run(device, case.name, |ran, outcome, time| match outcome {
                // The filter is a part of a name, and may fit several.
                _ if ran.name != case.name => {}
                Outcome::Passed => {
                    passed += 1;
                    println!("ok {} ({time:?})", case.name);
                }
                Outcome::Failed(why) => {
                    println!("FAILED {}: {why}", case.name);
                    failed.push(case.name);
                }
                Outcome::Skipped(why) => println!("skipped {}: {why}", case.name),
            });
        }
        println!("{passed} passed, {} failed", failed.len());
        assert!(failed.is_empty(), "{failed:?}: see the output");
        passed
    }

    /// In a process of its own, for devices that are opened by name stay open.
    #[test]
    fn a_device_keeps_every_promise() {
        common::in_a_process_of_its_own(|| {
            let passed = keeps_every_promise(&Device::open("metal").unwrap());
            assert!(passed >= 80, "only {passed} cases passed");
            let said = fencepost_sim_metal::Control.violations();
            assert!(said.is_empty(), "{said:#?}");
        });
    }

    #[test]
    fn a_device_whose_queues_share_hardware_keeps_every_promise_that_can_be_kept() {
        with_setup(
            Setup {
                devices: 1,
                ..Setup::seeded(fencepost_sim_seed())
            },
            |_| {
                let device = gpu();
                keeps_every_promise(&device);
            },
        );
    }

    fn fencepost_sim_seed() -> u64 {
        std::env::var("FENCEPOST_SIM_SEED").map_or(5, |seed| seed.parse().unwrap())
    }

    /// In a process of its own: some mutants leave threads behind that hang.
    #[test]
    fn every_mutant_dies_by_every_case_that_claims_it() {
        common::in_a_process_of_its_own(|| {
            let table = conformance::kill_mutants(|| metal::fresh(0).unwrap());
            common::write_table(
                "mutants-metal",
                "Mutants of the Metal backend (stand-in)",
                &table.to_string(),
            );
            let complaints = table.complaints();
            assert!(complaints.is_empty(), "{complaints:#?}");
        });
    }

    #[test]
    fn unused() {
        let _ = (PATIENCE, Duration::ZERO);
        let _: Option<(Error, Event, Mutex<()>, mpsc::Sender<()>)> = None;
        with_gpu(|device, _| {
            let stream = device.new_stream().unwrap();
            let gate = work::gate(&stream).unwrap();
            let marker = stream.record_timed().unwrap();
            gate.open();
            marker.synchronize_timeout(PATIENCE).unwrap();
        });
    }
}
