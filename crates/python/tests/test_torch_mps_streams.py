"""PyTorch 2.15's MPS streams: the current one, and those that a call names.

They run on stand-ins for PyTorch's streams and for Metal: no PyTorch, no Apple hardware.
"""

import ctypes
import threading

import pytest

import fencepost
import torch_files
from conftest import PATIENCE, at_once
from fencepost import _C, mps
from test_torch_mps import (  # noqa: F401
    NativeEvent,
    TorchStream,
    becomes,
    is_pending,
    kind,
    library,
    make_torch,
    stays,
    torch,
    violations,
    without_streams,
)


@pytest.fixture
def select(torch):  # noqa: F811
    """Make one of PyTorch's streams current on this thread, until the test ends."""
    used = set()

    def make_current(number):
        used.add(number)
        torch.torch_select(number)

    yield make_current
    for number in used:
        torch.torch_select(number)
        torch.torch_open()
        event = mps.Event()
        event.record()
        event.synchronize(timeout=PATIENCE)
    torch.torch_select(0)


def test_a_record_marks_the_stream_that_is_current(torch, select, kind):  # noqa: F811
    event, other = kind(), kind()
    select(3)
    torch.torch_hold()
    torch.torch_work(3)
    event.record()
    select(0)
    other.record()
    other.synchronize()
    assert not event.query()
    select(3)
    torch.torch_open()
    event.synchronize()
    assert torch.torch_value() == 3
    assert torch.torch_selected() == 3


def test_a_call_takes_a_stream_of_pytorchs(torch, select, kind):  # noqa: F811
    event, other = kind(enable_timing=True), kind(enable_timing=True)
    select(4)
    torch.torch_hold()
    select(0)
    record(event, 4)
    assert torch.torch_selected() == 0
    other.record()
    other.synchronize()
    assert not event.query()
    select(4)
    torch.torch_open()
    event.synchronize()
    assert event.elapsed_time(event) == 0.0


def test_an_event_acquired_for_a_stream_of_pytorchs_is_recorded_there(torch, select):  # noqa: F811
    event, other = _C._mps_acquireEvent(False, stream_id=4), _C._mps_acquireEvent(False)
    select(4)
    torch.torch_hold()
    select(0)
    _C._mps_recordEvent(event)
    _C._mps_recordEvent(other)
    _C._mps_synchronizeEvent(other)
    assert not _C._mps_queryEvent(event)
    assert torch.torch_selected() == 0
    select(4)
    torch.torch_open()
    _C._mps_synchronizeEvent(event)
    for number in (event, other):
        _C._mps_releaseEvent(number)


def record(event, number):
    if isinstance(event, NativeEvent):
        _C._mps_recordEvent(event._id, stream_id=number)
    else:
        event.record(TorchStream(number))


def wait(event, number):
    if isinstance(event, NativeEvent):
        _C._mps_waitForEvent(event._id, stream_id=number)
    else:
        event.wait(TorchStream(number))


def test_one_stream_of_pytorchs_waits_for_another(torch, select, kind):  # noqa: F811
    event = kind()
    select(6)
    torch.torch_work(1)
    before = mps.Event()
    before.record()
    before.synchronize(timeout=PATIENCE)
    select(5)
    torch.torch_hold()
    record(event, 5)
    wait(event, 6)
    select(6)
    torch.torch_work(6)
    torch.torch_commit()
    assert stays(torch, 1)
    select(5)
    torch.torch_open()
    select(6)
    assert becomes(torch, 6)


def test_a_stream_of_ours_waits_for_a_stream_of_pytorchs(torch, select):  # noqa: F811
    stream, done = mps.Stream(), mps.Event()
    select(7)
    torch.torch_hold()
    select(0)
    stream.wait_stream(TorchStream(7))
    done.record(stream)
    assert is_pending(done)
    select(7)
    torch.torch_open()
    done.synchronize(timeout=PATIENCE)


def test_the_generic_class_takes_a_stream_of_pytorchs(torch, select):  # noqa: F811
    event, ours = fencepost.Event("metal"), fencepost.Device("metal").stream()
    select(8)
    torch.torch_hold()
    select(0)
    event.record(TorchStream(8))
    event.wait(ours)
    event.wait(TorchStream(9))
    assert is_pending(event)
    select(8)
    torch.torch_open()
    event.synchronize(timeout=PATIENCE)
    select(9)


def test_each_thread_marks_its_own_current_stream(torch):  # noqa: F811
    def run(number):
        torch.torch_select(10 + number)
        for _ in range(30):
            start, end = mps.Event(enable_timing=True), mps.Event(enable_timing=True)
            start.record()
            torch.torch_work(number)
            end.record(TorchStream(10 + (number + 1) % 8))
            end.wait()
            end.synchronize(timeout=PATIENCE)
            start.synchronize(timeout=PATIENCE)
            assert torch.torch_selected() == 10 + number

    at_once(run)


def test_a_call_on_a_streams_dispatch_queue_may_name_another_stream(torch, select):  # noqa: F811
    event, seen = mps.Event(), []

    @ctypes.CFUNCTYPE(None)
    def work():
        seen.append(torch.torch_selected())
        event.record(TorchStream(11))
        seen.append(torch.torch_selected())

    select(12)
    torch.torch_on_queue(work)
    assert seen[0] == seen[1]
    event.synchronize(timeout=PATIENCE)


def test_synchronize_waits_for_all_streams_of_pytorchs(torch, select):  # noqa: F811
    select(13)
    torch.torch_hold()
    torch.torch_work(13)
    select(0)
    with pytest.raises(TimeoutError):
        mps.synchronize(timeout=0.02)
    waiting = threading.Thread(target=_C._mps_deviceSynchronize, daemon=True)
    waiting.start()
    waiting.join(0.05)
    assert waiting.is_alive()
    select(13)
    torch.torch_open()
    waiting.join(PATIENCE)
    assert not waiting.is_alive()
    mps.synchronize(timeout=PATIENCE)
    assert torch.torch_value() == 13


def test_the_native_class_for_streams_is_about_pytorchs(torch, select):  # noqa: F811
    select(14)
    assert _C._mps_getCurrentStream() == _C._MPSStreamBase(stream_id=14)
    ours = mps.current_stream()
    _C._mps_setStream(_C._MPSStreamBase(stream_id=15))
    select(torch.torch_selected())
    assert torch.torch_selected() == 15
    assert mps.current_stream() == ours
    torch.torch_hold()
    torch.torch_work(15)
    waiting = threading.Thread(target=_C._MPSStreamBase(stream_id=15).synchronize, daemon=True)
    waiting.start()
    waiting.join(0.05)
    assert waiting.is_alive()
    torch.torch_open()
    waiting.join(PATIENCE)
    assert not waiting.is_alive()
    assert torch.torch_value() == 15


def test_pytorchs_own_classes_drive_pytorchs_streams(monkeypatch, torch, select):  # noqa: F811
    on_ours = torch_files.load(monkeypatch)
    on_ours.backends = make_torch().backends
    first, event = on_ours.mps.Stream(stream_id=16), mps.Event()
    assert on_ours.mps.current_stream().stream_id == 0
    with on_ours.mps.stream(first):
        select(torch.torch_selected())
        assert torch.torch_selected() == 16
        torch.torch_hold()
        event.record()
    assert torch.torch_selected() == 0
    start, end = (on_ours.mps.Event(enable_timing=True) for _ in range(2))
    start.record()
    torch.torch_work(1)
    end.record()
    assert start.elapsed_time(end) >= 0.0
    assert is_pending(event)
    select(16)
    torch.torch_open()
    first.synchronize()
    assert event.query()
    select(0)


def test_a_number_that_no_stream_has_is_an_error(torch):  # noqa: F811
    event = mps.Event()
    for number in (33, 2**40):
        with pytest.raises(RuntimeError, match="no MPS stream has the number"):
            event.record(TorchStream(number))
    assert not event.query()


OLDER = """
import ctypes, sys, types
from fencepost import _C, mps
# The library of PyTorch uses the stand-in for Metal in this one.
ctypes.CDLL(_C.__file__, mode=ctypes.RTLD_GLOBAL)
class Stream:
    stream_id = 3
torch = types.ModuleType("torch")
torch.__file__ = "/nowhere/torch/__init__.py"
torch.backends = types.SimpleNamespace(mps=types.SimpleNamespace(is_available=lambda: True))
torch.mps = types.SimpleNamespace(Stream=Stream, current_stream=Stream)
sys.modules["torch"] = torch
event = mps.Event()
for call in (event.record, event.wait, lambda: event.record(Stream()), mps.synchronize):
    try:
        call()
    except RuntimeError as error:
        print(error)
assert not event.query()
event.record(mps.default_stream())  # the caller's own stream is not affected
event.synchronize(timeout=PATIENCE)
Stream.stream_id = 0
event.record()
event.record(Stream())
event.synchronize(timeout=PATIENCE)
"""


def test_a_pytorch_that_lacks_a_function_for_streams_is_an_error(tmp_path, child):
    said = child(OLDER, FENCEPOST_TORCH_LIBRARY=without_streams(tmp_path)).stdout
    assert said.count("has no at::mps::getStreamByID() (_ZN2at3mps13getStreamByIDEx)") == 4, said
    assert said.count("PyTorch 2.15 and later export it (ATen/mps/MPSStream.h)") == 4
    assert said.count("pass a stream") == 4
