//! `cargo xtask`: the one way this repository is tested and linted, here and in CI.
//!
//! - [`steps`] is the table of what `cargo xtask test` runs. A new part or step is a new entry
//!   there.
//! - [`run`] starts a step's commands, streams what they print and reads it along the way.
//! - [`count`] is the reading: which lines of a log are results.
//! - [`vulkan`] and [`metal`] hold the steps of these, [`packages`] brings what Debian has for
//!   them.
//! - [`summary`] decides what the results mean and prints them.
//! - [`python`] knows how the Python package is built and tested.

mod count;
mod metal;
mod packages;
mod python;
mod run;
mod steps;
mod summary;
mod vulkan;

use std::process::ExitCode;

use run::Workspace;
use steps::{Step, parts, select};
use summary::{Policy, closing_line, failed, render};

/// What `fencepost` itself uses too: 1 for a failure, 2 for bad arguments.
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
        ["lint"] => lint(),
        ["wheel"] => exit(python::wheel(&Workspace::find())),
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

  test [PART]...  run the tests of these parts (all without a name): {}
  lint            check format and lints
  wheel           build the Python package for this machine

Exit codes: 0 good, 1 something failed, 2 bad arguments.",
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

    let outcomes: Vec<_> = chosen
        .iter()
        .enumerate()
        .map(|(i, step)| {
            run::say(&format!(
                "\n=== [{}/{}] {}: {}",
                i + 1,
                chosen.len(),
                step.name,
                step.proves
            ));
            run::step(step, &workspace, &policy)
        })
        .collect();

    run::say(&render(&outcomes));
    // Alone and last: programs read this line.
    run::say(&closing_line(&outcomes));
    exit(!failed(&outcomes))
}

fn lint() -> ExitCode {
    let workspace = Workspace::find();
    let mut good = true;
    // All of them, even after one failed: one round trip should show all there is to mend.
    for command in steps::lints(&workspace) {
        run::say(&format!("\n=== {}", run::shown(&command)));
        good &= run::plainly(command);
    }
    exit(good)
}

fn exit(good: bool) -> ExitCode {
    if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
