#!/bin/sh
# MLX: `async_eval` waits for the device until at most some fifty operations are left to be done.
#
# `mx.async_eval` is the call that starts the work and goes on. Up to about fifty operations it
# returns at once. Of a longer graph it enqueues so many, and then one more for each that the device
# completes, on the thread of the caller.
#
# Guess before the run: it returns when everything is enqueued, however long the graph.
#
# Why it matters: a step of a model has hundreds of operations. What is to be done on the host
# meanwhile begins when most of the step is over, and a time taken around the call looks like the
# time of launching. Call it on a thread of its own, or for parts of less than fifty operations.
#
# Seen on 2026-11-28 with mlx 0.32.4 for the CPU, Python 3.11, Linux x86-64 (numbers vary). A chain
# of multiplications of matrices; times are in multiplications:
#   20 operations: async_eval took 0, and the wait after it 23
#   40 operations: async_eval took 0, and the wait after it 37
#   160 operations: async_eval took 67, and the wait after it 32
#   300 operations: async_eval took 129, and the wait after it 26
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --no-cache-dir "mlx[cpu]==0.32.4"
"$dir/venv/bin/python" - <<'PY'
import sys
import time

import mlx.core as mx

mx.set_default_device(mx.cpu)
matrix = mx.eye(700)


def chain(length):
    result = matrix
    for _ in range(length):
        result = result @ matrix
    return result


def seconds(call, *arguments):
    start = time.perf_counter()
    call(*arguments)
    return time.perf_counter() - start


mx.eval(matrix, chain(5))
one = seconds(mx.eval, chain(40)) / 40
seen = {}
for length in (20, 40, 160, 300):
    result = chain(length)
    call, wait = seconds(mx.async_eval, result), seconds(mx.eval, result)
    seen[length] = call / (call + wait)
    text = f"async_eval took {call / one:.0f}, and the wait after it {wait / one:.0f}"
    print(f"{length} operations: {text}")
ok = max(seen[20], seen[40]) < 0.1 and seen[160] > 0.3 and seen[300] > 0.5
sys.exit(0 if ok else "the behaviour has changed")
PY
