//! The built binary on OpenCL, where the loader was told to load the driver that makes chosen calls
//! fail: `OCL_ICD_VENDORS` names `libfencepost_sim_opencl.so`. What needs a driver is skipped
//! without.
#![cfg(target_os = "linux")]

use std::{
    fs,
    process::{Command, Output, Stdio},
};

fn fencepost(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fencepost"));
    command
        .args(args)
        .env_remove("FENCEPOST_DEVICE")
        .stdin(Stdio::null());
    command
}

fn output(mut command: Command) -> Output {
    command.output().expect("the binary starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

/// Refused: this exit code, one line on stderr that holds all of `hints`, nothing on stdout.
#[track_caller]
fn refused(command: Command, code: i32, hints: &[&str]) {
    let out = output(command);
    let said = text(&out.stderr);
    assert_eq!(out.status.code(), Some(code), "{said}");
    assert_eq!(text(&out.stdout), "");
    assert_eq!(said.lines().count(), 1, "{said}");
    for hint in hints {
        assert!(said.contains(hint), "no \"{hint}\" in: {said}");
    }
}

/// Whether the driver that makes calls fail is there.
fn has_faults() -> bool {
    let named = std::env::var("OCL_ICD_VENDORS").unwrap_or_default();
    let found = named.ends_with("libfencepost_sim_opencl.so");
    if !found {
        println!("SKIPPED: OCL_ICD_VENDORS names no libfencepost_sim_opencl.so");
    }
    found
}

const ON_OPENCL: [&[&str]; 3] = [
    &["run", "--device", "opencl:0"],
    &["check", "--device", "opencl:0"],
    &["bench", "--device", "opencl:0"],
];

#[test]
fn a_loader_that_is_not_there_is_told_in_one_line() {
    for args in ON_OPENCL {
        let mut command = fencepost(args);
        command.env("FENCEPOST_OPENCL_LIBRARY", "/nowhere/libOpenCL.so.1");
        refused(command, 2, &["FENCEPOST_OPENCL_LIBRARY", "unset it"]);
    }
}

#[test]
fn a_loader_without_a_driver_is_told_in_one_line() {
    if !has_faults() {
        return;
    }
    let folder = tempfile::TempDir::new().expect("a temporary folder");
    for args in ON_OPENCL {
        let mut command = fencepost(args);
        command.env("OCL_ICD_VENDORS", folder.path());
        refused(command, 2, &["unset OCL_ICD_VENDORS, or install a driver"]);
    }
}

#[test]
fn a_device_that_is_not_there_is_told_in_one_line() {
    if !has_faults() {
        return;
    }
    for command in ["run", "check", "bench"] {
        let beyond = fencepost(&[command, "--device", "opencl:9"]);
        refused(
            beyond,
            2,
            &["opencl:9", "the last one of opencl is \"opencl:0\""],
        );
        let wrong = fencepost(&[command, "--device", "opencl:x"]);
        refused(wrong, 2, &["opencl:x", "`fencepost devices` lists those"]);
    }
}

#[test]
fn a_driver_that_does_not_load_is_told_in_one_line() {
    if !has_faults() {
        return;
    }
    let folder = tempfile::TempDir::new().expect("a temporary folder");
    fs::write(folder.path().join("broken.icd"), "/nowhere/libbroken.so\n").unwrap();
    for args in ON_OPENCL {
        let mut command = fencepost(args);
        command.env("OCL_ICD_VENDORS", folder.path());
        refused(command, 2, &["/nowhere/libbroken.so"]);
    }
}

#[test]
fn a_platform_without_devices_is_told_in_one_line() {
    if !has_faults() {
        return;
    }
    for args in ON_OPENCL {
        let mut command = fencepost(args);
        command.env("FENCEPOST_SIM_OPENCL_FAULTS", "clGetDeviceIDs:1+:-1");
        refused(command, 2, &["Portable Computing Language", "no device"]);
    }
}

#[test]
fn a_call_that_fails_is_told_in_one_line() {
    if !has_faults() {
        return;
    }
    let marker = "clEnqueueMarkerWithWaitList";
    let mut command = fencepost(&["run", "--device", "opencl:0", "--input", "Cargo.toml"]);
    // The driver is compiling a kernel when the command fails. Its end must not be a crash.
    let folder = tempfile::TempDir::new().expect("a temporary folder");
    command.env("POCL_CACHE_DIR", folder.path());
    command.env("FENCEPOST_SIM_OPENCL_FAULTS", format!("{marker}:3+:-5"));
    refused(command, 1, &[marker, "-5"]);
}

#[test]
fn devices_tells_the_platform_and_its_version() {
    if !has_faults() {
        return;
    }
    let out = output(fencepost(&["devices"]));
    let listed = text(&out.stdout);
    assert_eq!(out.status.code(), Some(0), "{listed}");
    let listed = listed.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(listed.contains("opencl:0"), "{listed}");
    assert!(listed.contains("Portable Computing Language"), "{listed}");
    assert!(listed.contains("OpenCL 3.0 PoCL"), "{listed}");

    let out = output(fencepost(&["devices", "--json"]));
    let report: serde_json::Value = serde_json::from_slice(&out.stdout).expect("JSON");
    let backends = report["backends"].as_array().unwrap();
    let opencl = backends.iter().find(|b| b["backend"] == "opencl").unwrap();
    let platform = opencl["devices"][0]["platform"].as_str().unwrap();
    assert!(platform.contains("OpenCL 3.0"), "{platform}");
}
