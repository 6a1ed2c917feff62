"""Waiting for many events and markers, shaped like ``concurrent.futures`` and ``asyncio``."""

from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator
from contextlib import closing
from typing import Generic, NamedTuple, Optional, TypeVar, Union, cast

from fencepost import _C, _loops, cuda, mps
from fencepost._C import Event, Marker

# The same strings as in ``concurrent.futures`` and ``asyncio``, whose constants do too.
FIRST_COMPLETED = "FIRST_COMPLETED"
FIRST_EXCEPTION = "FIRST_EXCEPTION"
ALL_COMPLETED = "ALL_COMPLETED"

Waitable = Union[Event, cuda.Event, mps.Event, Marker]
W = TypeVar("W", bound=Waitable)
R = TypeVar("R")


class DoneAndNotDone(NamedTuple):
    """What ``wait`` and ``wait_async`` return: two sets of the objects that they were given."""

    done: set[Waitable]
    not_done: set[Waitable]


class _Waits(Generic[W]):
    """What is left of some events and markers, each of which is waited for once.

    Blocking calls run the same coroutines as those in a loop. Theirs never suspend.
    """

    def __init__(self, call: str, events: Iterable[W], timeout: Optional[float]) -> None:
        if isinstance(events, (Event, cuda.Event, mps.Event, Marker)):
            raise TypeError(
                f"{call}() argument 'events': expected events and markers, got one alone; "
                "put it into a list"
            )
        given = list(events)
        try:
            self.left = dict(enumerate(dict.fromkeys(given)))
        except TypeError:
            # Events and markers can be hashed: this names the type of what is none.
            _C._Waits(call, given, timeout)
            raise
        self.done: set[W] = set()
        self.native = _C._Waits(call, list(self.left.values()), timeout)
        self.blocks = not call.endswith("_async")

    async def until(self, return_when: str) -> DoneAndNotDone:
        """Return once what was waited for has ended, or the limit has passed."""
        # One that is cancelled leaves nothing behind.
        with closing(self.native):
            while self.left:
                ended = await self.some()
                self.take(ended)
                if not ended or self.is_over(return_when, ended):
                    break
            return DoneAndNotDone(set(self.done), set(self.left.values()))

    async def next(self) -> list[W]:
        """Return the objects that ended next; raise TimeoutError where the limit has passed."""
        ended = await self.some()
        if not ended:
            raise self.native.timed_out()
        return self.take(ended)

    def take(self, ended: list[tuple[int, bool]]) -> list[W]:
        """Return the objects that have ended, which are no longer left."""
        taken = [self.left.pop(at) for at, _ in ended]
        self.done.update(taken)
        return taken

    def is_over(self, return_when: str, ended: list[tuple[int, bool]]) -> bool:
        """Return whether these ends are what was waited for."""
        if return_when == FIRST_COMPLETED:
            return True
        return return_when == FIRST_EXCEPTION and any(failed for _, failed in ended)

    async def some(self) -> list[tuple[int, bool]]:
        """Return what ended next; nothing where the limit has passed."""
        if self.blocks:
            return self.native.some()
        loop = _loops.running()
        while True:
            ended = self.native.look()
            seconds = self.native.left()
            if ended or seconds == 0:
                return ended
            future = loop.create_future()
            if self.native.wake(loop, future):
                await _loops.wait(future, seconds)


def _run(coroutine: Coroutine[object, None, R]) -> R:
    """Return what a coroutine returns that never suspends."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return cast(R, end.value)
    raise AssertionError("a blocking wait has suspended")


def _check(return_when: str) -> None:
    if return_when not in (FIRST_COMPLETED, FIRST_EXCEPTION, ALL_COMPLETED):
        choices = "FIRST_COMPLETED, FIRST_EXCEPTION or ALL_COMPLETED"
        raise ValueError(f"return_when must be {choices}; got {return_when!r}")


def wait(
    events: Iterable[Waitable],
    timeout: Optional[float] = None,
    return_when: str = ALL_COMPLETED,
) -> DoneAndNotDone:
    """Block until events and markers have ended, and return those that have and the others.

    They may be of any classes of fencepost and of any devices. ``return_when`` says for what it
    waits: ``FIRST_COMPLETED`` for one of them, ``FIRST_EXCEPTION`` for one that has failed, else
    for all, ``ALL_COMPLETED`` for all. A failed one has ended too: it is in ``done``, and its own
    calls raise. After ``timeout`` seconds it returns what there is.

    An event that was never recorded is complete. Of an event it is the recording that it holds when
    the wait begins. Other threads keep running meanwhile, and Ctrl-C ends the wait.

    >>> import fencepost
    >>> device = fencepost.Device("host")
    >>> markers = [device.stream().record() for _ in range(3)]
    >>> done, not_done = fencepost.wait(markers, timeout=60)
    >>> len(done), len(not_done)
    (3, 0)
    """
    _check(return_when)
    return _run(_Waits("wait", events, timeout).until(return_when))


def as_completed(events: Iterable[W], timeout: Optional[float] = None) -> Iterator[W]:
    """Return an iterator over events and markers that yields each once it has ended.

    They may be of any classes of fencepost and of any devices. One that is given twice comes once.
    A failed one comes too: its own calls raise. Each is waited for from this call on.

    ``timeout`` seconds after this call the iterator raises TimeoutError, which says what the first
    and last few of those left wait for.

    >>> import fencepost
    >>> device = fencepost.Device("host")
    >>> markers = [device.stream().record() for _ in range(3)]
    >>> all(marker.query() for marker in fencepost.as_completed(markers, timeout=60))
    True
    """
    waits = _Waits("as_completed", events, timeout)

    def ends() -> Iterator[W]:
        with closing(waits.native):
            while waits.left:
                yield from _run(waits.next())

    return ends()


async def wait_async(
    events: Iterable[Waitable],
    timeout: Optional[float] = None,
    return_when: str = ALL_COMPLETED,
) -> DoneAndNotDone:
    """As ``wait``, in a loop of asyncio or Trio, which goes on meanwhile. No thread waits for it.

    >>> import asyncio, fencepost
    >>> markers = [fencepost.Device("host").stream().record() for _ in range(3)]
    >>> done, not_done = asyncio.run(fencepost.wait_async(markers, timeout=60))
    >>> len(done), len(not_done)
    (3, 0)
    """
    _check(return_when)
    return await _Waits("wait_async", events, timeout).until(return_when)


def as_completed_async(events: Iterable[W], timeout: Optional[float] = None) -> AsyncIterator[W]:
    """As ``as_completed``, for ``async for`` in a loop of asyncio or Trio. No thread waits for it.

    >>> import asyncio, fencepost
    >>> markers = [fencepost.Device("host").stream().record() for _ in range(3)]
    >>> async def main():
    ...     return [marker.query() async for marker in fencepost.as_completed_async(markers)]
    >>> asyncio.run(main())
    [True, True, True]
    """
    waits = _Waits("as_completed_async", events, timeout)

    async def ends() -> AsyncIterator[W]:
        with closing(waits.native):
            while waits.left:
                for one in await waits.next():
                    yield one

    return ends()
