#!/bin/sh
# wgpu: devices, queues and buffers of two instances are equal, though they have nothing in common.
#
# `==` and `Hash` of wgpu's objects, on native backends, compare a number that each instance counts
# for itself. The first device of one instance so equals the first of another, also on another GPU,
# and the same goes for adapters, queues and buffers. Within one instance two devices differ.
#
# Guess before the run: equal are a handle and its clones, as for other reference-counted handles.
#
# Why it matters: a cache keyed by the device, of pipelines or of streams, hands out objects of
# another device; using them is a validation error at best. Programs get two instances when two
# libraries each make one. Keep the instance in the key, or compare the native handles.
#
# Seen on 2026-11-28 with wgpu 30.0.2, Rust 1.95, lavapipe of Debian 12's package
# mesa-vulkan-drivers (22.3.6), Linux x86-64:
#   a device and its clone: equal
#   two devices of one instance: different
#   the first devices of two instances: equal
#   their queues: equal
#   their first buffers: equal
#   a map with the one device, asked for the other: found
#
# It needs cargo, and builds wgpu (a minute of processor time).
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
driver=/usr/share/vulkan/icd.d/lvp_icd.x86_64.json
[ -e "$driver" ] || { echo "it needs mesa-vulkan-drivers"; exit 2; }
mkdir -p "$dir/equal/src"
cat >"$dir/equal/Cargo.toml" <<'TOML'
[package]
name = "equal"
version = "0.0.0"
edition = "2021"

[dependencies]
pollster = "=0.4.0"
wgpu = { version = "=30.0.2", default-features = false, features = ["std", "vulkan", "wgsl"] }

[profile.dev]
debug = false
TOML
cat >"$dir/equal/src/main.rs" <<'RUST'
use std::collections::HashMap;

use pollster::block_on;

fn adapter() -> (wgpu::Instance, wgpu::Adapter) {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
    let adapter = block_on(instance.request_adapter(&Default::default())).unwrap();
    (instance, adapter)
}

fn device(adapter: &wgpu::Adapter) -> (wgpu::Device, wgpu::Queue) {
    block_on(adapter.request_device(&Default::default())).unwrap()
}

fn buffer(device: &wgpu::Device) -> wgpu::Buffer {
    device.create_buffer(&wgpu::BufferDescriptor {
        label: None,
        size: 16,
        usage: wgpu::BufferUsages::COPY_DST,
        mapped_at_creation: false,
    })
}

fn main() {
    let (_one, first) = adapter();
    let (_other, second) = adapter();
    let (a, queue_a) = device(&first);
    let (b, queue_b) = device(&second);
    let (sibling, _) = device(&first);
    let map = HashMap::from([(a.clone(), "pipelines of the one")]);
    let seen = [
        ("a device and its clone", a == a.clone()),
        ("two devices of one instance", a == sibling),
        ("the first devices of two instances", a == b),
        ("their queues", queue_a == queue_b),
        ("their first buffers", buffer(&a) == buffer(&b)),
    ];
    for (what, equal) in seen {
        println!("{what}: {}", if equal { "equal" } else { "different" });
    }
    let found = map.contains_key(&b);
    let answer = if found { "found" } else { "not found" };
    println!("a map with the one device, asked for the other: {answer}");
    if seen.map(|(_, equal)| equal) != [true, false, true, true, true] || !found {
        println!("the behaviour has changed");
        std::process::exit(1);
    }
}
RUST
cargo build --quiet --manifest-path "$dir/equal/Cargo.toml" --target-dir "$dir/target"
XDG_RUNTIME_DIR=$dir VK_ICD_FILENAMES=$driver VK_DRIVER_FILES=$driver "$dir/target/debug/equal"
