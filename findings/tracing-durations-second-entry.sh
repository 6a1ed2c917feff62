#!/bin/sh
# tracing-durations-export: a section of a span on one thread begins where another thread entered.
#
# The crate writes a line for "each section where a span is active", to see what runs in parallel.
# It keeps one time of entry for each span. If a second thread enters the span while a first one is
# in it, that time is overwritten, and when the first thread leaves, its section begins at the
# second one's entry. What it did before stands nowhere, so the span seems not to have been active.
#
# Guess before the run: a section for each thread, from its entry to its exit.
#
# Why it matters: a span that goes into the closures of a thread pool, or into a callback, is such a
# one: the long task loses all that came before the last short one began. The picture shows a pause
# where a thread was at work. Give each closure a span of its own, as a child.
#
# Seen on 2026-11-29 with tracing-durations-export 0.3.5, tracing 0.1.44 and tracing-subscriber
# 0.3.23 on Rust 1.95, Linux x86-64 (times vary; one thread is in the span for 300 ms, the other one
# for 50 ms, from 200 ms on):
#   shared: 200 to 250 ms, 200 to 300 ms
#   a child each: 200 to 250 ms, 0 to 300 ms
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
mkdir -p "$dir/sections/src"
cat >"$dir/sections/Cargo.toml" <<'TOML'
[package]
name = "sections"
version = "0.0.0"
edition = "2021"

[dependencies]
serde_json = "=1.0.149"
tracing = "=0.1.44"
tracing-durations-export = "=0.3.5"
tracing-subscriber = "=0.3.23"
TOML
cat >"$dir/sections/src/main.rs" <<'RUST'
use std::{env, fs, process, thread, time::Duration};
use tracing::Span;
use tracing_durations_export::DurationsLayerBuilder;
use tracing_subscriber::layer::SubscriberExt;

/// Begins and lengths in milliseconds.
const TASKS: [(u64, u64); 2] = [(0, 300), (200, 50)];

fn sleep(milliseconds: u64) {
    thread::sleep(Duration::from_millis(milliseconds));
}

fn run(spans: [Span; 2]) {
    let threads = TASKS.into_iter().zip(spans).map(|((begin, length), span)| {
        thread::spawn(move || {
            sleep(begin);
            span.in_scope(|| sleep(length));
        })
    });
    let threads: Vec<_> = threads.collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

/// Begin and end of each section in milliseconds from the first begin that was due.
fn sections(lines: &str, name: &str, due: f64) -> Vec<(f64, f64)> {
    let lines = lines.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let time = |value: &serde_json::Value| {
        let [seconds, nanos] = ["secs", "nanos"].map(|part| value[part].as_f64().unwrap());
        seconds * 1e3 + nanos / 1e6 - due
    };
    let lines = lines.filter(|line| line["name"] == name);
    lines.map(|line| (time(&line["start"]), time(&line["end"]))).collect()
}

fn show(name: &str, found: &[(f64, f64)]) {
    let texts = found.iter().map(|(begin, end)| format!("{begin:.0} to {end:.0} ms"));
    println!("{name}: {}", texts.collect::<Vec<_>>().join(", "));
}

fn main() {
    let file = env::args().nth(1).unwrap();
    let (layer, guard) = DurationsLayerBuilder::default().durations_file(&file).build().unwrap();
    let subscriber = tracing_subscriber::registry().with(layer);
    tracing::subscriber::with_default(subscriber, || {
        // Times count from the first span.
        let shared = tracing::info_span!("shared");
        run([shared.clone(), shared]);
        let parent = tracing::info_span!("parent");
        run([(); 2].map(|()| tracing::info_span!(parent: &parent, "child")));
    });
    drop(guard);
    let lines = fs::read_to_string(&file).unwrap();
    let shared = sections(&lines, "shared", 0.0);
    let end_of_first = shared[1].1;
    let children = sections(&lines, "child", end_of_first);
    show("shared", &shared);
    show("a child each", &children);
    // Sections are in the order of their ends, so the long one is the second.
    if shared[1].0 < 150.0 || children[1].0 > 50.0 {
        println!("the behaviour has changed");
        process::exit(1);
    }
}
RUST
CARGO_TARGET_DIR="$dir/target" cargo run --quiet --manifest-path "$dir/sections/Cargo.toml" \
    "$dir/lines.ndjson"
