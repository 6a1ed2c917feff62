#!/bin/sh
# JAX on the CPU: whether a call returns at once depends on whether its input is ready.
#
# Calls of compiled functions are asynchronous. One that contains a host callback runs on the
# caller's thread, to the end, when its input is ready; when its input is still being computed,
# the same call returns at once. Matrix products without a callback return at once though their
# input is ready.
#
# Guess before the run: the call returns at once either way, and `block_until_ready` waits.
#
# Why it matters: callbacks are how host stamps and foreign events are put into a JAX program.
# The one that was put in to measure changes what overlaps, and the time of the call, read as the
# cost of enqueueing, is that of the work or none of it. `is_ready()` after the call is True in the
# first case.
#
# Seen on 2026-11-28 with jax and jaxlib 0.10.2, Python 3.11, CPU backend, Linux x86-64 (the
# callback sleeps for 0.5 s; times vary):
#   callback, ready input: 0.502 s in the call, then ready: True
#   no callback, ready input: 0.000 s in the call, then ready: False
#   callback, pending input: 0.000 s in the call, then ready: False
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
JAX_PLATFORMS=cpu "$dir/venv/bin/python" - <<'PY'
import sys
import time

import jax
import jax.numpy as jnp


def slow(value):
    time.sleep(0.5)
    return value


@jax.jit
def with_callback(matrix):
    corner = matrix[0, 0]
    return jax.pure_callback(slow, jax.ShapeDtypeStruct((), corner.dtype), corner)


@jax.jit
def products(matrix):
    for _ in range(12):
        matrix = matrix @ matrix
    return matrix


def call(function, argument):
    started = time.perf_counter()
    result = function(argument)
    return result, time.perf_counter() - started, result.is_ready()


matrix = jnp.full((1500, 1500), 1 / 1500)
with_callback(products(matrix)).block_until_ready()
_, ready_took, ready_done = call(with_callback, matrix)
print(f"callback, ready input: {ready_took:.3f} s in the call, then ready: {ready_done}")
pending, plain_took, plain_done = call(products, matrix)
result, pending_took, pending_done = call(with_callback, pending)
print(f"no callback, ready input: {plain_took:.3f} s in the call, then ready: {plain_done}")
print(f"callback, pending input: {pending_took:.3f} s in the call, then ready: {pending_done}")
result.block_until_ready()
ok = ready_took > 0.4 and ready_done and not plain_done and not pending_done
sys.exit(0 if ok and pending_took < 0.2 and plain_took < 0.2 else "the behaviour has changed")
PY
