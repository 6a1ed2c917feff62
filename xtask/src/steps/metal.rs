//! Metal: run on a stand-in, since CI has no Mac, and linted for Apple's targets.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::host::{is_library, target_names};
use super::{Count, Lane, Programs, Step, Task, add_flags, python};
use crate::packages;
use crate::run::Workspace;
use crate::rustup::{bring_targets, has_targets, host_triple};

const PARTS: &[&str] = &["metal"];
const STAND_IN: &str = "metal (stand-in)";
/// Its package, which has all its tests in `tests/`.
const STAND_IN_FOLDER: &str = "standins/metal";

/// What is built on the stand-in: these packages' libraries, the tests of the stand-in itself, and
/// these tests and examples.
const ON_STAND_IN: &[&str] = &["fencepost-sim-metal", "fencepost", "fencepost-python"];
const SUITES: &[&str] = &["metal", "metal_model", "metal_faults"];
const EXAMPLES: &[&str] = &["metal_command_buffer", "torch_mps_symbols"];

/// What users on a Mac build.
const FOR_APPLE: &[&str] = &["fencepost", "fencepost-cli", "fencepost-python"];
const APPLE_TARGETS: &[&str] = &["aarch64-apple-darwin", "x86_64-apple-darwin"];
/// Debian's newest compiler, the sources of its standard library, and its lints.
const DEBIAN: &[&str] = &["cargo-web", "rustc-web", "rust-web-src", "rust-web-clippy"];

pub(super) fn steps() -> Vec<Step> {
    vec![
        Step {
            name: "metal-logic",
            parts: PARTS,
            lane: Lane::Main,
            device: "none (logic)",
            proves: "tests of the stand-in for Metal, through the bindings that the backend uses",
            count: Count::Libtest,
            ready: linux,
            tasks: |w| {
                let tests = Programs {
                    build: on_stand_in(w)?,
                    chosen: |folder, _| folder == Path::new(STAND_IN_FOLDER),
                    prepare: |_, _| (),
                };
                Ok(vec![Task::Build(wrapper(w)), Task::Programs(tests)])
            },
        },
        Step {
            name: "metal",
            parts: PARTS,
            lane: Lane::Main,
            device: STAND_IN,
            proves: "the Metal backend's conformance, mutants, model, faults and examples in the \
                     documentation, on a stand-in for Metal",
            count: Count::Libtest,
            ready: linux,
            tasks: |w| {
                let tests = Programs {
                    build: on_stand_in(w)?,
                    chosen: |folder, name| is_library(folder) && SUITES.contains(&name),
                    prepare: |_, _| (),
                };
                Ok(vec![
                    Task::Build(wrapper(w)),
                    Task::Programs(tests),
                    Task::Test(doctests(w)?),
                ])
            },
        },
        Step {
            name: "metal-example",
            parts: PARTS,
            lane: Lane::Main,
            device: STAND_IN,
            proves: "the example with the caller's own queue and command buffers",
            count: Count::EachTest,
            ready: linux,
            tasks: |w| {
                let example = w.command(built(w)?.join("examples/metal_command_buffer"));
                Ok(vec![
                    Task::Build(wrapper(w)),
                    Task::Build(on_stand_in(w)?),
                    Task::Test(example),
                ])
            },
        },
        Step {
            name: "python-mps",
            parts: &["metal", "python"],
            lane: Lane::Main,
            device: STAND_IN,
            proves: "fencepost.mps, and PyTorch's own MPS stream, for which a library stands in",
            count: Count::ClosingLine,
            ready: || linux().and_then(|()| python::ready()),
            tasks: |w| {
                let build = [Task::Build(wrapper(w)), Task::Build(on_stand_in(w)?)];
                let tests = python::mps_tests(w, &built(w)?)?;
                Ok(build.into_iter().chain(tests).collect())
            },
        },
        Step {
            name: "apple",
            parts: PARTS,
            lane: Lane::Main,
            device: "-",
            proves: "the library, the command line and the Python module pass the lints for \
                     Apple's targets",
            count: Count::Nothing,
            ready: apple_ready,
            tasks: |w| {
                let lint = |target: &&str| Task::Build(for_apple(w, target));
                Ok(APPLE_TARGETS.iter().map(lint).collect())
            },
        },
    ]
}

/// Builds everything that the stand-in is linked into, in one way for all steps: see
/// [`everything`](super::host::everything).
fn on_stand_in(w: &Workspace) -> Result<Command, String> {
    let mut command = with_stand_in(w, "build --locked --lib")?;
    for test in target_names(&w.root.join(STAND_IN_FOLDER).join("tests"))? {
        command.args(["--test", &test]);
    }
    command.args(SUITES.iter().flat_map(|test| ["--test", test]));
    command.args(EXAMPLES.iter().flat_map(|example| ["--example", example]));
    Ok(command)
}

/// The examples in the documentation of the stand-in, which run, and of the backend, which are only
/// compiled. Others of the library run in a step of their own: here nothing links them to the
/// stand-in.
fn doctests(w: &Workspace) -> Result<Command, String> {
    let mut command = with_stand_in(w, "test --locked --no-fail-fast --doc")?;
    command.arg("metal");
    add_flags(&mut command, "RUSTDOCFLAGS", "--cfg metal_sim");
    Ok(command)
}

/// A cargo command for the packages that the stand-in is linked into, with the same features each
/// time: other features would build them anew.
fn with_stand_in(w: &Workspace, args: &str) -> Result<Command, String> {
    // With a target named, build scripts and macros are built without the flags, and the other
    // steps' builds of them are used again.
    let mut command = w.cargo(args);
    command.args(["--target", &host_triple()?]);
    command.args(
        ON_STAND_IN
            .iter()
            .flat_map(|package| ["--package", package]),
    );
    command.args(python::FOR_TESTS);
    link_stand_in(w, &mut command, "");
    Ok(command)
}

/// Has a build by cargo link the stand-in, with these flags of rustc too. [`wrapper`] is built
/// before.
pub(super) fn link_stand_in(w: &Workspace, command: &mut Command, flags: &str) {
    command.env("RUSTC_WRAPPER", w.target.join("debug/metal-sim-rustc"));
    add_flags(command, "RUSTFLAGS", &format!("--cfg metal_sim {flags}"));
}

/// With rustup's targets, or else with Debian's compiler.
fn apple_ready() -> Result<(), String> {
    if bring_targets(APPLE_TARGETS) {
        return Ok(());
    }
    packages::installed(DEBIAN).map_err(|why| {
        let add = format!("rustup target add {}", APPLE_TARGETS.join(" "));
        format!("Apple's targets are not installed: {add}; or Debian's compiler: {why}")
    })
}

fn for_apple(w: &Workspace, target: &str) -> Command {
    let mut command = match has_targets(APPLE_TARGETS) {
        true => w.cargo("clippy"),
        false => with_debians_compiler(w),
    };
    command.args(["--locked", "--target", target]);
    command.args(FOR_APPLE.iter().flat_map(|package| ["--package", package]));
    // One target suffices for what the other steps leave out: it takes as long as all the rest.
    if target.starts_with("aarch64") {
        command.args(["--features", super::wgpu::FEATURES]);
    }
    // The stable ABI needs no interpreter to check against.
    command.env("PYO3_NO_PYTHON", "1");
    command.args(["--", "-D", "warnings"]);
    command
}

/// Debian packages no standard library for Apple's targets, but the sources to build it from.
fn with_debians_compiler(w: &Workspace) -> Command {
    // rustup's cargo would find rustup's clippy.
    let mut command = w.command("/usr/bin/cargo-clippy");
    command.args(["clippy", "-Zbuild-std=std", "--target-dir"]);
    command.arg(w.target.join("apple"));
    command
        .env("CARGO", "/usr/bin/cargo")
        .env("RUSTC", "/usr/bin/rustc");
    command.env("RUSTC_BOOTSTRAP", "1");
    for variable in [
        "RUSTUP_TOOLCHAIN",
        "RUSTC_WRAPPER",
        "RUSTC_WORKSPACE_WRAPPER",
        "RUSTFLAGS",
    ] {
        command.env_remove(variable);
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let first = std::iter::once("/usr/bin".into()).chain(std::env::split_paths(&path));
    if let Ok(path) = std::env::join_paths(first) {
        command.env("PATH", path);
    }
    command
}

/// Builds the wrapper for rustc that lets objc2's crates be linked off Apple.
pub(super) fn wrapper(w: &Workspace) -> Command {
    w.cargo("build --package fencepost-sim-metal --bin metal-sim-rustc --locked")
}

/// Where [`on_stand_in`] leaves what it builds.
fn built(w: &Workspace) -> Result<PathBuf, String> {
    Ok(w.target.join(host_triple()?).join("debug"))
}

fn linux() -> Result<(), String> {
    match cfg!(target_os = "linux") {
        true => Ok(()),
        false => Err("the stand-in for Metal needs Linux".to_owned()),
    }
}
