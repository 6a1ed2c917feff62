//! Metal: on the stand-in for it, since CI has no Mac.

use crate::run::Workspace;
use crate::steps::{Count, Step, add_flags};
use std::process::Command;

const PARTS: &[&str] = &["metal"];

pub(crate) fn steps() -> Vec<Step> {
    vec![Step {
        name: "metal-stand-in",
        parts: PARTS,
        device: "none (logic)",
        proves: "tests of the stand-in for Metal, through the bindings a Metal backend uses",
        count: Count::Libtest,
        ready: linux,
        commands: |w| {
            let wrapper =
                w.cargo("build --package fencepost-sim-metal --bin metal-sim-rustc --locked");
            let mut test =
                w.cargo("test --package fencepost-sim-metal --tests --locked --no-fail-fast");
            simulated(w, &mut test);
            Ok(vec![wrapper, test])
        },
    }]
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
