#!/bin/sh
# fastrace: of the local spans under one parent, those after the 10,240th are dropped unsaid.
#
# A thread keeps the local spans of its current parent until that parent's guard is dropped, in a
# list of at most 10,240. Further spans are not taken, and neither the report nor a log says so. The
# documentation names no limit. Spans that are given their parent, by `Span::enter_with_parent`, are
# not limited so.
#
# Guess before the run: all spans are reported.
#
# Why it matters: a loop that launches kernels makes as many spans in a second. The trace then ends
# with the first of them, and the program seems to idle. Set a new local parent every few thousand.
#
# Seen on 2026-11-29 with fastrace 0.7.19 on Rust 1.95, Linux x86-64:
#   10000 local spans made, 10000 reported
#   20000 local spans made, 10240 reported
#   20000 local spans made, a new local parent for each thousand, 20000 reported
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
mkdir -p "$dir/spans/src"
cat >"$dir/spans/Cargo.toml" <<'TOML'
[package]
name = "spans"
version = "0.0.0"
edition = "2021"

[dependencies]
fastrace = { version = "=0.7.19", features = ["enable"] }
TOML
cat >"$dir/spans/src/main.rs" <<'RS'
use std::process;

use fastrace::{
    collector::{Config, TestReporter},
    prelude::*,
};

fn launch(count: usize) {
    let root = Span::root("run", SpanContext::random());
    let _guard = root.set_local_parent();
    for _ in 0..count {
        let _span = LocalSpan::enter_with_local_parent("launch");
    }
}

fn main() {
    let (reporter, reported) = TestReporter::new();
    fastrace::set_reporter(reporter, Config::default());
    let take = |text: &str| {
        fastrace::flush();
        let found = reported.lock().drain(..).filter(|span| span.name == "launch").count();
        println!("{text}, {found} reported");
        found
    };
    launch(10_000);
    let few = take("10000 local spans made");
    launch(20_000);
    let many = take("20000 local spans made");
    for _ in 0..20 {
        launch(1_000);
    }
    let parts = take("20000 local spans made, a new local parent for each thousand");
    if (few, many, parts) != (10_000, 10_240, 20_000) {
        println!("the behaviour has changed");
        process::exit(1);
    }
}
RS
CARGO_TARGET_DIR="$dir/target" cargo run --quiet --manifest-path "$dir/spans/Cargo.toml"
