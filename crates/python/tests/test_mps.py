"""``fencepost.mps`` and the native functions of ``fencepost._C`` behind ``torch.mps.Event``."""

import gc
import threading
import time

import pytest

import fencepost
from conftest import PATIENCE
from fencepost import _C, mps


class NativeEvent:
    """An event class on top of the seven native functions, as PyTorch's is."""

    def __init__(self, enable_timing=False):
        self._id = _C._mps_acquireEvent(enable_timing)

    def __del__(self):
        if hasattr(_C, "_mps_releaseEvent") and self._id > 0:
            _C._mps_releaseEvent(self._id)

    def record(self):
        _C._mps_recordEvent(self._id)

    def wait(self):
        _C._mps_waitForEvent(self._id)

    def query(self):
        return _C._mps_queryEvent(self._id)

    def synchronize(self):
        _C._mps_synchronizeEvent(self._id)

    def elapsed_time(self, end_event):
        return _C._mps_elapsedTimeOfEvents(self._id, end_event._id)


@pytest.fixture(params=[mps.Event, NativeEvent], ids=["mps", "native"])
def kind(request):
    return request.param


@pytest.fixture
def held(gate):
    """A stream of the pool that is held back, and is current."""
    stream = mps.Stream()
    opener = gate(stream.stream)
    with mps.stream(stream):
        yield opener
    opener.open()
    stream.synchronize(timeout=PATIENCE)


def test_a_class_on_the_native_functions_alone_times_work(kind):
    start, end = kind(enable_timing=True), kind(enable_timing=True)
    start.record()
    end.record()
    assert start.elapsed_time(end) >= 0.0


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("last", [False, True])
def test_a_time_is_there_whoever_was_synchronized_before(kind, first, last):
    # PyTorch hangs here (#162872): synchronizing consumes the signal that elapsed_time waits for.
    start, end = kind(enable_timing=True), kind(enable_timing=True)
    start.record()
    end.record()
    if first:
        start.synchronize()
    if last:
        end.synchronize()
    assert start.elapsed_time(end) >= 0.0
    assert start.elapsed_time(end) == start.elapsed_time(end)


def test_events_recorded_back_to_back_have_a_time(kind):
    # PyTorch raises here (#196395): its timestamps come from callbacks that may run out of order.
    for _ in range(200):
        start, end = kind(enable_timing=True), kind(enable_timing=True)
        start.record()
        end.record()
        assert start.elapsed_time(end) >= 0.0


def test_a_time_of_an_event_with_itself_is_zero(kind):
    event = kind(enable_timing=True)
    event.record()
    assert event.elapsed_time(event) == 0.0


def test_a_time_without_timing_is_an_error_and_no_hang(kind):
    for timings in [(False, False), (True, False), (False, True)]:
        start, end = (kind(enable_timing=timing) for timing in timings)
        start.record()
        end.record()
        with pytest.raises(RuntimeError, match="enable_timing=True"):
            start.elapsed_time(end)


def test_a_time_before_the_record_is_an_error_and_no_hang(kind):
    start, end = kind(enable_timing=True), kind(enable_timing=True)
    with pytest.raises(RuntimeError, match="must be recorded"):
        start.elapsed_time(end)
    start.record()
    with pytest.raises(RuntimeError, match="must be recorded.*end"):
        start.elapsed_time(end)


def test_reversed_order_is_a_runtime_error(kind):
    start, end = kind(enable_timing=True), kind(enable_timing=True)
    end.record()
    end.synchronize()
    time.sleep(0.002)
    start.record()
    with pytest.raises(RuntimeError, match="not recorded after"):
        start.elapsed_time(end)


def test_query_is_false_before_the_first_record_also_of_a_recycled_event(kind):
    # PyTorch returns True for an event that it takes from its pool again.
    for _ in range(3):
        event = kind()
        assert event.query() is False
        event.synchronize()
        event.wait()
        event.record()
        event.synchronize()
        assert event.query() is True
        del event
        gc.collect()


def test_query_is_false_while_pending(kind, held):
    event = kind()
    event.record()
    assert event.query() is False
    held.open()
    event.synchronize()
    assert event.query() is True


def test_recording_again_while_pending_means_the_new_record(kind, held):
    event = kind()
    event.record()
    with mps.stream(mps.default_stream()):
        event.record()
        event.synchronize()
    assert event.query() is True


def test_waits_order_streams(gate):
    first, second = mps.Stream(), mps.Stream()
    opener = gate(first.stream)
    event, done = mps.Event(), mps.Event()
    event.record(first)
    event.wait(second)
    done.record(second)
    assert not done.query()
    opener.open()
    done.synchronize(timeout=PATIENCE)
    assert event.query()


def test_native_functions_take_a_stream_by_number(gate):
    stream = mps.Stream()
    opener = gate(stream.stream)
    one, other = _C._mps_acquireEvent(False), _C._mps_acquireEvent(False)
    _C._mps_recordEvent(one, stream.stream_id)
    _C._mps_waitForEvent(one, 0)
    _C._mps_recordEvent(other, 0)
    assert not _C._mps_queryEvent(other)
    opener.open()
    _C._mps_synchronizeEvent(other)
    assert _C._mps_queryEvent(one)
    for number in (-1, 33, 2**70):
        with pytest.raises((RuntimeError, OverflowError)):
            _C._mps_recordEvent(one, number)
    for event in (one, other):
        _C._mps_releaseEvent(event)


BAD = [0, -1, 2**31, 2**63, 2**64, 2**200, -(2**200)]


@pytest.mark.parametrize("bad", BAD)
def test_a_number_of_no_event_is_an_invalid_event_id(bad):
    for call in (
        _C._mps_recordEvent,
        _C._mps_waitForEvent,
        _C._mps_queryEvent,
        _C._mps_synchronizeEvent,
        _C._mps_releaseEvent,
    ):
        with pytest.raises(RuntimeError, match=f"Invalid Event ID: {bad}"):
            call(bad)
    with pytest.raises(RuntimeError, match="Invalid Event ID"):
        _C._mps_elapsedTimeOfEvents(bad, bad)


@pytest.mark.parametrize("bad", [None, "1", 1.0, True, [], object()])
def test_what_is_no_number_is_a_type_error(bad):
    with pytest.raises(TypeError, match="event ID is an integer"):
        _C._mps_queryEvent(bad)


def test_a_released_number_names_nothing_for_ever():
    seen = set()
    for _ in range(1000):
        event = _C._mps_acquireEvent(False)
        assert event not in seen
        seen.add(event)
        _C._mps_releaseEvent(event)
        with pytest.raises(RuntimeError, match=f"Invalid Event ID: {event}"):
            _C._mps_queryEvent(event)
        with pytest.raises(RuntimeError, match=f"Invalid Event ID: {event}"):
            _C._mps_releaseEvent(event)


def test_release_while_pending_disturbs_nobody(gate):
    def released_while_waited_for():
        stream = mps.Stream()
        opener = gate(stream.stream)
        event = _C._mps_acquireEvent(False)
        _C._mps_recordEvent(event, stream.stream_id)
        errors = []

        def wait():
            try:
                _C._mps_synchronizeEvent(event)
            except RuntimeError as error:
                errors.append(str(error))

        waiter = threading.Thread(target=wait)
        waiter.start()
        time.sleep(0.02)
        _C._mps_releaseEvent(event)
        assert waiter.is_alive() or errors
        opener.open()
        waiter.join(PATIENCE)
        assert not waiter.is_alive()
        return errors

    # On a busy machine the thread may call only when the event is gone, but not each time.
    start, errors = time.monotonic(), released_while_waited_for()
    while errors and time.monotonic() - start < PATIENCE:
        assert all("Invalid Event ID" in error for error in errors)
        errors = released_while_waited_for()
    assert not errors


def test_collected_events_release_their_numbers():
    gc.collect()
    before = _C._mps_live_events()
    events = [NativeEvent() for _ in range(10)]
    assert _C._mps_live_events() == before + 10
    del events
    gc.collect()
    assert _C._mps_live_events() == before


def test_streams_are_a_pool_with_the_default_as_number_0():
    streams = [mps.Stream() for _ in range(33)]
    assert streams[0] == streams[32]
    assert {stream.stream_id for stream in streams} == set(range(1, 33))
    assert mps.default_stream().stream_id == 0
    assert mps.Stream(stream_id=5) == mps.Stream(stream_id=5)
    assert mps.Stream(stream_id=5) != mps.Stream(stream_id=6)
    for number in (-1, 33):
        with pytest.raises(RuntimeError, match="no MPS stream"):
            mps.Stream(stream_id=number)


def test_the_current_stream_is_the_threads_own_and_comes_back():
    one, other = mps.Stream(stream_id=1), mps.Stream(stream_id=2)
    assert mps.current_stream() == mps.default_stream()
    with mps.stream(one):
        with mps.stream(other), mps.stream(None):
            assert mps.current_stream() == other
        assert mps.current_stream() == one
        seen = []
        thread = threading.Thread(target=lambda: seen.append(mps.current_stream()))
        thread.start()
        thread.join()
        assert seen == [mps.default_stream()]
        with pytest.raises(LookupError), mps.stream(other):
            raise LookupError
        assert mps.current_stream() == one
    mps.set_stream(other)
    mps.set_stream(None)
    assert mps.current_stream() == other
    mps.set_stream(mps.default_stream())
    assert mps.current_stream() == mps.default_stream()


def test_what_is_no_stream_of_mps_is_a_runtime_error():
    for stream in (3, "stream", fencepost.Device("host").stream()):
        with pytest.raises(RuntimeError, match="expected an MPS stream"):
            mps.Event().record(stream)


def test_synchronize_waits_for_every_stream(gate):
    opener = gate(mps.Stream().stream)
    with pytest.raises(TimeoutError):
        mps.synchronize(timeout=0.01)
    opener.open()
    for _ in range(3):
        mps.synchronize(timeout=PATIENCE)


def test_there_is_a_device_off_the_mac_too():
    assert mps.is_available()
    assert mps.device_count() == 1
