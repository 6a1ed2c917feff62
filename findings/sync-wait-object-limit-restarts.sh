#!/bin/sh
# sync-wait-object: each change that is not the one awaited gives a wait its whole limit again.
#
# `WaitEvent::wait(timeout, checker)` waits until a value satisfies the checker, for "maximum wait
# time" `timeout`. Each time another thread sets a value that does not satisfy it, and the limit is
# not over, the wait goes on for the whole limit, not for the rest of it. It may last twice as long.
#
# Guess before the run: the limit is that of the call.
#
# Why it matters: the value is a count of finished batches, and each one that ends wakes the waiter.
# A device that hangs after having made progress is then found late, and an outer time limit, which
# was made longer than this one, is over first. Keep a deadline, and call `wait` with what is left.
#
# Seen on 2026-11-29 with sync-wait-object 0.2.0 on Rust 1.95, Linux x86-64 (a wait for a value that
# does not come, for at most 1 s; times vary):
#   nothing changes: timed out after 1007 ms
#   one change after 800 ms: timed out after 1809 ms
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
mkdir -p "$dir/limit/src"
cat >"$dir/limit/Cargo.toml" <<'TOML'
[package]
name = "limit"
version = "0.0.0"
edition = "2021"

[dependencies]
sync-wait-object = "=0.2.0"
TOML
cat >"$dir/limit/src/main.rs" <<'RS'
use std::{
    process, thread,
    time::{Duration, Instant},
};

use sync_wait_object::WaitEvent;

const LIMIT: Duration = Duration::from_secs(1);

fn wait(name: &str, changes: u32) -> Duration {
    let event = WaitEvent::new_init(0);
    let mut setter = event.clone();
    let start = Instant::now();
    let batches = thread::spawn(move || {
        for batch in 1..=changes {
            thread::sleep(Duration::from_millis(800));
            setter.set_state(batch).unwrap();
        }
    });
    let reached = event.wait(Some(LIMIT), |batch| *batch == 2).is_ok();
    let took = start.elapsed();
    let found = if reached { "reached" } else { "timed out" };
    println!("{name}: {found} after {} ms", took.as_millis());
    batches.join().unwrap();
    took
}

fn main() {
    let alone = wait("nothing changes", 0);
    let changed = wait("one change after 800 ms", 1);
    if changed < alone + Duration::from_millis(500) {
        println!("the behaviour has changed");
        process::exit(1);
    }
}
RS
CARGO_TARGET_DIR="$dir/target" cargo run --quiet --manifest-path "$dir/limit/Cargo.toml"
