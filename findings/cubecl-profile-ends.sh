#!/bin/sh
# CubeCL (Rust) on wgpu: a profile counts a copy between two kernels, and none at either end.
#
# `client.profile` measures what a closure enqueues. On wgpu the window begins with the first kernel
# and ends with the last one, since the stamps belong to compute passes. What is copied in front of
# the first kernel, or behind the last, is not counted; between two kernels it is. A window without
# a kernel is an error.
#
# Guess before the run: the time of everything that the closure enqueues, wherever it stands.
#
# Why it matters: an operation that brings its data to the device and then computes looks as fast as
# its kernel, and gets slower by a kernel of no length in front of the copy. Tuning that chooses by
# these times chooses the variant that moves its copies to the ends. Time copies apart.
#
# Seen on 2026-11-29 with cubecl 0.11.3 (wgpu 30.0.2), Rust 1.95, SwiftShader of Debian 12's package
# chromium-common 156.0.8078, Linux x86-64 (times vary). The upload is 1.5 GiB:
#   kernel: 219 ms
#   upload, kernel: 182 ms
#   kernel, upload: 312 ms
#   kernel, upload, kernel: 2428 ms
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
driver=/usr/lib/chromium/libvk_swiftshader.so
if [ ! -e "$driver" ]; then
    (cd "$dir" && apt-get download --quiet chromium-common && dpkg -x chromium-common_*.deb .)
    driver=$dir$driver
fi
cat >"$dir/swiftshader.json" <<JSON
{"file_format_version": "1.0.0", "ICD": {"library_path": "$driver", "api_version": "1.3.0"}}
JSON
mkdir -p "$dir/profile/src"
cat >"$dir/profile/Cargo.toml" <<'TOML'
[package]
name = "profile"
version = "0.0.0"
edition = "2021"

[dependencies]
cubecl = { version = "=0.11.3", default-features = false, features = ["wgpu", "std"] }
cubecl-runtime = { version = "=0.11.3", default-features = false }
TOML
cat >"$dir/profile/src/main.rs" <<'RUST'
use cubecl::future::block_on;
use cubecl::prelude::*;
use cubecl::wgpu::WgpuRuntime;
use cubecl_runtime::runtime::Runtime;

type Wgpu = WgpuRuntime;

const SIZE: usize = 1 << 18;
const GROUP: u32 = 64;

#[cube(launch_unchecked)]
fn work(values: &mut [f32], steps: u32) {
    let mut value = values[ABSOLUTE_POS];
    for _ in 0..steps {
        value = value * 0.999 + 0.1;
    }
    values[ABSOLUTE_POS] = value;
}

fn main() {
    let client = Wgpu::client(&Default::default());
    let values = client.empty(4 * SIZE);
    let bytes = vec![1; 256 << 20];
    let kernel = || unsafe {
        let groups = CubeCount::Static(SIZE as u32 / GROUP, 1, 1);
        let values = BufferArg::from_raw_parts(values.clone(), SIZE);
        work::launch_unchecked(&client, groups, CubeDim::new_1d(GROUP), values, 300);
    };
    let upload = || {
        for _ in 0..6 {
            client.create_from_slice(&bytes);
        }
    };
    let measure = |text: &str, work: &(dyn Fn() + Sync)| {
        let (_, profile) = client.profile(work, "work").unwrap();
        let time = block_on(profile.resolve()).unwrap().duration().as_millis();
        println!("{text}: {time} ms");
        time
    };
    kernel();
    upload();
    block_on(client.sync()).unwrap();
    let alone = measure("kernel", &|| kernel());
    let front = measure("upload, kernel", &|| {
        upload();
        kernel();
    });
    let behind = measure("kernel, upload", &|| {
        kernel();
        upload();
    });
    let between = measure("kernel, upload, kernel", &|| {
        kernel();
        upload();
        kernel();
    });
    let copies = between.saturating_sub(2 * alone);
    if copies < 3 * front.abs_diff(alone).max(behind.abs_diff(alone)) {
        println!("the behaviour has changed");
        std::process::exit(1);
    }
}
RUST
cargo build --quiet --manifest-path "$dir/profile/Cargo.toml" --target-dir "$dir/target"
XDG_RUNTIME_DIR="$dir" VK_ICD_FILENAMES="$dir/swiftshader.json" "$dir/target/debug/profile"
