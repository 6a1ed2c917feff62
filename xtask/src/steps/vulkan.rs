//! Vulkan: two software drivers with the validation layer, Mesa's and Google's, and the stand-in
//! for what they cannot show.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::host::{everything, example, is_library};
use super::{Count, Lane, Programs, Step, Task};
use crate::packages;
use crate::run::Workspace;

const PARTS: &[&str] = &["vulkan"];
const LAVAPIPE: &str = "vulkan (lavapipe)";
const SWIFTSHADER: &str = "vulkan (SwiftShader)";
const STAND_IN: &str = "vulkan (stand-in)";

pub(super) fn steps() -> Vec<Step> {
    vec![
        Step {
            name: "vulkan",
            parts: PARTS,
            lane: Lane::Main,
            device: LAVAPIPE,
            proves: "the Vulkan backend's conformance and model, and fencepost watch with stuck \
                     programs, with the validation layer on and silent",
            count: Count::Libtest,
            ready: mesa,
            tasks: |w| {
                let validated = tests(w, SUITES, |_, test| {
                    on_lavapipe(test);
                    validated(test);
                });
                let memory = tests(w, SUITES, |_, test| {
                    on_lavapipe(test);
                    test.args(MEMORY);
                });
                let watch = tests(w, WATCH, |_, test| on_lavapipe(test));
                Ok(vec![validated, memory, watch])
            },
        },
        Step {
            name: "vulkan-swiftshader",
            parts: PARTS,
            lane: Lane::Beside,
            device: SWIFTSHADER,
            proves: "the same on a second driver, SwiftShader, with a newer validation layer",
            count: Count::Libtest,
            ready: swiftshader,
            tasks: |w| {
                newer_layer(w)?;
                let validated = tests(w, SUITES, |w, test| {
                    on_swiftshader(test);
                    test.env("VK_LAYER_PATH", layer_folder(w));
                    validated(test);
                });
                let watch = tests(w, WATCH, |w, test| {
                    on_swiftshader(test);
                    test.env("VK_LAYER_PATH", layer_folder(w));
                });
                Ok(vec![validated, watch])
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

const WATCH: Chosen = |folder, name| folder.starts_with("crates") && name == "watch_vulkan";

type Chosen = fn(&Path, &str) -> bool;

/// Tests for the stand-in: a driver with one queue hides missing waits, and has no second queue.
const SEVERAL_QUEUES: &[&str] = &[
    "a_queue_that_is_wrapped_twice_is_one_queue",
    "every_mutant_dies_by_every_case_that_claims_it",
    "the_model_tells_mutants_of_the_device_apart",
];
/// Tests for Mesa's driver alone: the stand-in keeps a record of everything, so its memory grows,
/// and the validation layer allocates memory of its own.
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

/// Tests of a driver with one queue, which fail on any message of the validation layer.
fn validated(test: &mut Command) {
    test.env("FENCEPOST_VULKAN_VALIDATION", "1");
    test.arg("--test-threads=1");
    leave_out(test, SEVERAL_QUEUES);
    leave_out(test, MEMORY);
}

/// Makes the loader find Mesa's software driver alone, also on a machine with a GPU.
fn on_lavapipe(command: &mut Command) {
    let arch = std::env::consts::ARCH;
    on_driver(
        command,
        &format!("/usr/share/vulkan/icd.d/lvp_icd.{arch}.json"),
    );
}

/// The same for the software driver that Chromium brings along.
pub(super) fn on_swiftshader(command: &mut Command) {
    on_driver(command, &format!("{CHROMIUM}/vk_swiftshader_icd.json"));
}

fn on_driver(command: &mut Command, manifest: &str) {
    for variable in ["VK_DRIVER_FILES", "VK_ICD_FILENAMES"] {
        command.env(variable, manifest);
    }
}

/// Where Debian's `chromium-common` keeps its libraries.
const CHROMIUM: &str = "/usr/lib/chromium";

pub(super) fn layer_folder(w: &Workspace) -> PathBuf {
    w.target.join("vulkan-layer")
}

/// Writes the manifest of Chromium's validation layer, which its package lacks.
pub(super) fn newer_layer(w: &Workspace) -> Result<(), String> {
    let library = Path::new(CHROMIUM).join("libVkLayer_khronos_validation.so");
    let extensions = r#"
            { "name": "VK_EXT_debug_utils", "spec_version": "2" },
            { "name": "VK_EXT_validation_features", "spec_version": "6" }
        "#;
    let name = "VK_LAYER_KHRONOS_validation";
    write_manifest(&layer_folder(w), name, &library, extensions)
}

/// Writes the manifest of a layer to `folder`, which has no other.
pub(super) fn write_manifest(
    folder: &Path,
    name: &str,
    library: &Path,
    extensions: &str,
) -> Result<(), String> {
    let manifest = format!(
        r#"{{
    "file_format_version": "1.2.0",
    "layer": {{
        "name": "{name}",
        "type": "GLOBAL",
        "library_path": "{}",
        "api_version": "1.4.0",
        "implementation_version": "1",
        "description": "{name}",
        "instance_extensions": [{extensions}]
    }}
}}
"#,
        library.display()
    );
    let file = folder.join("layer.json");
    fs::create_dir_all(folder)
        .and_then(|()| fs::write(&file, manifest))
        .map_err(|error| format!("cannot write {}: {error}", file.display()))
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

pub(super) fn swiftshader() -> Result<(), String> {
    packages::installed(&["chromium-common", "libvulkan1"])
}

fn stand_in_loads() -> Result<(), String> {
    match cfg!(target_os = "linux") {
        true => Ok(()),
        false => Err("the stand-in for the Vulkan driver needs Linux".to_owned()),
    }
}
