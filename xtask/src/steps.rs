//! What there is to run: the table of steps.
//!
//! A part (`host`, `quick`, …) exists because a step here names it. To add one, add its steps.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::metal;
use crate::python;
use crate::run::{Workspace, say, shown};
use crate::vulkan;

/// How a step's tests are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Count {
    /// It has none: it either works or counts as one failure.
    Nothing,
    /// The `test result:` lines that cargo's test binaries print, summed.
    Libtest,
    /// The last line reading `N passed, N failed, N skipped`.
    ClosingLine,
    /// Each command is one test, passed if it exits with 0.
    EachCommand,
}

/// One thing `cargo xtask test` does, and one row of its summary.
pub(crate) struct Step {
    /// Also what `FENCEPOST_ALLOW_SKIP` calls it.
    pub(crate) name: &'static str,
    pub(crate) parts: &'static [&'static str],
    /// What the tests run on, said plainly: a stand-in is called one.
    pub(crate) device: &'static str,
    pub(crate) proves: &'static str,
    pub(crate) count: Count,
    /// Why the step cannot run on this machine and what to install, if so. May install it itself.
    pub(crate) ready: fn() -> Result<(), String>,
    pub(crate) commands: fn(&Workspace) -> Result<Vec<Command>, String>,
}

const HOST: &[&str] = &["host"];
const HOST_AND_QUICK: &[&str] = &["host", "quick"];

/// Every set of the library's features that must build by itself.
const FEATURE_SETS: &[&str] = &[
    "",
    "conformance",
    "cuda",
    "conformance,cuda",
    "vulkan",
    "conformance,vulkan",
];

/// Packages whose tests open no device. They get a row of their own, so that no device is credited
/// with them.
const LOGIC: &[&str] = &[
    "fencepost-sim",
    "fencepost-sim-cuda",
    "fencepost-sim-metal",
    "fencepost-sim-vulkan",
    "xtask",
];

const CUDA: &[&str] = &["cuda"];
const CUDA_STAND_IN: &str = "cuda (stand-in)";

const PYTHON: &[&str] = &["python"];

const NIGHTLY: &str = "nightly";

/// The steps in the order they run: what most likely fails, and fails fast, comes first.
pub(crate) fn table() -> Vec<Step> {
    let mut table = on_this_machine();
    table.extend(vulkan::steps());
    table.extend(metal::steps());
    table
}

fn on_this_machine() -> Vec<Step> {
    vec![
        Step {
            name: "build",
            parts: HOST_AND_QUICK,
            device: "-",
            proves: "everything in the workspace builds",
            count: Count::Nothing,
            ready: at_once,
            commands: |w| Ok(vec![w.cargo("build --workspace --all-targets --locked")]),
        },
        Step {
            name: "tests",
            parts: HOST_AND_QUICK,
            device: "host",
            proves: "unit and integration tests of the library and the command line",
            count: Count::Libtest,
            ready: at_once,
            commands: |w| {
                // The library alone, without the backends that the command line turns on: their
                // tests have parts of their own.
                let library = w.cargo("test --package fencepost --tests --locked --no-fail-fast");
                let mut rest = w.cargo("test --workspace --tests --locked --no-fail-fast");
                for package in ["fencepost"].iter().chain(LOGIC) {
                    rest.args(["--exclude", package]);
                }
                Ok(vec![library, rest])
            },
        },
        Step {
            name: "logic",
            parts: HOST_AND_QUICK,
            device: "none (logic)",
            proves: "tests of the tools the other tests rest on",
            count: Count::Libtest,
            ready: at_once,
            commands: |w| {
                let mut command = w.cargo("test --tests --locked --no-fail-fast");
                for package in LOGIC {
                    command.args(["--package", package]);
                }
                Ok(vec![command])
            },
        },
        Step {
            name: "doctests",
            parts: HOST,
            device: "host",
            proves: "the examples in the documentation run",
            count: Count::Libtest,
            ready: at_once,
            commands: |w| {
                Ok(vec![
                    w.cargo("test --workspace --doc --locked --no-fail-fast"),
                ])
            },
        },
        Step {
            name: "examples",
            parts: HOST,
            device: "host",
            proves: "each program in examples/ runs and exits with 0",
            count: Count::EachCommand,
            ready: at_once,
            commands: examples,
        },
        Step {
            name: "check",
            parts: HOST,
            device: "host",
            proves: "the conformance suite, as a user runs it",
            count: Count::ClosingLine,
            ready: at_once,
            commands: |w| {
                Ok(vec![
                    w.cargo("run --release --locked -- check --device host"),
                ])
            },
        },
        Step {
            name: "cuda",
            parts: CUDA,
            device: CUDA_STAND_IN,
            proves: "the CUDA backend's conformance, mutants, model and faults, on a stand-in for the driver",
            count: Count::Libtest,
            ready: stand_ins_load,
            commands: |w| {
                let mut test = w.cargo(
                    "test --package fencepost --features cuda --test cuda --test cuda_model --test cuda_faults \
                     --locked --no-fail-fast",
                );
                on_cuda_stand_in(w, &mut test);
                let build = w.cargo("build --package fencepost-sim-cuda --locked");
                Ok(vec![build, test])
            },
        },
        Step {
            name: "cuda-run",
            parts: CUDA,
            device: CUDA_STAND_IN,
            proves: "fencepost run and devices, on the stand-in",
            count: Count::EachCommand,
            ready: stand_ins_load,
            commands: |w| {
                let arguments = ["devices", "run --device cuda:0 --chunk 64K --streams 5"];
                let command = |arguments: &&str| {
                    let mut command = w.cargo(&format!("run --release --locked -- {arguments}"));
                    if arguments.starts_with("run") {
                        command.args(["--input", "Cargo.lock"]);
                    }
                    on_cuda_stand_in(w, &mut command);
                    command
                };
                Ok(arguments.iter().map(command).collect())
            },
        },
        Step {
            name: "cuda-examples",
            parts: CUDA,
            device: CUDA_STAND_IN,
            proves: "the example with two devices runs on the stand-in, cudarc's own calls too",
            count: Count::EachCommand,
            ready: stand_ins_load,
            commands: |w| {
                // cudarc looks for the driver by its usual names only.
                let folder = w.target.join("stand-in");
                let library = w.target.join("debug/libfencepost_sim_cuda.so");
                link_as(&library, &folder, "libcuda.so")?;
                let mut command = w.cargo(
                    "run --package fencepost --features cuda --locked --example cuda_two_devices -- 65536",
                );
                on_cuda_stand_in(w, &mut command);
                command.env("LD_LIBRARY_PATH", folder);
                Ok(vec![command])
            },
        },
        Step {
            name: "python",
            parts: PYTHON,
            device: "host, cuda (stand-in)",
            proves: "the Python package, as its wheel is installed, keeps its promises",
            count: Count::ClosingLine,
            ready: || python::ready().and_then(|()| stand_ins_load()),
            commands: |w| {
                let mut commands = python::tests(w);
                if let Some(test) = commands.last_mut() {
                    on_cuda_stand_in(w, test);
                }
                Ok(commands)
            },
        },
        Step {
            name: "python-free-threaded",
            parts: PYTHON,
            device: "host, cuda (stand-in)",
            proves: "the same on a free-threaded interpreter, with a wheel of its own",
            count: Count::ClosingLine,
            ready: || python::free_threaded_ready().and_then(|()| stand_ins_load()),
            commands: |w| {
                let mut commands = python::free_threaded_tests(w)?;
                if let Some(test) = commands.last_mut() {
                    on_cuda_stand_in(w, test);
                }
                Ok(commands)
            },
        },
        Step {
            name: "features",
            parts: HOST,
            device: "-",
            proves: "the library builds alone with each set of features",
            count: Count::Nothing,
            ready: at_once,
            commands: |w| {
                let check = |features: &&str| library_with(w, "check", features);
                Ok(FEATURE_SETS.iter().map(check).collect())
            },
        },
        Step {
            name: "docs",
            parts: HOST,
            device: "-",
            proves: "the documentation builds without a warning",
            count: Count::Nothing,
            ready: at_once,
            commands: |w| {
                // Libraries only: the binary bears the library's name, and its pages would
                // overwrite it.
                let mut command = w.cargo("doc --workspace --lib --no-deps --locked");
                command.env("RUSTDOCFLAGS", "-Dwarnings");
                Ok(vec![command])
            },
        },
        Step {
            name: "loom",
            parts: HOST,
            device: "none (logic)",
            proves: "the small protocols hold under every interleaving loom finds",
            count: Count::Libtest,
            ready: at_once,
            commands: |w| {
                let mut command = w.cargo("test --package fencepost --lib --release --locked");
                // Its own folder: flags that change would rebuild all the rest there and back.
                command.arg("--target-dir").arg(w.target.join("loom"));
                command.args(["--", "loom"]);
                add_flags(&mut command, "RUSTFLAGS", "--cfg loom");
                default_env(&mut command, "LOOM_MAX_PREEMPTIONS", "3");
                Ok(vec![command])
            },
        },
        Step {
            name: "miri",
            parts: HOST,
            device: "host (Miri)",
            proves: "no undefined behaviour in the host backend",
            count: Count::Libtest,
            ready: || nightly_with(&["miri", "rust-src"]),
            commands: |w| {
                let mut command =
                    w.nightly("miri test --package fencepost --lib --test miri --locked");
                command.arg("--no-fail-fast");
                command.arg("--target-dir").arg(w.target.join("miri"));
                // The worker pool lives as long as the process, which Miri would call a leak.
                default_env(
                    &mut command,
                    "MIRIFLAGS",
                    "-Zmiri-ignore-leaks -Zmiri-disable-isolation",
                );
                Ok(vec![command])
            },
        },
        Step {
            name: "tsan",
            parts: HOST,
            device: "host (TSan)",
            proves: "ThreadSanitizer sees no data race in the stress tests",
            count: Count::Libtest,
            ready: || {
                if cfg!(any(target_os = "linux", target_os = "macos")) {
                    nightly_with(&["rust-src"])
                } else {
                    Err("ThreadSanitizer needs Linux or macOS".to_owned())
                }
            },
            commands: |w| {
                // std is built too: one without the sanitizer hides its locks and gives false
                // alarms.
                let mut command = w.nightly("test -Zbuild-std --package fencepost --locked");
                command.args(["--test", "stress", "--target", &host_triple()?]);
                command.arg("--target-dir").arg(w.target.join("tsan"));
                add_flags(&mut command, "RUSTFLAGS", "-Zsanitizer=thread");
                Ok(vec![command])
            },
        },
    ]
}

/// Has the CUDA backend load the stand-in in place of NVIDIA's driver, also where there is one.
fn on_cuda_stand_in(w: &Workspace, command: &mut Command) {
    let library = w.target.join("debug/libfencepost_sim_cuda.so");
    command.env("FENCEPOST_CUDA_LIBRARY", library);
    command.env("FENCEPOST_CUDA_STAND_IN", "1");
}

/// Lets `library` be found in `folder` under another name.
pub(crate) fn link_as(library: &Path, folder: &Path, name: &str) -> Result<(), String> {
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

fn stand_ins_load() -> Result<(), String> {
    match cfg!(target_os = "linux") {
        true => Ok(()),
        false => Err("the stand-in for the CUDA driver needs Linux".to_owned()),
    }
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

/// What `cargo xtask lint` runs.
pub(crate) fn lints(w: &Workspace) -> Vec<Command> {
    let mut lints = vec![
        w.cargo("fmt --all --check"),
        w.cargo("clippy --workspace --all-targets --locked"),
    ];
    // The workspace as a whole turns every feature on, which hides what is unused without it.
    lints.extend(FEATURE_SETS.iter().map(|f| library_with(w, "clippy", f)));
    for clippy in &mut lints[1..] {
        clippy.args(["--", "-D", "warnings"]);
    }
    lints
}

fn library_with(w: &Workspace, subcommand: &str, features: &str) -> Command {
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

/// The examples for every machine, as the build step left them. Built by `cargo run -p fencepost`
/// they would be built a second time: cargo unites features over the packages it is asked for.
fn examples(w: &Workspace) -> Result<Vec<Command>, String> {
    let names = example_names(&w.root.join("crates/fencepost/examples"))?;
    let built = w.target.join("debug/examples");
    // Those of a backend are named after it, and run where it has a device.
    let everywhere = |name: &&String| {
        !["cuda_", "metal_", "vulkan_"]
            .iter()
            .any(|backend| name.starts_with(backend))
    };
    Ok(names
        .iter()
        .filter(everywhere)
        .map(|name| w.command(built.join(format!("{name}{}", std::env::consts::EXE_SUFFIX))))
        .collect())
}

fn example_names(folder: &Path) -> Result<Vec<String>, String> {
    let unreadable = |error| format!("cannot read {}: {error}", folder.display());
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        // Both forms cargo finds by itself: NAME.rs and NAME/main.rs.
        if path.extension() == Some(OsStr::new("rs")) || path.join("main.rs").is_file() {
            names.extend(path.file_stem().map(|s| s.to_string_lossy().into_owned()));
        }
    }
    names.sort();
    Ok(names)
}

fn at_once() -> Result<(), String> {
    Ok(())
}

/// Whether the nightly toolchain is there with these components. Adds components to a toolchain
/// that is there, but brings no toolchain: that is a decision for whoever owns the machine.
fn nightly_with(components: &[&str]) -> Result<(), String> {
    let remedy = format!(
        "rustup toolchain install {NIGHTLY} --component {}",
        components.join(",")
    );
    let list = Command::new("rustup")
        .args(["component", "list", "--installed", "--toolchain", NIGHTLY])
        .output()
        .map_err(|error| {
            format!(
                "rustup does not start ({error}); get it from https://rustup.rs, then: {remedy}"
            )
        })?;
    if !list.status.success() {
        return Err(format!("no {NIGHTLY} toolchain; install it: {remedy}"));
    }
    let installed = String::from_utf8_lossy(&list.stdout).into_owned();
    let missing = missing_components(&installed, components);
    if missing.is_empty() {
        return Ok(());
    }

    let mut add = Command::new("rustup");
    add.args(["component", "add", "--toolchain", NIGHTLY]);
    add.args(&missing);
    say(&format!("$ {}", shown(&add)));
    match add.status() {
        Ok(status) if status.success() => Ok(()),
        _ => Err(format!(
            "{NIGHTLY} lacks {} and rustup could not add it; install it: {remedy}",
            missing.join(", ")
        )),
    }
}

/// rustup lists a component as its name, followed by a target triple where it depends on one.
fn missing_components<'a>(installed: &str, wanted: &[&'a str]) -> Vec<&'a str> {
    let has = |component: &str| {
        installed.lines().any(|line| {
            line.strip_prefix(component)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
        })
    };
    wanted.iter().copied().filter(|c| !has(c)).collect()
}

fn host_triple() -> Result<String, String> {
    let output = Command::new("rustc")
        .arg("-vV")
        .output()
        .map_err(|error| format!("rustc does not start: {error}"))?;
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .find_map(|line| line.strip_prefix("host: "))
        .map(str::to_owned)
        .ok_or_else(|| "`rustc -vV` names no host".to_owned())
}

/// Adds to the flags the caller set, instead of dropping them.
pub(crate) fn add_flags(command: &mut Command, name: &str, flags: &str) {
    let flags = match std::env::var(name) {
        Ok(given) if !given.is_empty() => format!("{given} {flags}"),
        _ => flags.to_owned(),
    };
    command.env(name, flags);
    // Where it is set, cargo does not look at RUSTFLAGS at all.
    command.env_remove("CARGO_ENCODED_RUSTFLAGS");
}

/// Gives a variable a value unless the caller gave it one.
fn default_env(command: &mut Command, name: &str, value: &str) {
    if std::env::var_os(name).is_none() {
        command.env(name, value);
    }
}

impl Workspace {
    fn nightly(&self, args: &str) -> Command {
        // Not `cargo +nightly`: under `cargo xtask` the first cargo in PATH need not be rustup's.
        let mut command = self.command("rustup");
        command.args(["run", NIGHTLY, "cargo"]);
        command.args(args.split_whitespace());
        // Set by the cargo that runs us; they belong to its toolchain.
        command.env_remove("CARGO").env_remove("RUSTC");
        command
    }
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

    #[test]
    fn components_are_found_with_and_without_a_triple() {
        let installed = "cargo-x86_64-unknown-linux-gnu\nmiri-x86_64-unknown-linux-gnu\nrust-src\n";
        assert!(missing_components(installed, &["miri", "rust-src"]).is_empty());
        assert_eq!(missing_components("cargo\n", &["miri"]), ["miri"]);
        assert_eq!(missing_components("mirinda\n", &["miri"]), ["miri"]);
    }

    #[test]
    fn both_forms_of_example_are_found() {
        let folder = std::env::temp_dir().join(format!("xtask-examples-{}", std::process::id()));
        fs::create_dir_all(folder.join("large")).unwrap();
        fs::create_dir_all(folder.join("data")).unwrap();
        fs::write(folder.join("large/main.rs"), "").unwrap();
        fs::write(folder.join("small.rs"), "").unwrap();
        fs::write(folder.join("notes.txt"), "").unwrap();
        let names = example_names(&folder);
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(names.unwrap(), ["large", "small"]);
        assert!(example_names(&folder).is_err());
    }
}
