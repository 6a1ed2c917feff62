//! The table of steps.
//!
//! A part (`host`, `quick`, …) exists because a step names it. Each module holds the steps that
//! need the same device or tools.

mod checkers;
mod cuda;
mod foreign;
mod fuzz;
pub(crate) mod host;
mod metal;
mod opencl;
pub(crate) mod python;
mod trace;
mod vulkan;
mod wgpu;

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::run::Workspace;

/// How a step's tests are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Count {
    /// It has none: it succeeds, or counts as one failure.
    Nothing,
    /// The `test result:` lines that cargo's test programs print, summed.
    Libtest,
    /// The last line reading `N passed, N failed, N skipped`.
    ClosingLine,
    /// Each [`Task::Test`] is one test, passed if it exits with 0.
    EachTest,
}

/// Steps of one lane run one after the other. The two lanes run at the same time, since many tests
/// only wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    /// Steps that build into the target folder's `debug`, which cargo locks for one command at a
    /// time.
    Main,
    /// Steps that build into other folders.
    Beside,
}

/// One command of a step.
pub(crate) enum Task {
    /// Prepares a test, or is all that a step without tests does.
    Build(Command),
    Test(Command),
    Programs(Programs),
}

/// Test programs that cargo builds, and that run without cargo. `cargo test` would do both, but it
/// unites features over the packages that it tests: for a few packages it would build them anew.
pub(crate) struct Programs {
    /// A cargo command that builds them, and may build others.
    pub(crate) build: Command,
    /// Whether a program is run, by its package's folder in the workspace and its name.
    pub(crate) chosen: fn(&Path, &str) -> bool,
    /// Gives each the arguments and variables it needs.
    pub(crate) prepare: fn(&Workspace, &mut Command),
}

/// One thing `cargo xtask test` does, and one row of its summary.
pub(crate) struct Step {
    /// Also what `FENCEPOST_ALLOW_SKIP` calls it.
    pub(crate) name: &'static str,
    pub(crate) parts: &'static [&'static str],
    pub(crate) lane: Lane,
    /// What the tests run on. A stand-in is called one.
    pub(crate) device: &'static str,
    pub(crate) proves: &'static str,
    pub(crate) count: Count,
    /// An error says why the step cannot run here, and what to install. It may install it itself.
    pub(crate) ready: fn() -> Result<(), String>,
    pub(crate) tasks: fn(&Workspace) -> Result<Vec<Task>, String>,
}

/// The steps in the order of the summary. Those of a lane run in this order: steps that are likely
/// to fail, and fail fast, come first.
pub(crate) fn table() -> Vec<Step> {
    [
        host::steps(),
        cuda::steps(),
        python::steps(),
        trace::steps(),
        checkers::steps(),
        vulkan::steps(),
        wgpu::steps(),
        metal::steps(),
        opencl::steps(),
        foreign::steps(),
        fuzz::steps(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The part of the steps that take too long for every run. They run where they, or [`EVERY`], are
/// named.
pub(crate) const ONLY_IN_CI: &str = "only-in-ci";

/// Names every step there is.
pub(crate) const EVERY: &str = "every";

/// The parts that exist, in the order of the table.
pub(crate) fn parts(table: &[Step]) -> Vec<&'static str> {
    let mut parts = Vec::new();
    for part in table.iter().flat_map(|step| step.parts) {
        if !parts.contains(part) {
            parts.push(part);
        }
    }
    parts
}

/// The steps of the named parts, each once. If no part is named, all but those for CI only.
pub(crate) fn select<'a>(table: &'a [Step], names: &[&str]) -> Result<Vec<&'a Step>, String> {
    let parts = parts(table);
    let exists = |name: &&str| *name == EVERY || parts.contains(name);
    if let Some(unknown) = names.iter().find(|name| !exists(name)) {
        return Err(format!(
            "no part '{unknown}' here; there are: {}, and '{EVERY}' (without a name: all but \
             {ONLY_IN_CI})",
            parts.join(", ")
        ));
    }
    let wanted = |step: &&Step| match names {
        [] => !step.parts.contains(&ONLY_IN_CI),
        _ => names.contains(&EVERY) || step.parts.iter().any(|part| names.contains(part)),
    };
    Ok(table.iter().filter(wanted).collect())
}

fn at_once() -> Result<(), String> {
    Ok(())
}

/// Links to `library` in `folder` under another name.
fn link_as(library: &Path, folder: &Path, name: &str) -> Result<(), String> {
    let link = folder.join(name);
    fs::create_dir_all(folder)
        .and_then(|()| match fs::remove_file(&link) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            _ => symlink(library, &link),
        })
        .map_err(|error| format!("cannot link {}: {error}", link.display()))
}

#[cfg(unix)]
fn symlink(to: &Path, from: &Path) -> std::io::Result<()> {
    std::os::unix::fs::symlink(to, from)
}

#[cfg(not(unix))]
fn symlink(_: &Path, _: &Path) -> std::io::Result<()> {
    Err(std::io::ErrorKind::Unsupported.into())
}

/// Adds to the flags the caller set, instead of dropping them.
fn add_flags(command: &mut Command, name: &str, flags: &str) {
    let flags = match std::env::var(name) {
        Ok(given) if !given.is_empty() => format!("{given} {flags}"),
        _ => flags.to_owned(),
    };
    command.env(name, flags);
    // Cargo ignores RUSTFLAGS if this is set.
    command.env_remove("CARGO_ENCODED_RUSTFLAGS");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(steps: &[&Step]) -> Vec<&'static str> {
        steps.iter().map(|step| step.name).collect()
    }

    #[test]
    fn no_part_named_means_all_but_what_only_ci_runs() {
        let table = table();
        let only_in_ci = select(&table, &[ONLY_IN_CI]).unwrap().len();
        assert!(only_in_ci > 0);
        assert_eq!(select(&table, &[]).unwrap().len(), table.len() - only_in_ci);
        assert_eq!(select(&table, &[EVERY]).unwrap().len(), table.len());
    }

    #[test]
    fn quick_builds_and_tests_and_no_more() {
        let table = table();
        let chosen = select(&table, &["quick"]).unwrap();
        assert_eq!(names(&chosen), ["build", "tests", "logic"]);
    }

    #[test]
    fn a_step_of_two_named_parts_runs_once() {
        let table = table();
        let both = select(&table, &["quick", "host"]).unwrap();
        assert_eq!(names(&both), names(&select(&table, &["host"]).unwrap()));
    }

    #[test]
    fn an_unknown_part_is_answered_with_those_that_exist() {
        let table = table();
        let problem = select(&table, &["no-such-part"]).err().unwrap();
        assert!(!problem.contains('\n'), "{problem}");
        for part in parts(&table) {
            assert!(problem.contains(part), "{problem}");
        }
    }

    #[test]
    fn step_names_are_unique() {
        // Rows, folders and FENCEPOST_ALLOW_SKIP refer to steps by name.
        let table = table();
        for (i, step) in table.iter().enumerate() {
            assert!(table[i + 1..].iter().all(|other| other.name != step.name));
        }
    }
}
