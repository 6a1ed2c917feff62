#!/bin/sh
# Intel's OpenCL runtime: a command that never ran has times, and took as long as the machine is up.
#
# A command whose wait list has failed is not run. Its status is "complete" all the same, and its
# profiling times come with success: START is 0, and END is when the failure was found. END - START
# is then the time since the machine started. `clWaitForEvents` alone says that it failed.
#
# Guess before the run: CL_PROFILING_INFO_NOT_AVAILABLE, which is there for commands that have not
# completed.
#
# Why it matters: a sum or a mean of times has hours from one command of which nobody was told that
# it failed, since polling its status does not tell it, either. Wait for an event, and see that the
# wait succeeds, before its times are read; and take a START of 0 for none.
#
# Seen on 2026-11-29 with intel-opencl-rt 2026.2.0 (OpenCL 3.1, CPU), pyopencl 2026.1.4, Python
# 3.11, Linux x86-64 (the machine had been up for 25 hours):
#   a fill: complete, wait: no error, 0.0 hours from START to END
#   a fill that waits for a failed event: complete, wait: an error, START 0, 25.0 hours to END
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --no-cache-dir pyopencl==2026.1.4 numpy==2.4.6 \
    intel-opencl-rt==2026.2.0 intel-cmplr-lib-rt==2026.2.0
mkdir "$dir/vendors"
echo "$dir/venv/lib/libintelocl.so" >"$dir/vendors/intel.icd"
LD_LIBRARY_PATH="$dir/venv/lib" OCL_ICD_VENDORS="$dir/vendors" "$dir/venv/bin/python" - <<'PY'
import sys
import time

import numpy
import pyopencl as cl

SIZE = 1 << 20
HOUR = 3600e9
COMPLETE = cl.command_execution_status.COMPLETE
context = cl.Context(cl.get_platforms()[0].get_devices()[:1])
profiling = cl.command_queue_properties.PROFILING_ENABLE
queue = cl.CommandQueue(context, properties=profiling)
buffer = cl.Buffer(context, cl.mem_flags.READ_WRITE, SIZE)


def fill(*events):
    return cl.enqueue_fill_buffer(queue, buffer, numpy.uint8(1), 0, SIZE, wait_for=events)


def ask(text, event):
    queue.finish()
    try:
        event.wait()
        wait = "no error"
    except cl.RuntimeError:
        wait = "an error"
    complete = event.command_execution_status == COMPLETE
    start, end = event.profile.start, event.profile.end
    hours = (end - start) / HOUR
    status = "complete" if complete else "not complete"
    length = f"START 0, {hours:.1f} hours to END"
    if start:
        length = f"{hours:.1f} hours from START to END"
    print(f"{text}: {status}, wait: {wait}, {length}")
    return complete, wait, start == 0, end


ran = ask("a fill", fill())
cause = cl.UserEvent(context)
waits = fill(cause)
queue.flush()
cause.set_status(-42)
failed = ask("a fill that waits for a failed event", waits)
up = time.clock_gettime(time.CLOCK_MONOTONIC) * 1e9
ok = ran[:3] == (True, "no error", False) and failed[:3] == (True, "an error", True)
sys.exit(0 if ok and up - 60e9 < failed[3] < up else "the behaviour has changed")
PY
