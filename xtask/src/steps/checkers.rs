//! Tools that find errors which a test run seldom shows: loom, Miri and ThreadSanitizer.

use std::process::Command;

use super::{Count, Lane, Step, Task, add_flags, at_once};
use crate::rustup::{host_triple, nightly_with};

const PARTS: &[&str] = &["host"];

pub(super) fn steps() -> Vec<Step> {
    vec![
        Step {
            name: "loom",
            parts: PARTS,
            lane: Lane::Main,
            device: "none (logic)",
            proves: "the small protocols hold under every interleaving loom finds",
            count: Count::Libtest,
            ready: at_once,
            tasks: |w| {
                let packages = "--package fencepost --package fencepost-watch";
                let mut command = w.cargo(&format!("test {packages} --lib --locked"));
                // With a target named, build scripts and macros are built without the flags.
                command.args(["--target", &host_triple()?, "--", "loom"]);
                add_flags(&mut command, "RUSTFLAGS", "--cfg loom");
                default_env(&mut command, "LOOM_MAX_PREEMPTIONS", "3");
                Ok(vec![Task::Test(command)])
            },
        },
        Step {
            name: "miri",
            parts: PARTS,
            lane: Lane::Beside,
            device: "host (Miri)",
            proves: "no undefined behaviour in the host backend",
            count: Count::Libtest,
            ready: || nightly_with(&["miri", "rust-src"]),
            tasks: |w| {
                let mut command =
                    w.nightly("miri test --package fencepost --lib --test miri --locked");
                command.arg("--no-fail-fast");
                command.arg("--target-dir").arg(w.target.join("miri"));
                // The worker pool lives as long as the process, which Miri reports as a leak.
                default_env(
                    &mut command,
                    "MIRIFLAGS",
                    "-Zmiri-ignore-leaks -Zmiri-disable-isolation",
                );
                // Arithmetic on random numbers has no undefined behaviour to find, and takes
                // minutes.
                default_env(&mut command, "PROPTEST_CASES", "4");
                Ok(vec![Task::Test(command)])
            },
        },
        Step {
            name: "tsan",
            parts: PARTS,
            lane: Lane::Beside,
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
            tasks: |w| {
                // std is built too: without the sanitizer its locks are not seen, which gives
                // false alarms.
                let mut command = w.nightly("test -Zbuild-std --package fencepost --locked");
                command.args(["--test", "stress", "--target", &host_triple()?]);
                command.arg("--target-dir").arg(w.target.join("tsan"));
                add_flags(&mut command, "RUSTFLAGS", "-Zsanitizer=thread");
                Ok(vec![Task::Test(command)])
            },
        },
    ]
}

/// Sets a variable unless the caller has set it.
fn default_env(command: &mut Command, name: &str, value: &str) {
    if std::env::var_os(name).is_none() {
        command.env(name, value);
    }
}
