//! The conformance suite on the host, and against its mutants.
#![cfg(not(loom))]

use fencepost::{
    Device,
    testing::{self, Outcome},
};

mod common;

#[test]
fn the_host_keeps_every_promise() {
    let device = Device::new_host(2);
    let (mut skipped, mut failed) = (Vec::new(), Vec::new());
    let summary = testing::run(&device, "", |case, outcome, time| match outcome {
        Outcome::Passed => println!("ok {} ({time:?})", case.name),
        Outcome::Failed(why) => failed.push(format!("{}: {why}", case.name)),
        Outcome::Skipped(why) => skipped.push(format!("{}: {why}", case.name)),
    });
    assert!(failed.is_empty(), "{failed:#?}");
    assert!(
        skipped.is_empty(),
        "the host can show every case: {skipped:?}"
    );
    assert!(summary.passed >= 90, "only {} cases ran", summary.passed);
}

#[test]
fn the_host_keeps_every_promise_with_one_worker() {
    let summary = testing::run(&Device::new_host(1), "", |case, outcome, _| {
        assert_eq!(*outcome, Outcome::Passed, "{}", case.name);
    });
    assert_eq!(summary.failed, 0);
}

#[test]
fn every_mutant_dies_by_every_case_that_claims_it() {
    let table = testing::kill_mutants(|| Device::new_host(2));
    common::write_table("mutants", "Mutants of the host backend", &table.to_string());
    let complaints = table.complaints();
    assert!(complaints.is_empty(), "{complaints:#?}");
}

#[test]
fn case_names_are_unique() {
    let mut names: Vec<_> = testing::cases().map(|case| case.name).collect();
    let all = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), all);
}

#[test]
fn the_document_names_cases_that_exist() {
    let text = include_str!("../../../docs/conformance.md");
    let names: Vec<_> = testing::cases().map(|case| case.name).collect();
    let mentioned: Vec<_> = text
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(|word| word.matches('_').count() >= 3 && !word.contains(['/', '.', ':']))
        .collect();
    assert!(mentioned.len() > 20, "the document has changed its shape");
    for name in mentioned {
        assert!(names.contains(&name), "no case is called {name}");
    }
}
