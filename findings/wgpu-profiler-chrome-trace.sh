#!/bin/sh
# wgpu-profiler: a trace is no JSON if a label has a backslash, or the last scope no time.
#
# `write_chrometrace` writes labels as they are. It writes a comma behind each scope that has a time
# but the last scope of all; where that one has none, the comma stays. A scope of an encoder has no
# time on a device without TIMESTAMP_QUERY_INSIDE_ENCODERS, which WebGPU itself does not have, while
# those of passes do. `write_chrometrace` returns Ok.
#
# Guess before the run: names are escaped, and scopes without a time are left out.
#
# Why it matters: whether the file can be opened depends on the device, on the order of scopes, and
# on the path in a shader's label. Perfetto reads the second file all the same, others do not.
#
# Seen on 2026-11-28 with wgpu-profiler 0.28.0, wgpu 30.0.2, Rust 1.95, SwiftShader of Debian 12's
# package chromium-common (156.0.8078.108), Linux x86-64:
#   scopes "blur", "copy": JSON
#   scopes "shaders\post", "copy": no JSON: Invalid \escape
#   scopes "blur", "copy" without a time: no JSON: Expecting value
#
# It needs cargo, and builds wgpu (a minute of processor time).
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
driver=/usr/lib/chromium/libvk_swiftshader.so
if [ ! -e "$driver" ]; then
    (cd "$dir" && apt-get download --quiet chromium-common && dpkg -x chromium-common_*.deb .)
    driver=$dir$driver
fi
cat >"$dir/swiftshader.json" <<JSON
{"file_format_version": "1.0.0", "ICD": {"library_path": "$driver", "api_version": "1.0.5"}}
JSON
mkdir "$dir/src"
cat >"$dir/Cargo.toml" <<'TOML'
[package]
name = "scopes"
version = "0.0.0"
edition = "2021"

[dependencies]
pollster = "=0.4.0"
wgpu = { version = "=30.0.2", default-features = false, features = ["std", "vulkan", "wgsl"] }
wgpu-profiler = "=0.28.0"
TOML
cat >"$dir/src/main.rs" <<'RS'
use std::{env, path::Path};
use wgpu_profiler::{chrometrace, GpuProfiler, GpuProfilerSettings};

fn profile(file: &Path, required_features: wgpu::Features, label: &str) {
    let instance = wgpu::Instance::default();
    let adapter = pollster::block_on(instance.request_adapter(&Default::default())).unwrap();
    let device = wgpu::DeviceDescriptor { required_features, ..Default::default() };
    let (device, queue) = pollster::block_on(adapter.request_device(&device)).unwrap();
    let mut profiler = GpuProfiler::new(&device, GpuProfilerSettings::default()).unwrap();
    let mut encoder = device.create_command_encoder(&Default::default());
    let mut frame = profiler.scope("frame", &mut encoder);
    drop(frame.scoped_compute_pass(label));
    drop(frame);
    drop(profiler.scope("copy", &mut encoder));
    profiler.resolve_queries(&mut encoder);
    queue.submit([encoder.finish()]);
    profiler.end_frame().unwrap();
    device.poll(wgpu::PollType::wait_indefinitely()).unwrap();
    let scopes = profiler.process_finished_frame(queue.get_timestamp_period()).unwrap();
    chrometrace::write_chrometrace(file, &scopes).unwrap();
}

fn main() {
    let folder = env::args().nth(1).unwrap();
    let passes = wgpu::Features::TIMESTAMP_QUERY;
    let all = passes | wgpu::Features::TIMESTAMP_QUERY_INSIDE_ENCODERS;
    for (name, features, label) in [
        ("plain.json", all, "blur"),
        ("label.json", all, r"shaders\post"),
        ("untimed.json", passes, "blur"),
    ] {
        profile(&Path::new(&folder).join(name), features, label);
    }
}
RS
export XDG_RUNTIME_DIR="$dir" VK_ICD_FILENAMES="$dir/swiftshader.json"
CARGO_TARGET_DIR="$dir/target" cargo run --quiet --manifest-path "$dir/Cargo.toml" -- "$dir"
cat >"$dir/read.py" <<'PY'
import json
import pathlib
import sys

seen = []
for name, scopes in (
    ("plain", '"blur", "copy"'),
    ("label", r'"shaders\post", "copy"'),
    ("untimed", '"blur", "copy" without a time'),
):
    try:
        json.loads((pathlib.Path(sys.argv[1]) / f"{name}.json").read_text())
        seen.append("JSON")
    except json.JSONDecodeError as error:
        seen.append(f"no JSON: {error.msg}")
    print(f"scopes {scopes}: {seen[-1]}")
expected = ["JSON", "no JSON: Invalid \\escape", "no JSON: Expecting value"]
sys.exit(0 if seen == expected else "the behaviour has changed")
PY
python3 "$dir/read.py" "$dir"
