"""With PyTorch itself, on a real GPU. Without either the whole file is skipped."""

import subprocess
import sys
import threading
import time

import pytest

from conftest import PATIENCE

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
if not torch.cuda.is_available():
    pytest.skip("PyTorch has no CUDA device here", allow_module_level=True)

import fencepost  # noqa: E402
from fencepost.cuda import Event, wrap_stream  # noqa: E402

pytestmark = pytest.mark.torch

# Some tens of milliseconds on the GPU.
BUSY = 50_000_000


@pytest.fixture
def torch_stream():
    torch.cuda.synchronize()
    yield torch.cuda.Stream()
    torch.cuda.synchronize()


def busy(stream):
    with torch.cuda.stream(stream):
        torch.cuda._sleep(BUSY)


def test_an_event_marks_pytorchs_current_stream(torch_stream):
    event, other = Event(), Event()
    with torch.cuda.stream(torch_stream):
        busy(torch_stream)
        event.record()
    other.record()
    assert event.query() is False
    other.synchronize(timeout=PATIENCE)
    assert event.query() is False
    event.synchronize(timeout=PATIENCE)
    assert event.query() is True
    assert wrap_stream(torch_stream) != wrap_stream()


def test_a_generic_event_marks_pytorchs_current_stream_too(torch_stream):
    event = fencepost.Event("cuda:0")
    with torch.cuda.stream(torch_stream):
        busy(torch_stream)
        event.record()
    assert event.query() is False
    event.synchronize(timeout=PATIENCE)


def test_it_times_what_pytorch_times(torch_stream):
    ours = [Event(enable_timing=True) for _ in range(2)]
    theirs = [torch.cuda.Event(enable_timing=True) for _ in range(2)]
    with torch.cuda.stream(torch_stream):
        for pair in (ours, theirs):
            pair[0].record()
        torch.cuda._sleep(BUSY)
        for pair in (ours, theirs):
            pair[1].record()
    for pair in (ours, theirs):
        pair[1].synchronize()
    expected = theirs[0].elapsed_time(theirs[1])
    assert ours[0].elapsed_time(ours[1]) == pytest.approx(expected, rel=0.05, abs=0.1)


def test_a_wait_orders_pytorchs_streams(torch_stream):
    other, event, done = torch.cuda.Stream(), Event(), Event()
    value = torch.zeros(1, device="cuda")
    torch.cuda.synchronize()
    with torch.cuda.stream(torch_stream):
        torch.cuda._sleep(BUSY)
        value += 1
        event.record()
    with torch.cuda.stream(other):
        event.wait()
        value *= 10
        done.record()
    done.synchronize(timeout=PATIENCE)
    assert value.item() == 10


def test_it_works_in_pytorchs_stream_methods(torch_stream):
    event = Event()
    busy(torch_stream)
    assert torch_stream.record_event(event) is event
    other = torch.cuda.Stream()
    other.wait_event(event)
    done = Event()
    done.record(other)
    assert done.query() is False
    done.synchronize(timeout=PATIENCE)
    assert event.query() is True


def test_the_device_is_a_torch_device_bound_by_the_first_record(torch_stream):
    event = Event()
    assert event.device is None
    event.record()
    assert event.device == torch.device("cuda", torch.cuda.current_device())


def test_external_streams_and_default_streams_are_taken():
    own = fencepost.Device("cuda:0").stream()
    external = torch.cuda.ExternalStream(own.cuda_stream)
    event = Event()
    event.record(external)
    assert wrap_stream(external) == own
    with torch.cuda.stream(external):
        assert wrap_stream() == own
    event.record(torch.cuda.default_stream())
    event.synchronize(timeout=PATIENCE)


def test_a_captured_graph_records_external_events():
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream()
    start, end = (Event(enable_timing=True, external=True) for _ in range(2))
    with torch.cuda.graph(graph, stream=stream):
        start.record()
        torch.cuda._sleep(BUSY)
        end.record()
    graph.replay()
    torch.cuda.synchronize()
    assert start.elapsed_time(end) > 0.0


def test_other_threads_run_while_one_waits(torch_stream):
    busy(torch_stream)
    event = Event()
    event.record(torch_stream)
    turns = 0
    thread = threading.Thread(target=event.synchronize)
    thread.start()
    while thread.is_alive():
        turns += 1
        time.sleep(0.001)
    thread.join()
    assert turns > 3


SUITES = {
    "an_unrecorded_event_is_complete": "assert e.query() is True",
    "handles_are_0_before_the_record_and_equal_after": """
assert e.cuda_event == 0 and e.event_id == 0
e.record()
assert e.cuda_event != 0 and e.event_id == e.cuda_event
""",
    "work_in_flight_is_seen": """
start = torch.cuda.Event(enable_timing=True)
e = torch.cuda.Event(enable_timing=True)
start.record()
torch.cuda._sleep(50_000_000)
e.record()
assert not e.query()
e.synchronize()
assert e.query() and start.elapsed_time(e) > 0
""",
    "the_errors_are_pytorchs": r"""
import re
def fails(kind, text, call):
    try: call()
    except kind as error: assert re.search(text, str(error)), error
    else: raise AssertionError(text)
E = torch.cuda.Event
fails(ValueError, "Both events must be created with argument 'enable_timing=True'",
      lambda: E().elapsed_time(E()))
fails(ValueError, "Both events must be recorded before calculating elapsed time",
      lambda: E(enable_timing=True).elapsed_time(E(enable_timing=True)))
a, b = E(enable_timing=True), E(enable_timing=True)
a.record(); torch.cuda._sleep(50_000_000); b.record()
fails(RuntimeError, "Both events must be completed before calculating elapsed time",
      lambda: a.elapsed_time(b))
""",
    "reprs_name_the_class": """
assert "torch.cuda.Event" in repr(e)
e.record()
assert "torch.cuda.Event" in repr(e)
""",
    "streams_of_pytorch_make_and_take_events": """
s = torch.cuda.Stream()
torch.cuda._sleep(50_000_000)
made = torch.cuda.current_stream().record_event(torch.cuda.Event())
s.wait_event(made)
s.synchronize()
assert made.query()
""",
    "events_are_pickled_by_their_handle": """
import pickle
e = torch.cuda.Event(interprocess=True)
e.record()
rebuild, (device, handle) = e.__reduce__()
assert device == "cuda:0" and handle == e.ipc_handle() and len(handle) == 64
pickle.dumps(e)
""",
}


@pytest.mark.parametrize("name", SUITES)
def test_assigned_over_pytorchs_event(name):
    program = f"""
import torch, fencepost
torch.cuda.Event = fencepost.cuda.Event
torch.cuda.streams.Event = fencepost.cuda.Event
torch.cuda.init()
e = torch.cuda.Event()
{SUITES[name]}
torch.cuda.synchronize()
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stderr


def test_it_is_no_subclass_of_torch_event():
    # PyTorch's own suite asks for a subclass, which no class outside of PyTorch can be: PyTorch's
    # C++ reads the fields of a torch.Event at their places in memory. So calls into C++, such as
    # torch.Stream.record_event, refuse this class.
    assert not issubclass(Event, torch.Event)


def test_cupy_streams_are_taken():
    cupy = pytest.importorskip("cupy", reason="CuPy is not installed")
    stream, event = cupy.cuda.Stream(non_blocking=True), Event()
    event.record(stream)
    event.synchronize(timeout=PATIENCE)
    assert wrap_stream(stream).cuda_stream == stream.ptr
    event.record(cupy.cuda.Stream.null)
    event.synchronize(timeout=PATIENCE)


def test_cuda_core_streams_are_taken():
    core = pytest.importorskip("cuda.core", reason="cuda.core is not installed")
    device_class = getattr(core, "Device", None) or core.experimental.Device
    device = device_class(0)
    device.set_current()
    stream, event = device.create_stream(), Event()
    event.record(stream)
    event.synchronize(timeout=PATIENCE)
    assert wrap_stream(stream).cuda_stream == int(stream.handle)
    stream.close()
    again = device.create_stream()
    event.record(again)
    event.synchronize(timeout=PATIENCE)
    fencepost.Device("cuda:0").synchronize(timeout=PATIENCE)


def test_a_tensor_stands_for_pytorchs_current_stream(torch_stream):
    event, other = Event(), Event()
    tensor = torch.zeros(1, device="cuda")
    with torch.cuda.stream(torch_stream):
        busy(torch_stream)
        event.record(like=tensor)
    other.record(like=tensor)
    assert event.query() is False
    other.synchronize(timeout=PATIENCE)
    assert event.query() is False
    event.synchronize(timeout=PATIENCE)
    assert torch.device("cuda", event.device.index) == tensor.device


def marks_its_current_stream(tensor, stream):
    """Return whether the tensor stands for this stream, on which work is queued first."""
    event = Event()
    with torch.cuda.stream(torch.cuda.ExternalStream(stream)):
        torch.cuda._sleep(BUSY)
    event.record(like=tensor)
    pending = event.query() is False
    event.synchronize(timeout=PATIENCE)
    return pending


def test_an_array_of_cupy_stands_for_cupys_current_stream():
    cupy = pytest.importorskip("cupy", reason="CuPy is not installed")
    array = cupy.zeros(1)
    with cupy.cuda.Stream(non_blocking=True) as stream:
        assert marks_its_current_stream(array, stream.ptr)


def test_an_array_of_warp_stands_for_warps_current_stream():
    warp = pytest.importorskip("warp", reason="Warp is not installed")
    warp.init()
    stream, event = warp.Stream("cuda:0"), Event()
    event.record(stream)
    event.record(warp.get_device("cuda:0").null_stream)
    event.synchronize(timeout=PATIENCE)
    array = warp.zeros(1, device="cuda:0")
    with warp.ScopedStream(stream):
        assert marks_its_current_stream(array, stream.cuda_stream)


def test_a_stream_of_numba_is_taken():
    cuda = pytest.importorskip("numba.cuda", reason="Numba is not installed")
    stream, event = cuda.stream(), Event()
    event.record(stream)
    event.record(cuda.default_stream())
    event.synchronize(timeout=PATIENCE)
    assert wrap_stream(stream).cuda_stream
