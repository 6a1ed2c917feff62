#!/bin/sh
# rsevents-extra: a countdown that has once come to zero is never waited for again.
#
# A `CountdownEvent` is set when its count reaches zero. The documentation says that `increment`
# makes it unavailable again, and that `reset` takes a new count. The count does change, but the
# event stays set: each later wait returns at once, with the work still to be done.
#
# Guess before the run: after `reset(2)` a wait lasts until two more have been counted down.
#
# Why it matters: counting down what a batch has in flight, batch by batch, is the use of such an
# event. From the second batch on the wait does not wait, and results are read that are not there.
# Make a new event for each batch.
#
# Seen on 2026-11-29 with rsevents-extra 0.2.2 and rsevents 0.3.1 on Rust 1.95, Linux x86-64 (times
# vary; work that is done after 200 ms, and a wait for at most 1 s):
#   first batch: reached after 200 ms, count 0
#   after reset(1): reached after 0 ms, count 1
#   after increment(): reached after 0 ms, count 1
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
mkdir -p "$dir/batches/src"
cat >"$dir/batches/Cargo.toml" <<'TOML'
[package]
name = "batches"
version = "0.0.0"
edition = "2021"

[dependencies]
rsevents = "=0.3.1"
rsevents-extra = "=0.2.2"
TOML
cat >"$dir/batches/src/main.rs" <<'RS'
use std::{
    process, thread,
    time::{Duration, Instant},
};

use rsevents::Awaitable;
use rsevents_extra::CountdownEvent;

const WORK: Duration = Duration::from_millis(200);

fn batch(name: &str, event: &CountdownEvent) -> usize {
    thread::scope(|scope| {
        scope.spawn(|| {
            thread::sleep(WORK);
            event.decrement();
        });
        let start = Instant::now();
        let reached = if event.wait_for(5 * WORK) { "reached" } else { "not reached" };
        let (took, count) = (start.elapsed(), event.count());
        println!("{name}: {reached} after {} ms, count {count}", took.as_millis());
        count
    })
}

fn main() {
    let event = CountdownEvent::new(1);
    let first = batch("first batch", &event);
    event.reset(1);
    let reset = batch("after reset(1)", &event);
    event.increment();
    let incremented = batch("after increment()", &event);
    if (first, reset, incremented) != (0, 1, 1) {
        println!("the behaviour has changed");
        process::exit(1);
    }
}
RS
CARGO_TARGET_DIR="$dir/target" cargo run --quiet --manifest-path "$dir/batches/Cargo.toml"
