//! The Python package: its wheel, and its tests in an environment of their own under the target
//! folder.
//!
//! Everything is installed there. The machine's own Python stays as it is.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Count, Lane, Step, Task, cuda, host, link_as};
use crate::run::{Workspace, complain, plainly, say, shown};

const PARTS: &[&str] = &["python"];
const DEVICE: &str = "host, cuda (stand-in)";
const PACKAGE: &str = "crates/python";

pub(super) fn steps() -> Vec<Step> {
    vec![
        Step {
            name: "python",
            parts: PARTS,
            lane: Lane::Main,
            device: DEVICE,
            proves: "the Python package, as its wheel is installed, keeps its promises",
            count: Count::ClosingLine,
            ready: || ready().and_then(|()| cuda::stand_in_loads()),
            tasks: |w| {
                let environment = Environment::plain(w);
                let test = environment.pytest(w);
                Ok(environment.tested(w, test))
            },
        },
        Step {
            name: "python-free-threaded",
            parts: PARTS,
            lane: Lane::Main,
            device: DEVICE,
            proves: "the same on a free-threaded interpreter, with a wheel of its own",
            count: Count::ClosingLine,
            ready: || free_threaded_ready().and_then(|()| cuda::stand_in_loads()),
            tasks: |w| {
                let interpreter = free_threaded().ok_or("the free-threaded interpreter is gone")?;
                let environment = Environment::free_threaded(w, interpreter);
                let mut test = environment.pytest(w);
                test.args(["-k", "not the_stubs and not the_python_sources"]);
                Ok(environment.tested(w, test))
            },
        },
    ]
}

/// The feature with a class that only the tests need: it holds a stream back.
pub(super) const FOR_TESTS: &[&str] = &["--features", "fencepost-python/testing"];

/// The interpreter to build and test with: `FENCEPOST_PYTHON`, or the one in the path.
pub(super) fn interpreter() -> String {
    let default = if cfg!(windows) { "python" } else { "python3" };
    std::env::var("FENCEPOST_PYTHON").unwrap_or_else(|_| default.to_owned())
}

/// Whether there is a Python that can make environments.
pub(super) fn ready() -> Result<(), String> {
    let python = interpreter();
    let check = "import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 9))";
    match Command::new(&python).args(["-c", check]).output() {
        Ok(output) if output.status.success() => Ok(()),
        _ => Err(format!(
            "'{python}' is no CPython of 3.9 or later with venv; install one, or name it in \
             FENCEPOST_PYTHON"
        )),
    }
}

/// A free-threaded interpreter: `FENCEPOST_FREE_THREADED_PYTHON`, or the first in the path that is
/// one.
fn free_threaded() -> Option<String> {
    let named = std::env::var("FENCEPOST_FREE_THREADED_PYTHON").ok();
    let names = match named.filter(|name| !name.is_empty()) {
        Some(named) => vec![named],
        None => vec!["python3.15t".to_owned(), "python3.14t".to_owned()],
    };
    // PyO3 supports none before 3.14.
    let check = "import sys, sysconfig, venv, ensurepip; \
                 threaded = sysconfig.get_config_var('Py_GIL_DISABLED'); \
                 sys.exit(not threaded or sys.version_info < (3, 14))";
    names.into_iter().find(|python| {
        let output = Command::new(python).args(["-c", check]).output();
        output.is_ok_and(|output| output.status.success())
    })
}

/// Whether there is a free-threaded interpreter.
fn free_threaded_ready() -> Result<(), String> {
    match free_threaded() {
        Some(_) => Ok(()),
        None => Err(
            "no free-threaded CPython of 3.14 or later with venv; put python3.14t into the path, \
             or name one in FENCEPOST_FREE_THREADED_PYTHON"
                .to_owned(),
        ),
    }
}

/// The interpreter of an environment.
pub(super) fn inside(environment: &Path) -> PathBuf {
    let bin = if cfg!(windows) { "Scripts" } else { "bin" };
    environment.join(bin).join("python")
}

/// An environment under the target folder, and the wheel for its interpreter.
struct Environment {
    interpreter: String,
    folder: PathBuf,
    /// Packages that are installed besides this one.
    requirements: Vec<String>,
    /// Cargo's arguments for features.
    features: &'static [&'static str],
}

impl Environment {
    fn plain(w: &Workspace) -> Environment {
        Environment {
            interpreter: interpreter(),
            folder: w.target.join("python"),
            requirements: vec![
                "--requirement".to_owned(),
                format!("{PACKAGE}/requirements-test.txt"),
            ],
            features: &[],
        }
    }

    /// Types and style are checked in the plain environment only.
    fn free_threaded(w: &Workspace, interpreter: String) -> Environment {
        Environment {
            interpreter,
            folder: w.target.join("python-free-threaded"),
            requirements: ["maturin>=1.16,<2", "pytest>=8", "typing_extensions>=4"]
                .map(str::to_owned)
                .to_vec(),
            // There is no stable ABI for it.
            features: &["--no-default-features"],
        }
    }

    /// The environment's own interpreter.
    fn inside(&self) -> PathBuf {
        inside(&self.folder.join("venv"))
    }

    fn module(&self, w: &Workspace, module: &str, args: &[&str]) -> Command {
        let mut command = w.command(self.inside());
        command.args(["-m", module]).args(args);
        command
    }

    /// Makes the environment, or brings it up to date.
    fn make(&self, w: &Workspace) -> Vec<Command> {
        let mut venv = w.command(&self.interpreter);
        venv.args(["-m", "venv"]).arg(self.folder.join("venv"));
        let quiet = ["install", "--quiet", "--disable-pip-version-check"];
        let mut install = self.module(w, "pip", &quiet);
        install.args(&self.requirements);
        vec![venv, install]
    }

    fn build(&self, w: &Workspace, profile: &str, features: &[&str], out: &Path) -> Command {
        let mut command = w.building(self.inside());
        command.args(["-m", "maturin", "build", "--locked", "--quiet"]);
        command.args(self.features).args(features);
        command.args(["--profile", profile, "--manifest-path"]);
        command.arg(format!("{PACKAGE}/Cargo.toml"));
        command.arg("--interpreter").arg(self.inside());
        command.arg("--out").arg(out);
        command
    }

    /// Builds the wheel and installs it.
    fn install(&self, w: &Workspace) -> Vec<Command> {
        let wheels = self.folder.join("wheels");
        let again = [
            "install",
            "--quiet",
            "--no-index",
            "--no-deps",
            "--force-reinstall",
            "--disable-pip-version-check",
            "--find-links",
        ];
        let mut install = self.module(w, "pip", &again);
        install.arg(&wheels).arg("fencepost");
        vec![self.build(w, "dev", FOR_TESTS, &wheels), install]
    }

    /// Builds a wheel, installs it, and runs `test` on what is installed, on the stand-in for CUDA.
    fn tested(&self, w: &Workspace, mut test: Command) -> Vec<Task> {
        let mut commands = self.make(w);
        commands.push(host::everything(w));
        commands.extend(put_watch_library(w, "debug"));
        commands.extend(self.install(w));
        cuda::on_stand_in(w, &mut test);
        let builds = commands.into_iter().map(Task::Build);
        builds.chain([Task::Test(test)]).collect()
    }

    fn pytest(&self, w: &Workspace) -> Command {
        let mut test = self.module(w, "pytest", &["--quiet"]);
        test.current_dir(w.root.join(PACKAGE));
        test
    }
}

/// Puts what `fencepost watch` loads into programs, as it was built, where maturin looks for it.
/// Cargo builds it for Linux only.
fn put_watch_library(w: &Workspace, profile: &str) -> Option<Command> {
    const LIBRARY: &str = "libfencepost_watch.so";

    cfg!(target_os = "linux").then(|| {
        // It replaces the old file, which a process may have loaded.
        let mut command = w.command("install");
        command.arg("-D").arg(w.target.join(profile).join(LIBRARY));
        command.arg(format!("{PACKAGE}/python/fencepost/lib/{LIBRARY}"));
        command
    })
}

/// Builds the wheel that users get.
pub(crate) fn wheel(w: &Workspace) -> bool {
    if let Err(reason) = ready() {
        complain(&reason);
        return false;
    }
    let out = w.target.join("wheels");
    let environment = Environment::plain(w);
    let mut commands = environment.make(w);
    if let Some(put) = put_watch_library(w, "wheel") {
        let mut build = w.cargo("build --package fencepost-watch --profile wheel --locked");
        build.env("CARGO_PROFILE_WHEEL_STRIP", "symbols");
        commands.extend([build, put]);
    }
    commands.push(environment.build(w, "wheel", &[], &out));
    for command in commands {
        say(&format!("$ {}", shown(&command)));
        if !plainly(command) {
            return false;
        }
    }
    say(&format!("the wheel is in {}", out.display()));
    true
}

/// Assembles the package from what is built on the stand-in for Metal, in `built`, and runs the
/// tests that need that.
pub(super) fn mps_tests(w: &Workspace, built: &Path) -> Result<Vec<Task>, String> {
    let environment = Environment::plain(w);

    // The package as it is installed, in another folder.
    let folder = environment.folder.join("metal-sim");
    let package = folder.join("fencepost");
    let sources = w.root.join(PACKAGE).join("python/fencepost");
    for source in python_files(&sources)? {
        link_as(&sources.join(&source), &package, &source)?;
    }
    link_as(&built.join("lib_C.so"), &package, "_C.abi3.so")?;

    let mut test = environment.pytest(w);
    test.args(
        [
            "mps",
            "trace",
            "torch_mps",
            "torch_mps_streams",
            "torch_files",
        ]
        .map(|name| format!("tests/test_{name}.py")),
    );
    // Nothing stands in for NVIDIA's driver here, and the step `python` has these tests.
    test.args(["-k", "not cuda:0"]);
    test.env("PYTHONPATH", folder);
    test.env("FENCEPOST_DEVICE", "metal");
    // PyTorch itself adds handlers while an encoder is open.
    test.env("FENCEPOST_SIM_METAL_HANDLERS_BESIDE_ENCODERS", "1");
    test.env(
        "FENCEPOST_TORCH_LIBRARY",
        built.join("examples/libtorch_mps_symbols.so"),
    );
    let builds = environment.make(w).into_iter().map(Task::Build);
    Ok(builds.chain([Task::Test(test)]).collect())
}

/// Runs the tests that need pyopencl, in the plain environment; `prepare` names the drivers.
pub(super) fn opencl_tests(w: &Workspace, prepare: impl FnOnce(&mut Command)) -> Vec<Task> {
    let mut environment = Environment::plain(w);
    environment.requirements.push("pyopencl>=2026.1".to_owned());
    let mut test = environment.pytest(w);
    test.arg("tests/test_opencl.py");
    test.env("FENCEPOST_TEST_OPENCL", "1");
    prepare(&mut test);
    environment.tested(w, test)
}

/// The names of the Python modules in a folder.
fn python_files(folder: &Path) -> Result<Vec<String>, String> {
    let entries = std::fs::read_dir(folder);
    let entries = entries.map_err(|error| format!("cannot list {}: {error}", folder.display()))?;
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    Ok(names.filter(|name| name.ends_with(".py")).collect())
}
