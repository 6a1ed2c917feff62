//! Vulkan: Mesa's software driver with the validation layer, and the stand-in for what that driver
//! cannot show.

use std::path::Path;
use std::process::Command;

use super::host::{everything, example, is_library};
use super::{Count, Lane, Programs, Step, Task};
use crate::packages;
use crate::run::Workspace;

const PARTS: &[&str] = &["vulkan"];
const LAVAPIPE: &str = "vulkan (lavapipe)";
const STAND_IN: &str = "vulkan (stand-in)";

pub(super) fn steps() -> Vec<Step> {
    vec![
        Step {
            name: "vulkan",
            parts: PARTS,
            lane: Lane::Main,
            device: LAVAPIPE,
            proves: "the Vulkan backend's conformance and model, with the validation layer on and \
                     silent",
            count: Count::Libtest,
            ready: mesa,
            tasks: |w| {
                let validated = tests(w, SUITES, |_, test| {
                    on_lavapipe(test);
                    test.env("FENCEPOST_VULKAN_VALIDATION", "1");
                    test.arg("--test-threads=1");
                    leave_out(test, SEVERAL_QUEUES);
                    leave_out(test, MEMORY);
                });
                // The layer allocates memory of its own.
                let memory = tests(w, SUITES, |_, test| {
                    on_lavapipe(test);
                    test.args(MEMORY);
                });
                Ok(vec![validated, memory])
            },
        },
        Step {
            name: "vulkan-stand-in",
            parts: PARTS,
            lane: Lane::Main,
            device: STAND_IN,
            proves: "order over several queues, every mutant's death, faults, and the older calls, \
                     on a stand-in for the driver",
            count: Count::Libtest,
            ready: stand_in_loads,
            tasks: |w| {
                let newest = tests(w, SUITES_AND_FAULTS, on_stand_in);
                let oldest = tests(w, SUITES_AND_FAULTS, |w, test| {
                    on_stand_in(w, test);
                    test.env("FENCEPOST_SIM_VULKAN_API", "12");
                    test.env("FENCEPOST_SIM_VULKAN_SYNC2", "0");
                    test.env("FENCEPOST_SIM_VULKAN_HOST_RESET", "0");
                });
                Ok(vec![newest, oldest])
            },
        },
        Step {
            name: "vulkan-run",
            parts: PARTS,
            lane: Lane::Main,
            device: LAVAPIPE,
            proves: "fencepost run and devices, and the example with a device of its own",
            count: Count::EachTest,
            ready: mesa,
            tasks: |w| {
                let run = "run --device vulkan:0 --chunk 64K --streams 5 --input Cargo.lock";
                let command_line = ["devices", run]
                    .map(|arguments| w.cargo(&format!("run --release --locked -- {arguments}")));
                let tests = command_line.into_iter().chain([example(w, "vulkan_ash")]);
                let tests = tests.map(|mut test| {
                    on_lavapipe(&mut test);
                    Task::Test(test)
                });
                Ok([Task::Build(everything(w))]
                    .into_iter()
                    .chain(tests)
                    .collect())
            },
        },
    ]
}

const SUITES: Chosen =
    |folder, name| is_library(folder) && ["vulkan", "vulkan_model"].contains(&name);
const SUITES_AND_FAULTS: Chosen =
    |folder, name| SUITES(folder, name) || (is_library(folder) && name == "vulkan_faults");

type Chosen = fn(&Path, &str) -> bool;

/// Tests for the stand-in: a driver with one queue hides missing waits, and has no second queue.
const SEVERAL_QUEUES: &[&str] = &[
    "a_queue_that_is_wrapped_twice_is_one_queue",
    "every_mutant_dies_by_every_case_that_claims_it",
    "the_model_tells_mutants_of_the_device_apart",
];
/// Tests for Mesa's driver: the stand-in keeps a record of everything, so its memory grows.
const MEMORY: &[&str] = &["recording_again_and_again_takes_no_more_memory"];

fn leave_out(test: &mut Command, names: &[&str]) {
    test.args(names.iter().flat_map(|name| ["--skip", name]));
}

fn tests(w: &Workspace, chosen: Chosen, prepare: fn(&Workspace, &mut Command)) -> Task {
    Task::Programs(Programs {
        build: everything(w),
        chosen,
        prepare,
    })
}

/// Makes the loader find Mesa's software driver alone, also on a machine with a GPU.
fn on_lavapipe(command: &mut Command) {
    let manifest = format!(
        "/usr/share/vulkan/icd.d/lvp_icd.{}.json",
        std::env::consts::ARCH
    );
    for variable in ["VK_DRIVER_FILES", "VK_ICD_FILENAMES"] {
        command.env(variable, &manifest);
    }
}

/// Makes the Vulkan backend load the stand-in, as [`everything`] builds it.
pub(super) fn load_stand_in(w: &Workspace, command: &mut Command) {
    let library = w.target.join("debug/libfencepost_sim_vulkan.so");
    command.env("FENCEPOST_VULKAN_LIBRARY", library);
    command.env("FENCEPOST_VULKAN_STAND_IN", "1");
}

fn on_stand_in(w: &Workspace, command: &mut Command) {
    load_stand_in(w, command);
    leave_out(command, MEMORY);
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
