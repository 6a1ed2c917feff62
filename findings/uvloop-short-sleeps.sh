#!/bin/sh
# uvloop: a sleep of less than half a millisecond does not wait, and others end up to 0.5 ms early.
#
# The loop rounds each delay to the nearest whole millisecond. A delay below half of one becomes 0,
# and its callback runs with the ones that are ready. One of 1.4 ms becomes 1 ms, and of two timers
# the later one may come first. asyncio's own loop keeps the microseconds, and is never early.
#
# Guess before the run: as with asyncio's loop, a timer is late at most.
#
# Why it matters: a loop that asks a device event whether it is complete and then sleeps for 0.4 ms
# keeps a core busy, and asks a hundred thousand times a second. Time limits end before their time.
# Sleep for whole milliseconds, or let the device wake the loop.
#
# Seen on 2026-11-29 with uvloop 0.23.0, Python 3.11, Linux x86-64 (times vary):
#   asyncio: 500 sleeps of 0.4 ms took 589 ms; 0 of 100 of 1.4 ms were early; order 10.1 10.4
#   uvloop: 500 sleeps of 0.4 ms took 1 ms; 97 of 100 of 1.4 ms were early; order 10.4 10.1
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --no-cache-dir uvloop==0.23.0
"$dir/venv/bin/python" - <<'PY'
import asyncio
import sys
import time

import uvloop


async def measure():
    start = time.monotonic()
    for _ in range(500):
        await asyncio.sleep(0.0004)
    took = 1000 * (time.monotonic() - start)
    early = 0
    for _ in range(100):
        start = time.monotonic()
        await asyncio.sleep(0.0014)
        early += time.monotonic() - start < 0.0014
    loop = asyncio.get_running_loop()
    order = []
    for delay in (0.0104, 0.0101):
        loop.call_later(delay, order.append, delay)
    await asyncio.sleep(0.1)
    return took, early, order


seen = []
for name, new_loop in (("asyncio", asyncio.new_event_loop), ("uvloop", uvloop.new_event_loop)):
    with asyncio.Runner(loop_factory=new_loop) as runner:
        took, early, order = runner.run(measure())
    listed = " ".join(f"{1000 * delay:.1f}" for delay in order)
    print(f"{name}: 500 sleeps of 0.4 ms took {took:.0f} ms; ", end="")
    print(f"{early} of 100 of 1.4 ms were early; order {listed}")
    seen.append((took >= 200, early > 0, order[0] == min(order)))
same = seen == [(True, False, True), (False, True, False)]
sys.exit(0 if same else "the behaviour has changed")
PY
