#!/bin/sh
# loom and shuttle: a wait with a limit never reaches it, so what it leads to is not modelled.
#
# Both run a concurrent program in all, or in many, of the orders in which it can go.
# `Condvar::wait_timeout` is there in both, "timing out after a specified duration". It returns when
# it is notified, and at no other time: `timed_out()` is false in every run. Nothing says so: loom's
# `recv_timeout` of a channel, which is missing likewise, panics.
#
# Guess before the run: there are runs in which the limit comes first, as there are with threads.
#
# Why it matters: waiting for a device with a limit is such a wait, and what happens after the limit
# is the part that goes wrong. The program here gives up a slot that the other thread still writes
# to. The models pass. Model the limit as a thread that notifies, or as a flag.
#
# Seen on 2026-11-29 with loom 0.7.3 and shuttle 0.9.10 on Rust 1.95, Linux x86-64:
#   threads, the writer is late: timed out in 1 of 1 runs, slot taken twice in 1
#   loom, all orders: timed out in 0 of 8 runs, slot taken twice in 0
#   shuttle, 1000 random orders: timed out in 0 of 1000 runs, slot taken twice in 0
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
loom = "=0.7.3"
shuttle = "=0.9.10"
TOML
cat >"$dir/limits/src/main.rs" <<'RS'
use std::{
    process,
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
    time::Duration,
};

static RUNS: AtomicUsize = AtomicUsize::new(0);
static TIMED_OUT: AtomicUsize = AtomicUsize::new(0);
static TWICE: AtomicUsize = AtomicUsize::new(0);

macro_rules! program {
    ($name:ident, $library:ident, $late:expr) => {
        fn $name() {
            use $library::{
                sync::{Arc, Condvar, Mutex},
                thread,
            };
            RUNS.fetch_add(1, SeqCst);
            let slot = Arc::new((Mutex::new((false, true)), Condvar::new()));
            let written = slot.clone();
            let writer = thread::spawn(move || {
                $late;
                let mut state = written.0.lock().unwrap();
                // The slot is the writer's until it is done.
                if !state.1 {
                    TWICE.fetch_add(1, SeqCst);
                }
                state.0 = true;
                written.1.notify_one();
            });
            let mut state = slot.0.lock().unwrap();
            while !state.0 {
                let limit = Duration::from_millis(50);
                let (again, result) = slot.1.wait_timeout(state, limit).unwrap();
                state = again;
                if result.timed_out() && !state.0 {
                    TIMED_OUT.fetch_add(1, SeqCst);
                    state.1 = false;
                    break;
                }
            }
            drop(state);
            writer.join().unwrap();
        }
    };
}
program!(real, std, thread::sleep(Duration::from_millis(500)));
program!(in_loom, loom, ());
program!(in_shuttle, shuttle, ());

fn show(name: &str) -> (usize, usize, usize) {
    let [runs, timed, twice] = [&RUNS, &TIMED_OUT, &TWICE].map(|count| count.swap(0, SeqCst));
    println!("{name}: timed out in {timed} of {runs} runs, slot taken twice in {twice}");
    (runs, timed, twice)
}

fn main() {
    real();
    let threads = show("threads, the writer is late");
    loom::model(in_loom);
    let loom = show("loom, all orders");
    shuttle::check_random(in_shuttle, 1000);
    let shuttle = show("shuttle, 1000 random orders");
    if threads != (1, 1, 1) || loom.1 != 0 || loom.0 < 2 || shuttle != (1000, 0, 0) {
        println!("the behaviour has changed");
        process::exit(1);
    }
}
RS
CARGO_TARGET_DIR="$dir/target" cargo run --quiet --manifest-path "$dir/limits/Cargo.toml"
