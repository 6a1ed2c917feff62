#!/bin/sh
# JAX: the profile for trace viewers keeps the first million events, and says nothing of the rest.
#
# The profiler writes an .xplane.pb, which has all events, and a .trace.json.gz for Perfetto and
# Chrome. The second one is cut to the earliest 1,000,000 rows. Neither the file nor the log says
# that anything is missing.
#
# Guess before the run: both files have all events, or a warning tells that some were dropped.
#
# Why it matters: the end of the profile is missing, so the last steps look as if the program had
# stopped there. A count of events, or a sum of their times, is too low. Count the events of the
# .xplane.pb with `jax.profiler.ProfileData`.
#
# Seen on 2026-11-28 with jax and jaxlib 0.10.2, Python 3.11, CPU backend, Linux x86-64 (the
# times vary):
#   written: 1100000 annotations, lasting 550 ms
#   .xplane.pb: 1100000, the last after 550 ms
#   .trace.json.gz: 999997, the last after 497 ms
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --no-cache-dir jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
cat >"$dir/profile.py" <<'PY'
import gzip
import json
import pathlib
import sys
import time

import jax

COUNT = 1_100_000
folder = pathlib.Path(sys.argv[1], "profile")
jax.numpy.ones(1).block_until_ready()
jax.profiler.start_trace(str(folder))
begun = time.perf_counter()
for _ in range(COUNT):
    with jax.profiler.TraceAnnotation("step"):
        pass
lasted = 1e3 * (time.perf_counter() - begun)
jax.profiler.stop_trace()
print(f"written: {COUNT} annotations, lasting {lasted:.0f} ms")


def report(name, starts):
    print(f"{name}: {len(starts)}, the last after {max(starts) - min(starts):.0f} ms")
    return len(starts), max(starts)


(planes,) = folder.rglob("*.xplane.pb")
lines = [line for p in jax.profiler.ProfileData.from_file(str(planes)).planes for line in p.lines]
steps = [event.start_ns / 1e6 for line in lines for event in line.events if event.name == "step"]
whole, last = report(".xplane.pb", steps)
(viewed,) = folder.rglob("*.trace.json.gz")
with gzip.open(viewed) as file:
    rows = json.load(file)["traceEvents"]
kept, last_kept = report(
    ".trace.json.gz", [row["ts"] / 1e3 for row in rows if row.get("name") == "step"]
)
ok = whole == COUNT and 990_000 < kept <= 1_000_000 and last_kept < last
sys.exit(0 if ok else "the behaviour has changed")
PY
JAX_PLATFORMS=cpu "$dir/venv/bin/python" "$dir/profile.py" "$dir"
