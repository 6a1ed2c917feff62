//! OpenCL, on PoCL: a real driver that computes on the processor, with queues that overlap.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::host::{everything, example, is_library};
use super::{Count, Lane, Programs, Step, Task, python};
use crate::packages;
use crate::run::Workspace;

const PARTS: &[&str] = &["opencl"];
const POCL: &str = "opencl (PoCL)";

pub(super) fn steps() -> Vec<Step> {
    vec![
        Step {
            name: "opencl",
            parts: PARTS,
            lane: Lane::Main,
            device: POCL,
            proves: "the OpenCL backend's conformance, every mutant's death, the model and faults",
            count: Count::Libtest,
            ready: pocl,
            tasks: |w| {
                let plain = tests(
                    w,
                    |folder, name| is_library(folder) && ["opencl", "opencl_model"].contains(&name),
                    on_pocl,
                );
                let faults = tests(
                    w,
                    |folder, name| {
                        let of_driver = folder == Path::new("standins/opencl");
                        let of_cli = folder == Path::new("crates/cli") && name == "opencl";
                        of_driver || of_cli || is_library(folder) && name == "opencl_faults"
                    },
                    with_faults,
                );
                Ok(vec![plain, faults])
            },
        },
        Step {
            name: "opencl-run",
            parts: PARTS,
            lane: Lane::Main,
            device: POCL,
            proves: "fencepost devices, check, run and bench, and the examples with opencl3",
            count: Count::EachTest,
            ready: pocl,
            tasks: |w| {
                let run = "run --device opencl:0 --chunk 64K --streams 5 --input Cargo.lock";
                let check = "check --device opencl:0";
                let bench = "bench --device opencl:0 --quick";
                let command_line = ["devices", check, run, bench]
                    .map(|arguments| w.cargo(&format!("run --release --locked -- {arguments}")));
                let examples = EXAMPLES.iter().map(|name| example(w, name));
                let tests = command_line.into_iter().chain(examples).map(|mut test| {
                    on_pocl(w, &mut test);
                    Task::Test(test)
                });
                Ok([Task::Build(everything(w))]
                    .into_iter()
                    .chain(tests)
                    .collect())
            },
        },
        Step {
            name: "opencl-python",
            parts: PARTS,
            lane: Lane::Main,
            device: POCL,
            proves: "the Python package beside pyopencl: its queues and its kernels",
            count: Count::ClosingLine,
            ready: || python::ready().and_then(|()| pocl()),
            tasks: |w| {
                Ok(python::opencl_tests(w, |test| {
                    on_pocl(w, test);
                    // For tests that start programs of their own on it.
                    test.env("FENCEPOST_SIM_OPENCL", driver_of_faults(w));
                }))
            },
        },
    ]
}

const EXAMPLES: &[&str] = &["opencl_opencl3", "opencl_host_order"];

fn tests(
    w: &Workspace,
    chosen: fn(&Path, &str) -> bool,
    prepare: fn(&Workspace, &mut Command),
) -> Task {
    Task::Programs(Programs {
        build: everything(w),
        chosen,
        prepare,
    })
}

/// Makes the loader find PoCL alone: one more driver on the machine changes what others pick.
pub(super) fn on_pocl(w: &Workspace, command: &mut Command) {
    command.env("OCL_ICD_VENDORS", "/etc/OpenCL/vendors/pocl.icd");
    // PoCL keeps compiled kernels there, by default in the user's home.
    command.env("POCL_CACHE_DIR", w.target.join("pocl"));
}

/// The same, with a driver in front that makes chosen calls fail.
fn with_faults(w: &Workspace, command: &mut Command) {
    on_pocl(w, command);
    command.env("OCL_ICD_VENDORS", driver_of_faults(w));
}

fn driver_of_faults(w: &Workspace) -> PathBuf {
    w.target.join("debug/libfencepost_sim_opencl.so")
}

pub(super) fn pocl() -> Result<(), String> {
    packages::installed(&["pocl-opencl-icd", "ocl-icd-libopencl1"])
}
