#!/bin/sh
# coarsetime: a millisecond is 1/1024 of a second, so a limit of 999 ms is one of 976 ms.
#
# `Duration::from_millis` takes each millisecond beyond the full seconds as 1/1024 of a second. One
# millisecond reads 0 when it is asked for in milliseconds, and of the numbers up to a thousand only
# 1000 comes back as it was given. `Duration::new`, and a duration made from one of the standard
# library, are exact to a nanosecond.
#
# Guess before the run: what is made from milliseconds has as many, or is off by a rounding.
#
# Why it matters: limits and intervals written down in milliseconds are 2.4 % short, and end before
# what they are compared with. Make them from the standard library's: `Duration::from(…)`.
#
# Seen on 2026-11-29 with coarsetime 0.1.38 on Rust 1.95, Linux x86-64:
#   from_millis: 1 ms is 976.562µs, 500 ms is 488.28125ms, 999 ms is 975.585937ms
#   from_millis(n).as_millis() differs from n for 999 of the numbers 1 to 1000
#   from(std's): 1 ms is 999.999µs, 500 ms is 500ms, 999 ms is 998.999999ms
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
mkdir -p "$dir/limits/src"
cat >"$dir/limits/Cargo.toml" <<'TOML'
[package]
name = "limits"
version = "0.0.0"
edition = "2021"

[dependencies]
coarsetime = "=0.1.38"
TOML
cat >"$dir/limits/src/main.rs" <<'RS'
use std::{process, time::Duration};

const SHOWN: [u64; 3] = [1, 500, 999];

fn show(name: &str, coarse: fn(u64) -> coarsetime::Duration) -> Duration {
    let texts = SHOWN.map(|n| format!("{n} ms is {:?}", Duration::from(coarse(n))));
    println!("{name}: {}", texts.join(", "));
    Duration::from(coarse(999))
}

fn main() {
    let short = show("from_millis", coarsetime::Duration::from_millis);
    let differs = |n: &u64| coarsetime::Duration::from_millis(*n).as_millis() != *n;
    let count = (1..=1000).filter(differs).count();
    println!("from_millis(n).as_millis() differs from n for {count} of the numbers 1 to 1000");
    let exact = show("from(std's)", |n| Duration::from_millis(n).into());
    let expected = Duration::from_millis(999);
    let close = expected.abs_diff(exact) < Duration::from_micros(1);
    if !close || short > Duration::from_millis(980) || count < 900 {
        println!("the behaviour has changed");
        process::exit(1);
    }
}
RS
CARGO_TARGET_DIR="$dir/target" cargo run --quiet --manifest-path "$dir/limits/Cargo.toml"
