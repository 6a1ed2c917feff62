//! Vulkan: Mesa's driver in software, with the validation layer, and the stand-in for whatever it
//! cannot show.

use std::path::Path;
use std::process::Command;

use crate::packages;
use crate::run::Workspace;
use crate::steps::{Count, Step};

const PARTS: &[&str] = &["vulkan"];
const LAVAPIPE: &str = "vulkan (lavapipe)";
const STAND_IN: &str = "vulkan (stand-in)";

pub(crate) fn steps() -> Vec<Step> {
    vec![
        Step {
            name: "vulkan",
            parts: PARTS,
            device: LAVAPIPE,
            proves: "the Vulkan backend's conformance and model, with the validation layer on and silent",
            count: Count::Libtest,
            ready: mesa,
            commands: |w| {
                let mut validated = tests(w);
                validated.env("FENCEPOST_VULKAN_VALIDATION", "1");
                validated.args(["--", "--test-threads=1"]);
                leave_out(&mut validated, SEVERAL_QUEUES);
                leave_out(&mut validated, MEMORY);
                // The layer keeps memory of its own.
                let mut memory = tests(w);
                memory.arg("--").args(MEMORY);
                let mut commands = vec![validated, memory];
                commands.iter_mut().for_each(on_lavapipe);
                Ok(commands)
            },
        },
        Step {
            name: "vulkan-stand-in",
            parts: PARTS,
            device: STAND_IN,
            proves: "order over several queues, every mutant's death, faults, and the older calls, on a stand-in for the driver",
            count: Count::Libtest,
            ready: stand_in_loads,
            commands: |w| {
                let mut commands = vec![w.cargo("build --package fencepost-sim-vulkan --locked")];
                let without: [&[(&str, &str)]; 2] =
                    [&[], &[("API", "12"), ("SYNC2", "0"), ("HOST_RESET", "0")]];
                commands.extend(without.map(|settings| {
                    let mut test = tests(w);
                    test.args(["--test", "vulkan_faults"]);
                    on_stand_in(w, &mut test);
                    test.arg("--");
                    leave_out(&mut test, MEMORY);
                    for (name, value) in settings {
                        test.env(format!("FENCEPOST_SIM_VULKAN_{name}"), value);
                    }
                    test
                }));
                Ok(commands)
            },
        },
        Step {
            name: "vulkan-run",
            parts: PARTS,
            device: LAVAPIPE,
            proves: "fencepost run and devices, and the example with a device of its own",
            count: Count::EachCommand,
            ready: mesa,
            commands: |w| {
                let run = "run --release --locked -- run --device vulkan:0 --chunk 64K --streams 5 --input Cargo.lock";
                let example =
                    "run --package fencepost --features vulkan --locked --example vulkan_ash";
                let mut commands =
                    ["run --release --locked -- devices", run, example].map(|c| w.cargo(c));
                commands.iter_mut().for_each(on_lavapipe);
                Ok(commands.into())
            },
        },
    ]
}

/// What a driver with one queue cannot show: its order hides a missing wait, and there is no second
/// queue. The stand-in shows it.
const SEVERAL_QUEUES: &[&str] = &[
    "a_queue_that_is_wrapped_twice_is_one_queue",
    "every_mutant_dies_by_every_case_that_claims_it",
    "the_model_tells_mutants_of_the_device_apart",
];
/// What the stand-in cannot show: it keeps whatever happened. Mesa's driver shows it.
const MEMORY: &[&str] = &["recording_again_and_again_takes_no_more_memory"];

/// Behind the `--` of a test command.
fn leave_out(test: &mut Command, names: &[&str]) {
    test.args(names.iter().flat_map(|name| ["--skip", name]));
}

fn tests(w: &Workspace) -> Command {
    w.cargo(
        "test --package fencepost --features vulkan --test vulkan --test vulkan_model --locked --no-fail-fast",
    )
}

/// Has the loader see Mesa's software driver alone, also where there is a GPU.
fn on_lavapipe(command: &mut Command) {
    let manifest = format!(
        "/usr/share/vulkan/icd.d/lvp_icd.{}.json",
        std::env::consts::ARCH
    );
    for variable in ["VK_DRIVER_FILES", "VK_ICD_FILENAMES"] {
        command.env(variable, &manifest);
    }
}

fn on_stand_in(w: &Workspace, command: &mut Command) {
    let library = w.target.join("debug/libfencepost_sim_vulkan.so");
    command.env("FENCEPOST_VULKAN_LIBRARY", library);
    command.env("FENCEPOST_VULKAN_STAND_IN", "1");
}

fn mesa() -> Result<(), String> {
    if !Path::new("/usr/share/vulkan/icd.d").exists() && !cfg!(target_os = "linux") {
        return Err("Mesa's software driver is looked for on Linux only".to_owned());
    }
    packages::installed(&[
        "mesa-vulkan-drivers",
        "vulkan-validationlayers",
        "libvulkan1",
    ])
}

fn stand_in_loads() -> Result<(), String> {
    match cfg!(target_os = "linux") {
        true => Ok(()),
        false => Err("the stand-in for the Vulkan driver needs Linux".to_owned()),
    }
}
