//! The Python package: its wheel, and its tests in an environment of their own under the target folder.
//!
//! Everything that is installed goes there; nothing of the machine's Python is touched.

use std::path::PathBuf;
use std::process::Command;

use crate::run::{Workspace, complain, plainly, say, shown};

const PACKAGE: &str = "crates/fencepost-python";

/// The interpreter to build and test with: `FENCEPOST_PYTHON`, or the one in the path.
fn interpreter() -> String {
    let default = if cfg!(windows) { "python" } else { "python3" };
    std::env::var("FENCEPOST_PYTHON").unwrap_or_else(|_| default.to_owned())
}

/// Whether there is a Python that can make environments.
pub(crate) fn ready() -> Result<(), String> {
    let python = interpreter();
    let check = "import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 9))";
    match Command::new(&python).args(["-c", check]).output() {
        Ok(output) if output.status.success() => Ok(()),
        _ => Err(format!(
            "'{python}' is no CPython of 3.9 or later with venv; install one, or name it in FENCEPOST_PYTHON"
        )),
    }
}

fn folder(w: &Workspace) -> PathBuf {
    w.target.join("python")
}

/// The environment's own interpreter.
fn inside(w: &Workspace) -> PathBuf {
    let bin = if cfg!(windows) { "Scripts" } else { "bin" };
    folder(w).join("venv").join(bin).join("python")
}

fn module(w: &Workspace, module: &str, args: &[&str]) -> Command {
    let mut command = w.command(inside(w));
    command.args(["-m", module]).args(args);
    command
}

/// Makes the environment, or brings it up to date.
fn environment(w: &Workspace) -> Vec<Command> {
    let mut venv = w.command(interpreter());
    venv.args(["-m", "venv"]).arg(folder(w).join("venv"));
    let requirements = format!("{PACKAGE}/requirements-test.txt");
    let quiet = ["install", "--quiet", "--disable-pip-version-check"];
    let mut install = module(w, "pip", &quiet);
    install.args(["--requirement", &requirements]);
    vec![venv, install]
}

fn build(w: &Workspace, profile: &str, out: PathBuf) -> Command {
    let mut command = module(w, "maturin", &["build", "--locked", "--quiet"]);
    command.args(["--profile", profile, "--manifest-path"]);
    command.arg(format!("{PACKAGE}/Cargo.toml"));
    command.arg("--interpreter").arg(inside(w));
    command.arg("--out").arg(out);
    command
}

/// Builds the wheel that users get.
pub(crate) fn wheel(w: &Workspace) -> bool {
    if let Err(reason) = ready() {
        complain(&reason);
        return false;
    }
    let out = w.target.join("wheels");
    let mut commands = environment(w);
    commands.push(build(w, "release", out.clone()));
    for command in commands {
        say(&format!("$ {}", shown(&command)));
        if !plainly(command) {
            return false;
        }
    }
    say(&format!("the wheel is in {}", out.display()));
    true
}

/// Builds a wheel, installs it in the environment, and runs the tests on what is installed.
pub(crate) fn tests(w: &Workspace) -> Vec<Command> {
    let mut commands = environment(w);
    let wheels = folder(w).join("wheels");
    commands.push(build(w, "dev", wheels.clone()));
    let again = [
        "install",
        "--quiet",
        "--no-index",
        "--no-deps",
        "--force-reinstall",
        "--disable-pip-version-check",
        "--find-links",
    ];
    let mut install = module(w, "pip", &again);
    install.arg(wheels).arg("fencepost");
    commands.push(install);

    // What stands in for a driver, and for the library that PyTorch brings on a Mac.
    commands.push(w.cargo("build --package fencepost-sim-cuda --locked"));
    commands.push(w.cargo("build --package fencepost-python --examples --locked"));

    let mut test = module(w, "pytest", &["--quiet"]);
    test.current_dir(w.root.join(PACKAGE));
    let symbols = format!(
        "{}torch_mps_symbols{}",
        std::env::consts::DLL_PREFIX,
        std::env::consts::DLL_SUFFIX
    );
    let examples = w.target.join("debug").join("examples");
    test.env("FENCEPOST_TORCH_SYMBOLS", examples.join(symbols));
    commands.push(test);
    commands
}
