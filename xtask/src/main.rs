//! `cargo xtask`: tests and lints this repository, here and in CI.
//!
//! - [`steps`] is the table of what `cargo xtask test` runs. To add a step or a part, add an entry
//!   there.
//! - [`run`] runs the steps: it starts their commands, prints what these print, and reads it.
//! - [`count`] finds results in what they print, and [`programs`] the test programs that cargo
//!   built.
//! - [`summary`] decides what the results mean and prints them.
//! - [`packages`] and [`rustup`] install what a step needs, where nobody has to be asked.
//! - [`lint`] is `cargo xtask lint`.

mod count;
mod lint;
mod packages;
mod programs;
mod run;
mod rustup;
mod steps;
mod summary;

use std::process::ExitCode;
use std::time::Instant;

use run::Workspace;
use steps::{EVERY, ONLY_IN_CI, Step, parts, select};
use summary::{Policy, closing_line, failed, render};

/// As `fencepost` itself: 1 for a failure, 2 for bad arguments.
const BAD_ARGUMENTS: u8 = 2;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args_os()
        .skip(1)
        .map(|arg| arg.to_string_lossy().into_owned())
        .collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let table = steps::table();

    match args.as_slice() {
        ["test", names @ ..] => match select(&table, names) {
            Ok(chosen) => test(&chosen),
            Err(problem) => bad_arguments(&problem),
        },
        ["lint"] => exit(lint::lint(&Workspace::find())),
        ["wheel"] => exit(steps::python::wheel(&Workspace::find())),
        ["help" | "-h" | "--help"] => {
            run::say(&usage(&table));
            ExitCode::SUCCESS
        }
        [command @ ("lint" | "wheel"), more, ..] => {
            bad_arguments(&format!("{command} takes no arguments, got '{more}'"))
        }
        [] => bad_arguments(&usage(&table)),
        [unknown, ..] => bad_arguments(&format!("no command '{unknown}'\n\n{}", usage(&table))),
    }
}

fn usage(table: &[Step]) -> String {
    format!(
        "\
Usage: cargo xtask COMMAND

  test [PART]...  run the tests of these parts, or '{EVERY}' of them (without a
                  name: all but {ONLY_IN_CI}): {}
  lint            check format and lints
  wheel           build the Python package for this machine

Exit codes: 0 success, 1 something failed, 2 bad arguments.",
        parts(table).join(", ")
    )
}

fn bad_arguments(problem: &str) -> ExitCode {
    run::complain(problem);
    ExitCode::from(BAD_ARGUMENTS)
}

fn test(chosen: &[&Step]) -> ExitCode {
    let workspace = Workspace::find();
    let policy = Policy::from_env();
    if let Err(error) = workspace.clear_notes() {
        run::complain(&format!(
            "cannot empty {}: {error}",
            workspace.notes().display()
        ));
        return ExitCode::FAILURE;
    }

    let started = Instant::now();
    let outcomes = run::steps(chosen, &workspace, &policy);
    run::say(&render(&outcomes, started.elapsed()));
    // Alone and last: programs read this line.
    run::say(&closing_line(&outcomes));
    exit(!failed(&outcomes))
}

fn exit(good: bool) -> ExitCode {
    if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
