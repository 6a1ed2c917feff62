#!/bin/sh
# puffin: a frame lasts as long as the longest scope that ends in it, however short the frame was.
#
# A thread hands in its scopes when the outermost one ends, and they are of the frame of that
# moment. The duration of a frame is the range of all its scopes. One in which another thread ends a
# scope of 150 ms lasts 150 ms or more, though the next frame began 20 ms later. The frames that the
# scope ran through do not have it, nor the short scopes in it.
#
# Guess before the run: a frame lasts from one `new_frame` to the next.
#
# Why it matters: a thread that waits for a device in a scope of its own makes such frames, now and
# then. They are first in the list of the slowest frames, which a profiler is opened for, and there
# was nothing slow in them. Keep the scopes of other threads shorter than a frame.
#
# Seen on 2026-11-29 with puffin 0.20.0 on Rust 1.95, Linux x86-64 (ten frames of 20 ms; another
# thread has a scope of 150 ms, and three short ones in it; times vary):
#   frames last 20 to 24 ms by the clock
#   frames with the wait: 1, with 1 + 3 scopes, 160 ms long
#   the other frames: 9, up to 23 ms long
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
mkdir -p "$dir/frames/src"
cat >"$dir/frames/Cargo.toml" <<'TOML'
[package]
name = "frames"
version = "0.0.0"
edition = "2021"

[dependencies]
puffin = "=0.20.0"
TOML
cat >"$dir/frames/src/main.rs" <<'RS'
use std::{
    process,
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use puffin::GlobalProfiler;

const FRAME: Duration = Duration::from_millis(20);

fn wait() {
    puffin::profile_scope!("wait");
    for _ in 0..3 {
        puffin::profile_scope!("poll");
        thread::sleep(Duration::from_millis(50));
    }
}

fn main() {
    puffin::set_scopes_on(true);
    let frames = Arc::new(Mutex::new(Vec::new()));
    let sink = frames.clone();
    let keep = Box::new(move |frame| sink.lock().unwrap().push(frame));
    GlobalProfiler::lock().add_sink(keep);
    GlobalProfiler::lock().new_frame();
    let waiting = thread::Builder::new().name("waiting".into()).spawn(wait).unwrap();
    let mut clock = Vec::new();
    for _ in 0..10 {
        let start = Instant::now();
        {
            puffin::profile_scope!("draw");
            thread::sleep(FRAME);
        }
        GlobalProfiler::lock().new_frame();
        clock.push(start.elapsed().as_millis());
    }
    waiting.join().unwrap();
    GlobalProfiler::lock().new_frame();
    let (shortest, longest) = (clock.iter().min().unwrap(), clock.iter().max().unwrap());
    println!("frames last {shortest} to {longest} ms by the clock");
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for frame in frames.lock().unwrap().iter() {
        let milliseconds = frame.duration_ns() / 1_000_000;
        let streams = &frame.unpacked().ok().unwrap().thread_streams;
        match streams.iter().find(|(thread, _)| thread.name == "waiting") {
            Some((_, stream)) => with.push((milliseconds, stream.num_scopes)),
            None => without.push(milliseconds),
        }
    }
    let (long, scopes) = with[0];
    let (count, inner) = (with.len(), scopes - 1);
    println!("frames with the wait: {count}, with 1 + {inner} scopes, {long} ms long");
    let other = without.iter().max().unwrap();
    println!("the other frames: {}, up to {other} ms long", without.len());
    if with.len() != 1 || scopes != 4 || long < 140 {
        println!("the behaviour has changed");
        process::exit(1);
    }
}
RS
CARGO_TARGET_DIR="$dir/target" cargo run --quiet --manifest-path "$dir/frames/Cargo.toml"
