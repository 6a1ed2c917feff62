#!/bin/sh
# line_profiler: a line that awaits has next to no time, however long it waits.
#
# The clock of a line stops when its function is left, and a coroutine is left at each `await` that
# suspends it. What is counted is the work before the suspension and after it. A generator's `yield`
# is the same. A call that blocks for as long has its whole time, on the same wall clock.
#
# Guess before the run: a line has the time from its start until the next line, on the wall clock.
#
# Why it matters: awaiting a device is where such a program spends its time. The report shows the
# preparation in front of it as nearly all, and the function's total without its waits.
#
# Seen on 2026-11-29 with line_profiler 5.1.0, Python 3.11, Linux x86-64 (times vary):
#   time.sleep(0.2): 206.1 ms
#   await asyncio.sleep(0.2): 0.1 ms
#   await asyncio.to_thread(time.sleep, 0.2): 13.5 ms
#   the function: 219.8 ms of 627.0
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --no-cache-dir line_profiler==5.1.0
cat >"$dir/waits.py" <<'PY'
import asyncio
import sys
import time

from line_profiler import LineProfiler


async def waits():
    time.sleep(0.2)
    await asyncio.sleep(0.2)
    await asyncio.to_thread(time.sleep, 0.2)


profiler = LineProfiler()
profiled = profiler(waits)
start = time.perf_counter()
asyncio.run(profiled())
whole = 1000 * (time.perf_counter() - start)
stats = profiler.get_stats()
(lines,) = stats.timings.values()
with open(__file__) as file:
    text = file.read().splitlines()
seen = []
for number, hits, units in lines:
    assert hits == 1
    seen.append(1000 * units * stats.unit)
    print(f"{text[number - 1].strip()}: {seen[-1]:.1f} ms")
print(f"the function: {sum(seen):.1f} ms of {whole:.1f}")
blocked, slept, thread = seen
same = blocked >= 190 and slept < 100 and thread < 100 and whole >= 590
sys.exit(0 if same else "the behaviour has changed")
PY
"$dir/venv/bin/python" "$dir/waits.py"
