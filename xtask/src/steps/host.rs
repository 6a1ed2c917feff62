//! Steps that need no device but the host, and no tool but Rust.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::Command;

use super::{Count, Lane, Programs, Step, Task, at_once};
use crate::run::Workspace;

const PARTS: &[&str] = &["host"];
const PARTS_AND_QUICK: &[&str] = &["host", "quick"];

/// Every set of the library's features that must build by itself.
pub(crate) const FEATURE_SETS: &[&str] = &[
    "",
    "conformance",
    "cuda",
    "conformance,cuda",
    "vulkan",
    "conformance,vulkan",
    "opencl",
    "conformance,opencl",
    "wgpu30",
    "conformance,wgpu30",
    "tracing",
    "trace",
    "tracing-layer",
];

pub(super) fn steps() -> Vec<Step> {
    vec![
        Step {
            name: "build",
            parts: PARTS_AND_QUICK,
            lane: Lane::Main,
            device: "-",
            proves: "everything in the workspace builds",
            count: Count::Nothing,
            ready: at_once,
            tasks: |w| Ok(vec![Task::Build(everything(w))]),
        },
        Step {
            name: "tests",
            parts: PARTS_AND_QUICK,
            lane: Lane::Main,
            device: "host",
            proves: "unit and integration tests of the library and the command line",
            count: Count::Libtest,
            ready: at_once,
            tasks: |w| {
                // The library alone, without the backends that the command line turns on: their
                // tests have parts of their own.
                let library = w.cargo("test --package fencepost --tests --locked --no-fail-fast");
                let rest = Programs {
                    build: everything(w),
                    // Those of `fencepost watch` are in the steps of the stand-in for CUDA and of
                    // Vulkan's drivers, and that of OpenCL in one of its driver.
                    chosen: |folder, name| {
                        let elsewhere = ["watch", "watch_vulkan", "opencl"].contains(&name);
                        folder.starts_with("crates") && !is_library(folder) && !elsewhere
                    },
                    prepare: |_, _| (),
                };
                Ok(vec![Task::Test(library), Task::Programs(rest)])
            },
        },
        Step {
            name: "logic",
            parts: PARTS_AND_QUICK,
            lane: Lane::Main,
            device: "none (logic)",
            proves: "tests of the tools the other tests rest on",
            count: Count::Libtest,
            ready: at_once,
            tasks: |w| {
                // They open no device, so they have a row of their own.
                let tools = Programs {
                    build: everything(w),
                    chosen: |folder, _| !folder.starts_with("crates"),
                    prepare: |_, _| (),
                };
                Ok(vec![Task::Programs(tools)])
            },
        },
        Step {
            name: "doctests",
            parts: PARTS,
            lane: Lane::Main,
            device: "host",
            proves: "the examples in the documentation run",
            count: Count::Libtest,
            ready: at_once,
            tasks: |w| {
                let test = w.cargo("test --workspace --doc --locked --no-fail-fast");
                Ok(vec![Task::Test(test)])
            },
        },
        Step {
            name: "examples",
            parts: PARTS,
            lane: Lane::Main,
            device: "host",
            proves: "each program in examples/ runs and exits with 0",
            count: Count::EachTest,
            ready: at_once,
            tasks: |w| {
                let build = Task::Build(everything(w));
                Ok(std::iter::once(build).chain(examples(w)?).collect())
            },
        },
        Step {
            name: "check",
            parts: PARTS,
            lane: Lane::Beside,
            device: "host",
            proves: "the conformance suite, as a user runs it",
            count: Count::ClosingLine,
            ready: at_once,
            tasks: |w| {
                let check = w.cargo("run --release --locked -- check --device host");
                Ok(vec![Task::Test(check)])
            },
        },
        Step {
            name: "features",
            parts: PARTS,
            lane: Lane::Main,
            device: "-",
            proves: "the library builds alone with each set of features",
            count: Count::Nothing,
            ready: at_once,
            tasks: |w| {
                let check = |features: &&str| Task::Build(library_with(w, "check", features));
                Ok(FEATURE_SETS.iter().map(check).collect())
            },
        },
        Step {
            name: "docs",
            parts: PARTS,
            lane: Lane::Main,
            device: "-",
            proves: "the documentation builds without a warning",
            count: Count::Nothing,
            ready: at_once,
            tasks: |w| {
                // Libraries only: the binary of the command line has the library's name, and its
                // pages would replace the library's.
                let mut command = w.cargo("doc --workspace --lib --no-deps --locked");
                command.env("RUSTDOCFLAGS", "-Dwarnings");
                Ok(vec![Task::Build(command)])
            },
        },
    ]
}

/// Builds the workspace. All steps share what this command builds. Cargo unites features over the
/// packages that it is asked for, so any other choice of packages would build most dependencies
/// once more.
pub(super) fn everything(w: &Workspace) -> Command {
    w.cargo("build --workspace --all-targets --locked")
}

/// Whether `folder` is the folder of the package `fencepost`.
pub(super) fn is_library(folder: &Path) -> bool {
    folder == Path::new("crates/fencepost")
}

/// An example that [`everything`] built.
pub(super) fn example(w: &Workspace, name: &str) -> Command {
    let built = w.target.join("debug/examples");
    w.command(built.join(format!("{name}{}", std::env::consts::EXE_SUFFIX)))
}

/// A cargo command for the library alone.
pub(crate) fn library_with(w: &Workspace, subcommand: &str, features: &str) -> Command {
    let mut command = w.cargo(subcommand);
    command.args([
        "--package",
        "fencepost",
        "--locked",
        "--no-default-features",
    ]);
    if !features.is_empty() {
        command.args(["--features", features]);
    }
    command
}

/// The examples for every machine.
fn examples(w: &Workspace) -> Result<Vec<Task>, String> {
    let names = target_names(&w.root.join("crates/fencepost/examples"))?;
    // Examples of a backend are named after it, and run in a step that has its device.
    let everywhere = |name: &&String| {
        !["cuda_", "metal_", "opencl_", "vulkan_", "wgpu_"]
            .iter()
            .any(|backend| name.starts_with(backend))
    };
    Ok(names
        .iter()
        .filter(everywhere)
        .map(|name| Task::Test(example(w, name)))
        .collect())
}

/// The names of the examples or tests in a folder of them.
pub(super) fn target_names(folder: &Path) -> Result<Vec<String>, String> {
    let unreadable = |error| format!("cannot read {}: {error}", folder.display());
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        // Both forms that cargo finds by itself: NAME.rs and NAME/main.rs.
        if path.extension() == Some(OsStr::new("rs")) || path.join("main.rs").is_file() {
            names.extend(path.file_stem().map(|s| s.to_string_lossy().into_owned()));
        }
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From the root, cargo finds examples of the packages in `default-members` only.
    #[test]
    fn the_head_of_each_example_has_a_command_that_runs_from_the_root() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let folder = root.join("crates/fencepost/examples");
        for name in target_names(&folder).unwrap() {
            let text = fs::read_to_string(folder.join(format!("{name}.rs"))).unwrap();
            let head = text.lines().take_while(|line| line.starts_with("//!"));
            let feature = ["cuda", "opencl", "vulkan"]
                .into_iter()
                .find(|backend| name.starts_with(backend));
            let features = feature.map_or(String::new(), |name| format!("--features {name} "));
            // One that needs other features names those in front.
            let end = format!("{features}--example {name}");
            let found = head
                .filter(|line| line.contains("cargo run ") && line.contains(" -p fencepost "))
                .any(|line| line.contains(&end));
            assert!(found, "no command with \"{end}\" at the head of {name}.rs");
        }
    }

    #[test]
    fn both_forms_of_target_are_found() {
        let folder = std::env::temp_dir().join(format!("xtask-examples-{}", std::process::id()));
        fs::create_dir_all(folder.join("large")).unwrap();
        fs::create_dir_all(folder.join("data")).unwrap();
        fs::write(folder.join("large/main.rs"), "").unwrap();
        fs::write(folder.join("small.rs"), "").unwrap();
        fs::write(folder.join("notes.txt"), "").unwrap();
        let names = target_names(&folder);
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(names.unwrap(), ["large", "small"]);
        assert!(target_names(&folder).is_err());
    }
}
