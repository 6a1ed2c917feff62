//! The conformance suite and its mutants, as the tests of GPU backends run them.

use fencepost::{
    Device,
    testing::{self, Case, Outcome},
};

/// Runs every case but those that are left out, and returns how many passed.
pub(crate) fn keeps_every_promise(device: &Device, leave_out: impl Fn(&Case) -> bool) -> usize {
    println!("{device}, clock: {}", device.clock());
    let (mut passed, mut failed) = (0, Vec::new());
    for case in testing::cases() {
        if leave_out(case) {
            println!("left out {}", case.name);
            continue;
        }
        testing::run(device, case.name, |ran, outcome, time| match outcome {
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

/// Runs the mutants of a backend, keeps the table under `name`, and sees that each dies.
pub(crate) fn every_mutant_dies(name: &str, title: &str, make: impl Fn() -> Device + Sync) {
    let table = testing::kill_mutants(make);
    super::common::write_table(name, title, &table.to_string());
    let complaints = table.complaints();
    assert!(complaints.is_empty(), "{complaints:#?}");
}
