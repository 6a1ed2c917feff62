#!/bin/sh
# JAX on the CPU: `jax.numpy.array(buffer)` copies the NumPy buffer later when the device is busy.
#
# The function copies, as documented. With other work running, it returns an array that is not
# ready, and the copy is made after that work. What the caller has written into the buffer
# meanwhile is what the array holds. A NumPy argument of a compiled function is read late in the
# same way. When nothing runs, the copy is made at once, so a test of it passes. Nothing is raised.
#
# Guess before the run: the copy is made before `array` returns, and an argument is copied before
# the call returns.
#
# Why it matters: filling one staging buffer again for the next batch is the usual way to feed a
# device. Copy with NumPy, `jax.numpy.array(buffer.copy())`, or call `block_until_ready` on the
# array before writing into the buffer.
#
# Seen on 2026-11-28 with jax and jaxlib 0.10.2, numpy 2.4.6, Python 3.11, CPU backend, Linux
# x86-64. The buffer is aligned to 64 bytes; with other alignments, small ones were copied at once,
# and large ones late in most runs. It holds 1.0, and 7.0 after the call:
#   idle, array(buffer): 1.0
#   busy, array(buffer): 7.0
#   busy, compiled(buffer): 7.0
#   busy, array(buffer.copy()): 1.0
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --no-cache-dir jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
JAX_PLATFORMS=cpu "$dir/venv/bin/python" - <<'PY'
import sys

import jax
import jax.numpy as jnp
import numpy

SIZE = 1000


@jax.jit
def products(matrix):
    for _ in range(12):
        matrix = matrix @ matrix
    return matrix


@jax.jit
def plus_corner(numbers, matrix):
    return numbers + 0 * matrix[0, 0]


def aligned_ones():
    memory = numpy.empty(4 * SIZE + 64, numpy.uint8)
    start = -memory.ctypes.data % 64
    buffer = memory[start : start + 4 * SIZE].view(numpy.float32)
    buffer[:] = 1
    return buffer


matrix = jnp.full((1500, 1500), 1 / 1500)


def reused(busy, use):
    use(aligned_ones(), matrix).block_until_ready()
    products(matrix).block_until_ready()
    buffer = aligned_ones()
    running = products(matrix) if busy else matrix
    result = use(buffer, running)
    buffer[:] = 7
    return float(result[0])


values = [
    reused(False, lambda buffer, _: jnp.array(buffer)),
    reused(True, lambda buffer, _: jnp.array(buffer)),
    reused(True, plus_corner),
    reused(True, lambda buffer, _: jnp.array(buffer.copy())),
]
names = ["idle, array(buffer)", "busy, array(buffer)", "busy, compiled(buffer)"]
for name, value in zip(names + ["busy, array(buffer.copy())"], values):
    print(f"{name}: {value}")
sys.exit(0 if values == [1, 7, 7, 1] else "the behaviour has changed")
PY
