"""``fencepost.cuda.Event``: what ``torch.cuda.Event`` promises, on any library's streams.

They run on the stand-in for NVIDIA's driver if ``FENCEPOST_CUDA_LIBRARY`` names it. The stand-in
never counts as hardware.
"""

import ctypes
import functools
import gc
import inspect
import multiprocessing
import os
import pickle
import sys
import types
import weakref

import pytest

import fencepost
from conftest import PATIENCE, at_once
from fencepost.cuda import Event, wrap_stream

pytestmark = pytest.mark.cuda


@pytest.fixture
def stream(cuda):
    return cuda.stream()


class Streams:
    """A stream as an object of each library."""

    @staticmethod
    def protocol(handle):
        return type("CoreStream", (), {"__cuda_stream__": lambda self: (0, handle)})()

    @staticmethod
    def protocol_attribute(handle):
        return types.SimpleNamespace(__cuda_stream__=(0, handle))

    @staticmethod
    def torch(handle):
        return types.SimpleNamespace(cuda_stream=handle, device_index=0)

    @staticmethod
    def cupy(handle):
        return types.SimpleNamespace(ptr=handle)

    @staticmethod
    def numba(handle):
        return types.SimpleNamespace(handle=ctypes.c_void_p(handle))

    @staticmethod
    def numba_of_cuda_python(handle):
        of_cuda_python = type("CUstream", (), {"__int__": lambda self: handle})()
        return types.SimpleNamespace(handle=of_cuda_python)

    @staticmethod
    def integer(handle):
        return handle


FORMS = [name for name in vars(Streams) if not name.startswith("_")]


@pytest.mark.parametrize("form", FORMS)
def test_any_librarys_stream_is_taken(cuda, stream, gate, form):
    theirs = getattr(Streams, form)(stream.cuda_stream)
    held = gate(stream)
    event = Event()
    event.record(theirs)
    assert event.query() is False
    assert str(event.device) == "cuda:0"
    held.open()
    event.synchronize(timeout=PATIENCE)
    event.wait(theirs)
    assert wrap_stream(theirs) == stream


@pytest.mark.parametrize("form", FORMS)
def test_handle_0_is_the_default_stream(cuda, form):
    event = Event(enable_timing=True)
    event.record(getattr(Streams, form)(0))
    event.synchronize(timeout=PATIENCE)
    assert wrap_stream(getattr(Streams, form)(0)) == cuda.default_stream()


def test_what_is_no_stream_is_an_error_that_lists_what_is(cuda):
    for nothing in ("stream", 3.5, object()):
        with pytest.raises(TypeError, match="__cuda_stream__, or an integer"):
            Event().record(nothing)
    for bad in (True, -1, 2**70):
        with pytest.raises(ValueError, match="not a handle"):
            Event().record(bad)
    with pytest.raises(TypeError, match="version 7"):
        Event().record(types.SimpleNamespace(__cuda_stream__=(7, 0)))


def test_a_recycled_handle_is_another_stream(cuda, child):
    # With this variable the stand-in gives handles of destroyed streams to new ones.
    child(
        """
import fencepost
from fencepost.cuda import Event, wrap_stream
device = fencepost.Device("cuda:0")
seen = {}
for _ in range(50):
    stream = device.stream()
    handle = stream.cuda_stream
    event = Event()
    event.record(handle)
    event.synchronize(timeout=PATIENCE)
    wrapped = wrap_stream(handle)
    assert wrapped == stream
    if handle in seen:
        assert seen[handle] != wrapped.id
    seen[handle] = wrapped.id
    del stream, wrapped
device.synchronize(timeout=PATIENCE)
import os
assert len(seen) < 50 or "FENCEPOST_CUDA_LIBRARY" not in os.environ, "no handle was used again"
""",
        FENCEPOST_SIM_CUDA_RECYCLE="1",
    )


def test_an_event_is_nothing_before_the_first_record(cuda):
    event = Event()
    assert event.query() is True
    assert event.device is None
    assert event.cuda_event == 0
    assert event.event_id == 0
    assert event._as_parameter_.value is None
    event.synchronize()
    event.wait()
    assert "torch.cuda.Event" in repr(event)


def test_the_native_handle_is_the_same_for_life(cuda, stream, gate):
    event = Event(enable_timing=True)
    event.record(stream)
    handle = event.cuda_event
    assert handle != 0
    assert event.event_id == handle
    assert event._as_parameter_.value == handle
    held = gate(stream)
    event.record(stream)
    assert event.query() is False
    assert event.cuda_event == handle
    with pytest.raises(TimeoutError, match="gave up after"):
        event.synchronize(timeout=0.01)
    held.open()
    event.synchronize(timeout=PATIENCE)
    assert event.query() is True
    other = Event(enable_timing=True)
    other.record(stream)
    other.synchronize()
    assert event.elapsed_time(other) >= 0.0
    assert other.cuda_event != handle


def test_a_record_by_others_on_the_handle_is_seen(cuda, stream, gate):
    driver = ctypes.CDLL(fencepost_driver())
    event = Event()
    event.record(stream)
    event.synchronize(timeout=PATIENCE)
    held = gate(stream)
    raw, queue = ctypes.c_void_p(event.cuda_event), ctypes.c_void_p(stream.cuda_stream)
    assert driver.cuEventRecord(raw, queue) == 0
    assert event.query() is False
    held.open()
    event.synchronize(timeout=PATIENCE)


class Foreign:
    """A CUDA event of somebody else, with the calls that record and destroy it."""

    def __init__(self, driver, flags=0):
        self.driver, event = driver, ctypes.c_void_p()
        context = ctypes.c_void_p()
        assert driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0) == 0
        assert driver.cuCtxPushCurrent_v2(context) == 0
        assert driver.cuEventCreate(ctypes.byref(event), flags) == 0
        assert driver.cuCtxPopCurrent_v2(ctypes.byref(context)) == 0
        self.handle = event.value

    def record(self, stream):
        queue = ctypes.c_void_p(stream.cuda_stream)
        assert self.driver.cuEventRecord(ctypes.c_void_p(self.handle), queue) == 0

    def __del__(self):
        self.driver.cuEventDestroy_v2(ctypes.c_void_p(self.handle))


def test_an_event_of_another_library_is_taken_by_its_handle(cuda, stream, gate):
    driver = ctypes.CDLL(fencepost_driver())
    theirs = Foreign(driver)
    event = Event.from_handle("cuda:0", theirs.handle, enable_timing=True, owner=theirs)
    assert type(event) is Event
    assert event.cuda_event == theirs.handle
    assert str(event.device) == "cuda:0"
    assert event.query() is True, "never recorded"
    held = gate(stream)
    theirs.record(stream)
    assert event.query() is False
    with pytest.raises(TimeoutError):
        event.synchronize(timeout=0.01)
    waiting, of_host = cuda.stream(), fencepost.Device("host").stream()
    event.wait(waiting)
    event.wait(of_host)
    behind, on_host = Event(), fencepost.Event("host")
    behind.record(waiting)
    on_host.record(of_host)
    assert behind.query() is False
    assert on_host.query() is False
    held.open()
    for each in (event, behind, on_host):
        each.synchronize(timeout=PATIENCE)
    # Recorded by this package and timed beside an event of its own.
    end = Event(enable_timing=True)
    event.record(stream)
    end.record(stream)
    end.synchronize(timeout=PATIENCE)
    assert event.elapsed_time(end) >= 0.0


def test_the_owner_of_a_handle_is_kept_as_long_as_the_event(cuda, stream):
    theirs = Foreign(ctypes.CDLL(fencepost_driver()), flags=2)
    kept = weakref.ref(theirs)
    event = Event.from_handle(0, ctypes.c_void_p(theirs.handle), owner=theirs)
    del theirs
    gc.collect()
    assert kept() is not None
    event.record(stream)
    event.synchronize(timeout=PATIENCE)
    with pytest.raises(ValueError, match="enable_timing=True"):
        event.elapsed_time(event)
    del event
    gc.collect()
    assert kept() is None


def test_what_is_no_handle_is_an_error_that_says_so(cuda):
    for bad in (0, 1, -1, 2**70, True, 3.5, None, "event", Event(), ctypes.c_void_p()):
        with pytest.raises(ValueError, match="'handle': not a handle of a CUDA event"):
            Event.from_handle(0, bad)
    with pytest.raises(ValueError, match="expected a CUDA device"):
        Event.from_handle("host", 4096)


def fencepost_driver():
    return os.environ.get("FENCEPOST_CUDA_LIBRARY", "libcuda.so.1")


def test_switches_are_integers_too_as_in_pytorch(cuda, stream):
    timed = [Event(enable_timing=1), Event(1), Event(True, 0, False)]
    for event in timed:
        event.record(stream)
        event.synchronize(timeout=PATIENCE)
        assert event.elapsed_time(event) == 0.0
    for plain in (Event(enable_timing=0), Event(0, blocking=1)):
        with pytest.raises(ValueError, match="enable_timing=True"):
            plain.elapsed_time(timed[0])


def test_errors_come_in_pytorchs_order_and_kinds(cuda, stream, gate):
    timed, plain = Event(enable_timing=True), Event()
    with pytest.raises(
        ValueError, match="Both events must be created with argument 'enable_timing=True'"
    ):
        timed.elapsed_time(plain)
    with pytest.raises(
        ValueError, match="Both events must be recorded before calculating elapsed time"
    ):
        timed.elapsed_time(Event(enable_timing=True))
    timed.record(stream)
    held = gate(stream)
    end = Event(enable_timing=True)
    end.record(stream)
    with pytest.raises(
        RuntimeError, match="Both events must be completed before calculating elapsed time"
    ):
        timed.elapsed_time(end)
    held.open()
    end.synchronize(timeout=PATIENCE)
    assert timed.elapsed_time(end) >= 0.0
    assert end.elapsed_time(timed) <= 0.0
    assert timed.elapsed_time(timed) == 0.0


def test_the_first_record_binds_the_device(cuda):
    if fencepost.cuda.device_count() < 2:
        pytest.skip("one CUDA device; this takes two")
    second = fencepost.Device("cuda:1").stream()
    event = Event(enable_timing=True)
    event.record(second)
    assert str(event.device) == "cuda:1"
    with pytest.raises(
        RuntimeError, match="Event device 1 does not match recording stream's device 0"
    ):
        event.record(cuda.stream())
    assert str(event.device) == "cuda:1"
    # Waits go across devices; times do not.
    event.wait(cuda.stream())
    here = Event(enable_timing=True)
    here.record(cuda.stream())
    here.synchronize()
    event.synchronize()
    with pytest.raises(RuntimeError, match="same device"):
        event.elapsed_time(here)


def test_a_stream_of_the_host_is_refused_when_it_cannot_be_recorded(cuda, host):
    event = Event()
    with pytest.raises(TypeError, match="expected a CUDA stream"):
        event.record(host.stream())
    assert event.device is None
    event.record(cuda.stream())
    with pytest.raises(RuntimeError, match="same device"):
        event.record(host.stream())
    # A host stream waits for any event.
    event.wait(host.stream())


def test_events_without_timing_are_recorded_again_and_again(cuda, stream):
    event = Event()
    for _ in range(1000):
        event.record(stream)
    event.synchronize(timeout=PATIENCE)
    assert event.query()


@pytest.mark.parametrize("flags", [{"blocking": True}, {"external": True}, {"interprocess": True}])
def test_flags_change_nothing_for_plain_use(cuda, stream, gate, flags):
    event = Event(**flags)
    assert event.query() is True
    held = gate(stream)
    event.record(stream)
    assert event.query() is False
    other = cuda.stream()
    event.wait(other)
    done = Event()
    done.record(other)
    held.open()
    event.synchronize(timeout=PATIENCE)
    done.synchronize(timeout=PATIENCE)
    assert event.query() is True
    assert event.cuda_event != 0


def test_external_events_have_times(cuda, stream):
    start, end = (Event(enable_timing=True, external=True) for _ in range(2))
    with pytest.raises(ValueError, match="must be recorded"):
        start.elapsed_time(end)
    start.record(stream)
    end.record(stream)
    end.synchronize(timeout=PATIENCE)
    start.synchronize(timeout=PATIENCE)
    assert start.elapsed_time(end) >= 0.0


def test_only_interprocess_events_are_exported(cuda, stream):
    event = Event(interprocess=True)
    handle = event.ipc_handle()
    assert len(handle) == 64
    assert str(event.device) == "cuda:0"
    assert event.cuda_event == 0
    event.record(stream)
    assert event.ipc_handle() == handle
    with pytest.raises(RuntimeError, match="interprocess=True"):
        Event().ipc_handle()
    with pytest.raises(TypeError, match="interprocess=True"):
        pickle.dumps(Event())
    with pytest.raises(ValueError, match="64 bytes"):
        Event.from_ipc_handle("cuda:0", b"short")
    # CUDA does not open an event in the process that made it.
    with pytest.raises(NotImplementedError, match="process"):
        Event.from_ipc_handle(0, handle)


def child_waits(pipe):
    event = pipe.recv()
    assert type(event) is Event
    pipe.send(event.query())
    event.synchronize(timeout=PATIENCE)
    pipe.send(event.query())


@pytest.mark.skipif(sys.platform != "linux", reason="CUDA shares events on Linux only")
def test_a_pickled_event_is_the_same_in_another_process(cuda, stream, gate):
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=child_waits, args=(theirs,))
    process.start()
    event = Event(interprocess=True)
    held = gate(stream)
    event.record(stream)
    try:
        ours.send(event)
        assert ours.poll(PATIENCE)
        first = ours.recv()
        held.open()
        assert ours.poll(PATIENCE)
        assert (first, ours.recv()) == (False, True)
    finally:
        process.join(PATIENCE)
        process.kill()


def test_without_pytorch_the_current_stream_is_the_default_one(cuda, gate):
    held = gate(cuda.default_stream())
    event = Event()
    event.record()
    assert event.query() is False
    held.open()
    event.synchronize(timeout=PATIENCE)


@pytest.fixture
def torch(monkeypatch, cuda):
    """Make a module that looks like a PyTorch that uses CUDA, for a program of its own."""
    return """
import sys, types
import fencepost
from fencepost import _C
from fencepost.cuda import Event, wrap_stream
torch = types.ModuleType("torch")
device = fencepost.Device("cuda:0")
class Stream:
    # PyTorch's own streams have odd IDs. Streams of other libraries have their handle as ID.
    def __init__(self, stream, stream_id=3):
        self.cuda_stream, self.device_index, self.stream_id = stream.cuda_stream, 0, stream_id
mine = device.stream()
state = types.SimpleNamespace(initialized=False, current=mine.cuda_stream, device=0)
torch.cuda = types.SimpleNamespace(is_initialized=lambda: state.initialized, Stream=Stream)
# Like PyTorch's function, this one takes -1 for the current device.
def raw_stream(index):
    return state.current if index in (-1, state.device) else 0
torch._C = types.SimpleNamespace(
    _cuda_getDevice=lambda: state.device, _cuda_getCurrentRawStream=raw_stream
)
torch.device = lambda name: f"torch.device({name})"
sys.modules["torch"] = torch
"""


def test_with_pytorch_the_current_stream_is_pytorchs(torch, child):
    child(
        torch
        + """
gate = _C._Gate(mine)
# Loaded, but not using CUDA: the default stream.
event = Event(); event.record(); event.synchronize(timeout=PATIENCE)
state.initialized = True
for event in (Event(), fencepost.Event("cuda:0")):
    event.record()
    assert event.query() is False
other = Event()
state.current = 0
other.record()
other.synchronize(timeout=PATIENCE)
assert wrap_stream() == device.default_stream()
state.current = mine.cuda_stream
assert wrap_stream() == mine
assert event.device is not None and other.device == "torch.device(cuda:0)", other.device
gate.open()
event.synchronize(timeout=PATIENCE)
"""
    )


def test_with_pytorch_the_current_device_is_pytorchs(torch, child):
    child(
        torch
        + """
if fencepost.cuda.device_count() < 2:
    sys.exit()
state.initialized = True
second = fencepost.Device("cuda:1")
state.device, state.current = 1, 0
for _ in range(2):
    event = Event(); event.record()
    assert event.device == "torch.device(cuda:1)", event.device
    assert wrap_stream() == second.default_stream()
    # The first device is not current, and its current stream is its default stream.
    event = fencepost.Event("cuda:0"); event.record()
    assert event.device == device
theirs = second.stream()
state.current = theirs.cuda_stream
assert wrap_stream() == theirs
"""
    )


def test_pytorchs_stream_objects_are_remembered(torch, child):
    child(
        torch
        + """
streams = [device.stream() for _ in range(3)]
theirs = [Stream(stream) for stream in streams]
gate = _C._Gate(streams[0])
for _ in range(50):
    events = [Event() for _ in streams]
    for event, stream in zip(events, theirs):
        event.record(stream)
        event.record(stream)
    assert events[0].query() is False
    for event in events[1:]:
        event.synchronize(timeout=PATIENCE)
gate.open()
device.synchronize(timeout=PATIENCE)
assert all(event.query() for event in events)
"""
    )


def test_only_streams_that_pytorch_never_destroys_are_kept_by_object(torch, child):
    child(
        torch
        + """
import weakref
def is_kept(stream_id):
    theirs = Stream(device.stream(), stream_id)
    theirs.handle = theirs.cuda_stream
    event = Event(); event.record(theirs); event.synchronize(timeout=PATIENCE)
    device.synchronize(timeout=PATIENCE)
    kept = weakref.ref(theirs)
    del theirs
    return kept() is not None
assert is_kept(3) and not is_kept(mine.cuda_stream)
"""
    )


def test_a_stream_may_record_in_its_finalizer_during_a_record(torch, child):
    # Other streams evict a remembered one, whose finalizer calls the module again.
    child(
        torch
        + """
ended = []
class Last(Stream): pass
event, theirs = Event(), Stream(mine)
def end(self):
    event.record(theirs); event.wait(theirs); ended.append(1)
Stream.__del__ = end
for _ in range(40):
    event.record(Stream(mine)); event.record(theirs)
del Stream.__del__
assert len(ended) > 20, ended
event.synchronize(timeout=PATIENCE)
"""
    )


def test_threads_record_on_the_same_streams_of_pytorch(torch, child):
    child(
        torch
        + """
import threading
theirs = [Stream(device.stream()) for _ in range(6)]
shared, errors = Event(), []
def work():
    try:
        for turn in range(300):
            shared.record(theirs[turn % 6])
            shared.wait(theirs[turn // 6 % 6])
    except BaseException as error:
        errors.append(error)
threads = [threading.Thread(target=work) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert not errors, errors
shared.synchronize(timeout=PATIENCE)
"""
    )


@pytest.mark.parametrize(
    "make", [Event, lambda: fencepost.Event("cuda:0")], ids=["cuda", "generic"]
)
def test_arguments_may_come_in_every_form(cuda, stream, gate, make):
    held = gate(stream)
    for form in (lambda call: call(stream), lambda call: call(stream=stream)):
        event = make()
        form(event.record)
        assert event.query() is False
        form(event.wait)
        form(functools.partial(type(event).wait, event))
    held.open()
    for form in (lambda call: call(), lambda call: call(None), lambda call: call(stream=None)):
        event = make()
        form(event.record)
        event.synchronize(timeout=PATIENCE)
    assert form(event.record) is None


def test_elapsed_time_takes_its_argument_in_any_form(cuda, stream):
    start, end = (Event(enable_timing=True) for _ in range(2))
    start.record(stream)
    end.record(stream)
    end.synchronize(timeout=PATIENCE)
    elapsed = start.elapsed_time(end)
    assert start.elapsed_time(end_event=end) == elapsed
    assert functools.partial(type(start).elapsed_time, start)(end) == elapsed
    assert str(inspect.signature(start.elapsed_time)) == "(end_event)"
    assert inspect.getdoc(start.elapsed_time)
    for wrong in (lambda: start.elapsed_time(), lambda: start.elapsed_time(end, end)):
        with pytest.raises(TypeError, match="positional argument"):
            wrong()
    with pytest.raises(TypeError, match="unexpected keyword argument 'end'"):
        start.elapsed_time(end=end)
    with pytest.raises(TypeError, match="expected an event of fencepost"):
        start.elapsed_time(stream)


@pytest.mark.parametrize(
    "make", [Event, lambda: fencepost.Event("cuda:0")], ids=["cuda", "generic"]
)
def test_wrong_arguments_raise_as_for_any_method(cuda, stream, make):
    event = make()
    for call in (event.record, event.wait):
        with pytest.raises(
            TypeError, match="takes from 0 to 1 positional arguments but 2 were given"
        ):
            call(stream, stream)
        with pytest.raises(TypeError, match="multiple values for argument 'stream'"):
            call(stream, stream=stream)
        with pytest.raises(TypeError, match="unexpected keyword argument 'streams'"):
            call(streams=stream)
        with pytest.raises(TypeError, match="expected a stream"):
            call("stream")
        assert str(inspect.signature(call)) == "(stream=None, *, like=None)"
        assert inspect.getdoc(call)
    for method in (type(event).record, type(event).wait):
        with pytest.raises(TypeError, match="doesn't apply to"):
            method(stream)
    assert event.query() is True


def has_timing(event, stream):
    event.record(stream)
    event.synchronize(timeout=PATIENCE)
    try:
        return event.elapsed_time(event) == 0
    except ValueError:
        return False


NO_LITERAL = "".join(["enable", "_", "timing"])


@pytest.mark.parametrize(
    ("make", "timing"),
    [
        (lambda kind: kind(), False),
        (lambda kind: kind(False), False),
        (lambda kind: kind(True), True),
        (lambda kind: kind(enable_timing=False), False),
        (lambda kind: kind(enable_timing=True), True),
        (lambda kind: kind(**{NO_LITERAL: True}), True),
        (lambda kind: kind(enable_timing=True, blocking=True), True),
        (lambda kind: kind(True, blocking=True), True),
        (lambda kind: kind(blocking=True), False),
        (lambda kind: functools.partial(kind, enable_timing=True)(), True),
        (lambda kind: functools.partial(kind, enable_timing=True)(enable_timing=False), False),
        (lambda kind: kind.__new__(kind, enable_timing=True), True),
    ],
)
def test_events_are_made_by_every_form_of_the_call(cuda, stream, make, timing):
    class Derived(Event):
        pass

    for kind in (Event, Derived):
        event = make(kind)
        assert type(event) is kind
        assert has_timing(event, stream) is timing


def test_wrong_arguments_of_the_constructor_raise(cuda):
    with pytest.raises(
        TypeError, match=r"Event.__new__\(\) got an unexpected keyword argument 'timing'"
    ):
        Event(timing=True)
    with pytest.raises(
        TypeError,
        match=r"Event.__new__\(\) takes from 0 to 4 positional arguments but 5 were given",
    ):
        Event(True, True, True, True, True)
    with pytest.raises(
        TypeError, match=r"Event.__new__\(\) got multiple values for argument 'enable_timing'"
    ):
        Event(True, enable_timing=True)
    for wrong in (1.0, None, "True"):
        with pytest.raises(TypeError, match="expected True or False; got "):
            Event(enable_timing=wrong)
    with pytest.raises(ValueError, match="has no timing"):
        Event(enable_timing=True, interprocess=True)
    with pytest.raises(TypeError, match="not a subtype"):
        Event.__new__(object, enable_timing=True)


def test_the_class_is_shown_by_its_own_name(cuda):
    assert (Event.__module__, Event.__qualname__, Event.__name__) == (
        "fencepost.cuda",
        "Event",
        "Event",
    )
    assert [kind.__name__ for kind in Event.__mro__] == ["Event", "_CudaEventBase", "object"]
    assert repr(Event) == "<class 'fencepost.cuda.Event'>"
    assert inspect.getdoc(Event).startswith("A CUDA event: a drop-in for ``torch.cuda.Event``")
    assert Event.record.__qualname__ == "Event.record"
    assert Event.query.__qualname__ == "Event.query"
    assert pickle.loads(pickle.dumps(Event)) is Event
    assert pickle.loads(pickle.dumps(Event.from_ipc_handle)) == Event.from_ipc_handle
    # CPython 3.9 has no signatures of classes that were made at run time.
    if sys.version_info >= (3, 10):
        signature = "(enable_timing=False, blocking=False, interprocess=False, external=False)"
        assert str(inspect.signature(Event)) == signature


def test_a_subclass_may_take_other_arguments(cuda, stream):
    class Named(Event):
        def __new__(cls, name, **flags):
            return super().__new__(cls, **flags)

        def __init__(self, name, **flags):
            super().__init__()
            self.name = name

    for flags in ({}, {"enable_timing": True}, {"enable_timing": False}):
        event = Named("mine", **flags)
        assert (type(event), event.name) == (Named, "mine")
        assert has_timing(event, stream) is flags.get("enable_timing", False)


def test_making_an_event_leaks_no_reference_to_its_class(cuda):
    class Derived(Event):
        pass

    class Plain(fencepost.Event):
        pass

    def grown(make, *kinds):
        before = [sys.getrefcount(kind) for kind in kinds]
        for _ in range(1000):
            make()
        return max(sys.getrefcount(kind) - then for kind, then in zip(kinds, before))

    # 0, except on free-threaded CPythons, which count references to PyO3's classes differently.
    usual = grown(lambda: Plain("host"), Plain, fencepost.Event)
    for kind in (Event, Derived):

        def refused(kind=kind):
            with pytest.raises(TypeError):
                kind(timing=True)

        for make in (
            kind,
            lambda kind=kind: kind(enable_timing=True),
            lambda kind=kind: kind(enable_timing=False),
            refused,
        ):
            assert grown(make, kind, *Event.__mro__[:2]) < usual + 100


def test_an_event_that_was_another_one_is_as_new(cuda, gate, stream):
    # A dead event becomes the next one (src/cuda_class.rs), on builds with a GIL.
    for timing in (False, True, False):
        event = Event(enable_timing=timing)
        event.name, event.mine = "mine", 1
        event.record(stream)
        event.synchronize(timeout=PATIENCE)
        del event
        event = Event(enable_timing=timing)
        event.name = "another"
        event.record(stream)
        opener = gate(stream)
        event.record(stream)
        assert event.query() is False
        del event
        event = Event(enable_timing=not timing)
        assert (event.device, event.name, event.cuda_event) == (None, None, 0)
        assert event.query() is True
        assert not hasattr(event, "mine")
        assert "never recorded" in repr(event)
        opener.open()
        assert has_timing(event, stream) is not timing


def test_a_dead_events_marker_is_told_by_no_other_event(cuda, gate, stream):
    # Two dead events with timing and two without keep their markers, for a record on that stream.
    others = [cuda.stream() for _ in range(2)]
    for timing in (False, True):
        opener = gate(stream)
        for _ in range(3):
            pair = [Event(enable_timing=timing) for _ in range(2)]
            for event in pair:
                assert event.query() is True
                assert (event.device, event.cuda_event) == (None, 0)
                assert "never recorded" in repr(event)
                # Nothing to wait for.
                event.wait(others[0])
                event.synchronize(timeout=PATIENCE)
                with pytest.raises((RuntimeError, ValueError)):
                    event.elapsed_time(event)
            pair[0].record(stream)
            assert pair[0].query() is False
            assert pair[1].query() is True
            pair[1].record(others[1])
            pair[1].synchronize(timeout=PATIENCE)
            assert pair[0].query() is False
            del event, pair
        others[0].synchronize(timeout=PATIENCE)
        event = Event(enable_timing=timing)
        event.name = "named before its first record"
        event.record(stream)
        with pytest.raises(TimeoutError, match="named before its first record"):
            event.synchronize(timeout=0)
        opener.open()
        event.synchronize(timeout=PATIENCE)
        del event


def test_a_dead_events_device_is_not_that_of_the_next_one(cuda, stream):
    if fencepost.cuda.device_count() < 2:
        pytest.skip("one CUDA device; this takes two")
    streams = [stream, fencepost.Device("cuda:1").stream()]
    for number in (0, 1, 1, 0, 0, 1, 0, 1):
        event = Event(enable_timing=True)
        assert event.device is None
        for _ in range(2):
            event.record(streams[number])
            event.synchronize(timeout=PATIENCE)
            assert str(event.device) == f"cuda:{number}"
            assert event.elapsed_time(event) == 0.0
        with pytest.raises(RuntimeError, match=f"Event device {number} does not match"):
            event.record(streams[1 - number])


def test_a_dead_events_dict_belongs_to_whoever_kept_it(cuda):
    event = Event()
    kept = event.__dict__
    del event
    events = [Event() for _ in range(100)]
    kept["mine"] = 1
    assert not any(hasattr(event, "mine") for event in events)
    events[0].mine = 2
    assert kept == {"mine": 1}


def test_a_dead_events_dict_may_be_of_a_class_of_its_own(cuda):
    def live():
        return sum(type(one) is Event for one in gc.get_objects())

    class Attributes(dict):
        def __del__(self):
            gc.collect()
            seen.append(live())

    before, seen = live(), []
    event = Event()
    event.__dict__ = attributes = Attributes()
    attributes.mine = 1
    gone = weakref.ref(attributes)
    del attributes, event
    assert gone() is None
    # The dead event is none that the garbage collector knows.
    assert seen == [before]
    events = [Event() for _ in range(100)]
    assert len(set(map(id, events))) == len(events)
    assert {type(event.__dict__) for event in events} == {dict}


def test_what_an_event_refers_to_goes_with_it(cuda, stream):
    class Anything:
        pass

    def dies(make):
        event, other = make(), Anything()
        event.other = other
        event.record(stream)
        return weakref.ref(event), weakref.ref(other)

    # Behind one that is kept alive by its attribute, which the garbage collector finds.
    def circle():
        event = Event()
        event.me = event
        return event

    for make in (Event, circle, lambda: Event(enable_timing=True)):
        of_event, of_other = dies(make)
        gc.collect()
        events = [Event() for _ in range(100)]
        assert of_event() is None
        assert of_other() is None
        assert not any(hasattr(event, "other") for event in events)


def test_weak_references_to_a_dead_event_do_not_find_the_next_one(cuda):
    for _ in range(3):
        called = []
        event = Event()
        gone = weakref.ref(event, called.append)
        del event
        gc.collect()
        event = Event()
        assert gone() is None
        assert len(called) == 1
        assert weakref.getweakrefcount(event) == 0
        assert weakref.ref(event)() is event


def test_the_garbage_collector_knows_an_event_while_it_is_one(cuda):
    def known():
        return sum(type(one) is Event for one in gc.get_objects())

    before = known()
    for count in (1, 100, 30, 200):
        events = [Event() for _ in range(count)]
        assert len(set(map(id, events))) == count
        assert known() == before + count
        assert all(gc.is_tracked(event) for event in events)
        del events
        assert known() == before


def test_an_event_that_became_one_of_another_class_is_left_to_it(cuda):
    class Derived(Event):
        pass

    event = Event()
    event.__class__ = Derived
    assert type(event) is Derived
    del event
    event = Derived()
    event.__class__ = Event
    del event
    assert {type(event) for event in [Event() for _ in range(100)]} == {Event}


def test_a_dead_event_becomes_none_of_another_class(cuda):
    class Large(Event):
        # More than 512 bytes, which CPython takes from elsewhere.
        __slots__ = tuple(f"slot_{number}" for number in range(200))

    for old, new in ((Large, Event), (Event, Large)):
        # None of an earlier test is left for the next event.
        others = [Event() for _ in range(100)]
        olds = [old() for _ in range(200)]
        # Every other one stays, so that no allocator has a whole page for something else.
        dead = set(map(id, olds[::2]))
        del olds[::2]
        news = [new() for _ in range(100)]
        assert dead.isdisjoint(map(id, news))
        assert {type(event) for event in news} == {new}
        assert len(others) == len(olds)


def test_an_event_whose_finalizer_was_called_does_not_become_the_next_one(cuda):
    class Derived(Event):
        def __del__(self):
            kept.append(self)

    def finalized():
        events.extend(Event() for _ in range(100))
        return sum(map(gc.is_finalized, events))

    # Events that live, so that none that was kept before is left.
    events, kept = [], []
    assert finalized() == 0
    derived = [Derived() for _ in range(100)]
    del derived
    assert len(kept) == 100
    # Of the derived class when it dies: its finalizer is called once.
    del kept[50:]
    assert finalized() == 0
    # Of this class when it dies.
    while kept:
        event = kept.pop()
        event.__class__ = Event
        del event
    assert finalized() == 0


def test_threads_make_and_drop_events_at_the_same_time(cuda):
    streams = [cuda.stream() for _ in range(4)]

    def work(number):
        stream = streams[number]
        for index in range(300):
            events = [Event(enable_timing=index % 2 == 0) for _ in range(1 + index % 7)]
            for event in events:
                event.record(stream)
            assert has_timing(events[0], stream) is (index % 2 == 0)

    at_once(work, threads=len(streams))


def test_query_takes_no_argument_and_events_only(cuda, stream):
    with pytest.raises(TypeError, match="takes no arguments"):
        Event().query(stream)
    for _ in range(100):
        with pytest.raises(TypeError, match="doesn't apply to"):
            Event.query(stream)
    assert Event().query() is True
    assert Event.query(Event()) is True
    assert str(inspect.signature(Event().query)) == "()"
    assert inspect.getdoc(Event.query)


def test_a_subclass_keeps_what_it_adds(cuda, stream):
    class Named(Event):
        def __init__(self, *args, **kwargs):
            self.name = "mine"

    event = Named(enable_timing=True)
    event.record(stream)
    assert event.name == "mine"
    assert isinstance(stream.record_event(event), Named)


RAW = {
    "handle": "Event()",
    "external": "Event(external=True)",
    "interprocess": "Event(interprocess=True)",
    "generic": "fencepost.Event(device, interprocess=True)",
}
AWAITS = {
    # Nothing of a wait that gave up is left: no thread that asyncio.run would join.
    "cancelled": """
event = pending()
async def main():
    try:
        await asyncio.wait_for(waits(event), 0.1)
    except asyncio.TimeoutError:
        return "gave up"
assert asyncio.run(main()) == "gave up"
""",
    # More than asyncio's own pool has threads. What opens the gate needs one of them.
    "many": """
events = [pending() for _ in range(40)]
async def main():
    tasks = [asyncio.create_task(waits(event)) for event in events]
    await asyncio.sleep(0.1)
    await asyncio.to_thread(gate.open)
    await asyncio.gather(*tasks)
asyncio.run(main())
""",
    "Ctrl-C": """
event = pending()
try:
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    asyncio.run(waits(event))
except KeyboardInterrupt:
    pass
else:
    raise AssertionError("it returned")
""",
    # The thread that asks the driver is there once, whatever was awaited.
    "no thread and no wait is left": """
def threads():
    return len(os.listdir("/proc/self/task"))
event = pending()
async def gives_up():
    task = asyncio.create_task(waits(event))
    await asyncio.sleep(0)
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        pass
async def main():
    await gives_up()
    before = threads()
    for _ in range(1000):
        await gives_up()
    assert threads() == before, (before, threads())
    task = asyncio.create_task(waits(event))
    await asyncio.sleep(0)
    gate.open()
    await task
asyncio.run(main())
""",
    "failed": """
event = pending()
async def main():
    task = asyncio.create_task(waits(event))
    await asyncio.sleep(0.05)
    ctypes.CDLL(os.environ["FENCEPOST_CUDA_LIBRARY"]).fencepost_sim_fail_contexts(0, 700)
    try:
        await task
    except RuntimeError as error:
        assert "cuda:0 is lost" in str(error), error
    else:
        raise AssertionError("it returned")
asyncio.run(main())
os._exit(0)
""",
    "in a forked child": """
event = pending()
process = os.fork()
if process == 0:
    try:
        asyncio.run(waits(event))
    except RuntimeError as error:
        os._exit(0 if "fork()" in str(error) else 4)
    os._exit(5)
assert os.waitpid(process, 0)[1] == 0
""",
    "at exit": """
event = pending()
loop = asyncio.new_event_loop()
loop.create_task(waits(event))
loop.run_until_complete(asyncio.sleep(0.05))
os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # asyncio complains of the pending task
""",
}


@pytest.mark.skipif(os.name != "posix", reason="uses POSIX's signals and processes")
@pytest.mark.parametrize("part", AWAITS)
@pytest.mark.parametrize("kind", RAW)
def test_awaiting_a_raw_event_takes_no_thread_and_leaves_none(child, cuda, kind, part):
    if part == "no thread and no wait is left" and not os.path.exists("/proc/self/task"):
        pytest.skip("the system does not list a process's threads")
    if part == "failed" and "FENCEPOST_CUDA_LIBRARY" not in os.environ:
        pytest.skip("a real driver cannot be made to fail")
    child(
        f"""
import asyncio, ctypes, os, signal, threading
import fencepost
from fencepost import _C
from fencepost.cuda import Event
signal.signal(signal.SIGINT, signal.default_int_handler)
def hangs():
    print("still not over", flush=True)
    os._exit(3)
watchdog = threading.Timer(PATIENCE, hangs)
watchdog.daemon = True
watchdog.start()
device = fencepost.Device("cuda:0")
stream = device.stream()
def made():
    event = {RAW[kind]}
    event.record(stream)
    event.synchronize(timeout=PATIENCE)
    if {kind!r} == "handle":
        assert event.cuda_event
    return event
spare = [made() for _ in range(40)]
gate = _C._Gate(stream)
def pending():
    event = spare.pop()
    event.record(stream)
    assert event.query() is False
    return event
async def waits(event):
    await event
{AWAITS[part]}
""",
    )


@pytest.mark.parametrize("when", ["before the first record", "behind it"])
def test_a_name_is_told_whenever_it_was_given(cuda, host, when):
    event = Event()
    if when == "before the first record":
        event.name = "loaded"
    event.record(cuda.stream())
    if when == "behind it":
        event.name = "loaded"
    with pytest.raises(RuntimeError, match='event "loaded" of cuda:0'):
        event.record(host.stream())
