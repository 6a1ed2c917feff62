#!/bin/sh
# MindSpore on the CPU: events are complete while the work runs, and the first calls do nothing.
#
# Operations on the CPU are asynchronous. An event recorded behind them is complete at once, waiting
# for it returns at once, and the elapsed time is 0.0 ms; nothing is raised. The first call of
# `runtime.synchronize` logs that the CPU is not supported and returns without waiting, and the
# second one waits. The first `runtime.Event` raises a TypeError about `__init__`, and later ones
# are made.
#
# Guess before the run: events raise a clear error on the CPU, or work as they do on devices.
#
# Why it matters: a test suite that runs on the CPU times nothing, reads results as if they were
# ready, and differs by which call came first. Read the result, with `asnumpy()`, to wait for it.
#
# Seen on 2026-11-28 with mindspore 2.10.0, numpy 1.26.4, Python 3.11, Linux x86-64 (takes 2.8 GB
# of disk meanwhile; times vary):
#   first Event: TypeError, second Event: made
#   behind ten products: complete True, synchronize 0.00 s, elapsed 0.0 ms
#   first runtime.synchronize: 0.00 s, then reading the result: 3.12 s
#   second runtime.synchronize: 3.01 s, then reading the result: 0.00 s
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --no-cache-dir mindspore==2.10.0 numpy==1.26.4
"$dir/venv/bin/python" - 2>/dev/null <<'PY'
import sys
import time

import mindspore
import numpy
from mindspore import ops, runtime


def make():
    try:
        return runtime.Event(enable_timing=True), "made"
    except TypeError as error:
        return None, type(error).__name__


def seconds(call):
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


(_, first), (start, second) = make(), make()
end, _ = make()
print(f"first Event: {first}, second Event: {second}")
matrix = mindspore.Tensor(numpy.full((2000, 2000), 1 / 2000, numpy.float32))
ops.matmul(matrix, matrix).asnumpy()


def products():
    result = matrix
    for _ in range(10):
        result = ops.matmul(result, matrix)
    return result


start.record()
result = products()
end.record()
complete = end.query()
waited = seconds(end.synchronize)
elapsed = start.elapsed_time(end)
print(f"behind ten products: complete {complete}, ", end="")
print(f"synchronize {waited:.2f} s, elapsed {elapsed} ms")
result.asnumpy()


def synchronized(name):
    result = products()
    waited, read = seconds(runtime.synchronize), seconds(result.asnumpy)
    print(f"{name} runtime.synchronize: {waited:.2f} s, then reading the result: {read:.2f} s")
    return waited < read


late = synchronized("first"), synchronized("second")
ok = (first, second, complete, elapsed, late) == ("TypeError", "made", True, 0, (True, False))
if not ok or waited > 0.05:
    print("the behaviour has changed")
    sys.exit(1)
PY
