#!/bin/sh
# MAX on the CPU: a deep copy is made after the call has returned, and holds what was written since.
#
# `Buffer.copy()` "creates a deep copy". On the CPU it is enqueued, and returns in milliseconds for
# 256 MB. `Buffer.from_numpy` wraps the array without a copy, as documented. What the program then
# writes into the array is found in most of the copy. An event recorded behind the copy is pending.
# Reading the copy by `to_numpy` does wait.
#
# Guess before the run: memory of the host, copied on the host, is copied when the call returns.
#
# Why it matters: a copy is made to keep the old values while the array is filled anew. Here most of
# the new ones are in it, and no error tells. Call `buffer.device.synchronize()` behind the copy.
#
# Seen on 2026-11-28 with max 26.7.0, Python 3.11, Linux x86-64 (numbers vary):
#   the copy is of 256 MB; copy() returned after 1.2 ms, an event behind it is complete: False
#   written after copy(): 71 % of the copy has the new value
#   written after copy() and synchronize(): 0 % of the copy has the new value
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --no-cache-dir max==26.7.0 numpy==2.4.6
"$dir/venv/bin/python" - <<'PY'
import sys
import time

import numpy
from max import driver

SIZE = 1 << 26
device = driver.CPU()
queue = device.default_queue


def share(wait):
    array = numpy.ones(SIZE, numpy.float32)
    buffer = driver.Buffer.from_numpy(array)
    start = time.perf_counter()
    copy = buffer.copy()
    took = 1000 * (time.perf_counter() - start)
    complete = queue.record_event().is_ready()
    if wait:
        device.synchronize()
    array[:] = 7
    return took, complete, 100 * float((copy.to_numpy() == 7).mean())


share(wait=True)  # The first copy allocates.
took, complete, late = share(wait=False)
print(
    f"the copy is of {4 * SIZE >> 20} MB; copy() returned after {took:.1f} ms,"
    f" an event behind it is complete: {complete}"
)
print(f"written after copy(): {late:.0f} % of the copy has the new value")
waited = share(wait=True)[2]
print(f"written after copy() and synchronize(): {waited:.0f} % of the copy has the new value")
sys.exit(0 if not complete and late > 1 and waited == 0 else "the behaviour has changed")
PY
