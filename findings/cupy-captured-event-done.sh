#!/bin/sh
# CuPy: an event that was recorded in a capture is never done, also after the graph has run.
#
# The driver answers a query of such an event with "invalid argument", since the event belongs to
# the graph. `cupy.cuda.Event.done` turns every error into False. So the event reads as pending for
# ever, while `synchronize()` and `get_elapsed_time` raise CUDARuntimeError for the same event.
#
# Guess before the run: an error from `done`, as `torch.cuda.Event.query` has here.
#
# Why it matters: a loop that polls `done` never ends, and nothing tells why. Record the event after
# the launch of the graph.
#
# Seen on 2026-11-28 with cupy-cuda13x 14.2.0, Python 3.12, an NVIDIA H200, driver 580.159.04:
#   captured: done False
#   the graph has run, its stream is idle: done False
#   synchronize: cudaErrorInvalidValue
#   get_elapsed_time: cudaErrorInvalidValue
#
# It needs an NVIDIA GPU. FINDING_PYTHON may name an interpreter that has the pinned version.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
if [ -n "${FINDING_PYTHON:-}" ]; then
    python=$FINDING_PYTHON
else
    python3 -m venv "$dir/venv"
    python=$dir/venv/bin/python
    "$python" -m pip install --quiet --no-cache-dir cupy-cuda13x==14.2.0
fi
"$python" - <<'PY'
import sys

import cupy

if cupy.__version__ != "14.2.0":
    sys.exit(f"cupy is {cupy.__version__}: not the version of this script")

stream = cupy.cuda.Stream(non_blocking=True)
start, end = cupy.cuda.Event(), cupy.cuda.Event()
numbers = cupy.zeros(1024)
numbers += 1
with stream:
    stream.begin_capture()
    start.record(stream)
    numbers += 1
    end.record(stream)
    graph = stream.end_capture()
before = end.done
print("captured: done", before)
graph.launch(stream)
stream.synchronize()
after = end.done
print(f"the graph has run, its stream is {'idle' if stream.done else 'busy'}: done {after}")


def error_of(call):
    try:
        call()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        return str(error).partition(":")[0]
    return "no error"


synchronize = error_of(end.synchronize)
elapsed = error_of(lambda: cupy.cuda.get_elapsed_time(start, end))
print("synchronize:", synchronize)
print("get_elapsed_time:", elapsed)
same = not before and not after and synchronize == elapsed == "cudaErrorInvalidValue"
sys.exit(0 if same else "the behaviour has changed")
PY
