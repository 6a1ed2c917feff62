"""The CUDA stream, and its device, that an argument means."""

import ctypes
import os
import sys
import threading
import types

import pytest

import fencepost
from conftest import PATIENCE
from fencepost import _C
from fencepost.cuda import Event, wrap_stream

pytestmark = pytest.mark.cuda

DEFAULTS = {"null": 0, "legacy": 1, "per thread": 2}


@pytest.fixture
def make_current(cuda):
    """Make the primary context of a GPU current in the calling thread."""
    driver = ctypes.CDLL(os.environ.get("FENCEPOST_CUDA_LIBRARY") or "libcuda.so.1")

    def make(index):
        context = ctypes.c_void_p()
        assert driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), index) == 0
        assert driver.cuCtxSetCurrent(context) == 0

    def current():
        context = ctypes.c_void_p()
        assert driver.cuCtxGetCurrent(ctypes.byref(context)) == 0
        return context.value

    make.current = current
    return make


@pytest.fixture
def two(cuda):
    """The names of two GPUs."""
    names = [device.name for device in fencepost.devices() if device.name.startswith("cuda:")]
    if len(names) < 2:
        pytest.skip("two CUDA devices are needed")
    return names[:2]


def in_a_thread(work):
    """What ``work()`` returns in a thread of its own, which has no CUDA context."""
    results = []

    def run():
        try:
            results.append(work())
        except Exception as error:
            results.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(PATIENCE * 3)
    assert results, "the thread hangs"
    if isinstance(results[0], Exception):
        raise results[0]
    return results[0]


def recorded_on(stream):
    event = Event(enable_timing=True)
    event.record(stream)
    event.synchronize(timeout=PATIENCE)
    event.wait(stream)
    device = str(event.device)
    assert str(wrap_stream(stream).device) == device
    return device


class Forms:
    """A default stream with its device, as objects of other libraries have them."""

    @staticmethod
    def torch(handle, index):
        return types.SimpleNamespace(cuda_stream=handle, device_index=index)

    @staticmethod
    def cupy(handle, index):
        return types.SimpleNamespace(ptr=handle, device_id=index)

    @staticmethod
    def cupy_with_protocol(handle, index):
        return types.SimpleNamespace(__cuda_stream__=(0, handle), ptr=handle, device_id=index)

    @staticmethod
    def numba(handle, index):
        context = types.SimpleNamespace(device=types.SimpleNamespace(id=index))
        return types.SimpleNamespace(handle=ctypes.c_void_p(handle), context=context)


FORMS = [name for name in vars(Forms) if not name.startswith("_")]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("handle", DEFAULTS.values(), ids=DEFAULTS)
@pytest.mark.parametrize("current", [0, 1])
def test_a_default_stream_with_a_device_is_of_that_device(two, make_current, form, handle, current):
    def work():
        make_current(current)
        before = make_current.current()
        devices = [recorded_on(getattr(Forms, form)(handle, index)) for index in (0, 1)]
        assert make_current.current() == before, "the current context is another one"
        return devices

    assert in_a_thread(work) == two


@pytest.mark.parametrize("handle", DEFAULTS.values(), ids=DEFAULTS)
def test_a_default_stream_without_a_device_is_of_the_current_one(two, make_current, handle):
    def work(index):
        make_current(index)
        # CuPy gives its default streams, which have no device, this number.
        return [recorded_on(handle), recorded_on(Forms.cupy(handle, -1))]

    for index in (0, 1):
        assert in_a_thread(lambda index=index: work(index)) == [two[index]] * 2


@pytest.mark.parametrize("handle", DEFAULTS.values(), ids=DEFAULTS)
def test_without_a_context_a_default_stream_is_of_the_first_device(cuda, handle):
    assert in_a_thread(lambda: recorded_on(handle)) == "cuda:0"


def test_the_per_thread_stream_of_a_named_device_is_the_threads_own(two, make_current, gate):
    theirs = Forms.torch(2, 1)

    def work():
        make_current(0)
        mine = wrap_stream(theirs)
        assert mine == wrap_stream(theirs)
        assert mine != fencepost.Device(two[1]).default_stream()
        event = Event()
        event.record(theirs)
        event.synchronize(timeout=PATIENCE)
        return mine

    assert in_a_thread(work) != in_a_thread(work)
    refused = in_a_thread(work)
    with pytest.raises(NotImplementedError, match="per-thread default stream"):
        Event().record(refused)


def test_a_default_stream_of_a_device_that_is_not_there_is_an_error(cuda):
    for handle in DEFAULTS.values():
        with pytest.raises(ValueError, match="unknown device"):
            Event().record(Forms.torch(handle, 77))


def generic_torch(streams):
    """A PyTorch whose streams of all devices are in ``streams``, by their IDs."""

    class Stream:
        def __init__(self, stream_id, device="cuda"):
            self.stream_id, self.device_index, self.device_type = stream_id, 0, 1
            self.device = types.SimpleNamespace(type=device, index=0)

    class CudaStream(Stream):
        def __init__(self, *, stream_id, device_index, device_type):
            assert (device_index, device_type) == (0, 1)
            super().__init__(stream_id)
            self.cuda_stream = streams[stream_id].cuda_stream

    torch = types.ModuleType("torch")
    torch.Stream, torch.cuda = Stream, types.SimpleNamespace(Stream=CudaStream)
    torch.cuda.is_initialized = lambda: False
    return torch


def test_a_stream_of_pytorchs_class_for_all_devices_is_that_of_cuda(cuda, gate, monkeypatch):
    streams = {3: cuda.stream(), 5: cuda.stream()}
    torch = generic_torch(streams)
    monkeypatch.setitem(sys.modules, "torch", torch)
    opener = gate(streams[3])
    for event in (Event(), fencepost.Event(cuda)):
        event.record(torch.Stream(5))
        event.synchronize(timeout=PATIENCE)
        event.record(torch.Stream(3))
        assert not event.query()
    assert wrap_stream(torch.Stream(5)) == streams[5]
    opener.open()
    event.wait(torch.Stream(5))
    event.synchronize(timeout=PATIENCE)
    with pytest.raises(TypeError, match=r"'stream': expected .*; got .*Stream$"):
        Event().record(torch.Stream(5, "xpu"))


def test_an_argument_of_a_wrong_type_is_named(cuda, host):
    event, stream = Event(), host.stream()
    generic = fencepost.Event(host)
    for call, text in [
        (lambda: event.record("x"), r"record\(\) argument 'stream': expected .*; got str"),
        (lambda: event.record(stream="x"), r"record\(\) argument 'stream': expected .*; got str"),
        (lambda: event.wait(3.5), r"wait\(\) argument 'stream': expected .*; got float"),
        (lambda: generic.record("x"), r"record\(\) argument 'stream': expected .*; got str"),
        (lambda: generic.wait(3.5), r"wait\(\) argument 'stream': expected .*; got float"),
        (lambda: event.elapsed_time(3), r"elapsed_time\(\) argument 'end_event': .*; got int"),
        (lambda: generic.elapsed_time(3), r"elapsed_time\(\) argument 'end_event': .*; got int"),
        (lambda: generic.synchronize("x"), "timeout must be a number"),
        (lambda: stream.wait_stream("x"), r"wait_stream\(\) argument 'stream': .*; got str"),
        (lambda: stream.wait_event(3), r"wait_event\(\) argument 'event': .*; got int"),
        (lambda: stream.record_event(3), r"record_event\(\) argument 'event': .*; got int"),
        (lambda: stream.launch(3), r"launch\(\) argument 'work': .*; got int"),
        (lambda: wrap_stream("x"), r"wrap_stream\(\) argument 'stream': .*; got str"),
        (lambda: fencepost.Event(3), r"Event\(\) argument 'device': .*; got int"),
        (lambda: fencepost.Stream(3.5), r"Stream\(\) argument 'device': .*; got float"),
        (lambda: fencepost.Device(3.5), r"Device\(\) argument 'name': .*; got float"),
        (lambda: Event.from_ipc_handle(3.5, b""), r"argument 'device': .*; got float"),
        (lambda: fencepost.mps.Event().elapsed_time(3), r"argument 'end_event': .*; got int"),
        (lambda: fencepost.mps.Event().record(3), r"record\(\) argument 'stream': .*got int"),
        (lambda: fencepost.mps.Event().wait(3), r"wait\(\) argument 'stream': .*got int"),
    ]:
        # PyTorch raises RuntimeError for what is no MPS stream.
        with pytest.raises((TypeError, RuntimeError), match=text):
            call()
    with pytest.raises(ValueError, match=r"record\(\) argument 'stream': not a handle .*: -1"):
        event.record(-1)


def test_the_repr_tells_complete_from_never_recorded(device):
    event = fencepost.Event(device)
    assert "never recorded" in repr(event)
    event.record(device.stream())
    event.synchronize(timeout=PATIENCE)
    event.query()
    assert "never recorded" not in repr(event)
    assert ", complete" in repr(event)


BARE_CALLS = [
    *("record", "record timed", "record asked", "record in turn", "life", "life timed"),
    *("query", "query released", "elapsed", "release"),
]


@pytest.mark.parametrize("call", BARE_CALLS)
def test_the_bare_calls_that_costs_are_compared_with(cuda, make_current, gate, call):
    stream = cuda.stream()

    def work():
        make_current(0)
        opener = gate(stream) if call.startswith("query") else None
        taken = _C._bare_call(call, stream.cuda_stream, 5, cuda.stream().cuda_stream)
        if opener:
            opener.open()
        return taken

    assert in_a_thread(work) > 0.0


def test_the_call_of_a_method_that_does_nothing_does_nothing(cuda):
    assert _C._Nothing().record(cuda.stream()) is None


def test_a_bare_call_of_an_unknown_name_is_an_error(cuda, make_current):
    def work():
        make_current(0)
        with pytest.raises(ValueError, match='no call is named "another"'):
            _C._bare_call("another", cuda.stream().cuda_stream, 1)

    in_a_thread(work)
