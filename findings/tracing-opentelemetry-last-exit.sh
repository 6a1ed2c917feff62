#!/bin/sh
# tracing-opentelemetry: a span ends when it was last left, not when it is closed.
#
# A span of `tracing` lives until its last handle is dropped. The OpenTelemetry span made of it
# begins where the `tracing` span is made, and ends where it was last exited. Time that passes after
# that is not counted, and events of that time lie behind the span's end. A span that was never
# entered does end where it is closed. Since 0.24 the end is set so on purpose, for tasks whose
# handles outlive them; the crate's documentation says nothing of it.
#
# Guess before the run: the span lasts from its creation to its end, in tracing's sense.
#
# Why it matters: `span.in_scope(|| launch())`, an await of the device, and a drop give the time of
# the launch. The span of a device's work must be entered once more when that is done, as by
# `span.in_scope(|| ())`, or never.
#
# Seen on 2026-11-28 with tracing-opentelemetry 0.34.0, opentelemetry_sdk 0.33.1, tracing 0.1.44 and
# tracing-subscriber 0.3.23, Rust 1.95 (times vary; each handle is kept for 100 ms):
#   entered, then kept: 0 ms, its event lies 100 ms behind its end
#   entered, kept, and entered again: 100 ms, its event lies in it
#   never entered: 100 ms, its event lies in it
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
mkdir "$dir/src"
cat >"$dir/Cargo.toml" <<'TOML'
[package]
name = "spans"
version = "0.0.0"
edition = "2021"

[dependencies]
opentelemetry = "=0.33.1"
opentelemetry_sdk = { version = "=0.33.1", features = ["testing"] }
tracing = "=0.1.44"
tracing-opentelemetry = "=0.34.0"
tracing-subscriber = "=0.3.23"
TOML
cat >"$dir/src/main.rs" <<'RS'
use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider};
use std::{process, thread, time::Duration};
use tracing_subscriber::prelude::*;

fn main() {
    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("spans"));
    tracing_subscriber::registry().with(layer).init();
    let mut seen = Vec::new();
    for (name, before, after) in [
        ("entered, then kept", true, false),
        ("entered, kept, and entered again", true, true),
        ("never entered", false, false),
    ] {
        let span = tracing::info_span!("work");
        if before {
            span.in_scope(|| ());
        }
        thread::sleep(Duration::from_millis(100));
        tracing::info!(parent: &span, "the device is done");
        if after {
            span.in_scope(|| ());
        }
        drop(span);
        let span = exporter.get_finished_spans().unwrap().remove(0);
        exporter.reset();
        let length = span.end_time.duration_since(span.start_time).unwrap().as_millis();
        let behind = span.events.events[0].timestamp.duration_since(span.end_time);
        let behind = behind.map_or(0, |time| time.as_millis());
        let place = match behind {
            0 => String::from("in it"),
            _ => format!("{behind} ms behind its end"),
        };
        println!("{name}: {length} ms, its event lies {place}");
        seen.push((length >= 100, behind >= 100));
    }
    if seen != [(false, true), (true, false), (true, false)] {
        println!("the behaviour has changed");
        process::exit(1);
    }
}
RS
CARGO_TARGET_DIR="$dir/target" cargo run --quiet --manifest-path "$dir/Cargo.toml"
