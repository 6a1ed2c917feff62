#!/bin/sh
# rusticl: the times of a pending command are 0, with success, and a running one is "queued".
#
# For a command that is not complete OpenCL has an error, CL_PROFILING_INFO_NOT_AVAILABLE. Mesa's
# rusticl returns CL_SUCCESS and 0 for when it was submitted, started and ended; the time of queuing
# is right. Its status goes from "queued" to "complete": that it is submitted or running is never
# said, also when it has been flushed and runs for a second.
#
# Guess before the run: an error until the command is complete, as from PoCL; the state running
# while it runs.
#
# Why it matters: a program that asks for the times until they are there takes the first answer. Its
# commands have ended before they were queued, and take 0 ns: `end - start` looks like a result. One
# that looks for commands that are stuck cannot tell a running one from one that was never flushed.
# Ask for the status first, and take times of complete commands only.
#
# Seen on 2026-11-29 with Debian 13's mesa-opencl-icd 25.0.7 (rusticl on llvmpipe) and
# pocl-opencl-icd 6.0, pyopencl 2026.1.4, Python 3.13, Linux x86-64. A user event holds a kernel:
#   PoCL, held: queued no time, submit no time, start no time, end no time
#   PoCL, statuses when let go: has been running
#   rusticl, held: queued a time, submit 0, start 0, end 0
#   rusticl, statuses when let go: has not been running
set -eu
for icd in rusticl pocl; do
    if [ ! -e "/etc/OpenCL/vendors/$icd.icd" ]; then
        echo "this needs Debian 13's packages mesa-opencl-icd and pocl-opencl-icd" >&2
        exit 1
    fi
done
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --no-cache-dir pyopencl==2026.1.4 numpy==2.4.6
cat >"$dir/times.py" <<'PY'
import sys

import numpy
import pyopencl as cl

SOURCE = """
kernel void work(global float *values, int steps) {
    float value = values[get_global_id(0)];
    for (int step = 0; step < steps; step++)
        value = value * 0.999f + 0.1f;
    values[get_global_id(0)] = value;
}
"""
STATE = cl.command_execution_status
PROPERTIES = cl.command_queue_properties
TIMES = ("queued", "submit", "start", "end")
name, steps = sys.argv[1], int(sys.argv[2])
context = cl.Context(cl.get_platforms()[0].get_devices())
queue = cl.CommandQueue(context, properties=PROPERTIES.PROFILING_ENABLE)
values = cl.Buffer(context, cl.mem_flags.READ_WRITE, 4 << 20)
kernel = cl.Kernel(cl.Program(context, SOURCE).build(), "work")
kernel.set_args(values, numpy.int32(steps))


def enqueue(*events):
    return cl.enqueue_nd_range_kernel(queue, kernel, (1 << 20,), None, wait_for=events)


def time(event, which):
    try:
        return "a time" if getattr(event.profile, which) else "0"
    except cl.RuntimeError:
        return "no time"


enqueue().wait()
may_run = cl.UserEvent(context)
held = enqueue(may_run)
queue.flush()
times = [time(held, which) for which in TIMES]
print(f"{name}, held: " + ", ".join(map(" ".join, zip(TIMES, times))))
may_run.set_status(STATE.COMPLETE)
statuses = set()
while held.command_execution_status != STATE.COMPLETE:
    statuses.add(held.command_execution_status)
has = "has" if STATE.RUNNING in statuses else "has not"
print(f"{name}, statuses when let go: {has} been running")
assert held.profile.end - held.profile.start > 100_000_000
expected = (["a time", "0", "0", "0"], False) if name == "rusticl" else (["no time"] * 4, True)
seen = (times, STATE.RUNNING in statuses)
sys.exit(0 if seen == expected else "the behaviour has changed")
PY
export RUSTICL_ENABLE=llvmpipe PYOPENCL_NO_CACHE=1
OCL_ICD_VENDORS=/etc/OpenCL/vendors/pocl.icd \
    "$dir/venv/bin/python" -W ignore "$dir/times.py" PoCL 100
OCL_ICD_VENDORS=/etc/OpenCL/vendors/rusticl.icd \
    "$dir/venv/bin/python" -W ignore "$dir/times.py" rusticl 200
