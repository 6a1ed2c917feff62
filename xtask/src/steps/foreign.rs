//! Programs for other systems and processors, as far as this machine can run them: Windows under
//! Wine, and aarch64 under QEMU. Wine is not Windows, and QEMU no processor: what fails here is
//! wrong, but what passes is not proved for the real one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Count, Lane, ONLY_IN_CI, Step, Task};
use crate::packages;
use crate::run::Workspace;
use crate::rustup::bring_targets;

const PARTS: &[&str] = &["foreign", ONLY_IN_CI];

const WINDOWS: &str = "x86_64-pc-windows-gnu";
/// Runs a program under Wine, and says why it looks at what Wine returns.
const WINE: &str = "xtask/src/steps/wine.sh";

const AARCH64: &str = "aarch64-unknown-linux-gnu";
const QEMU: &str = "qemu-aarch64 -L /usr/aarch64-linux-gnu";

/// The library, the suite and the model on the host, and the command line.
const TESTS: &str = "test --package fencepost --package fencepost-cli --lib --bins \
    --test conformance --test futures --test model --test cli --locked --no-fail-fast";

pub(super) fn steps() -> Vec<Step> {
    vec![
        Step {
            name: "wine",
            parts: PARTS,
            lane: Lane::Beside,
            device: "host (Wine)",
            proves: "the library, the suite on the host and the command line as programs for \
                     Windows, under Wine",
            count: Count::Libtest,
            ready: || ready(&["wine64", "gcc-mingw-w64-x86-64"], WINDOWS),
            tasks: |w| {
                let prefix = w.target.join("foreign/wine");
                let mut test = tests(w, WINDOWS);
                // QEMU does not start the child processes of these.
                test.args(["--test", "host"]);
                test.env(
                    "CARGO_TARGET_X86_64_PC_WINDOWS_GNU_RUNNER",
                    w.root.join(WINE),
                );
                test.env("WINEPREFIX", &prefix);
                test.env("WINEDEBUG", "-all");
                // Wine's own Vulkan would look for a display, and may wait for one without end.
                test.env("WINEDLLOVERRIDES", "vulkan-1=;winevulkan=");
                Ok(vec![
                    Task::Build(random_numbers(w, &prefix)?),
                    Task::Test(test),
                ])
            },
        },
        Step {
            name: "aarch64",
            parts: PARTS,
            lane: Lane::Beside,
            device: "host (QEMU)",
            proves: "the library, the suite on the host and the command line as programs for \
                     aarch64, under QEMU",
            count: Count::Libtest,
            ready: || {
                let packages = [
                    "qemu-user",
                    "gcc-aarch64-linux-gnu",
                    "libc6-dev-arm64-cross",
                ];
                ready(&packages, AARCH64)
            },
            tasks: |w| {
                let mut test = tests(w, AARCH64);
                test.env(
                    "CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER",
                    "aarch64-linux-gnu-gcc",
                );
                test.env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER", QEMU);
                // The tests of the command line start it by themselves.
                test.env("FENCEPOST_TEST_RUNNER", QEMU);
                Ok(vec![Task::Test(test)])
            },
        },
    ]
}

fn ready(debian: &[&str], target: &str) -> Result<(), String> {
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        return Err("the emulators are looked for on Linux on x86_64 only".to_owned());
    }
    packages::installed(debian)?;
    match bring_targets(&[target]) {
        true => Ok(()),
        false => Err(format!(
            "rustup has no {target}: rustup target add {target}"
        )),
    }
}

fn tests(w: &Workspace, target: &str) -> Command {
    let mut command = w.cargo(TESTS);
    command.args(["--target", target, "--target-dir"]);
    command.arg(w.target.join("foreign"));
    command
}

/// Builds a library for Windows that every Rust program imports, and that Debian 12's Wine has not,
/// into the folder for those of the system.
fn random_numbers(w: &Workspace, prefix: &Path) -> Result<Command, String> {
    let system: PathBuf = prefix.join("drive_c/windows/system32");
    fs::create_dir_all(&system)
        .map_err(|error| format!("cannot create {}: {error}", system.display()))?;
    let mut command = w.command("x86_64-w64-mingw32-gcc");
    command.arg("-shared").arg("-o");
    command.arg(system.join("bcryptprimitives.dll"));
    command.args(["xtask/src/steps/bcryptprimitives.c", "-ladvapi32"]);
    Ok(command)
}
