#!/bin/sh
# dpctl: events of a queue without profiling give zero for every time, where SYCL has an exception.
#
# `SyclEvent.profiling_info_submit`, `_start` and `_end` are 0 when the queue was made without the
# property "enable_profiling", and for an event made by `SyclEvent()`. No error is raised. The SYCL
# specification has an exception for the first case. `SyclTimer`, in contrast, refuses such a queue.
#
# Guess before the run: an exception, as from OpenCL, PyTorch or SyclTimer.
#
# Why it matters: the duration, end minus start, is a plausible 0 ns. An average over some queues
# with and some without profiling is too small, and nothing says so. Check that the end is not 0.
#
# Seen on 2026-11-28 with dpctl 0.22.1, dpcpp-cpp-rt and intel-opencl-rt 2026.2.0, Python 3.11,
# the OpenCL CPU device, Linux x86-64 (times vary):
#   copy on a queue with profiling: 44295677 ns
#   copy on a queue without: submit 0, start 0, end 0
#   SyclEvent(): submit 0, start 0, end 0
#   SyclTimer on a queue without: ValueError
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --no-cache-dir dpctl==0.22.1 dpcpp-cpp-rt==2026.2.0 \
    intel-cmplr-lib-rt==2026.2.0 intel-opencl-rt==2026.2.0 numpy==2.4.6
OCL_ICD_FILENAMES="$dir/venv/lib/libintelocl.so" "$dir/venv/bin/python" - <<'PY'
import sys

import dpctl
import dpctl.memory

SIZE = 1 << 26


def copy(queue):
    source = dpctl.memory.MemoryUSMDevice(SIZE, queue=queue)
    target = dpctl.memory.MemoryUSMDevice(SIZE, queue=queue)
    event = queue.memcpy_async(target, source, SIZE)
    event.wait()
    return event


def times(event):
    return (event.profiling_info_submit, event.profiling_info_start, event.profiling_info_end)


def show(what, stamps):
    print(f"{what}: submit {stamps[0]}, start {stamps[1]}, end {stamps[2]}")


profiled = times(copy(dpctl.SyclQueue("cpu", property="enable_profiling")))
print(f"copy on a queue with profiling: {profiled[2] - profiled[1]} ns")
plain_queue = dpctl.SyclQueue("cpu")
plain = times(copy(plain_queue))
show("copy on a queue without", plain)
fresh = times(dpctl.SyclEvent())
show("SyclEvent()", fresh)
try:
    with dpctl.SyclTimer()(plain_queue):
        pass
    timer = "accepted"
except ValueError as error:
    timer = type(error).__name__
print(f"SyclTimer on a queue without: {timer}")
ok = profiled[2] > profiled[1] > 0 and plain == fresh == (0, 0, 0) and timer == "ValueError"
sys.exit(0 if ok else "the behaviour has changed")
PY
