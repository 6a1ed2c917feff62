//! CUDA, on a stand-in for NVIDIA's driver, since CI has no GPU.

use std::path::PathBuf;
use std::process::Command;

use super::host::{everything, example, is_library};
use super::{Count, Lane, Programs, Step, Task, link_as};
use crate::run::Workspace;

const PARTS: &[&str] = &["cuda"];
const STAND_IN: &str = "cuda (stand-in)";

pub(super) fn steps() -> Vec<Step> {
    vec![
        Step {
            name: "cuda",
            parts: PARTS,
            lane: Lane::Main,
            device: STAND_IN,
            proves: "the CUDA backend's conformance, mutants, model and faults, on a stand-in for \
                     the driver",
            count: Count::Libtest,
            ready: stand_in_loads,
            tasks: |w| {
                let tests = Programs {
                    build: everything(w),
                    chosen: |folder, name| {
                        is_library(folder) && ["cuda", "cuda_model", "cuda_faults"].contains(&name)
                    },
                    prepare: on_stand_in,
                };
                Ok(vec![Task::Programs(tests)])
            },
        },
        Step {
            name: "cuda-run",
            parts: PARTS,
            lane: Lane::Main,
            device: STAND_IN,
            proves: "fencepost run and devices, on the stand-in",
            count: Count::EachTest,
            ready: stand_in_loads,
            tasks: |w| {
                let run = "run --device cuda:0 --chunk 64K --streams 5 --input Cargo.lock";
                let tests = ["devices", run].map(|arguments| {
                    let mut test = w.cargo(&format!("run --release --locked -- {arguments}"));
                    on_stand_in(w, &mut test);
                    Task::Test(test)
                });
                Ok([Task::Build(everything(w))]
                    .into_iter()
                    .chain(tests)
                    .collect())
            },
        },
        Step {
            name: "cuda-watch",
            parts: PARTS,
            lane: Lane::Main,
            device: STAND_IN,
            proves: "fencepost watch explains stuck programs, on stand-ins for driver and CUPTI",
            count: Count::Libtest,
            ready: stand_in_loads,
            tasks: |w| {
                let tests = Programs {
                    build: everything(w),
                    chosen: |folder, name| folder.starts_with("crates") && name == "watch",
                    prepare: |_, _| (),
                };
                Ok(vec![Task::Programs(tests)])
            },
        },
        Step {
            name: "cuda-examples",
            parts: PARTS,
            lane: Lane::Main,
            device: STAND_IN,
            proves: "the example with two devices runs on the stand-in, cudarc's own calls too",
            count: Count::EachTest,
            ready: stand_in_loads,
            tasks: |w| {
                // cudarc searches for the driver by its usual names only.
                let folder = w.target.join("stand-in");
                link_as(&library(w), &folder, "libcuda.so")?;
                let mut test = example(w, "cuda_two_devices");
                test.arg("65536");
                on_stand_in(w, &mut test);
                test.env("LD_LIBRARY_PATH", folder);
                Ok(vec![Task::Build(everything(w)), Task::Test(test)])
            },
        },
    ]
}

/// The stand-in, as [`everything`] builds it.
fn library(w: &Workspace) -> PathBuf {
    w.target.join("debug/libfencepost_sim_cuda.so")
}

/// Makes the CUDA backend load the stand-in, also on a machine with NVIDIA's driver.
pub(super) fn on_stand_in(w: &Workspace, command: &mut Command) {
    command.env("FENCEPOST_CUDA_LIBRARY", library(w));
    command.env("FENCEPOST_CUDA_STAND_IN", "1");
}

pub(super) fn stand_in_loads() -> Result<(), String> {
    match cfg!(target_os = "linux") {
        true => Ok(()),
        false => Err("the stand-in for the CUDA driver needs Linux".to_owned()),
    }
}
