"""Calls without a stream where PyTorch uses MPS.

They run on stand-ins for PyTorch's stream and for Metal: no PyTorch, no Apple hardware.
"""

import ctypes
import os
import subprocess
import sys
import threading
import time
import types
from pathlib import Path

import pytest

import fencepost
from conftest import PATIENCE, at_once
from fencepost import _C, mps
from test_mps import NativeEvent

LIBRARY = os.environ["FENCEPOST_TORCH_LIBRARY"]
BY_ID = "_ZN2at3mps13getStreamByIDEx"


class TorchStream:
    """Stands for PyTorch 2.15's ``torch.mps.Stream``."""

    def __init__(self, stream_id):
        self.stream_id = stream_id


def make_torch():
    """Make a module that looks like a PyTorch that uses MPS, in a version without streams."""
    torch = types.ModuleType("torch")
    torch.__file__ = "/nowhere/torch/__init__.py"
    torch.backends = types.SimpleNamespace(mps=types.SimpleNamespace(is_available=lambda: True))
    torch.mps = types.SimpleNamespace()
    return torch


@pytest.fixture(scope="module")
def library():
    # It uses the stand-in for Metal that the extension module contains.
    ctypes.CDLL(_C.__file__, mode=ctypes.RTLD_GLOBAL)
    library = ctypes.CDLL(LIBRARY)
    library.torch_work.argtypes = [ctypes.c_uint8]
    library.torch_value.restype = ctypes.c_uint8
    library.torch_commits.restype = library.torch_off_queue.restype = ctypes.c_uint64
    library.torch_give_nil.argtypes = [ctypes.c_bool]
    library.torch_select.argtypes = [ctypes.c_size_t]
    library.torch_selected.restype = ctypes.c_size_t
    return library


@pytest.fixture
def violations():
    count = ctypes.CDLL(_C.__file__).fencepost_sim_metal_violations
    count.restype = ctypes.c_size_t
    return count


@pytest.fixture
def torch(monkeypatch, library, violations):
    """PyTorch's stream. Afterwards, check that no test did what Metal or PyTorch forbids."""
    torch = make_torch()
    if hasattr(library, BY_ID):
        torch.mps.Stream = TorchStream
        torch.mps.current_stream = lambda: TorchStream(library.torch_selected())
    monkeypatch.setitem(sys.modules, "torch", torch)
    before = violations()
    yield library
    library.torch_open()
    settle(library)
    assert violations() == before, "see stderr"
    assert library.torch_off_queue() == 0


def settle(library):
    """Wait until PyTorch's stream has done all its work."""
    event = mps.Event()
    event.record()
    event.synchronize(timeout=PATIENCE)


def becomes(library, value):
    """Return whether PyTorch's work reaches this value in time."""
    start = time.monotonic()
    while library.torch_value() != value and time.monotonic() - start < PATIENCE:
        time.sleep(0.001)
    return library.torch_value() == value


def stays(library, value):
    """Return whether PyTorch's work is held back, watched for a moment."""
    start = time.monotonic()
    while library.torch_value() == value and time.monotonic() - start < 0.05:
        time.sleep(0.001)
    return library.torch_value() == value


def is_pending(event):
    try:
        event.synchronize(timeout=0.02)
    except TimeoutError:
        return not event.query()
    return False


@pytest.fixture(params=[mps.Event, NativeEvent], ids=["mps", "native"])
def kind(request):
    return request.param


@pytest.mark.parametrize("timing", [False, True])
def test_a_record_marks_what_pytorch_has_encoded(torch, kind, timing):
    event = kind(enable_timing=timing)
    before = torch.torch_value()
    torch.torch_hold()
    torch.torch_work(2)  # its encoder stays open
    commits = torch.torch_commits()
    event.record()
    assert torch.torch_commits() == commits + 1
    assert not event.query()
    assert stays(torch, before)
    torch.torch_open()
    event.synchronize()
    assert event.query()
    assert torch.torch_value() == 2
    torch.torch_work(1)


def test_a_record_does_not_hold_back_later_work(torch):
    torch.torch_hold()
    torch.torch_work(3)
    event = mps.Event(enable_timing=True)
    event.record()
    torch.torch_work(4)
    torch.torch_commit()
    assert becomes(torch, 4)
    assert is_pending(event)
    torch.torch_open()
    event.synchronize(timeout=PATIENCE)


def test_markers_are_in_order_though_metal_lets_their_buffers_overlap(torch):
    first, second = mps.Event(enable_timing=True), mps.Event(enable_timing=True)
    torch.torch_hold()
    first.record()
    torch.torch_work(15)
    second.record()
    assert becomes(torch, 15)
    assert is_pending(second)
    torch.torch_open()
    second.synchronize(timeout=PATIENCE)
    assert first.query()
    assert first.elapsed_time(second) >= 0.0


def test_times_are_the_devices_also_without_work_in_between(torch, kind):
    for work in (True, False, False):
        start, end = kind(enable_timing=True), kind(enable_timing=True)
        start.record()
        if work:
            torch.torch_work(5)
        end.record()
        start.synchronize()
        elapsed = start.elapsed_time(end)
        assert elapsed >= 0.0
        assert start.elapsed_time(end) == elapsed
        assert start.elapsed_time(start) == 0.0


def test_a_time_without_timing_is_an_error(torch, kind):
    start, end = kind(enable_timing=True), kind()
    start.record()
    end.record()
    with pytest.raises(RuntimeError, match="enable_timing=True"):
        start.elapsed_time(end)


def test_a_time_between_pytorchs_stream_and_another(torch):
    start, end = mps.Event(enable_timing=True), mps.Event(enable_timing=True)
    stream = mps.Stream()
    start.record()
    start.wait(stream)
    end.record(stream)
    assert start.elapsed_time(end) >= 0.0


def test_a_stream_of_ours_waits_for_pytorch(torch):
    stream, event, done = mps.Stream(), mps.Event(), mps.Event()
    torch.torch_hold()
    torch.torch_work(6)
    event.record()
    event.wait(stream)
    done.record(stream)
    assert is_pending(done)
    torch.torch_open()
    done.synchronize(timeout=PATIENCE)
    assert torch.torch_value() == 6


def test_a_number_means_a_stream_of_pytorchs_where_it_has_several(torch):
    stream, event, done = mps.Stream(), NativeEvent(), mps.Event()
    torch.torch_hold()
    event.record()
    _C._mps_waitForEvent(event._id, stream.stream_id)
    done.record(stream)
    assert is_pending(done) or hasattr(torch, BY_ID)
    torch.torch_open()
    done.synchronize(timeout=PATIENCE)


def test_pytorch_waits_for_a_stream_of_ours(torch, gate):
    stream, event, done = mps.Stream(), mps.Event(), mps.Event()
    torch.torch_work(7)
    settle(torch)
    opener = gate(stream.stream)
    event.record(stream)
    torch.torch_work(8)  # before the wait, with an open encoder: not held
    event.wait()
    assert becomes(torch, 8)
    torch.torch_work(9)
    torch.torch_commit()
    done.record()
    assert stays(torch, 8)
    opener.open()
    done.synchronize(timeout=PATIENCE)
    assert becomes(torch, 9)
    # Only the device knows what PyTorch's buffer waited for.
    event.synchronize(timeout=PATIENCE)


def test_pytorch_may_wait_for_itself(torch, kind):
    event = kind()
    torch.torch_work(10)
    event.record()
    event.wait()
    torch.torch_work(11)
    torch.torch_commit()
    assert becomes(torch, 11)


def test_a_wait_for_what_is_complete_leaves_pytorchs_stream_alone(torch, kind):
    event = kind()
    commits = torch.torch_commits()
    event.wait()
    assert torch.torch_commits() == commits
    event.record()
    event.synchronize()
    commits = torch.torch_commits()
    event.wait()
    assert torch.torch_commits() == commits


def test_recording_again_while_pending_means_the_new_record(torch):
    event = mps.Event(enable_timing=True)
    torch.torch_hold()
    event.record()
    event.record(mps.default_stream())
    event.synchronize(timeout=PATIENCE)
    assert event.query()
    event.record()
    torch.torch_open()
    event.synchronize(timeout=PATIENCE)


def test_a_dropped_event_disturbs_nobody(torch):
    torch.torch_hold()
    torch.torch_work(12)
    for _ in range(10):
        event = mps.Event(enable_timing=True)
        event.record()
        del event
    torch.torch_open()
    assert becomes(torch, 12)


def test_the_generic_class_marks_pytorchs_stream_too(torch, gate):
    device = fencepost.Device("metal")
    event, other = fencepost.Event(device, enable_timing=True), fencepost.Event(device)
    torch.torch_hold()
    event.record()
    assert is_pending(event)
    torch.torch_open()
    event.synchronize(timeout=PATIENCE)
    stream = device.stream()
    opener, before = gate(stream), torch.torch_value()
    other.record(stream)
    other.wait()
    torch.torch_work(13)
    torch.torch_commit()
    assert stays(torch, before)
    opener.open()
    assert becomes(torch, 13)


def test_a_gate_holds_no_other_stream_in_place_of_pytorchs(torch):
    with fencepost.Gate("metal:0") as gate:
        with pytest.raises(NotImplementedError, match="holding PyTorch's MPS stream"):
            gate.wait()
        fencepost.Device("metal:0").default_stream().record().synchronize(timeout=PATIENCE)


def test_another_device_of_metal_has_a_stream_of_its_own(torch):
    event = fencepost.Event(fencepost.Device("metal:1"))
    torch.torch_hold()
    commits = torch.torch_commits()
    event.record()
    event.synchronize(timeout=PATIENCE)
    assert torch.torch_commits() == commits


def test_synchronize_waits_for_pytorchs_stream(torch):
    torch.torch_hold()
    torch.torch_work(14)
    with pytest.raises(TimeoutError):
        mps.synchronize(timeout=0.02)
    torch.torch_open()
    mps.synchronize(timeout=PATIENCE)
    assert torch.torch_value() == 14


def test_many_threads_mark_pytorchs_stream_at_once(torch):
    def run(_):
        for round in range(50):
            start, end = mps.Event(enable_timing=True), mps.Event(enable_timing=True)
            start.record()
            torch.torch_work(round)
            end.record()
            end.wait()
            assert start.elapsed_time(end) >= 0.0

    at_once(run)


def test_a_call_on_pytorchs_dispatch_queue_does_not_wait_for_itself(torch):
    event, other, seen = mps.Event(enable_timing=True), mps.Event(), []

    @ctypes.CFUNCTYPE(None)
    def work():
        event.record()
        event.wait()
        other.record()
        seen.append(threading.get_ident())

    thread = threading.Thread(target=torch.torch_on_queue, args=(work,), daemon=True)
    thread.start()
    thread.join(PATIENCE)
    assert not thread.is_alive(), "the call waits for itself"
    assert seen
    other.synchronize(timeout=PATIENCE)
    assert event.query()


def test_no_command_buffer_is_an_error_that_names_the_call(torch, gate):
    event, pending, stream = mps.Event(), mps.Event(), mps.Stream()
    opener = gate(stream.stream)
    pending.record(stream)
    torch.torch_give_nil(True)
    try:
        with pytest.raises(
            RuntimeError, match=r"torch\.?:*mps.*get_command_buffer\(\) returned nil"
        ):
            event.record()
        with pytest.raises(RuntimeError, match="get_command_buffer"):
            pending.wait()
    finally:
        torch.torch_give_nil(False)
    opener.open()
    assert not event.query()
    event.record()
    event.synchronize(timeout=PATIENCE)


def test_a_pytorch_without_mps_changes_nothing(torch):
    sys.modules["torch"].backends.mps.is_available = lambda: False
    commits = torch.torch_commits()
    event = mps.Event()
    event.record()
    event.synchronize(timeout=PATIENCE)
    assert torch.torch_commits() == commits
    sys.modules["torch"].backends.mps.is_available = lambda: True


LOOK = """
import sys, types
import fencepost.mps as mps
torch = types.ModuleType("torch")
torch.__file__ = "/nowhere/torch/__init__.py"
torch.backends = types.SimpleNamespace(mps=types.SimpleNamespace(is_available=lambda: True))
sys.modules["torch"] = torch
event = mps.Event()
for call in (event.record, event.wait):
    try:
        call()
    except RuntimeError as error:
        print(error)
assert not event.query()
"""


def test_a_missing_library_or_symbol_is_an_error_that_names_it(child):
    for library, text in (
        ("/nowhere/libtorch_cpu.dylib", "libtorch_cpu.dylib cannot be opened"),
        ("", "cannot be opened"),
        (
            _C.__file__,
            "has no torch::mps::get_command_buffer() (_ZN5torch3mps18get_command_bufferEv)",
        ),
    ):
        said = child(LOOK, FENCEPOST_TORCH_LIBRARY=library).stdout
        assert said.count(text) == 2, said
        assert said.count("pass a stream") == 2


def without_streams(folder):
    """Return a copy of the library that does not export ``getStreamByID``, as before 2.15."""
    older = folder / "libtorch_cpu.so"
    name = BY_ID.encode()
    older.write_bytes(Path(LIBRARY).read_bytes().replace(name, name[:-1] + b"_"))
    return str(older)


def test_a_pytorch_without_streams_passes_all_these_tests(tmp_path):
    tests = [sys.executable, "-m", "pytest", "--quiet", __file__, "-p", "no:cacheprovider"]
    older = without_streams(tmp_path)
    done = subprocess.run(
        [*tests, "-k", "not a_pytorch_without_streams_passes"],
        env={**os.environ, "FENCEPOST_TORCH_LIBRARY": older},
        capture_output=True,
        text=True,
        timeout=PATIENCE * 5,
    )
    assert done.returncode == 0, done.stdout
