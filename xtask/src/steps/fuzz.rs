//! Fuzzing: libFuzzer makes up sequences of operations and device names, and `fuzz/targets`
//! compares what devices do with a model.

use std::process::Command;

use super::host::everything;
use super::{Count, Lane, ONLY_IN_CI, Step, Task, add_flags, cuda, metal, opencl, vulkan};
use crate::packages;
use crate::run::Workspace;
use crate::rustup::host_triple;

const SECONDS: u32 = 30;

type Prepare = fn(&Workspace, &mut Command);

/// Each target with the folder in `fuzz/corpus` that holds what to begin with, and how to prepare
/// its program.
const TARGETS: [(&str, &str, Prepare); 6] = [
    ("ops_host", "ops", |_, _| ()),
    ("ops_cuda", "ops", cuda::on_stand_in),
    ("ops_vulkan", "ops", vulkan::load_stand_in),
    ("ops_opencl", "ops", opencl::on_pocl),
    (ON_METAL, "ops", |_, _| ()),
    ("names", "names", |w, test| {
        // What a GPU is called is no matter here, and its driver slow to ask.
        let missing = w.target.join("fuzz/no-driver");
        for api in ["CUDA", "VULKAN", "OPENCL"] {
            test.env(format!("FENCEPOST_{api}_LIBRARY"), &missing);
        }
    }),
];

/// The target that is built for the stand-in for Metal, in a folder of its own.
const ON_METAL: &str = "ops_metal";

/// What `cargo fuzz` passes for coverage, which needs no nightly compiler.
const COVERAGE: &str = "--cfg fuzzing -Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares";

pub(super) fn steps() -> Vec<Step> {
    vec![Step {
        name: "fuzz",
        parts: &["fuzz", ONLY_IN_CI],
        lane: Lane::Main,
        device: "host, PoCL, stand-ins",
        proves: "made-up sequences of operations do what the model says, and no device name \
                 surprises",
        count: Count::EachTest,
        ready: || match cfg!(target_os = "linux") {
            true => packages::installed(&["g++"]).and_then(|()| opencl::pocl()),
            false => Err("the stand-ins need Linux".to_owned()),
        },
        tasks: |w| {
            let mut tasks = vec![
                Task::Build(everything(w)),
                Task::Build(build(w, "fuzz")?),
                Task::Build(metal::wrapper(w)),
                Task::Build(build_on_metal(w)?),
            ];
            for (target, corpus, prepare) in TARGETS {
                let mut test = run(w, target, corpus)?;
                prepare(w, &mut test);
                tasks.push(Task::Test(test));
            }
            Ok(tasks)
        },
    }]
}

/// Builds the targets, into this folder of the target folder.
fn build(w: &Workspace, folder: &str) -> Result<Command, String> {
    let mut command = w.cargo("build --release --locked --manifest-path fuzz/Cargo.toml");
    // With a target named, build scripts and macros are built without the flags.
    command.args(["--target", &host_triple()?, "--target-dir"]);
    command.arg(w.target.join(folder));
    add_flags(&mut command, "RUSTFLAGS", COVERAGE);
    Ok(command)
}

fn build_on_metal(w: &Workspace) -> Result<Command, String> {
    let mut command = build(w, "fuzz-metal")?;
    command.args(["--bin", ON_METAL]);
    metal::link_stand_in(w, &mut command, COVERAGE);
    Ok(command)
}

/// Fuzzes for [`SECONDS`], from the kept corpus. What is new goes into the target folder.
fn run(w: &Workspace, target: &str, corpus: &str) -> Result<Command, String> {
    let folder = w.target.join("fuzz");
    let found = folder.join("corpus").join(target);
    std::fs::create_dir_all(&found)
        .map_err(|error| format!("cannot create {}: {error}", found.display()))?;
    let built = match target {
        ON_METAL => w.target.join("fuzz-metal"),
        _ => folder.clone(),
    };
    let mut test = w.command(built.join(host_triple()?).join("release").join(target));
    // One seed: a failure comes from a change, not from luck.
    test.args([format!("-max_total_time={SECONDS}"), "-seed=1".into()]);
    // Longer than the targets wait themselves, so that a hang is told with what hangs.
    test.args(["-timeout=300", "-max_len=240", "-rss_limit_mb=4096"]);
    test.arg(format!("-artifact_prefix={}/{target}-", folder.display()));
    test.args([found, w.root.join("fuzz/corpus").join(corpus)]);
    Ok(test)
}
