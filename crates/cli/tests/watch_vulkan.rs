//! `fencepost watch` with Vulkan programs that are stuck, on the first device that Vulkan's loader
//! finds. Without one, the tests count as skipped.
#![cfg(target_os = "linux")]

#[path = "watch/running.rs"]
mod running;
#[path = "watch/vulkan.rs"]
mod vulkan;

use std::{fs::File, path::Path, process::Stdio};

use running::{ended, wait_for, with_program};
use vulkan::{Gpu, OTHERS, PROGRAMS, Program};

/// No test, but the program that the tests watch: this executable again.
#[test]
fn the_program() {
    running::be_the_program(PROGRAMS.iter().chain(OTHERS), Gpu::open);
}

/// Whether there is a device. If not, the summary of the tests says that the test could not run.
fn has_device(test: &str) -> bool {
    match Gpu::try_open() {
        Ok(_) => true,
        Err(why) => {
            skip(test, &why);
            false
        }
    }
}

fn skip(test: &str, why: &str) {
    if let Some(folder) = std::env::var_os("FENCEPOST_TABLE_DIR") {
        let file = Path::new(&folder).join(format!("watch-vulkan-{test}.skip"));
        std::fs::write(file, format!("{test}: {why}\n")).unwrap();
    }
}

#[test]
fn a_stuck_vulkan_program_is_explained() {
    if has_device("a_stuck_vulkan_program_is_explained") {
        running::explained(PROGRAMS);
    }
}

#[test]
fn a_vulkan_program_that_is_not_stuck_goes_on_and_its_exit_code_is_passed_through() {
    if !has_device("a_vulkan_program_that_is_not_stuck_goes_on") {
        return;
    }
    for (name, code) in [("ends_well", 0), ("leaves_its_device", 3)] {
        let folder = tempfile::tempdir().unwrap();
        let (ended, said) = ended(&mut with_program(folder.path(), &["--after", "0.5"], name));
        assert_eq!(ended, Some(code), "{name}: {said}");
        assert!(
            said.lines().count() == 1 && said.contains("nothing was stuck, in "),
            "{name}: {said}"
        );
    }
}

/// What the validation layer says of a program, whose calls it sees behind those of the watching.
fn validated(program: &Program) -> String {
    let folder = tempfile::tempdir().unwrap();
    let [report, said] = ["report", "said"].map(|name| folder.path().join(name));
    let options = ["--after", "0.5", "--output", report.to_str().unwrap()];
    let mut command = with_program(folder.path(), &options, program.name);
    command
        .env("VK_INSTANCE_LAYERS", vulkan::VALIDATION)
        .stdout(File::create(&said).unwrap())
        .stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let told = wait_for(&report, program.told);
    // The others end by themselves.
    if !program.told.is_empty() {
        std::fs::write(folder.path().join("stop"), "").unwrap();
    }
    child.wait().unwrap();
    told.unwrap();
    std::fs::read_to_string(&said).unwrap()
}

#[test]
fn the_validation_layer_is_silent_behind_the_watching() {
    let test = "the_validation_layer_is_silent_behind_the_watching";
    if !has_device(test) {
        return;
    }
    if !vulkan::has_validation() {
        return skip(test, "the validation layer is not installed");
    }
    let is_valid = |program: &&Program| program.name != "behind_a_binary_semaphore";
    for program in PROGRAMS.iter().chain(OTHERS).filter(is_valid) {
        let said = validated(program);
        let serious = said.contains("VUID") || said.contains("Validation Error");
        let is_wrong = program.name == "signals_a_lower_value";
        assert_eq!(serious, is_wrong, "{}: {said}", program.name);
    }
}
