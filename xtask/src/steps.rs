//! What there is to run: the table of steps.
//!
//! A part (`host`, `quick`, …) exists because a step names it. To add one, add its steps to the
//! module of what they need.

mod checkers;
mod cuda;
pub(crate) mod host;
mod metal;
pub(crate) mod python;
mod vulkan;

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::run::Workspace;

/// How a step's tests are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Count {
    /// It has none: it either works or counts as one failure.
    Nothing,
    /// The `test result:` lines that cargo's test programs print, summed.
    Libtest,
    /// The last line reading `N passed, N failed, N skipped`.
    ClosingLine,
    /// Each [`Task::Test`] is one test, passed if it exits with 0.
    EachTest,
}

/// Steps of one lane run one after the other; the two lanes run beside each other, since much of
/// a run is tests that wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    /// What builds into the target folder's `debug`. Cargo lets one command at a time in there.
    Main,
    /// What builds elsewhere.
    Beside,
}

/// One thing cargo or another program does for a step.
pub(crate) enum Task {
    /// Only prepares a test, or is all that a step without tests does.
    Build(Command),
    Test(Command),
    Programs(Programs),
}

/// Test programs that cargo builds, and that are run without it. `cargo test` would do both, but
/// it unites features over the packages it is to test: a few of them would be built anew.
pub(crate) struct Programs {
    /// A cargo command that builds them, and may build others.
    pub(crate) build: Command,
    /// Which are run, by their package's folder in the workspace and their name.
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
    /// What the tests run on, said plainly: a stand-in is called one.
    pub(crate) device: &'static str,
    pub(crate) proves: &'static str,
    pub(crate) count: Count,
    /// Why the step cannot run on this machine and what to install, if so. May install it itself.
    pub(crate) ready: fn() -> Result<(), String>,
    pub(crate) tasks: fn(&Workspace) -> Result<Vec<Task>, String>,
}

/// The steps in the order of the summary, and in each lane the order they run in: what most likely
/// fails, and fails fast, comes first.
pub(crate) fn table() -> Vec<Step> {
    [
        host::steps(),
        cuda::steps(),
        python::steps(),
        checkers::steps(),
        vulkan::steps(),
        metal::steps(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

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

/// The steps of the parts named, all of them if none is; each once.
pub(crate) fn select<'a>(table: &'a [Step], names: &[&str]) -> Result<Vec<&'a Step>, String> {
    let parts = parts(table);
    if let Some(unknown) = names.iter().find(|name| !parts.contains(name)) {
        return Err(format!(
            "no part '{unknown}' here; there are: {} (all of them if none is named)",
            parts.join(", ")
        ));
    }
    let wanted = |step: &&Step| names.is_empty() || step.parts.iter().any(|p| names.contains(p));
    Ok(table.iter().filter(wanted).collect())
}

fn at_once() -> Result<(), String> {
    Ok(())
}

/// Lets `library` be found in `folder` under another name.
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
    // Where it is set, cargo does not look at RUSTFLAGS at all.
    command.env_remove("CARGO_ENCODED_RUSTFLAGS");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(steps: &[&Step]) -> Vec<&'static str> {
        steps.iter().map(|step| step.name).collect()
    }

    #[test]
    fn no_part_named_means_every_step() {
        let table = table();
        assert_eq!(select(&table, &[]).unwrap().len(), table.len());
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
        // They name rows, folders and entries of FENCEPOST_ALLOW_SKIP.
        let table = table();
        for (i, step) in table.iter().enumerate() {
            assert!(table[i + 1..].iter().all(|other| other.name != step.name));
        }
    }
}
