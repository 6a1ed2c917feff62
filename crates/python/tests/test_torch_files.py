"""PyTorch 2.15's own ``torch.mps.Event`` and ``torch.mps.Stream``, unchanged, on our functions."""

import pytest

import torch_files
from conftest import PATIENCE
from fencepost import _C, mps


@pytest.fixture
def torch(monkeypatch):
    before = _C._mps_getCurrentStream()
    yield torch_files.load(monkeypatch)
    _C._mps_setStream(before)


def test_pytorchs_own_event_times_work(torch):
    start, end = (torch.mps.Event(enable_timing=True) for _ in range(2))
    assert not start.query()
    start.record()
    start.wait()
    end.record()
    end.synchronize()
    assert end.query()
    assert start.elapsed_time(end) >= 0.0


def test_pytorchs_own_streams_are_the_default_one_and_a_pool(torch):
    default, first = torch.mps.default_stream(), torch.mps.Stream()
    assert default.stream_id == 0
    assert torch.mps.current_stream() == default
    assert 1 <= first.stream_id <= 32
    around = [torch.mps.Stream() for _ in range(32)]
    assert around[-1] == first
    assert len({stream.stream_id for stream in around}) == 32
    assert torch.mps.Stream(stream_id=7) == torch.mps.Stream(stream_id=7)
    assert torch.mps.Stream(stream_id=7) != torch.mps.Stream(stream_id=8)
    assert repr(default) == "<torch.mps.Stream stream_id=0>"
    for number in (33, -1):
        with pytest.raises(RuntimeError, match="no MPS stream has the number"):
            torch.mps.Stream(stream_id=number)


def test_pytorchs_own_stream_is_current_in_its_context(torch, gate):
    stream, event = torch.mps.Stream(), mps.Event()
    opener = gate(mps.Stream(stream_id=stream.stream_id).stream)
    with torch.mps.stream(stream):
        assert torch.mps.current_stream() == stream
        assert mps.current_stream().stream_id == stream.stream_id
        event.record()
    assert torch.mps.current_stream() == torch.mps.default_stream()
    assert not event.query()
    opener.open()
    stream.synchronize()
    assert event.query()


def test_pytorchs_own_event_refuses_other_streams_and_ours_takes_them(torch):
    stream, event, ours = torch.mps.Stream(), torch.mps.Event(), mps.Event()
    with torch.mps.stream(stream):
        for call in (event.record, event.wait):
            with pytest.raises(NotImplementedError):
                call()
    ours.record(stream)
    ours.wait(torch.mps.default_stream())
    ours.synchronize(timeout=PATIENCE)


def test_the_functions_take_the_number_of_a_stream(gate):
    stream, event = _C._MPSStreamBase(), _C._mps_acquireEvent(False)
    opener = gate(mps.Stream(stream_id=stream.stream_id).stream)
    _C._mps_recordEvent(event, stream_id=stream.stream_id)
    assert not _C._mps_queryEvent(event)
    _C._mps_waitForEvent(event, stream_id=0)
    opener.open()
    _C._mps_deviceSynchronize()
    assert _C._mps_queryEvent(event)
    _C._mps_releaseEvent(event)


def test_an_event_acquired_for_a_stream_is_recorded_there(gate):
    stream = _C._MPSStreamBase()
    event = _C._mps_acquireEvent(True, stream_id=stream.stream_id)
    other = _C._mps_acquireEvent(True)
    opener = gate(mps.Stream(stream_id=stream.stream_id).stream)
    _C._mps_recordEvent(event)
    _C._mps_recordEvent(other, stream_id=0)
    _C._mps_synchronizeEvent(other)
    assert not _C._mps_queryEvent(event)
    _C._mps_recordEvent(event, stream_id=0)
    _C._mps_synchronizeEvent(event)
    opener.open()
    for number in (event, other):
        _C._mps_releaseEvent(number)


def test_what_an_event_holds_does_not_depend_on_the_number_of_a_stream(gate):
    event = _C._mps_acquireEvent(True, stream_id=0)
    opener = gate(mps.Stream(stream_id=3).stream)
    _C._mps_recordEvent(event, stream_id=3)
    for number in (None, 0, 3):
        assert not _C._mps_queryEvent(event, stream_id=number)
    opener.open()
    for number in (None, 0, 3):
        _C._mps_synchronizeEvent(event, stream_id=number)
        assert _C._mps_queryEvent(event, number)
        assert _C._mps_elapsedTimeOfEvents(event, event, number) == 0.0
    _C._mps_releaseEvent(event, stream_id=3)


def test_each_of_the_seven_functions_refuses_a_number_that_no_stream_has():
    event, before = _C._mps_acquireEvent(True), _C._mps_live_events()
    for number in (-1, 33, 2**40):
        for call, arguments in (
            (_C._mps_acquireEvent, (True,)),
            (_C._mps_recordEvent, (event,)),
            (_C._mps_waitForEvent, (event,)),
            (_C._mps_queryEvent, (event,)),
            (_C._mps_synchronizeEvent, (event,)),
            (_C._mps_elapsedTimeOfEvents, (event, event)),
            (_C._mps_releaseEvent, (event,)),
        ):
            with pytest.raises(RuntimeError, match="no MPS stream has the number"):
                call(*arguments, stream_id=number)
    assert _C._mps_live_events() == before
    _C._mps_releaseEvent(event)


def test_what_is_no_stream_is_an_error():
    for wrong in (None, 3, mps.Stream()):
        with pytest.raises(RuntimeError, match="expected an MPS stream"):
            _C._mps_setStream(wrong)
    with pytest.raises(RuntimeError, match="expected an MPS stream"):
        mps.Event().record(object())
