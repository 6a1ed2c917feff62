#!/bin/sh
# tracing-flame: a thread is shown with the time since the program began, however late it started.
#
# The crate writes one line each time a span is entered or left, with the time since the last one of
# the same thread. The first line of a thread counts from the start of the program instead. It has
# no span in it, so the time stands there as the thread's own, idle one. Ten threads that one after
# another do 20 ms of work have written down several times the program's whole time.
#
# Guess before the run: a thread counts from its start, or from its first span.
#
# Why it matters: the threads that wait for a device, or that a runtime starts and ends as needed,
# are such. The picture then is mostly time in which they did not exist, and spans look like next
# to nothing of it. Set `with_empty_samples(false)`, which leaves all time outside of spans out.
#
# Seen on 2026-11-28 with tracing-flame 0.2.0, tracing 0.1.44 and tracing-subscriber 0.3.23 on
# Rust 1.95, Linux x86-64 (times vary):
#   done: ten threads in a row, each from 0 to 20 ms, in 206 ms in all
#   written: 206 ms in spans, 939 ms outside of them
#   written for the last thread: 185 ms outside of spans, 20 ms in its span
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
mkdir -p "$dir/threads/src"
cat >"$dir/threads/Cargo.toml" <<'TOML'
[package]
name = "threads"
version = "0.0.0"
edition = "2021"

[dependencies]
tracing = "=0.1.44"
tracing-flame = "=0.2.0"
tracing-subscriber = "=0.3.23"
TOML
cat >"$dir/threads/src/main.rs" <<'RS'
use std::{
    env, fs, process, thread,
    time::{Duration, Instant},
};

use tracing_subscriber::prelude::*;

fn work() {
    let _span = tracing::info_span!("work").entered();
    thread::sleep(Duration::from_millis(20));
}

fn milliseconds<'a>(lines: impl Iterator<Item = &'a str>) -> u64 {
    let times = lines.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap());
    times.sum::<u64>() / 1_000_000
}

fn main() {
    let start = Instant::now();
    let file = env::args().nth(1).unwrap();
    let (layer, guard) = tracing_flame::FlameLayer::with_file(&file).unwrap();
    tracing_subscriber::registry().with(layer).init();
    for number in 1..=10 {
        let named = thread::Builder::new().name(format!("worker-{number}"));
        named.spawn(work).unwrap().join().unwrap();
    }
    let whole = start.elapsed().as_millis() as u64;
    guard.flush().unwrap();
    let text = fs::read_to_string(file).unwrap();
    let inside = |line: &&str| line.contains("work:");
    let last = |line: &&str| line.contains("worker-10");
    let spans = milliseconds(text.lines().filter(inside));
    let empty = milliseconds(text.lines().filter(|line| !inside(line)));
    println!("done: ten threads in a row, each from 0 to 20 ms, in {whole} ms in all");
    println!("written: {spans} ms in spans, {empty} ms outside of them");
    let late = milliseconds(text.lines().filter(last).filter(|line| !inside(line)));
    let own = milliseconds(text.lines().filter(last).filter(inside));
    println!("written for the last thread: {late} ms outside of spans, {own} ms in its span");
    if empty < 2 * whole || late < 3 * own {
        println!("the behaviour has changed");
        process::exit(1);
    }
}
RS
CARGO_TARGET_DIR="$dir/target" cargo run --quiet --manifest-path "$dir/threads/Cargo.toml" \
    -- "$dir/flame.folded"
