//! A failing test prints its seed, and the seed can be replayed.

use fencepost_sim::{SEED_VARIABLE, find_seed, seed_or, with_seeds};
use std::process::{Command, Output};

/// Runs one of the ignored tests below in its own process, since the environment belongs to a whole
/// process.
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

fn text_of(output: &Output) -> String {
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
fn a_failing_test_prints_how_to_replay_it() {
    let output = run("fails_from_seed_5", None);
    assert!(!output.status.success());
    assert!(
        text_of(&output).contains("replay with FENCEPOST_SIM_SEED=5"),
        "{}",
        text_of(&output)
    );
}

#[test]
fn the_variable_replays_one_seed() {
    let failing = run("fails_from_seed_5", Some("8"));
    assert!(!failing.status.success());
    assert!(
        text_of(&failing).contains("<8>") && !text_of(&failing).contains("<4>"),
        "{}",
        text_of(&failing)
    );
    let passing = run("fails_from_seed_5", Some("3"));
    assert!(passing.status.success(), "{}", text_of(&passing));
}

#[test]
fn a_seed_comes_from_the_variable_or_from_the_caller() {
    assert!(text_of(&run("prints_its_seed", None)).contains("<77>"));
    assert!(text_of(&run("prints_its_seed", Some(" 12 "))).contains("<12>"));
    assert!(text_of(&run("prints_its_seed", Some("twelve"))).contains("<77>"));
}

#[test]
fn find_seed_returns_the_first_seed_that_shows_it() {
    assert_eq!(find_seed(10, |&seed| seed % 4 == 3), Some(3));
    assert_eq!(find_seed(3, |&seed| seed == 3), None);
}
