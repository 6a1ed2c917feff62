"""Time a kernel on a queue of pyopencl, and let a second queue wait for it.

    pip install pyopencl
    python crates/python/examples/pyopencl_queue.py

It needs a driver of OpenCL; PoCL is one that computes on the processor.
"""

import numpy
import pyopencl

import fencepost
from fencepost.opencl import wrap_queue

LENGTH = 1 << 22
SAXPY = """
kernel void saxpy(global float *y, global const float *x, float a)
{
    y[get_global_id(0)] += a * x[get_global_id(0)];
}
"""

context = pyopencl.Context(pyopencl.get_platforms()[0].get_devices()[:1])
profiling = pyopencl.command_queue_properties.PROFILING_ENABLE
compute = pyopencl.CommandQueue(context, properties=profiling)
copy = pyopencl.CommandQueue(context)

flags = pyopencl.mem_flags
x = numpy.full(LENGTH, 2, numpy.float32)
x_there = pyopencl.Buffer(context, flags.READ_ONLY | flags.COPY_HOST_PTR, hostbuf=x)
y_there = pyopencl.Buffer(context, flags.READ_WRITE | flags.COPY_HOST_PTR, hostbuf=x)
saxpy = pyopencl.Kernel(pyopencl.Program(context, SAXPY).build(), "saxpy")
saxpy.set_args(y_there, x_there, numpy.float32(3))

# Queues of one context are streams of one device, which events are made on.
device = wrap_queue(compute).device
start, end = (fencepost.Event(device, enable_timing=True) for _ in range(2))
start.record(compute)
pyopencl.enqueue_nd_range_kernel(compute, saxpy, (LENGTH,), None)
end.record(compute)

# The copy runs behind the kernel. This thread waits for neither.
end.wait(copy)
y = numpy.empty_like(x)
pyopencl.enqueue_copy(copy, y, y_there, is_blocking=False)
copied = fencepost.Event(device)
copied.record(copy)

copied.synchronize(timeout=60)
millis = end - start
print(f"{millis:.3f} ms, {3 * x.nbytes / millis / 1e6:.1f} GB/s on {device.clock}")
assert (y == 8).all()
