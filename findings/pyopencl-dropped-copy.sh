#!/bin/sh
# PyOpenCL: a non-blocking copy whose event is not kept waits for the device and holds the GIL.
#
# `enqueue_copy(queue, array, buffer, is_blocking=False)` returns in microseconds. Its event keeps
# the array alive, so freeing the event first waits for the copy; the documentation says so. It does
# not say that this wait holds Python's global lock. No other thread runs until the device is done.
# `wait()` of the same event, `finish()` and a blocking copy all let the other threads run.
#
# Guess before the run: a line that ignores the event goes on at once, or at most waits as `wait()`.
#
# Why it matters: the event is easily ignored, since `finish()` follows later. Then "non-blocking"
# stops every thread, also one that was to feed another queue. Keep the event until it is complete.
#
# Seen on 2026-11-28 with pyopencl 2026.1.4, intel-opencl-rt 2026.2.0 (OpenCL 3.1, CPU), Python
# 3.11, Linux x86-64. A second thread counts every millisecond (numbers vary):
#   event kept, then wait(): enqueued in 0.05 ms, waited 700 ms, counted to 582
#   event kept, then finish(): enqueued in 0.04 ms, waited 706 ms, counted to 596
#   event not kept: waited 674 ms, counted to 1
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --no-cache-dir pyopencl==2026.1.4 numpy==2.4.6 \
    intel-opencl-rt==2026.2.0 intel-cmplr-lib-rt==2026.2.0
mkdir "$dir/vendors"
echo "$dir/venv/lib/libintelocl.so" >"$dir/vendors/intel.icd"
LD_LIBRARY_PATH="$dir/venv/lib" OCL_ICD_VENDORS="$dir/vendors" PYOPENCL_NO_CACHE=1 \
    "$dir/venv/bin/python" -W ignore - <<'PY'
import sys
import threading
import time

import numpy
import pyopencl as cl

SIZE = 1 << 16
SOURCE = """
kernel void spin(global float *values, int count) {
    float value = values[get_global_id(0)];
    for (int i = 0; i < count; i++) value = sin(value) + 0.5f;
    values[get_global_id(0)] = value;
}
"""
context = cl.Context([cl.get_platforms()[0].get_devices()[0]])
queue = cl.CommandQueue(context)
spin = cl.Kernel(cl.Program(context, SOURCE).build(), "spin")
buffer = cl.Buffer(context, cl.mem_flags.READ_WRITE, 4 * SIZE)
array = numpy.zeros(SIZE, numpy.float32)
count = 0


def work(steps):
    spin(queue, (SIZE,), None, buffer, numpy.int32(steps))


def milliseconds(call):
    start = time.perf_counter()
    result = call()
    return result, 1000 * (time.perf_counter() - start)


def copy():
    return cl.enqueue_copy(queue, array, buffer, is_blocking=False)


def tick():
    global count
    while True:
        count += 1
        time.sleep(0.001)


def counted(text, call):
    work(steps)
    queue.flush()
    before = count
    print(f"{text}: {call()}, counted to {count - before}")
    queue.finish()
    return count - before


def kept(wait):
    event, enqueued = milliseconds(copy)
    waited = milliseconds(lambda: wait(event))[1]
    return f"enqueued in {enqueued:.2f} ms, waited {waited:.0f} ms"


def not_kept():
    return f"waited {milliseconds(lambda: copy() and None)[1]:.0f} ms"


steps, took = 100, 0
while took < 500:
    steps *= 2
    work(steps)
    took = milliseconds(queue.finish)[1]
threading.Thread(target=tick, daemon=True).start()
ticks = [
    counted("event kept, then wait()", lambda: kept(lambda event: event.wait())),
    counted("event kept, then finish()", lambda: kept(lambda event: queue.finish())),
    counted("event not kept", not_kept),
]
ok = min(ticks[:2]) > 5 * max(ticks[2], 2)
sys.exit(0 if ok else "the behaviour has changed")
PY
