//! wgpu, on a software driver whose submits do not block, with the validation layer, and with one
//! that makes calls of the driver fail.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::host::{example, is_library};
use super::vulkan::{layer_folder, newer_layer, on_swiftshader, swiftshader, write_manifest};
use super::{Count, Lane, Programs, Step, Task};
use crate::run::Workspace;

const PARTS: &[&str] = &["wgpu"];
const SWIFTSHADER: &str = "wgpu30 (SwiftShader)";

pub(super) fn steps() -> Vec<Step> {
    vec![
        Step {
            name: "wgpu",
            parts: PARTS,
            lane: Lane::Main,
            device: SWIFTSHADER,
            proves: "the wgpu backend's conformance, model and misuse, with the validation layer \
                     on and silent; faults of the driver",
            count: Count::Libtest,
            ready: swiftshader,
            tasks: |w| {
                newer_layer(w)?;
                layer_of_faults(w)?;
                let tests = Programs {
                    build: with_wgpu(w),
                    chosen: |folder, name| is_library(folder) && VALIDATED.contains(&name),
                    prepare: validated,
                };
                let faults = Programs {
                    build: with_wgpu(w),
                    chosen: |folder, name| {
                        let of_layer = folder == Path::new("standins/layer");
                        of_layer || is_library(folder) && name == FAULTS
                    },
                    prepare: with_faults,
                };
                Ok(vec![
                    Task::Programs(tests),
                    Task::Programs(faults),
                    Task::Test(unit_tests(w)),
                    Task::Test(doctests(w)),
                ])
            },
        },
        Step {
            name: "wgpu-run",
            parts: PARTS,
            lane: Lane::Main,
            device: SWIFTSHADER,
            proves: "fencepost check and bench on a device of wgpu, and the example under tokio",
            count: Count::EachTest,
            ready: swiftshader,
            tasks: |w| {
                let check = "check --device wgpu30 --filter callback";
                let bench = "bench --device wgpu30 --quick";
                let command_line = [check, bench].map(|arguments| {
                    let mut test = w.command(w.target.join("debug/fencepost"));
                    test.args(arguments.split_whitespace());
                    test
                });
                let tests = command_line.into_iter().chain([example(w, "wgpu_pass")]);
                let tests = tests.map(|mut test| {
                    on_swiftshader(&mut test);
                    Task::Test(test)
                });
                Ok([Task::Build(with_wgpu(w))]
                    .into_iter()
                    .chain(tests)
                    .collect())
            },
        },
    ]
}

const VALIDATED: &[&str] = &["wgpu30", "wgpu30_model", "wgpu30_misuse"];
const FAULTS: &str = "wgpu30_faults";
/// What `VK_INSTANCE_LAYERS` calls `standins/layer`.
const LAYER: &str = "VK_LAYER_FENCEPOST_faults";
/// What turns the backend on, in the library and the command line.
pub(super) const FEATURES: &str = "fencepost/wgpu30,fencepost-cli/wgpu30";

/// Builds what runs on wgpu, in one way for all steps. The other steps' builds leave wgpu out.
fn with_wgpu(w: &Workspace) -> Command {
    let mut command = w.cargo(
        "build --locked --package fencepost --package fencepost-cli --package fencepost-sim-layer \
         --lib --bins --test library",
    );
    let tests = VALIDATED.iter().chain([&FAULTS]);
    command.args(tests.flat_map(|test| ["--test", test]));
    command.args(["--example", "wgpu_pass", "--features", FEATURES]);
    command
}

/// The unit tests of the backend.
fn unit_tests(w: &Workspace) -> Command {
    let mut command = w.cargo("test --lib --locked --no-fail-fast --package fencepost");
    command.args(["--features", "wgpu30", "wgpu30::"]);
    on_swiftshader(&mut command);
    command
}

/// The examples in the documentation of the backend.
fn doctests(w: &Workspace) -> Command {
    let mut command = w.cargo("test --doc --locked --no-fail-fast --package fencepost");
    command.args(["--features", "wgpu30", "wgpu30"]);
    on_swiftshader(&mut command);
    command
}

/// On SwiftShader. The tests fail on any message of the validation layer, and where it is missing.
fn validated(w: &Workspace, test: &mut Command) {
    on_swiftshader(test);
    test.env("VK_LAYER_PATH", layer_folder(w));
    test.env("WGPU_VALIDATION", "1");
    // What lavapipe alone does is tested by hand.
    test.args(["--skip", "on_lavapipe"]);
}

/// On SwiftShader, behind a layer that makes chosen calls fail.
fn with_faults(w: &Workspace, test: &mut Command) {
    on_swiftshader(test);
    test.env("VK_LAYER_PATH", fault_folder(w));
    test.env("VK_INSTANCE_LAYERS", LAYER);
}

fn fault_folder(w: &Workspace) -> PathBuf {
    w.target.join("vulkan-faults")
}

fn layer_of_faults(w: &Workspace) -> Result<(), String> {
    let library = w.target.join("debug/libfencepost_sim_layer.so");
    write_manifest(&fault_folder(w), LAYER, &library, "")
}
