//! Metal: on the stand-in for it, since CI has no Mac, and checked for Apple's targets.

use std::process::Command;

use crate::packages;
use crate::python;
use crate::run::Workspace;
use crate::steps::{Count, Step, add_flags};

const PARTS: &[&str] = &["metal"];

/// What users on a Mac build.
const FOR_APPLE: &[&str] = &["fencepost", "fencepost-cli", "fencepost-python"];
const APPLE_TARGETS: &[&str] = &["aarch64-apple-darwin", "x86_64-apple-darwin"];
/// Debian's compiler, in a version of its own, its sources, which hold the standard library, and
/// its lints.
const DEBIAN: &[&str] = &["cargo-web", "rustc-web", "rust-web-src", "rust-web-clippy"];

pub(crate) fn steps() -> Vec<Step> {
    vec![
        Step {
            name: "metal-logic",
            parts: PARTS,
            device: "none (logic)",
            proves: "tests of the stand-in for Metal, through the bindings that the backend uses",
            count: Count::Libtest,
            ready: linux,
            commands: |w| {
                let mut test =
                    w.cargo("test --package fencepost-sim-metal --tests --locked --no-fail-fast");
                simulated(w, &mut test);
                Ok(vec![wrapper(w), test])
            },
        },
        Step {
            name: "metal",
            parts: PARTS,
            device: "metal (stand-in)",
            proves: "the Metal backend's conformance, mutants, model and faults, on a stand-in for Metal",
            count: Count::Libtest,
            ready: linux,
            commands: |w| {
                let mut test = w.cargo(
                    "test --package fencepost --test metal --test metal_model --test metal_faults --locked --no-fail-fast",
                );
                simulated(w, &mut test);
                Ok(vec![wrapper(w), test])
            },
        },
        Step {
            name: "metal-example",
            parts: PARTS,
            device: "metal (stand-in)",
            proves: "the example with the caller's own queue and command buffers",
            count: Count::EachCommand,
            ready: linux,
            commands: |w| {
                let mut example =
                    w.cargo("run --package fencepost --locked --example metal_command_buffer");
                simulated(w, &mut example);
                Ok(vec![example])
            },
        },
        Step {
            name: "python-mps",
            parts: &["metal", "python"],
            device: "metal (stand-in)",
            proves: "fencepost.mps, and PyTorch's own MPS stream, for which a library stands in",
            count: Count::ClosingLine,
            ready: || linux().and_then(|()| python::ready()),
            commands: |w| {
                let tests = python::mps_tests(w, |build| simulated(w, build))?;
                Ok(std::iter::once(wrapper(w)).chain(tests).collect())
            },
        },
        Step {
            name: "apple",
            parts: PARTS,
            device: "-",
            proves: "the library, the command line and the Python module pass the lints for Apple's targets",
            count: Count::Nothing,
            ready: || match has_apple_targets() {
                true => Ok(()),
                false => packages::installed(DEBIAN),
            },
            commands: |w| {
                Ok(APPLE_TARGETS
                    .iter()
                    .map(|target| for_apple(w, target))
                    .collect())
            },
        },
    ]
}

/// Whether rustup has the standard library for them.
fn has_apple_targets() -> bool {
    let list = Command::new("rustup")
        .args(["target", "list", "--installed"])
        .output();
    list.is_ok_and(|list| {
        let installed = String::from_utf8_lossy(&list.stdout).into_owned();
        APPLE_TARGETS
            .iter()
            .all(|target| installed.lines().any(|line| line == *target))
    })
}

fn for_apple(w: &Workspace, target: &str) -> Command {
    let mut command = match has_apple_targets() {
        true => w.cargo("clippy"),
        false => with_debians_compiler(w),
    };
    command.args(["--locked", "--target", target, "--target-dir"]);
    command.arg(w.target.join("apple"));
    command.args(FOR_APPLE.iter().flat_map(|package| ["--package", package]));
    // The stable ABI needs no interpreter to check against.
    command.env("PYO3_NO_PYTHON", "1");
    command.args(["--", "-D", "warnings"]);
    command
}

/// Debian packages no standard library for Apple's targets, but its sources, to build it from.
fn with_debians_compiler(w: &Workspace) -> Command {
    // Not through rustup's cargo, which would find rustup's clippy.
    let mut command = w.command("/usr/bin/cargo-clippy");
    command.args(["clippy", "-Zbuild-std=std"]);
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

/// What lets objc2's crates be linked off Apple.
fn wrapper(w: &Workspace) -> Command {
    w.cargo("build --package fencepost-sim-metal --bin metal-sim-rustc --locked")
}

/// Has a command build with the stand-in linked in place of Apple's frameworks.
fn simulated(w: &Workspace, command: &mut Command) {
    command.arg("--target-dir").arg(w.target.join("metal-sim"));
    command.env("RUSTC_WRAPPER", w.target.join("debug/metal-sim-rustc"));
    add_flags(command, "RUSTFLAGS", "--cfg metal_sim");
}

fn linux() -> Result<(), String> {
    match cfg!(target_os = "linux") {
        true => Ok(()),
        false => Err("the stand-in for Metal needs Linux".to_owned()),
    }
}
