#!/bin/sh
# dpctl: asking an event when it was submitted waits until it is complete.
#
# The time of submission is known as soon as the submitting call returns. SYCL lets a query wait
# only for what is not known yet, as the time of the end. `SyclEvent.profiling_info_submit` waits
# for the end all the same. Intel's OpenCL below answers the same question at once.
#
# Guess before the run: the submission's time at once; only `profiling_info_end` waits.
#
# Why it matters: a program that notes the submission of each piece of work, as a trace does, runs
# one piece after the other. Ask for it when the event is complete.
#
# Seen on 2026-11-28 with dpctl 0.22.1, dpcpp-cpp-rt and intel-opencl-rt 2026.2.0, Python 3.11, the
# OpenCL CPU device, Linux x86-64 (times vary; a copy of 256 MB):
#   execution_status: returned after 0.0 ms, the event is then submitted
#   profiling_info_submit: returned after 28.4 ms, the event is then complete
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --no-cache-dir dpctl==0.22.1 dpcpp-cpp-rt==2026.2.0 \
    intel-cmplr-lib-rt==2026.2.0 intel-opencl-rt==2026.2.0 numpy==2.4.6
OCL_ICD_FILENAMES="$dir/venv/lib/libintelocl.so" "$dir/venv/bin/python" - <<'PY'
import sys
import time

import dpctl
import dpctl.memory

SIZE = 1 << 28
queue = dpctl.SyclQueue("cpu", property="enable_profiling")
source, target = (dpctl.memory.MemoryUSMDevice(SIZE, queue=queue) for _ in range(2))
source.memset(0)
queue.memcpy(target, source, SIZE)


def ask(name):
    event = queue.memcpy_async(target, source, SIZE)
    start = time.perf_counter()
    getattr(event, name)
    took = 1000 * (time.perf_counter() - start)
    status = event.execution_status.name
    print(f"{name}: returned after {took:.1f} ms, the event is then {status}")
    event.wait()
    return status


complete = [ask(name) == "complete" for name in ("execution_status", "profiling_info_submit")]
sys.exit(0 if complete == [False, True] else "the behaviour has changed")
PY
