#!/bin/sh
# fastrace: a flush after a burst reports none of its spans, and they are lost with their thread.
#
# Each thread hands its spans to the collector by a queue of 10,240. While the collector is sending
# others, what does not fit stays in a list of the thread, until that makes another span. A flush
# empties the queues and not the lists, and reports nothing of a trace whose root is not yet there.
# A thread that ends pushes what fits into the queue, and drops the rest. Nothing is said.
#
# Guess before the run: "flushes all pending span records to the reporter immediately".
#
# Why it matters: a program flushes at the end of the part that it looks into, and before it exits.
# Short spans in bursts are what launches on a device are, and sending takes time. Flush every few
# thousand spans, which waits for the collector and makes room.
#
# Seen on 2026-11-29 with fastrace 0.7.19 on Rust 1.95, Linux x86-64 (a reporter that takes 300 ms
# is at work when a thread of its own makes the spans, flushes, and ends):
#   10000 spans: 10000 reported by the flush, 0 later
#   50000 spans: 0 reported by the flush, 0 later
#   50000 spans, a flush after each five thousand: 50000 reported by the flush, 0 later
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
use std::{
    process,
    sync::mpsc::{channel, Sender},
    thread,
    time::Duration,
};

use fastrace::{
    collector::{Config, Reporter, SpanRecord},
    prelude::*,
};

const MINUTE: Duration = Duration::from_secs(60);
const SENDING: Duration = Duration::from_millis(300);

struct Slow {
    started: Sender<()>,
    sent: Sender<usize>,
}

impl Reporter for Slow {
    fn report(&mut self, spans: Vec<SpanRecord>) {
        let launches = spans.iter().filter(|span| span.name == "launch").count();
        self.started.send(()).unwrap();
        thread::sleep(SENDING);
        self.sent.send(launches).unwrap();
    }
}

fn launch(count: usize, between: usize) {
    let root = Span::root("run", SpanContext::random());
    for number in 1..=count {
        drop(Span::enter_with_parent("launch", &root));
        if number % between == 0 {
            fastrace::flush();
        }
    }
    drop(root);
    fastrace::flush();
}

fn main() {
    let (started, starts) = channel();
    let (sent, sends) = channel();
    fastrace::set_reporter(Slow { started, sent }, Config::default().report_interval(MINUTE));
    let run = |text: &str, count: usize, between: usize| {
        drop(Span::root("before", SpanContext::random()));
        let before = thread::spawn(fastrace::flush);
        starts.recv().unwrap();
        thread::spawn(move || launch(count, between)).join().unwrap();
        before.join().unwrap();
        let flushed: usize = sends.try_iter().sum();
        fastrace::flush();
        let later: usize = sends.try_iter().sum();
        starts.try_iter().for_each(drop);
        println!("{text}: {flushed} reported by the flush, {later} later");
        (flushed, later)
    };
    let few = run("10000 spans", 10_000, usize::MAX);
    let many = run("50000 spans", 50_000, usize::MAX);
    let parts = run("50000 spans, a flush after each five thousand", 50_000, 5_000);
    if few != (10_000, 0) || many.0 + many.1 > 25_000 || parts != (50_000, 0) {
        println!("the behaviour has changed");
        process::exit(1);
    }
}
RS
CARGO_TARGET_DIR="$dir/target" cargo run --quiet --manifest-path "$dir/spans/Cargo.toml"
