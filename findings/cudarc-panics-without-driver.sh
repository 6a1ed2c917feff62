#!/bin/sh
# cudarc (Rust): without CUDA's driver the calls that return a `Result` panic.
#
# With the feature `dynamic-loading` libcuda.so is loaded when it is first needed. If there is none,
# the crate panics, in whatever call that was: `result::init`, `CudaContext::device_count` and
# `CudaContext::new` return a `Result`, and never an error for the most usual reason to have no
# device. `sys::is_culib_present`, an unsafe function, tells it without a panic.
#
# Guess before the run: an error, as for "no device"; a program that counts devices gets Err or 0.
#
# Why it matters: "use the GPU if there is one, else the CPU" ends the program on each machine
# without a GPU, and cannot be built with panic = "abort" at all. Ask `is_culib_present` first.
#
# Seen on 2026-11-29 with cudarc 0.19.10, Rust 1.95, Linux x86-64, no GPU:
#   is_culib_present: false
#   result::init: panics
#   CudaContext::device_count: panics
#   CudaContext::new: panics
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
mkdir -p "$dir/count/src"
cat >"$dir/count/Cargo.toml" <<'TOML'
[package]
name = "count"
version = "0.0.0"
edition = "2021"

[dependencies.cudarc]
version = "=0.19.10"
default-features = false
features = ["std", "driver", "dynamic-loading", "cuda-12080"]
TOML
cat >"$dir/count/src/main.rs" <<'RUST'
use cudarc::driver::{result, sys, CudaContext};
use std::panic::{catch_unwind, set_hook, UnwindSafe};

fn panics<T, E>(text: &str, call: impl FnOnce() -> Result<T, E> + UnwindSafe) -> bool {
    let answer = catch_unwind(call);
    let which = match &answer {
        Ok(Ok(_)) => "returns a value",
        Ok(Err(_)) => "returns an error",
        Err(_) => "panics",
    };
    println!("{text}: {which}");
    answer.is_err()
}

fn main() {
    let present = unsafe { sys::is_culib_present() };
    println!("is_culib_present: {present}");
    if present {
        println!("this needs a machine without CUDA's driver");
        std::process::exit(1);
    }
    set_hook(Box::new(|_| ()));
    let seen = [
        panics("result::init", result::init),
        panics("CudaContext::device_count", CudaContext::device_count),
        panics("CudaContext::new", || CudaContext::new(0)),
    ];
    if seen != [true; 3] {
        println!("the behaviour has changed");
        std::process::exit(1);
    }
}
RUST
cargo run --quiet --manifest-path "$dir/count/Cargo.toml" --target-dir "$dir/target"
