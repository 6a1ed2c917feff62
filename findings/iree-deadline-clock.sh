#!/bin/sh
# IREE: a wait's deadline counts from the start of the machine, so one since 1970 is never reached.
#
# `HalSemaphore.wait(value, deadline=…)` takes "absolute nanoseconds". On Linux they are those of
# `time.monotonic_ns()`; the documentation for Python names no clock. A deadline by `time.time_ns()`
# lies some 56 years ahead, also one that has passed a second ago: the wait does not time out.
#
# Guess before the run: the wall clock, as absolute nanoseconds of an interface without a clock are.
#
# Why it matters: the limit is written for the case in which a device never signals. Then the wait
# never returns. Use `timeout`, which is relative, or `time.monotonic_ns()`.
#
# Seen on 2026-11-28 with iree-base-runtime 3.13.0, Python 3.11, device local-task, Linux x86-64
# (another thread signals after 500 ms, times vary):
#   deadline monotonic_ns() + 50 ms: False after 50 ms
#   deadline monotonic_ns() - 1 s: False after 0 ms
#   deadline time_ns() - 1 s: True after 500 ms
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --no-cache-dir iree-base-runtime==3.13.0 numpy==2.4.6
"$dir/venv/bin/python" - <<'PY'
import sys
import threading
import time

import iree.runtime

MILLISECOND = 1_000_000
device = iree.runtime.get_device("local-task")
seen = []
for text, clock, offset in (
    ("monotonic_ns() + 50 ms", time.monotonic_ns, 50),
    ("monotonic_ns() - 1 s", time.monotonic_ns, -1000),
    ("time_ns() - 1 s", time.time_ns, -1000),
):
    semaphore = device.create_semaphore(0)
    threading.Timer(0.5, semaphore.signal, [1]).start()
    start = time.perf_counter()
    reached = semaphore.wait(1, deadline=clock() + offset * MILLISECOND)
    took = 1000 * (time.perf_counter() - start)
    print(f"deadline {text}: {reached} after {took:.0f} ms")
    seen.append(reached)
sys.exit(0 if seen == [False, False, True] else "the behaviour has changed")
PY
