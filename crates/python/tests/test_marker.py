"""Markers, status, callbacks and progress, and what every event and stream has."""

import asyncio
import copy
import gc
import pickle
import queue
import sys
import threading
import weakref

import pytest

import fencepost
from conftest import PATIENCE
from fencepost import Event, Marker


def test_a_marker_is_one_recording(device, gate):
    stream = device.stream()
    held = gate(stream)
    marker, event = stream.record(), Event(device)
    event.record(stream)
    other = event.marker()
    assert isinstance(marker, Marker)
    assert (marker.query(), other.query()) == (False, False)
    assert marker != other
    assert other == event.marker()
    assert len({other, event.marker()}) == 1
    assert (marker.device, marker.stream_id) == (device, stream.id)
    assert other.value > marker.value
    with pytest.raises(TimeoutError, match="gave up after 10 ms"):
        marker.synchronize(timeout=0.01)
    held.open()
    marker.synchronize(timeout=PATIENCE)
    # What is recorded later changes nothing about it.
    event.record(stream)
    other.synchronize(timeout=PATIENCE)
    assert marker.query() is True
    assert event.marker() != other
    assert repr(marker).startswith("<fencepost.Marker: marker ")
    assert Event(device).marker() is None


def test_a_marker_with_timing_has_times(host):
    stream = host.stream()
    start = stream.record(enable_timing=True)
    stream.launch(lambda: None)
    end = stream.record(enable_timing=True)
    end.synchronize(timeout=PATIENCE)
    assert start.elapsed(end) >= 0 >= end.elapsed(start)
    assert 0 < start.timestamp() <= end.timestamp()
    with pytest.raises(ValueError, match="enable_timing=True"):
        start.elapsed(stream.record())


def test_a_time_says_how_far_off_it_may_be(device):
    stream = device.stream()
    start, end = (Event(device, enable_timing=True) for _ in range(2))
    with device.keep_time() as keeper, device.keep_time() as second:
        assert isinstance(keeper, fencepost.TimeKeeper)
        assert keeper.device == second.device == device
        for event in (start, end):
            event.record(stream)
        end.synchronize(timeout=PATIENCE)
        short = start.elapsed_time(end)
        assert 0 < start.uncertainty(end) < 0.01
        assert start.marker().uncertainty(end.marker()) == start.uncertainty(end)
    keeper.close()
    assert start.elapsed_time(end) == short
    assert repr(keeper) == f"<fencepost.TimeKeeper of {device}>"
    with pytest.raises(ValueError, match="enable_timing=True"):
        start.uncertainty(Event(device))
    with pytest.raises(ValueError, match="recorded"):
        start.uncertainty(Event(device, enable_timing=True))


def test_the_line_of_a_marker_is_told_on_request(host):
    assert host.stream().record().recorded_at is None
    before = fencepost.locations(True)
    try:
        marker = host.stream().record()
        line = sys._getframe().f_lineno - 1
    finally:
        fencepost.locations(before)
    assert marker.recorded_at == f"{__file__}:{line}"


def test_status_and_progress_tell_how_far_it_is(device, gate):
    stream, event = device.stream(), Event(device)
    assert event.status() == "unrecorded"
    recorded, completed = stream.progress
    held = gate(stream)
    event.record(stream)
    assert event.status() == "pending"
    assert stream.progress == (recorded + 1, completed)
    held.open()
    event.synchronize(timeout=PATIENCE)
    assert event.status() == "complete"
    assert stream.progress == (recorded + 1, completed + 1)


@pytest.mark.cuda
@pytest.mark.parametrize("raw", [False, True])
def test_the_cuda_class_has_them_too(cuda, gate, raw):
    stream, event = cuda.stream(), fencepost.cuda.Event(external=raw)
    assert (event.status(), event.marker()) == ("unrecorded", None)
    calls = queue.Queue()
    event.on_complete(calls.put)
    assert calls.get(timeout=PATIENCE) is None
    held = gate(stream)
    event.record(stream)
    assert event.status() == "pending"
    assert (event.marker() is None) == raw
    event.on_complete(calls.put)
    assert calls.empty()
    held.open()
    assert calls.get(timeout=PATIENCE) is None
    event.synchronize(timeout=PATIENCE)
    assert event.status() == "complete"


def test_callbacks_get_none_or_the_failure(device, gate, monkeypatch):
    stream, event, calls = device.stream(), Event(device), queue.Queue()
    event.on_complete(calls.put)
    assert calls.get(timeout=PATIENCE) is None
    held = gate(stream)
    event.record(stream)
    event.on_complete(calls.put)
    event.marker().on_complete(calls.put)
    assert calls.empty()
    held.open()
    assert [calls.get(timeout=PATIENCE) for _ in range(2)] == [None, None]
    for refuses in (event, event.marker()):
        said = r"on_complete\(\) argument 'callback': expected a callable; got int"
        with pytest.raises(TypeError, match=said):
            refuses.on_complete(3)

    # Its own exceptions are reported, and harm no other callback.
    reports = queue.Queue()
    monkeypatch.setattr(sys, "unraisablehook", lambda report: reports.put(report.exc_type))
    event.on_complete(lambda error: 1 / 0)
    assert reports.get(timeout=PATIENCE) is ZeroDivisionError
    event.on_complete(calls.put)
    assert calls.get(timeout=PATIENCE) is None


def test_a_callback_gets_the_original_as_the_cause(host):
    stream, calls = host.stream(), queue.Queue()

    def fails():
        raise LookupError("no more paper")

    stream.launch(fails)
    stream.record().on_complete(calls.put)
    error = calls.get(timeout=PATIENCE)
    assert type(error) is RuntimeError
    assert type(error.__cause__) is LookupError


def test_a_marker_can_be_awaited(device, gate):
    stream = device.stream()
    held = gate(stream)
    marker = stream.record()

    async def main():
        task = asyncio.ensure_future(waits())
        await asyncio.sleep(0.01)
        assert not task.done()
        held.open()
        await asyncio.wait_for(task, PATIENCE)
        await marker

    async def waits():
        await marker

    asyncio.run(main())


def test_a_wait_for_another_api_is_made_on_purpose(host, cuda, gate):
    ours, theirs, event = host.stream(), cuda.stream(), Event(host)
    held = gate(ours)
    event.record(ours)
    with pytest.raises(RuntimeError, match=r"wait_foreign\(\)"):
        event.wait(theirs)
    event.wait_foreign(theirs)
    marker = theirs.record()
    assert marker.query() is False
    held.open()
    marker.synchronize(timeout=PATIENCE)
    # One that is complete, or was never recorded, holds nothing back.
    event.wait_foreign(theirs)
    Event(host).wait_foreign(theirs)
    theirs.synchronize(timeout=PATIENCE)


def test_a_host_device_may_have_workers_of_its_own():
    device = fencepost.Device.new_host(3)
    assert device.backend == "host"
    meet, streams = threading.Barrier(3), [device.stream() for _ in range(3)]
    for stream in streams:
        stream.launch(lambda: meet.wait(PATIENCE))
    device.synchronize(timeout=PATIENCE)
    event = Event(device)
    event.record(streams[0])
    event.synchronize(timeout=PATIENCE)
    for arguments, text in [
        ({"workers": 0}, "'workers': expected at least 1"),
        ({"workers": -3}, "'workers': expected at least 1"),
        ({"workers": 3, "max_threads": 2}, "'max_threads': expected at least 3"),
    ]:
        with pytest.raises(ValueError, match=text):
            fencepost.Device.new_host(**arguments)
    assert copy.copy(device) is device
    assert copy.deepcopy(device) is device
    for private in (device, streams[0].device):
        with pytest.raises(TypeError, match=r"cannot be pickled.*new_host\(\)"):
            pickle.dumps(private)


def test_a_limit_on_threads_is_named_as_it_is_set_here():
    device = fencepost.Device.new_host(1, max_threads=2)
    streams, go = [device.stream() for _ in range(3)], threading.Event()
    for stream in streams:
        stream.launch(lambda: go.wait(PATIENCE))
    text = ""
    while "no thread is free" not in text:
        with pytest.raises(TimeoutError) as failed:
            device.synchronize(timeout=0.05)
        with pytest.raises(TimeoutError) as failed:
            streams[2].synchronize(timeout=0.05)
        text = str(failed.value)
    go.set()
    assert "Device.new_host(workers, max_threads=...)" in text
    assert "::" not in text
    assert "HostOptions" not in text
    device.synchronize(timeout=PATIENCE)


def test_sharing_between_processes_is_refused_where_there_is_none(host):
    with pytest.raises(NotImplementedError, match="host does not support an event for other"):
        Event(host, interprocess=True)


@pytest.mark.parametrize(
    "make",
    [
        lambda device: device.stream(),
        lambda device: Event(device),
        lambda device: fencepost.mps.Event(),
        lambda device: fencepost.cuda.Event(enable_timing=True),
        lambda device: fencepost.cuda.Event(interprocess=True),
    ],
)
def test_events_and_streams_take_weak_references_and_attributes(host, make):
    made = make(host)
    gone = []
    seen = weakref.ref(made, gone.append)
    made.purpose = ["copies"]
    assert seen() is made
    assert made.__dict__ == {"purpose": ["copies"]}
    # A circle through an attribute is collected too.
    made.purpose.append(made)
    with pytest.raises(AttributeError):
        made.nothing  # noqa: B018
    del made
    gc.collect()
    assert gone == [seen]
    assert seen() is None
