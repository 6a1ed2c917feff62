//! Tests of the OpenCL backend. Without an implementation of OpenCL: the error says so. With one:
//! the conformance suite, its mutants, and what belongs to OpenCL alone.
//!
//! Without a device, tests that need one count as skipped.
#![cfg(all(feature = "opencl", not(loom)))]

use fencepost::{Backend, Device, Event, testing};

mod common;
#[path = "common/suite.rs"]
mod suite;

/// The first device, if there is one.
fn device() -> Option<Device> {
    match suite::missing(Backend::OpenCl) {
        Some(why) => {
            common::skip(&common::test_name(), &why);
            None
        }
        None => Some(Device::open("opencl:0").unwrap()),
    }
}

#[test]
fn a_marker_completes_and_has_a_time() {
    let Some(device) = device() else { return };
    let stream = device.new_stream().unwrap();
    let (start, end) = (Event::with_timing(&device), Event::with_timing(&device));
    start.record(&stream).unwrap();
    end.record(&stream).unwrap();
    end.synchronize().unwrap();
    assert!(start.query().unwrap());
    assert!(start.elapsed_time(&end).unwrap() >= 0.0);
}

#[test]
fn without_a_driver_it_is_an_error_that_says_so() {
    suite::a_missing_driver_is_an_error_that_says_so(Backend::OpenCl);
}

#[test]
fn a_library_that_is_no_loader_is_an_error() {
    suite::another_library_is_an_error(
        "a_library_that_is_no_loader_is_an_error",
        Backend::OpenCl,
        "FENCEPOST_OPENCL_LIBRARY",
        |text| text.contains("FENCEPOST_OPENCL_LIBRARY"),
    );
}

#[test]
fn a_device_keeps_every_promise() {
    let Some(device) = device() else { return };
    let passed = suite::keeps_every_promise(&device, |_| false);
    assert!(passed >= 80, "only {passed} cases passed");
}

/// In a process of its own: some mutants leave hanging threads and held queues behind.
#[test]
fn every_mutant_dies_by_every_case_that_claims_it() {
    let Some(device) = device() else { return };
    common::in_a_process_of_its_own(|| {
        suite::every_mutant_dies("mutants-opencl", "Mutants of the OpenCL backend", || {
            testing::opencl::fresh(&device).unwrap()
        });
    });
}
