#!/bin/sh
# PoCL by PyOpenCL: the callback of a command that fails is never called.
#
# A user event that its owner sets to an error fails the commands that wait for it. Waiting for such
# a command raises an exception, and its status is negative. A callback that was registered for its
# end never comes. OpenCL says that the callback is called with the command's status, negative or
# not, once the command is over.
#
# Guess before the run: the callback comes, with a negative status.
#
# Why it matters: a program that goes on from callbacks waits for ever for work that has failed, and
# leaks what belongs to the callback. Ask the event for its status now and then, too.
#
# Seen on 2026-11-28 with pocl-binary-distribution 3.0 (PoCL 3.0), pyopencl 2026.1.4, Python 3.11,
# Linux x86-64. By a program in C the same with PoCL 3.1 and 6.0; with PoCL 7.1 the callback comes,
# with the status 0, which is CL_COMPLETE.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --no-cache-dir pyopencl==2026.1.4 numpy==2.4.6 \
    pocl-binary-distribution==3.0
mkdir "$dir/vendors"
find "$dir/venv" -name 'libpocl.so*' -type f | head -n 1 >"$dir/vendors/pocl.icd"
POCL_CACHE_DIR="$dir/cache" OCL_ICD_VENDORS="$dir/vendors" "$dir/venv/bin/python" - <<'PY'
import sys
import threading

import pyopencl as cl

device = cl.get_platforms()[0].get_devices()[0]
context = cl.Context([device])
queue = cl.CommandQueue(context)


def ends_with(status):
    gate = cl.UserEvent(context)
    marker = cl.enqueue_marker(queue, wait_for=[gate])
    called = threading.Event()
    told = []

    def callback(code):
        told.append(code)
        called.set()

    marker.set_callback(cl.command_execution_status.COMPLETE, callback)
    queue.flush()
    gate.set_status(status)
    try:
        marker.wait()
        waited = "returned"
    except cl.Error as error:
        waited = f"raised {error.code}"
    came = called.wait(5)
    found = marker.command_execution_status
    print(f"user event {status}: status {found}, wait {waited}, callback {told if came else None}")
    sys.stdout.flush()
    return found, waited, came


good, bad = ends_with(0), ends_with(-42)
ok = good == (0, "returned", True) and bad[0] < 0 and bad[1] == "raised -14" and not bad[2]
print("as seen" if ok else "the behaviour has changed", flush=True)
# Threads that still wait for the callback keep the interpreter alive.
import os

os._exit(0 if ok else 1)
PY
