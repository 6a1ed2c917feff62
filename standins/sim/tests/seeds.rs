//! A failing test names its seed, and the seed can be replayed.

use fencepost_sim::{SEED_VARIABLE, find_seed, seed_or, with_seeds};
use std::process::{Command, Output};

/// Runs one of the ignored tests below in a process of its own, since the environment belongs to
/// the whole process.
fn run(test: &str, seed: Option<&str>) -> Output {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--ignored", "--exact", "--nocapture", test])
        .env_remove(SEED_VARIABLE);
    if let Some(seed) = seed {
        command.env(SEED_VARIABLE, seed);
    }
    command.output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
#[ignore = "run by the tests below"]
fn fails_from_seed_5() {
    with_seeds(10, |seed| {
        println!("<{seed}>");
        assert!(seed < 5);
    });
}

#[test]
#[ignore = "run by the tests below"]
fn prints_its_seed() {
    println!("<{}>", seed_or(77));
}

#[test]
fn a_failing_test_says_how_to_replay_it() {
    let output = run("fails_from_seed_5", None);
    assert!(!output.status.success());
    assert!(
        said(&output).contains("replay with FENCEPOST_SIM_SEED=5"),
        "{}",
        said(&output)
    );
}

#[test]
fn the_variable_replays_one_seed() {
    let failing = run("fails_from_seed_5", Some("8"));
    assert!(!failing.status.success());
    assert!(
        said(&failing).contains("<8>") && !said(&failing).contains("<4>"),
        "{}",
        said(&failing)
    );
    let passing = run("fails_from_seed_5", Some("3"));
    assert!(passing.status.success(), "{}", said(&passing));
}

#[test]
fn a_seed_comes_from_the_variable_or_else_the_caller() {
    assert!(said(&run("prints_its_seed", None)).contains("<77>"));
    assert!(said(&run("prints_its_seed", Some(" 12 "))).contains("<12>"));
    assert!(said(&run("prints_its_seed", Some("twelve"))).contains("<77>"));
}

#[test]
fn the_first_seed_that_shows_it_is_found() {
    assert_eq!(find_seed(10, |&seed| seed % 4 == 3), Some(3));
    assert_eq!(find_seed(3, |&seed| seed == 3), None);
}
