"""Awaiting under Trio, and under AnyIO on it."""

import asyncio
import gc
import threading
import weakref

import pytest

import fencepost
from conftest import PATIENCE
from fencepost import Event

trio = pytest.importorskip("trio")
pytest.importorskip("trio.testing")


async def awaited(event):
    await event


def test_events_and_markers_can_be_awaited(device, gate):
    stream = device.stream()
    held = gate(stream)
    event, marker = stream.record_event(), stream.record()
    ended = []

    async def waits(what):
        await what
        ended.append(what)

    async def main():
        threads = threading.active_count()
        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                for what in (event, marker, event):
                    nursery.start_soon(waits, what)
                await trio.testing.wait_all_tasks_blocked(0.02)
                assert (ended, threading.active_count()) == ([], threads)
                held.open()
            await event
            await Event(device)

    trio.run(main)
    assert len(ended) == 3


def test_an_awaited_failure_is_raised(host):
    stream = host.stream()

    def fails():
        raise OSError("the disk is full")

    stream.launch(fails)
    event = stream.record_event()
    with pytest.raises(RuntimeError, match="the disk is full"):
        trio.run(awaited, event)
    stream.clear_error()


def test_a_cancelled_await_leaves_nothing_behind(device, gate):
    stream = device.stream()
    held = gate(stream)
    events = [stream.record_event()]

    async def main():
        for _ in range(3):
            with trio.move_on_after(0.01) as scope:
                await events[0]
            assert scope.cancelled_caught
            with trio.move_on_after(0.01) as scope:
                await fencepost.wait_async(events)
            assert scope.cancelled_caught

    trio.run(main)
    gone = weakref.ref(events.pop())
    gc.collect()
    # The gate is closed still: nothing but the waits knew of the event.
    assert gone() is None
    held.open()
    stream.synchronize(PATIENCE)


def test_what_ends_after_the_run_harms_nobody(device, gate):
    stream = device.stream()
    held = gate(stream)
    event = stream.record_event()

    async def main():
        # It is asked to wait, and never resumed: the run is over before the event is complete.
        with trio.move_on_after(0.01):
            await event

    trio.run(main)
    held.open()
    event.synchronize(PATIENCE)
    with pytest.raises(RuntimeError, match="no running event loop"):
        event.__await__()


def test_a_run_may_be_a_guest_of_asyncio(device, gate):
    """Trio's tasks are awaited by Trio then, although a loop of asyncio is running."""
    stream = device.stream()
    held = gate(stream)
    event = stream.record_event()

    async def opens():
        held.open()

    async def guest():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(awaited, event)
            nursery.start_soon(opens)
        return (await fencepost.wait_async([event], PATIENCE)).done

    async def host():
        loop = asyncio.get_running_loop()
        over = loop.create_future()
        trio.lowlevel.start_guest_run(
            guest,
            run_sync_soon_threadsafe=loop.call_soon_threadsafe,
            done_callback=over.set_result,
        )
        outcome = await asyncio.wait_for(over, PATIENCE)
        await event
        return outcome.unwrap()

    assert asyncio.run(host()) == {event}


def test_a_loop_of_asyncio_may_be_in_a_task_of_trio(device, gate):
    """As trio-asyncio makes it."""
    trio_asyncio = pytest.importorskip("trio_asyncio")
    stream = device.stream()
    held = gate(stream)
    event = stream.record_event()

    async def in_asyncio():
        asyncio.get_running_loop().call_soon(held.open)
        await event
        await fencepost.wait_async([stream.record()], PATIENCE)

    async def main():
        async with trio_asyncio.open_loop():
            await trio_asyncio.aio_as_trio(in_asyncio)()

    trio.run(main)
    assert event.query()


def test_anyio_runs_it_on_trio(device, gate):
    anyio = pytest.importorskip("anyio")
    stream = device.stream()
    held = gate(stream)
    event = stream.record_event()

    async def main():
        async with anyio.create_task_group() as group:
            group.start_soon(awaited, event)
            await anyio.sleep(0.01)
            held.open()

    for backend in ("trio", "asyncio"):
        anyio.run(main, backend=backend)
        assert event.query()
