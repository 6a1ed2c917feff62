"""OpenCL, and queues of pyopencl. A step of ``cargo xtask test`` has both."""

import gc
import os
import subprocess
import sys
import weakref
from pathlib import Path

import pytest

import fencepost
from conftest import PATIENCE, at_once
from fencepost.opencl import wrap_queue

cl = pytest.importorskip("pyopencl")

EXAMPLES = Path(__file__).parent.parent / "examples"
PROFILING = cl.command_queue_properties.PROFILING_ENABLE
OUT_OF_ORDER = cl.command_queue_properties.OUT_OF_ORDER_EXEC_MODE_ENABLE


@pytest.fixture
def opencl():
    return fencepost.Device("opencl:0")


@pytest.fixture(scope="module")
def context():
    return cl.Context(cl.get_platforms()[0].get_devices()[:1])


@pytest.fixture(scope="module")
def device(context):
    """The device of the context's queues."""
    return wrap_queue(cl.CommandQueue(context)).device


def test_a_device_is_opened_by_its_name(opencl):
    assert (opencl.name, opencl.backend) == ("opencl:0", "opencl")
    stream, event = opencl.stream(), fencepost.Event(opencl, enable_timing=True)
    event.record(stream)
    event.synchronize(timeout=PATIENCE)
    assert event.query()
    assert stream.progress == (1, 1)
    assert not hasattr(stream, "cuda_stream")
    assert not hasattr(fencepost.Stream("host"), "opencl_queue")


def test_a_held_stream_holds_what_waits_for_it(opencl, gate):
    held, waiting, free = (opencl.stream() for _ in range(3))
    hold = gate(held)
    first = fencepost.Event(opencl)
    first.record(held)
    first.wait(waiting)
    second = waiting.record()
    free.record().synchronize(timeout=PATIENCE)
    assert not first.query()
    assert not second.query()
    with pytest.raises(TimeoutError, match="opencl:0"):
        second.synchronize(timeout=0.01)
    hold.open()
    second.synchronize(timeout=PATIENCE)
    assert first.query()


def test_a_queue_of_pyopencl_is_a_stream(context, device):
    queue = cl.CommandQueue(context, properties=PROFILING)
    stream = wrap_queue(queue)
    assert stream.opencl_queue == queue.int_ptr
    assert stream.device.backend == "opencl"
    event = fencepost.Event(device)
    event.record(queue)
    event.synchronize(timeout=PATIENCE)
    assert stream.device == device
    assert wrap_queue(queue) == stream
    assert stream.progress == (1, 1)


def test_a_stream_is_a_queue_of_pyopencl(opencl):
    stream = opencl.stream()
    queue = cl.CommandQueue.from_int_ptr(stream.opencl_queue)
    held = cl.UserEvent(queue.context)
    cl.enqueue_marker(queue, wait_for=[held])
    marker = stream.record()
    assert not marker.query()
    held.set_status(cl.command_execution_status.COMPLETE)
    marker.synchronize(timeout=PATIENCE)


def test_events_order_and_time_what_pyopencl_queues(context, device):
    numpy = pytest.importorskip("numpy")
    compute = cl.CommandQueue(context, properties=PROFILING)
    copy = cl.CommandQueue(context, properties=PROFILING)
    held = cl.UserEvent(context)
    there = cl.Buffer(context, cl.mem_flags.READ_WRITE, 4096)
    start, end = (fencepost.Event(device, enable_timing=True) for _ in range(2))

    cl.enqueue_marker(compute, wait_for=[held])
    start.record(compute)
    cl.enqueue_fill_buffer(compute, there, numpy.uint8(7), 0, 4096)
    end.record(compute)
    end.wait(copy)
    other = cl.Buffer(context, cl.mem_flags.READ_WRITE, 4096)
    cl.enqueue_copy(copy, other, there)
    copied = fencepost.Event(device)
    copied.record(copy)

    assert not end.query()
    assert not copied.query()
    held.set_status(cl.command_execution_status.COMPLETE)
    copied.synchronize(timeout=PATIENCE)
    here = numpy.zeros(4096, numpy.uint8)
    cl.enqueue_copy(copy, here, other)
    assert (here == 7).all()
    assert end - start >= 0


def test_two_records_enclose_the_kernel_between_them(context, device):
    numpy = pytest.importorskip("numpy")
    queue = cl.CommandQueue(context, properties=PROFILING)
    there = cl.Buffer(context, cl.mem_flags.READ_WRITE, 1 << 22)
    start, end = (fencepost.Event(device, enable_timing=True) for _ in range(2))
    start.record(queue)
    fill = cl.enqueue_fill_buffer(queue, there, numpy.uint32(7), 0, 1 << 22)
    end.record(queue)
    # In milliseconds, once both are complete, and in nanoseconds.
    outside = end - start
    inside = fill.profile.end - fill.profile.start
    assert 0 < inside <= outside * 1e6


def test_an_out_of_order_queue_is_marked_behind_what_came_before(context, device):
    queue = cl.CommandQueue(context, properties=PROFILING | OUT_OF_ORDER)
    held = cl.UserEvent(context)
    cl.enqueue_marker(queue, wait_for=[held])
    event = fencepost.Event(device)
    event.record(queue)
    assert not event.query()
    held.set_status(cl.command_execution_status.COMPLETE)
    event.synchronize(timeout=PATIENCE)


def test_a_queue_without_profiling_has_no_times(context, device):
    queue = cl.CommandQueue(context)
    with pytest.raises(NotImplementedError, match="CL_QUEUE_PROFILING_ENABLE"):
        fencepost.Event(device, enable_timing=True).record(queue)
    event = fencepost.Event(device)
    event.record(queue)
    event.synchronize(timeout=PATIENCE)


def test_a_host_stream_waits_for_a_queue(context, device, host):
    queue = cl.CommandQueue(context)
    held = cl.UserEvent(context)
    cl.enqueue_marker(queue, wait_for=[held])
    event, ran = fencepost.Event(device), []
    event.record(queue)
    stream = host.stream()
    event.wait(stream)
    stream.launch(lambda: ran.append(event.query()))
    assert not stream.query()
    held.set_status(cl.command_execution_status.COMPLETE)
    stream.synchronize(timeout=PATIENCE)
    assert ran == [True]


def test_a_queue_lives_as_long_as_what_was_made_of_it(context):
    queue = cl.CommandQueue(context)
    seen = weakref.ref(queue) if hasattr(queue, "__weakref__") else None
    stream = wrap_queue(queue)
    del queue
    gc.collect()
    assert seen is None or seen() is not None
    stream.record().synchronize(timeout=PATIENCE)


def test_threads_record_on_one_queue(context, device):
    queue = cl.CommandQueue(context)

    def work(_):
        for _ in range(50):
            event = fencepost.Event(device)
            event.record(queue)
            event.synchronize(timeout=PATIENCE)

    at_once(work)


@pytest.mark.parametrize("kind", ["Context", "Event", "Buffer"])
def test_other_objects_of_pyopencl_are_no_streams(context, device, kind):
    queue = cl.CommandQueue(context)
    objects = {
        "Context": context,
        "Event": cl.enqueue_marker(queue),
        "Buffer": cl.Buffer(context, cl.mem_flags.READ_WRITE, 64),
    }
    with pytest.raises(TypeError, match="a queue of pyopencl"):
        fencepost.Event(device).record(objects[kind])


def test_a_measurement_of_a_kernel(context):
    numpy = pytest.importorskip("numpy")
    queue = cl.CommandQueue(context, properties=PROFILING)
    there = cl.Buffer(context, cl.mem_flags.READ_WRITE, 1 << 16)

    def fill():
        cl.enqueue_fill_buffer(queue, there, numpy.uint32(7), 0, 1 << 16)

    found = fencepost.measure(fill, queue)
    assert found.median > 0


def opened(child, **env):
    """Return what opening the first device says in a new process, on one line."""
    program = """
import fencepost
try:
    fencepost.Device("opencl:0").stream()
except RuntimeError as error:
    print(error)
"""
    lines = child(program, **env).stdout.splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def test_without_a_loader_the_error_says_so(child):
    said = opened(child, FENCEPOST_OPENCL_LIBRARY="/nowhere/libOpenCL.so")
    assert "FENCEPOST_OPENCL_LIBRARY" in said


def test_a_driver_that_does_not_load_is_named(child, tmp_path):
    (tmp_path / "broken.icd").write_text("/nowhere/libbroken.so\n", encoding="utf-8")
    said = opened(child, OCL_ICD_VENDORS=str(tmp_path))
    assert "libbroken.so" in said or "broken.icd" in said


def test_a_platform_without_devices_is_named(child):
    faults = os.environ.get("FENCEPOST_SIM_OPENCL")
    if not faults:
        pytest.skip("FENCEPOST_SIM_OPENCL names no driver that makes calls fail")
    said = opened(
        child,
        OCL_ICD_VENDORS=faults,
        FENCEPOST_SIM_OPENCL_FAULTS="clGetDeviceIDs:1+:-1",
    )
    assert "Portable Computing Language" in said


def test_the_example_runs():
    done = subprocess.run(
        [sys.executable, EXAMPLES / "pyopencl_queue.py"],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    assert "GB/s" in done.stdout
