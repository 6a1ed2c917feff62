"""Waiting for many: ``wait``, ``as_completed``, and their versions for asyncio."""

import asyncio
import concurrent.futures
import gc
import signal
import sys
import threading
import time
import weakref

import pytest

import fencepost
from conftest import PATIENCE
from fencepost import ALL_COMPLETED, FIRST_COMPLETED, FIRST_EXCEPTION, Event


@pytest.fixture
def held(device, gate):
    """Make events that are pending until their gate is opened."""

    def make(count):
        events, gates = [], []
        for _ in range(count):
            stream = device.stream()
            gates.append(gate(stream))
            events.append(stream.record_event())
        return events, gates

    return make


def blocking(events, timeout=None, return_when=ALL_COMPLETED):
    return fencepost.wait(events, timeout, return_when)


def in_a_loop(events, timeout=None, return_when=ALL_COMPLETED):
    return asyncio.run(fencepost.wait_async(events, timeout, return_when))


def in_trio(events, timeout=None, return_when=ALL_COMPLETED):
    trio = pytest.importorskip("trio")
    return trio.run(fencepost.wait_async, events, timeout, return_when)


@pytest.fixture(params=[blocking, in_a_loop, in_trio])
def wait(request):
    """``wait``, in each version."""
    return request.param


def iterated(events, timeout=None):
    return list(fencepost.as_completed(events, timeout))


def iterated_in_a_loop(events, timeout=None):
    async def main():
        return [event async for event in fencepost.as_completed_async(events, timeout)]

    return asyncio.run(main())


def iterated_in_trio(events, timeout=None):
    trio = pytest.importorskip("trio")

    async def main():
        return [event async for event in fencepost.as_completed_async(events, timeout)]

    return trio.run(main)


@pytest.fixture(params=[iterated, iterated_in_a_loop, iterated_in_trio])
def completed(request):
    """``as_completed`` as a list, in each version."""
    return request.param


def opened_later(gates):
    """Open the gates on another thread, a moment from now."""

    def run():
        time.sleep(0.05)
        for gate in gates:
            gate.open()

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def test_the_constants_are_those_of_the_standard_library():
    for name in ("FIRST_COMPLETED", "FIRST_EXCEPTION", "ALL_COMPLETED"):
        assert getattr(fencepost, name) == getattr(concurrent.futures, name)
        assert getattr(fencepost, name) == getattr(asyncio, name)


def test_all_are_waited_for(held, wait):
    events, gates = held(3)
    assert wait(events, 0.01) == (set(), set(events))
    thread = opened_later(gates)
    done, not_done = wait(events, PATIENCE)
    assert (done, not_done) == (set(events), set())
    assert all(event.query() for event in events)
    thread.join()


def test_the_first_ends_the_wait(held, wait):
    events, gates = held(3)
    thread = opened_later(gates[1:2])
    waited = wait(iter(events), PATIENCE, FIRST_COMPLETED)
    assert waited.done == {events[1]}
    assert waited.not_done == {events[0], events[2]}
    thread.join()
    # What is complete already is told at once, and all of it.
    gates[2].open()
    events[2].synchronize(PATIENCE)
    assert wait(events, None, FIRST_COMPLETED).done == {events[1], events[2]}


def test_a_failure_ends_the_wait_where_that_is_asked_for(host, held, wait):
    [pending], gates = held(1)
    stream = host.stream()

    def fails():
        raise OSError("the disk is full")

    stream.launch(fails)
    failed = stream.record_event()
    done, not_done = wait([pending, failed], PATIENCE, FIRST_EXCEPTION)
    assert (done, not_done) == ({failed}, {pending})
    # A failure is an end. It is told by the event itself.
    assert wait([failed], PATIENCE) == ({failed}, set())
    assert wait([pending, failed], PATIENCE, FIRST_COMPLETED).done == {failed}
    with pytest.raises(RuntimeError, match="the disk is full"):
        failed.query()
    gates[0].open()
    assert wait([pending, failed], PATIENCE).not_done == set()
    stream.clear_error()


def test_without_a_failure_all_are_waited_for(held, wait):
    events, gates = held(2)
    thread = opened_later(gates)
    assert wait(events, PATIENCE, FIRST_EXCEPTION) == (set(events), set())
    thread.join()


def test_none_are_answered_at_once(wait, completed):
    for return_when in (FIRST_COMPLETED, FIRST_EXCEPTION, ALL_COMPLETED):
        assert wait([], None, return_when) == (set(), set())
    assert completed([]) == []


def test_events_of_every_class_may_be_mixed(device, gate, wait, completed):
    stream = device.stream()
    held = gate(stream)
    marker, event = stream.record(), stream.record_event()
    others = [fencepost.cuda.Event(), fencepost.mps.Event(), Event(device)]
    everything = [marker, event, *others]
    # An event that was never recorded is complete.
    assert wait(everything, 0.01) == (set(others), {marker, event})
    held.open()
    assert wait(everything, PATIENCE).done == set(everything)
    assert set(completed(everything, PATIENCE)) == set(everything)


def test_what_is_given_twice_comes_once(held, wait, completed):
    events, gates = held(1)
    gates[0].open()
    assert wait(events * 3, PATIENCE) == (set(events), set())
    assert completed(events * 3, PATIENCE) == events


def test_each_comes_as_it_ends(held):
    events, gates = held(3)
    ends = fencepost.as_completed(events, PATIENCE)
    for at in (2, 0, 1):
        gates[at].open()
        assert next(ends) is events[at]
    with pytest.raises(StopIteration):
        next(ends)


def test_each_comes_as_it_ends_in_a_loop(held):
    events, gates = held(3)

    async def main():
        ends = fencepost.as_completed_async(events, PATIENCE)
        for at in (2, 0, 1):
            gates[at].open()
            assert await ends.__anext__() is events[at]
        with pytest.raises(StopAsyncIteration):
            await ends.__anext__()

    asyncio.run(main())


def test_markers_of_one_stream_come_in_their_order(host, completed):
    stream = host.stream()
    gate = fencepost.Gate(host, limit=None)
    gate.wait(stream)
    markers = [stream.record() for _ in range(20)]
    thread = opened_later([gate])
    assert completed(reversed(markers), PATIENCE) == markers
    thread.join()


def test_a_timeout_tells_what_is_left(held, completed):
    events, gates = held(7)
    events[6].name = "the last"
    gates[0].open()
    events[0].synchronize(PATIENCE)
    with pytest.raises(TimeoutError, match="gave up after 20 ms: marker ") as raised:
        completed(events, 0.02)
    told = str(raised.value)
    assert "… 2 more …" in told
    assert told.count("is pending") == 4
    assert '(event "the last")' in told


def test_the_limit_is_one_for_all_of_an_iteration(held):
    events, gates = held(2)
    gates[0].open()
    ends = fencepost.as_completed(events, 0.2)
    assert next(ends) is events[0]
    with pytest.raises(TimeoutError, match="gave up after 200 ms"):
        next(ends)
    # Like every generator that has raised.
    assert list(ends) == []


def test_bad_arguments_are_refused_at_once(held):
    events, _ = held(1)
    for call in (fencepost.wait, fencepost.as_completed):
        name = call.__name__
        with pytest.raises(TypeError, match=rf"{name}\(\) argument 'events': expected events and "):
            call([*events, 7])
        # Also of what cannot be hashed.
        for wrong in ([[]], [*events, {}], iter([{}, 7])):
            expected = rf"{name}\(\) argument 'events': expected events and .*got (list|dict)"
            with pytest.raises(TypeError, match=expected):
                call(wrong)
        with pytest.raises(TypeError, match=rf"{name}\(\) argument 'events': .* into a list"):
            call(events[0])
        with pytest.raises(TypeError, match="not iterable"):
            call(7)
        with pytest.raises(ValueError, match="at least 0"):
            call(events, timeout=-1)
        with pytest.raises(TypeError, match="number of seconds"):
            call(events, timeout="soon")
    with pytest.raises(ValueError, match="FIRST_COMPLETED, FIRST_EXCEPTION or ALL_COMPLETED; got"):
        fencepost.wait(events, return_when="LAST_COMPLETED")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows raises no SIGALRM")
@pytest.mark.parametrize("kind", ["wait", "as_completed"])
def test_what_a_signal_handler_raises_ends_the_wait(held, kind):
    class Rings(Exception):
        pass

    def rings(*_):
        raise Rings

    events, _ = held(2)
    before = signal.signal(signal.SIGALRM, rings)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with pytest.raises(Rings):
            fencepost.wait(events) if kind == "wait" else list(fencepost.as_completed(events))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert fencepost.wait(events, 0) == (set(), set(events))


def test_other_threads_run_meanwhile(held):
    events, gates = held(2)
    # A thread that opens them could not start if the wait held the interpreter.
    thread = opened_later(gates)
    assert fencepost.wait(events).not_done == set()
    thread.join()


def test_a_cancelled_wait_is_gone(held):
    events, _ = held(2)

    async def main():
        task = asyncio.ensure_future(fencepost.wait_async(events))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        ends = fencepost.as_completed_async(events)
        first = asyncio.ensure_future(ends.__anext__())
        await asyncio.sleep(0.01)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first

    asyncio.run(main())
    gone = [weakref.ref(event) for event in events]
    events.clear()
    # The gates are closed still: nothing but the waits knew of the events.
    gc.collect()
    assert [event() for event in gone] == [None, None]


def test_a_blocking_wait_that_is_over_keeps_nothing_alive(held):
    events, gates = held(2)
    gates[0].open()
    events[0].synchronize(PATIENCE)
    gone = [weakref.ref(event) for event in events]
    gc.collect()
    gc.disable()
    try:
        assert len(fencepost.wait(events, 0.01).done) == 1
        assert len(list(fencepost.as_completed(events[:1], PATIENCE))) == 1
        events.clear()
        assert [event() for event in gone] == [None, None]
    finally:
        gc.enable()


def test_a_loop_goes_on_meanwhile_and_no_thread_waits(held):
    events, gates = held(3)

    async def main():
        threads = threading.active_count()
        waits = [asyncio.ensure_future(fencepost.wait_async(events)) for _ in range(50)]
        for _ in range(10):
            await asyncio.sleep(0)
        assert threading.active_count() == threads
        for gate in gates:
            gate.open()
        for waited in await asyncio.gather(*waits):
            assert waited == (set(events), set())

    asyncio.run(main())


def test_host_work_may_wait_for_the_first_of_itself_and_others(host):
    stream, other = host.stream(), host.stream()
    gate = fencepost.Gate(host, limit=None)
    gate.wait(other)
    held = other.record()
    told = []

    def work():
        own = stream.record()
        told.append(fencepost.wait([own, held], return_when=FIRST_COMPLETED) == ({held}, {own}))
        try:
            fencepost.wait([own, held])
        except RuntimeError as error:
            told.append(str(error))

    stream.launch(work)
    opened_later([gate]).join()
    stream.synchronize(PATIENCE)
    assert told[0] is True
    assert "this wait would never end" in told[1]


@pytest.mark.cuda
def test_events_bound_to_native_ones_are_waited_for(cuda, gate, wait, completed):
    stream = cuda.stream()
    held = gate(stream)
    event = stream.record_event()
    raw = fencepost.cuda.Event()
    raw.record(stream)
    assert raw.cuda_event != 0
    assert wait([event, raw], 0.05) == (set(), {event, raw})
    with pytest.raises(TimeoutError, match="raw event"):
        completed([raw], 0.05)
    thread = opened_later([held])
    assert wait([event, raw], PATIENCE) == ({event, raw}, set())
    assert set(completed([event, raw], PATIENCE)) == {event, raw}
    thread.join()


def test_ten_thousand_are_waited_for(device):
    streams = [device.stream() for _ in range(16)]
    markers = [streams[at % 16].record() for at in range(10_000)]
    assert fencepost.wait(markers, PATIENCE).not_done == set()
    assert len(list(fencepost.as_completed(markers, PATIENCE))) == 10_000
