#!/bin/sh
# PyOpenCL: `Array.set` does not wait for what is still to be done to the array.
#
# A `pyopencl.array.Array` keeps the events of the operations that its content depends on, so that
# it can be used with a queue that runs out of order. `fill`, assignment to a slice and the
# arithmetic wait for them. `set` waits for none: it writes at once, and the operation in front of
# it overwrites that when it runs. An operation that only reads the array is not among its events,
# so that `fill` and assignments behind it change what it reads.
#
# Guess before the run: every operation of an array comes after those in front of it.
#
# Why it matters: the array holds old data, or a result is made of new ones, only where the device
# is slow enough. On a queue that runs in order, all is well. Call `finish()` of the queue first.
#
# Seen on 2026-11-28 with pyopencl 2026.1.4, intel-opencl-rt 2026.2.0 (OpenCL 3.1, CPU), Python
# 3.11, Linux x86-64. A user event holds the first operation of each row; all arrays begin as ones:
#   out of order: fill(1), then fill(2): array 2
#   out of order: fill(1), then a[:] = others: array 2
#   out of order: fill(1), then set(2): array 1
#   out of order: b = a + c, then a.fill(2): b 3
#   in order: fill(1), then fill(2): array 2
#   in order: fill(1), then a[:] = others: array 2
#   in order: fill(1), then set(2): array 2
#   in order: b = a + c, then a.fill(2): b 2
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --no-cache-dir pyopencl==2026.1.4 numpy==2.4.6 \
    intel-opencl-rt==2026.2.0 intel-cmplr-lib-rt==2026.2.0
mkdir "$dir/vendors"
echo "$dir/venv/lib/libintelocl.so" >"$dir/vendors/intel.icd"
LD_LIBRARY_PATH="$dir/venv/lib" OCL_ICD_VENDORS="$dir/vendors" PYOPENCL_NO_CACHE=1 \
    PYTHONWARNINGS=ignore "$dir/venv/bin/python" - <<'PY'
import sys
import time

import numpy as np
import pyopencl as cl
from pyopencl import array

(platform,) = cl.get_platforms()
context = cl.Context(platform.get_devices())
OUT_OF_ORDER = cl.command_queue_properties.OUT_OF_ORDER_EXEC_MODE_ENABLE
twos = np.full(1024, 2, np.float32)


def overwrite(second):
    def run(numbers, held, others):
        held.fill(1)
        second(held, others)
        return held

    return run


def assign(numbers, others):
    numbers[:] = others


def read(numbers, held, others):
    result = numbers + held
    numbers.fill(2)
    return result


def run(queue, operation):
    """Runs `operation` on arrays of ones, the second of which waits for a user event meanwhile."""
    numbers = array.to_device(queue, np.ones(1024, np.float32))
    held = array.to_device(queue, np.ones(1024, np.float32))
    others = array.to_device(queue, twos)
    queue.finish()
    gate = cl.UserEvent(context)
    if queue.properties & OUT_OF_ORDER:
        held.add_event(gate)
    else:
        cl.enqueue_barrier(queue, wait_for=[gate])
    result = operation(numbers, held, others)
    time.sleep(0.2)
    gate.set_status(cl.command_execution_status.COMPLETE)
    queue.finish()
    return int(result.get()[0])


rows = {
    "fill(1), then fill(2): array": overwrite(lambda numbers, _: numbers.fill(2)),
    "fill(1), then a[:] = others: array": overwrite(assign),
    "fill(1), then set(2): array": overwrite(lambda numbers, _: numbers.set(twos, async_=True)),
    "b = a + c, then a.fill(2): b": read,
}
seen = {}
for kind, properties in ("out of order", OUT_OF_ORDER), ("in order", 0):
    for name, operation in rows.items():
        queue = cl.CommandQueue(context, properties=properties)
        seen[kind, name] = run(queue, operation)
        print(f"{kind}: {name} {seen[kind, name]}")
sys.exit(0 if list(seen.values()) == [2, 2, 1, 3, 2, 2, 2, 2] else "the behaviour has changed")
PY
