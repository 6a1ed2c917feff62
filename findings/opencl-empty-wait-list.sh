#!/bin/sh
# OpenCL by PyOpenCL: an empty wait list means "nothing" for a kernel, "everything" for a marker.
#
# On an out-of-order queue `wait_for=[]` lets a kernel, a copy or a fill run at once. The same
# argument makes a marker or a barrier wait for all commands in front of it, and a barrier made so
# holds back all that follow. OpenCL defines it that way; PyOpenCL passes the empty list on as
# no list.
#
# Guess before the run: a marker that waits for no events is complete at once.
#
# Why it matters: wait lists are built by programs. One that collects the events of a marker and
# finds none gets a marker behind unrelated work, and a hang where that work is held by a user
# event that is set later. Leave the marker out where the list is empty.
#
# Seen on 2026-11-28 with pyopencl 2026.1.4, intel-opencl-rt 2026.2.0 (OpenCL 3.1, CPU), Python
# 3.11, Linux x86-64. The queue holds one fill that waits for a user event:
#   fill, wait_for=[]: COMPLETE
#   marker, wait_for=[the fill]: COMPLETE
#   marker, wait_for=[]: SUBMITTED
#   barrier, wait_for=[]: SUBMITTED, a fill after it: SUBMITTED
#   the user event is set: COMPLETE, COMPLETE, COMPLETE
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

device = cl.get_platforms()[0].get_devices()[0]
context = cl.Context([device])
out_of_order = cl.command_queue_properties.OUT_OF_ORDER_EXEC_MODE_ENABLE
queue = cl.CommandQueue(context, properties=out_of_order)


def fill(wait_for):
    buffer = cl.Buffer(context, cl.mem_flags.READ_WRITE, 64)
    return cl.enqueue_fill_buffer(queue, buffer, numpy.int32(1), 0, 64, wait_for=wait_for)


def states(*events):
    queue.flush()
    time.sleep(0.3)
    status = cl.command_execution_status
    return [status.to_string(event.command_execution_status) for event in events]


gate = cl.UserEvent(context)
held = fill([gate])
free = fill([])
after_free = cl.enqueue_marker(queue, wait_for=[free])
marker = cl.enqueue_marker(queue, wait_for=[])
before = states(free, after_free, marker)
barrier = cl.enqueue_barrier(queue, wait_for=[])
late = fill([])
before += states(barrier, late)
print(f"fill, wait_for=[]: {before[0]}")
print(f"marker, wait_for=[the fill]: {before[1]}")
print(f"marker, wait_for=[]: {before[2]}")
print(f"barrier, wait_for=[]: {before[3]}, a fill after it: {before[4]}")
gate.set_status(cl.command_execution_status.COMPLETE)
queue.finish()
after = states(marker, barrier, late)
print(f"the user event is set: {', '.join(after)}")
ok = before == ["COMPLETE"] * 2 + ["SUBMITTED"] * 3 and after == ["COMPLETE"] * 3
sys.exit(0 if ok else "the behaviour has changed")
PY
