#!/bin/sh
# PyOpenCL: a memory pool hands out memory that a queued kernel is still to read, to another queue.
#
# An array from a `MemoryPool` gives its memory back when Python drops it. The pool does not ask
# whether commands that use it are complete. The next array of this size gets the same memory, on
# whatever queue. On one in-order queue that is right, since its writes come later. On a second
# queue, or an out-of-order one, they come at once, and the kernel in front reads them. Without a
# pool the OpenCL implementation keeps the memory until the kernel is complete, so the same lines
# are right.
#
# Guess before the run: the pool waits, or takes other memory, until the events of the array are
# complete; an array keeps these events for its own operations anyway.
#
# Why it matters: a pool is put in for speed, and takes away a guarantee that nobody wrote down.
# Results are then mixed up between two queues, only where the device is slow enough. Have a pool
# for each in-order queue, or keep each array until the commands that use it are complete.
#
# Seen on 2026-11-28 with pyopencl 2026.1.4, intel-opencl-rt 2026.2.0 (OpenCL 3.1, CPU), Python
# 3.11, Linux x86-64. A kernel of one queue is to read 1.0, and a second queue writes 2.0 to a new
# array:
#   without a pool: other memory, the kernel has read 1.0
#   with a pool: the same memory, the kernel has read 2.0
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --no-cache-dir pyopencl==2026.1.4 numpy==2.4.6 \
    intel-opencl-rt==2026.2.0 intel-cmplr-lib-rt==2026.2.0
mkdir "$dir/vendors"
echo "$dir/venv/lib/libintelocl.so" >"$dir/vendors/intel.icd"
LD_LIBRARY_PATH="$dir/venv/lib" OCL_ICD_VENDORS="$dir/vendors" PYOPENCL_NO_CACHE=1 \
    "$dir/venv/bin/python" -W ignore - <<'PY'
import sys

import numpy
import pyopencl as cl
import pyopencl.array
import pyopencl.tools

SIZE = 1 << 16
SOURCE = """
kernel void duplicate(global const float *from, global float *to) {
    to[get_global_id(0)] = from[get_global_id(0)];
}
"""
context = cl.Context([cl.get_platforms()[0].get_devices()[0]])
one, other = cl.CommandQueue(context), cl.CommandQueue(context)
duplicate = cl.Kernel(cl.Program(context, SOURCE).build(), "duplicate")
copy = cl.Buffer(context, cl.mem_flags.READ_WRITE, 4 * SIZE)
result = numpy.empty(SIZE, numpy.float32)


def array(queue, value, pool):
    made = cl.array.Array(queue, SIZE, numpy.float32, allocator=pool).fill(value)
    queue.finish()
    return made, made.data.int_ptr


def read(pool):
    device_is_free = cl.UserEvent(context)
    first, memory = array(one, 1.0, pool)
    duplicate(one, (SIZE,), None, first.data, copy, wait_for=[device_is_free])
    del first
    second, others_memory = array(other, 2.0, pool)
    device_is_free.set_status(cl.command_execution_status.COMPLETE)
    one.finish()
    cl.enqueue_copy(one, result, copy)
    return memory == others_memory, float(result[0])


seen = []
for text, pool in (
    ("without a pool", None),
    ("with a pool", cl.tools.MemoryPool(cl.tools.ImmediateAllocator(one))),
):
    same, value = read(pool)
    seen.append((same, value))
    which = "the same" if same else "other"
    print(f"{text}: {which} memory, the kernel has read {value}")
sys.exit(0 if seen == [(False, 1.0), (True, 2.0)] else "the behaviour has changed")
PY
