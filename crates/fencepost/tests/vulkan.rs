//! The Vulkan backend: on a machine without a loader or driver, that it says so; on one with them, the conformance
//! suite, its mutants where a stand-in has queues enough to show them, and what belongs to Vulkan alone.
//!
//! Tests that need a device count as skipped without one. With `FENCEPOST_VULKAN_VALIDATION=1` every test fails
//! on whatever the validation layer says.
#![cfg(all(feature = "vulkan", not(loom)))]

use std::{
    process::Command,
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc},
    time::Duration,
};

use fencepost::{
    Backend, Device, Error, Event,
    conformance::{self, Outcome, work},
    vulkan::{self, Features},
};

mod common;

/// The first device, if there is one, for one test at a time: they share its queues.
fn gpu() -> Option<Gpu> {
    static ONE: Mutex<()> = Mutex::new(());
    let alone = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let found = Device::list()
        .into_iter()
        .find(|found| found.backend == Backend::Vulkan)
        .expect("the registry has an entry for Vulkan");
    match found.missing {
        Some(why) => {
            common::skip(&common::test_name(), &why);
            None
        }
        None => Some(Gpu {
            device: Device::open("vulkan:0").unwrap(),
            said: vulkan::validation_messages().len(),
            _alone: alone,
        }),
    }
}

struct Gpu {
    device: Device,
    /// How many messages of the validation layer came before.
    said: usize,
    _alone: MutexGuard<'static, ()>,
}

impl Drop for Gpu {
    fn drop(&mut self) {
        let messages = vulkan::validation_messages();
        if !std::thread::panicking() {
            assert_eq!(messages[self.said..], [] as [&str; 0]);
        }
    }
}

const PATIENCE: Duration = Duration::from_secs(20);

/// Whether the device is the stand-in, which has several queues and an order of its own.
fn is_stand_in() -> bool {
    std::env::var("FENCEPOST_VULKAN_STAND_IN").is_ok_and(|on| on == "1")
}

#[test]
fn without_a_driver_it_is_an_error_that_says_so() {
    let found = Device::list()
        .into_iter()
        .find(|found| found.backend == Backend::Vulkan)
        .unwrap();
    match found.missing {
        Some(why) => {
            assert!(!why.is_empty());
            let error = Device::open("vulkan:0").unwrap_err();
            assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
            assert!(error.to_string().contains(&why), "{error}");
        }
        None => {
            assert_eq!(found.devices[0], "vulkan:0");
            let beyond = format!("vulkan:{}", found.devices.len());
            let error = Device::open(&beyond).unwrap_err();
            assert!(matches!(error, Error::UnknownDevice { .. }), "{error:?}");
        }
    }
}

/// This test program again, running one test.
fn child(test: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", test, "--nocapture"])
        .env("FENCEPOST_TEST_CHILD", test);
    command
}

#[test]
fn a_library_that_is_no_loader_is_an_error() {
    if std::env::var_os("FENCEPOST_TEST_CHILD").is_some() {
        let error = Device::open("vulkan:0").unwrap_err();
        println!("said: {error}");
        assert!(error.to_string().contains("FENCEPOST_VULKAN_LIBRARY"));
        return;
    }
    // A library that is not there, and one that is there and has none of the symbols.
    for library in ["/nowhere/libvulkan.so", "libc.so.6"] {
        let status = child("a_library_that_is_no_loader_is_an_error")
            .env("FENCEPOST_VULKAN_LIBRARY", library)
            .status()
            .unwrap();
        assert!(status.success(), "{library}");
    }
}

/// Runs the whole suite, and returns how many cases passed.
fn keeps_every_promise(device: &Device) -> usize {
    println!("{device}, clock: {}", device.clock());
    let mut failed = Vec::new();
    let summary = conformance::run(device, "", |case, outcome, time| match outcome {
        Outcome::Passed => println!("ok {} ({time:?})", case.name),
        Outcome::Failed(why) => {
            println!("FAILED {}: {why}", case.name);
            failed.push(case.name);
        }
        Outcome::Skipped(why) => println!("skipped {}: {why}", case.name),
    });
    println!("{summary}");
    assert!(failed.is_empty(), "{failed:?}: see the output");
    summary.passed
}

#[test]
fn a_device_keeps_every_promise() {
    let Some(gpu) = gpu() else { return };
    let passed = keeps_every_promise(&gpu.device);
    let least = if is_stand_in() { 80 } else { 70 };
    assert!(passed >= least, "only {passed} cases passed");
}

#[test]
fn a_device_without_the_newer_calls_keeps_every_promise() {
    let Some(_gpu) = gpu() else { return };
    for only in [
        Features::default(),
        Features {
            synchronization2: true,
            ..Features::default()
        },
    ] {
        let device = vulkan::fresh(0, Some(only)).unwrap();
        assert!(keeps_every_promise(&device) >= 70);
    }
}

/// In a process of its own: some mutants leave threads behind that hang, and queues that stay held.
#[test]
fn every_mutant_dies_by_every_case_that_claims_it() {
    if gpu().is_none() {
        return;
    }
    if !is_stand_in() {
        return common::skip(
            &common::test_name(),
            "the stand-in shows it (FENCEPOST_VULKAN_STAND_IN=1): a driver with one queue hides missing waits",
        );
    }
    common::in_a_process_of_its_own(|| {
        let table = conformance::kill_mutants(|| vulkan::fresh(0, None).unwrap());
        common::write_table(
            "mutants-vulkan",
            "Mutants of the Vulkan backend (stand-in)",
            &table.to_string(),
        );
        let complaints = table.complaints();
        assert!(complaints.is_empty(), "{complaints:#?}");
    });
}
