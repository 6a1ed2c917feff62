#!/bin/sh
# PoCL: the times of a command buffer are those of its end, so seconds of work take 141 ns.
#
# `clEnqueueCommandBufferKHR` returns one event for all commands of the buffer. Its times of SUBMIT,
# START and END are behind the end of the last command; only QUEUED is the time of the call. The
# event itself is right: it is complete when the commands are.
#
# Guess before the run: START is when the first command starts, and END when the last one ends, so
# that three kernels take three times what one takes by its own event.
#
# Why it matters: to record kernels once and to enqueue them together is what the extension is for,
# and then every time reads as nearly nothing, as if the device were idle. `END - QUEUED` is the
# most that the work can have taken, with the time in the queue. Time the kernels by events of their
# own, outside of a command buffer.
#
# Seen on 2026-11-29 with PoCL 3.1 (Debian 12's package pocl-opencl-icd; 6.0 of Debian 13 the same),
# pyopencl 2026.1.4, Python 3.11, Linux x86-64 (times vary):
#   one kernel: 304.9 ms from START to END
#   a command buffer of three: 0.0 ms from START to END, 903.7 ms from QUEUED to START
set -eu
icd=/etc/OpenCL/vendors/pocl.icd
if [ ! -e "$icd" ]; then
    echo "this needs Debian's package pocl-opencl-icd" >&2
    exit 1
fi
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --no-cache-dir pyopencl==2026.1.4 numpy==2.4.6
POCL_CACHE_DIR="$dir/cache" PYOPENCL_NO_CACHE=1 OCL_ICD_VENDORS="$icd" \
    "$dir/venv/bin/python" -W ignore - <<'PY'
import ctypes
import sys

import numpy
import pyopencl as cl

SIZE, STEPS = 1 << 20, 80
SOURCE = """
kernel void work(global float *values, int steps) {
    float value = values[get_global_id(0)];
    for (int step = 0; step < steps; step++)
        value = value * 0.999f + 0.1f;
    values[get_global_id(0)] = value;
}
"""
platform = cl.get_platforms()[0]
context = cl.Context(platform.get_devices()[:1])
profiling = cl.command_queue_properties.PROFILING_ENABLE
queue = cl.CommandQueue(context, properties=profiling)
values = cl.Buffer(context, cl.mem_flags.READ_WRITE, 4 * SIZE)
kernel = cl.Kernel(cl.Program(context, SOURCE).build(), "work")
kernel.set_args(values, numpy.int32(STEPS))

POINTER, UINT, INT = ctypes.c_void_p, ctypes.c_uint, ctypes.c_int
loader = ctypes.CDLL("libOpenCL.so.1")
find = loader.clGetExtensionFunctionAddressForPlatform
find.restype, find.argtypes = POINTER, [POINTER, ctypes.c_char_p]


def extension(name, result, *arguments):
    address = find(platform.int_ptr, name.encode())
    return ctypes.CFUNCTYPE(result, *arguments)(address)


create = extension("clCreateCommandBufferKHR", POINTER, UINT, POINTER, POINTER, POINTER)
record = extension(
    "clCommandNDRangeKernelKHR",
    INT, *[POINTER] * 4, UINT, *[POINTER] * 3, UINT, *[POINTER] * 3,
)
finalize = extension("clFinalizeCommandBufferKHR", INT, POINTER)
enqueue = extension(
    "clEnqueueCommandBufferKHR", INT, UINT, POINTER, POINTER, UINT, POINTER, POINTER
)


def command_buffer(count):
    queues, error = (POINTER * 1)(queue.int_ptr), INT()
    made = create(1, ctypes.addressof(queues), None, ctypes.addressof(error))
    assert error.value == 0
    size = (ctypes.c_size_t * 1)(SIZE)
    for _ in range(count):
        work = (kernel.int_ptr, 1, None, ctypes.addressof(size), None)
        assert record(made, None, None, *work, 0, None, None, None) == 0
    assert finalize(made) == 0
    return made


def run(buffer):
    event = POINTER()
    assert enqueue(0, None, buffer, 0, None, ctypes.addressof(event)) == 0
    event = cl.Event.from_int_ptr(event.value, retain=False)
    event.wait()
    return event.profile


def kernel_alone():
    event = cl.enqueue_nd_range_kernel(queue, kernel, (SIZE,), None)
    event.wait()
    return event.profile


def length(profile):
    return (profile.end - profile.start) / 1e6


three = command_buffer(3)
kernel_alone()
alone = length(kernel_alone())
print(f"one kernel: {alone:.1f} ms from START to END")
profile = run(three)
together, before = length(profile), (profile.start - profile.queued) / 1e6
text = f"{together:.1f} ms from START to END, {before:.1f} ms from QUEUED to START"
print(f"a command buffer of three: {text}")
sys.exit(0 if together < alone / 10 and before > alone else "the behaviour has changed")
PY
