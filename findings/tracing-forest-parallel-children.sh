#!/bin/sh
# tracing-forest: a span lasts as long as all its children together, also if those ran at one time.
#
# The tree shows for each span "the total duration the span was entered for". Each child that closes
# adds its own duration to its parent's, also when the child ran on another thread, and the parent
# was not entered meanwhile. Four children of 100 ms that ran at the same time make a parent of 400
# ms, and each of them a quarter of it.
#
# Guess before the run: the parent has the time for which it was entered, or open.
#
# Why it matters: work on several streams or threads is one span with parallel children. What was
# gained by running them side by side is invisible: the same total is printed as for one after the
# other. Time the whole with `Instant` in addition.
#
# Seen on 2026-11-29 with tracing-forest 0.3.1, tracing 0.1.44 and tracing-subscriber 0.3.23 on
# Rust 1.95, Linux x86-64 (four children of 100 ms; times vary):
#   one after the other: parent entered for 411 ms, shown with 411 ms
#   at one time: parent entered for 0 ms, open for 108 ms, shown with 404 ms
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
tracing = "=0.1.44"
tracing-forest = "=0.3.1"
tracing-subscriber = "=0.3.23"
TOML
cat >"$dir/spans/src/main.rs" <<'RS'
use std::{
    process,
    sync::mpsc::channel,
    thread,
    time::{Duration, Instant},
};

use tracing::Span;
use tracing_forest::{tree::Tree, ForestLayer};
use tracing_subscriber::prelude::*;

fn work(parent: &Span) {
    let _child = tracing::info_span!(parent: parent, "child").entered();
    thread::sleep(Duration::from_millis(100));
}

fn main() {
    let (sender, trees) = channel();
    let keep = move |tree: Tree| {
        let span = tree.span().unwrap();
        sender.send(span.total_duration()).unwrap();
        Ok(())
    };
    let processor = tracing_forest::processor::from_fn(keep);
    tracing_subscriber::registry().with(ForestLayer::from(processor)).init();
    let start = Instant::now();
    {
        let parent = tracing::info_span!("row");
        let _entered = parent.enter();
        (0..4).for_each(|_| work(&parent));
    }
    let row = start.elapsed();
    let shown_row = trees.recv().unwrap();
    let start = Instant::now();
    {
        let parent = tracing::info_span!("parallel");
        thread::scope(|scope| {
            (0..4).for_each(|_| drop(scope.spawn(|| work(&parent))));
        });
    }
    let open = start.elapsed();
    let shown = trees.recv().unwrap();
    print!("one after the other: parent entered for {} ms, ", row.as_millis());
    println!("shown with {} ms", shown_row.as_millis());
    print!("at one time: parent entered for 0 ms, open for {} ms, ", open.as_millis());
    println!("shown with {} ms", shown.as_millis());
    if shown < open + Duration::from_millis(150) {
        println!("the behaviour has changed");
        process::exit(1);
    }
}
RS
CARGO_TARGET_DIR="$dir/target" cargo run --quiet --manifest-path "$dir/spans/Cargo.toml"
