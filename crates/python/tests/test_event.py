"""``fencepost.Event``, ``Stream`` and ``Device``: what they promise on any device."""

import asyncio
import gc
import pickle
import sys
import threading
import time
import weakref

import pytest

import fencepost
from conftest import PATIENCE
from fencepost import Device, Event, Stream


def test_devices_are_listed_by_the_names_that_open_them():
    names = [str(device) for device in fencepost.devices()]
    assert "host" in names
    for device in fencepost.devices():
        assert isinstance(device, Device)
        assert Device(str(device)) == device
        assert device.backend == str(device).split(":")[0]


def test_a_device_is_equal_to_its_like_and_to_nothing_else(host):
    assert host == Device("host")
    assert hash(host) == hash(Device("host"))
    assert host != "host"
    assert pickle.loads(pickle.dumps(host)) == host
    assert "host" in repr(host)


def test_a_name_that_no_device_has_is_a_value_error_that_lists_those_there_are():
    with pytest.raises(ValueError, match=r"unknown device \"toaster\".*host"):
        Device("toaster")
    with pytest.raises(TypeError, match="expected a device"):
        Device(3.5)


def test_the_environment_names_the_default_device(child):
    assert (
        "host"
        in child(
            "import fencepost; print(fencepost.Event().device)", FENCEPOST_DEVICE="host"
        ).stdout
    )
    bad = child("import fencepost; fencepost.Event()", check=False, FENCEPOST_DEVICE="toaster")
    assert "ValueError" in bad.stderr
    assert "toaster" in bad.stderr


def test_an_unrecorded_event_counts_as_complete(device):
    event = Event(device)
    stream = device.stream()
    assert event.query() is True
    event.wait(stream)
    event.synchronize()
    event.synchronize(timeout=0)


def test_query_tells_pending_from_complete(device, gate):
    stream, event = device.stream(), Event(device)
    held = gate(stream)
    event.record(stream)
    assert event.query() is False
    held.open()
    event.synchronize(timeout=PATIENCE)
    assert event.query() is True


def test_a_wait_orders_streams(device, gate):
    first, second = device.stream(), device.stream()
    loaded, done = Event(device), Event(device)
    held = gate(first)
    loaded.record(first)
    loaded.wait(second)
    done.record(second)
    time.sleep(0.02)
    assert not done.query()
    held.open()
    done.synchronize(timeout=PATIENCE)
    assert loaded.query()


def test_recording_again_leaves_earlier_waits_alone(device, gate):
    first, second, third = device.stream(), device.stream(), device.stream()
    event, done = Event(device), Event(device)
    event.record(first)
    event.wait(second)
    gate(third)
    event.record(third)
    done.record(second)
    done.synchronize(timeout=PATIENCE)
    assert not event.query()


def test_times_are_signed_and_never_used_up(device):
    stream = device.stream()
    start, end = Event(device, enable_timing=True), Event(device, enable_timing=True)
    start.record(stream)
    end.record(stream)
    forth = start.elapsed_time(end)
    assert forth >= 0.0
    end.synchronize()
    assert start.elapsed_time(end) == forth
    assert end - start == forth
    assert start - end == -forth
    assert start.__rsub__(end) == forth
    assert start.elapsed_time(start) == 0.0


def test_a_time_waits_for_both_events_and_gives_up_when_told_to(device, gate):
    stream = device.stream()
    start, end = Event(device, enable_timing=True), Event(device, enable_timing=True)
    start.record(stream)
    held = gate(stream)
    end.record(stream)
    with pytest.raises(TimeoutError, match="gave up after"):
        start.elapsed_time(end, timeout=0.01)
    threading.Timer(0.05, held.open).start()
    assert start.elapsed_time(end) >= 0.0


def test_a_time_needs_timing_then_records_then_one_device(host):
    timed, plain = Event(host, enable_timing=True), Event(host)
    with pytest.raises(ValueError, match="enable_timing=True"):
        timed.elapsed_time(plain)
    with pytest.raises(ValueError, match="must be recorded"):
        timed.elapsed_time(Event(host, enable_timing=True))
    with pytest.raises(TypeError):
        timed.elapsed_time(3)
    with pytest.raises(TypeError):
        timed - 3


def test_an_event_is_subtracted_from_one_of_another_class(cuda):
    stream = cuda.stream()
    start, end = Event(cuda, enable_timing=True), fencepost.cuda.Event(enable_timing=True)
    start.record(stream)
    end.record(stream)
    assert end - start == start.elapsed_time(end) == -(start - end)
    with pytest.raises(TypeError):
        3 - start


def test_times_of_two_devices_are_a_runtime_error(host, cuda):
    here, there = Event(host, enable_timing=True), Event(cuda, enable_timing=True)
    here.record()
    there.record()
    with pytest.raises(RuntimeError, match="same device"):
        here.elapsed_time(there)


def test_a_record_on_another_device_is_an_error_and_changes_nothing(host, cuda):
    event = Event(cuda)
    with pytest.raises(RuntimeError, match="same device"):
        event.record(host.stream())
    assert "never" in repr(event)


def test_a_timeout_says_what_it_waited_for_and_not_in_rust(device, gate):
    stream, event = device.stream(), Event(device)
    gate(stream)
    event.record(stream)
    with pytest.raises(TimeoutError) as caught:
        event.synchronize(timeout=0.02)
    text = str(caught.value)
    assert "gave up after 20 ms: marker 1 of stream" in text
    assert "completed 0 of 1 markers" in text
    assert ".rs" not in text
    assert "recorded at" not in text


def line():
    """Return the number of the line that calls this."""
    return sys._getframe(1).f_lineno


@pytest.fixture
def located():
    """Errors name the Python line of each record."""
    before = fencepost.locations(True)
    yield
    fencepost.locations(before)


def timed_out(event):
    with pytest.raises(TimeoutError) as caught:
        event.synchronize(timeout=0.02)
    return str(caught.value)


def test_a_timeout_names_the_line_of_record_when_asked_to(device, gate, located):
    stream, event = device.stream(), Event(device)
    gate(stream)
    event.record(stream)
    assert f"recorded at {__file__}:{line() - 1}, is pending" in timed_out(event)
    # The second record on a stream is made in place on some backends.
    for _ in range(3):
        event.record(stream)
        text = timed_out(event)
        assert f"recorded at {__file__}:{line() - 2}, is pending" in text


def test_a_timeout_tells_how_to_see_the_line_of_record(device, gate):
    stream, event = device.stream(), Event(device)
    gate(stream)
    event.record(stream)
    text = timed_out(event)
    assert text.endswith("; call fencepost.locations(True) to see where it was recorded")


def test_a_wait_for_a_stream_or_device_names_its_own_line(device, gate):
    stream = device.stream()
    gate(stream)
    for synchronize in [stream.synchronize, device.synchronize]:
        with pytest.raises(TimeoutError) as caught:
            synchronize(timeout=0.02)
        assert f"recorded at {__file__}:{line() - 1}, is pending" in str(caught.value)
        assert "gave up after 20 ms: " in str(caught.value)


def test_a_timeout_names_the_closure_at_the_end_of_the_chain(host, located):
    streams = [Stream(host, name="load"), host.stream(), host.stream()]
    started, go = threading.Event(), threading.Event()

    def load():
        started.set()
        go.wait()

    streams[0].launch(load)
    launched = line() - 1
    for one, two in zip(streams, streams[1:]):
        two.wait_stream(one)
        waited = line() - 1
    end = Event(host, name="end")
    end.record(streams[2])
    assert started.wait(PATIENCE)
    try:
        text = timed_out(end)
        while "has been running" not in text:
            text = timed_out(end)
    finally:
        go.set()
    assert f'(event "end"), recorded at {__file__}:' in text
    assert f'of stream {streams[0].id} "load" of host, recorded at {__file__}:{waited}' in text
    assert (
        f'stuck is stream {streams[0].id} "load" of host (1 stream lies between): it has been '
        f"running the closure launched at {__file__}:{launched} for " in text
    )
    assert ".rs" not in text
    assert "fencepost.locations" not in text


def test_names_show_in_repr_and_can_be_changed(device):
    stream, event = Stream(device, name="load"), Event(device, name="loaded")
    assert (stream.name, event.name) == ("load", "loaded")
    assert f'stream {stream.id} "load" of {device}' in repr(stream)
    assert 'Event "loaded" of' in repr(event)
    stream.name, event.name = "store", None
    assert '"store"' in repr(stream)
    assert '"' not in repr(event)
    assert (device.stream().name, Event(device).name) == (None, None)
    for kind in [fencepost.cuda.Event, fencepost.mps.Event]:
        event = kind()
        event.name = "loaded"
        assert event.name == "loaded"
        assert 'Event "loaded"' in repr(event)


def test_a_label_changes_neither_equality_nor_pickling(device):
    device.label = "training"
    try:
        assert 'training"' in repr(device.stream())
        assert device == fencepost.Device(device.name)
        assert pickle.loads(pickle.dumps(device)) == device
        assert str(device) == device.name
    finally:
        device.label = None
    assert device.label is None


@pytest.mark.parametrize("timeout", [-1, float("nan")])
def test_a_timeout_that_is_none_is_a_value_error(host, timeout):
    with pytest.raises(ValueError, match="timeout"):
        Event(host).synchronize(timeout=timeout)


def test_a_timeout_without_end_is_no_timeout(host):
    event = Event(host)
    event.record()
    event.synchronize(timeout=float("inf"))


def test_a_stream_runs_python_in_order(host):
    stream, ran = host.stream(), []
    for i in range(100):
        stream.launch(lambda i=i: ran.append(i))
    stream.synchronize(timeout=PATIENCE)
    assert ran == list(range(100))


def test_only_what_can_be_called_can_be_launched(host, cuda):
    with pytest.raises(TypeError, match="call"):
        host.stream().launch(3)
    with pytest.raises(NotImplementedError, match="host stream"):
        cuda.stream().launch(print)


def test_an_exception_sticks_to_its_stream_and_is_what_later_errors_name(host):
    stream, other, event = host.stream(), host.stream(), Event(host)

    def fails():
        raise LookupError("no more paper")

    stream.launch(fails)
    event.record(stream)
    with pytest.raises(
        RuntimeError, match=r"LookupError: no more paper \(at .*test_event.py:\d+\)"
    ):
        event.synchronize(timeout=PATIENCE)
    with pytest.raises(RuntimeError, match="no more paper"):
        event.query()
    # A wait passes the failure on.
    event.wait(other)
    with pytest.raises(RuntimeError, match="no more paper"):
        other.synchronize(timeout=PATIENCE)
    assert "no more paper" in stream.error
    with pytest.raises(RuntimeError, match=r"clear_error\(\)"):
        stream.launch(fails)
    stream.clear_error()
    assert stream.error is None
    event.record(stream)
    event.synchronize(timeout=PATIENCE)


def test_work_that_waits_for_later_work_of_its_stream_raises(host):
    stream, event, told = host.stream(), Event(host), []
    ready = threading.Event()

    def waits():
        ready.wait(PATIENCE)
        try:
            event.synchronize()
        except RuntimeError as error:
            told.append(str(error))

    stream.launch(waits)
    event.record(stream)
    ready.set()
    stream.synchronize(timeout=PATIENCE)
    assert "would never end" in told[0]


def test_streams_are_equal_when_they_are_one(device):
    assert device.default_stream() == device.default_stream()
    assert device.stream() != device.stream()
    assert device.stream() != 3
    assert len({device.default_stream(), device.default_stream()}) == 1
    assert device.stream().device == device
    assert str(device) in repr(device.stream())


def test_streams_wait_for_streams_and_events(device, gate):
    first, second = Stream(device), Stream(device)
    held = gate(first)
    event = first.record_event()
    second.wait_event(event)
    third = device.stream()
    third.wait_stream(second)
    assert not third.query()
    with pytest.raises(TimeoutError):
        third.synchronize(timeout=0.01)
    held.open()
    third.synchronize(timeout=PATIENCE)
    assert event.query()
    assert first.record_event(event) is event


def test_streams_wait_for_markers(device, gate):
    first, second = Stream(device), Stream(device)
    held = gate(first)
    marker = first.record()
    second.wait_event(marker)
    assert not second.query()
    held.open()
    second.synchronize(timeout=PATIENCE)
    assert marker.query()


def test_a_device_waits_for_all_of_its_streams(device, gate):
    streams = [device.stream() for _ in range(3)]
    held = gate(streams[1])
    with pytest.raises(TimeoutError):
        device.synchronize(timeout=0.01)
    held.open()
    device.synchronize(timeout=PATIENCE)
    for stream in streams:
        while not stream.query():
            pass


def test_events_can_be_awaited(device, gate):
    stream, event = device.stream(), Event(device)
    held = gate(stream)
    event.record(stream)
    order = []

    async def waits():
        await event
        order.append("event")

    async def opens():
        await asyncio.sleep(0.02)
        order.append("open")
        held.open()

    async def main():
        await asyncio.wait_for(asyncio.gather(waits(), opens()), PATIENCE)
        await event
        await Event(device)

    asyncio.run(main())
    assert order == ["open", "event"]


def test_an_awaited_failure_is_raised(host):
    stream, event = host.stream(), Event(host)
    stream.launch(lambda: 1 / 0)
    event.record(stream)

    async def main():
        await event

    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        asyncio.run(main())


def test_a_cancelled_await_harms_nobody(device, gate):
    stream, event = device.stream(), Event(device)
    held = gate(stream)
    event.record(stream)

    async def waits():
        await event

    async def main():
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(waits(), 0.01)
        held.open()
        await asyncio.wait_for(waits(), PATIENCE)

    asyncio.run(main())


def test_a_loop_that_was_closed_harms_nobody(device, gate):
    stream, event = device.stream(), Event(device)
    held = gate(stream)
    event.record(stream)

    async def main():
        task = asyncio.ensure_future(event_of(event))
        await asyncio.sleep(0)
        task.cancel()

    async def event_of(event):
        await event

    asyncio.run(main())
    held.open()
    stream.synchronize(timeout=PATIENCE)


def test_awaiting_needs_a_running_loop(host):
    with pytest.raises(RuntimeError, match="loop"):
        Event(host).__await__()


def test_events_are_released_when_collected(device, gate):
    stream = device.stream()
    gate(stream)

    class Mine(Event):
        pass

    event = Mine(device)
    gone = weakref.ref(event)
    event.record(stream)
    del event
    gc.collect()
    assert gone() is None


def test_an_event_without_interprocess_is_not_pickled(host):
    with pytest.raises(TypeError, match="interprocess=True"):
        pickle.dumps(Event(host))
    with pytest.raises(RuntimeError, match="interprocess=True"):
        Event(host).ipc_handle()


def test_sharing_and_timing_do_not_go_together(cuda):
    with pytest.raises(ValueError, match="interprocess=True"):
        Event(cuda, enable_timing=True, interprocess=True)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda host: host.synchronize("3"), "timeout must be a number of seconds.*; got str"),
        (lambda host: Event(host).synchronize(timeout=[]), "timeout must be.*; got list"),
        (lambda host: Event(host, name=3), "a name must be a str.*; got int"),
        (lambda host: Stream(host, name=b"load"), "a name must be a str.*; got bytes"),
        (lambda host: setattr(Event(host), "name", 3), "a name must be a str.*; got int"),
        (lambda host: setattr(host, "label", 3), "a name must be a str.*; got int"),
        (
            lambda host: host.stream().record().elapsed(Event(host)),
            r"elapsed\(\) argument 'end': expected a fencepost.Marker; got fencepost.Event",
        ),
        (
            lambda host: fencepost.mps.Stream().wait_stream(host.stream()),
            r"'stream': expected an MPS stream \(fencepost.mps.Stream\); got fencepost.Stream",
        ),
        (lambda host: fencepost.mps.set_stream(3), "'stream': expected an MPS stream.*; got int"),
        (lambda host: fencepost.mps.Stream().wait_event(3), "'event': expected an event; got int"),
        (lambda host: fencepost.mps.Stream().record_event(3), "'event': expected an event"),
        (
            lambda host: fencepost.mps.Stream().record_event(Event(host)),
            "'stream': expected a stream: .*; got fencepost.mps.Stream",
        ),
    ],
)
def test_a_wrong_type_names_what_was_expected_where(host, call, text):
    with pytest.raises(TypeError, match=text):
        call(host)


@pytest.mark.parametrize("timeout", [10**400, -(10**400)])
def test_a_timeout_beyond_all_numbers_is_a_value_error(host, timeout):
    with pytest.raises(ValueError, match="timeout"):
        host.synchronize(timeout)


def test_an_object_that_is_no_stream_is_a_type_error(host):
    for stream in ("stream", 3.5, object()):
        with pytest.raises(TypeError, match="expected a stream"):
            Event(host).record(stream)
