"""The loop that a coroutine runs in: asyncio's, or Trio's in the shape of asyncio's.

Trio has no futures. Its run gets what this package uses of a loop and of a future of asyncio.
"""

import asyncio
import math
import sys
from collections.abc import Generator
from typing import Any, Callable, Optional, Union


class TrioLoop:
    """The Trio run of this task."""

    def __init__(self, trio: Any) -> None:
        self.trio = trio
        self.token = trio.lowlevel.current_trio_token()

    def create_future(self) -> "TrioFuture":
        return TrioFuture(self.trio)

    def call_soon_threadsafe(self, call: Callable[..., None], *arguments: object) -> None:
        self.token.run_sync_soon(call, *arguments)


class TrioFuture:
    """A future that one task awaits."""

    def __init__(self, trio: Any) -> None:
        self.trio = trio
        self.ended = trio.Event()
        self.error: Optional[BaseException] = None
        self.was_cancelled = False
        self.callbacks: list[Callable[[TrioFuture], None]] = []

    def done(self) -> bool:
        return bool(self.ended.is_set())

    def cancelled(self) -> bool:
        return self.was_cancelled

    def cancel(self) -> None:
        if not self.done():
            self.was_cancelled = True
            self.end()

    def set_result(self, _: None) -> None:
        self.end()

    def set_exception(self, error: BaseException) -> None:
        self.error = error
        self.end()

    def add_done_callback(self, callback: "Callable[[TrioFuture], None]") -> None:
        self.callbacks.append(callback)

    def end(self) -> None:
        self.ended.set()
        callbacks, self.callbacks = self.callbacks, []
        for callback in callbacks:
            callback(self)

    async def wait(self) -> None:
        try:
            await self.ended.wait()
        finally:
            # Where Trio cancels the task, nobody awaits this any more.
            self.cancel()
        if self.error is not None:
            raise self.error

    def __await__(self) -> Generator[Any, Any, None]:
        return self.wait().__await__()


Loop = Union[asyncio.AbstractEventLoop, TrioLoop]
Future = Union["asyncio.Future[None]", TrioFuture]


def running() -> Loop:
    """Return the loop that this code runs in. Raises RuntimeError where there is none."""
    trio = sys.modules.get("trio")
    if trio is not None and trio.lowlevel.in_trio_task() and not _in_task_of_asyncio():
        return TrioLoop(trio)
    return asyncio.get_running_loop()


def _in_task_of_asyncio() -> bool:
    """Return whether a task of asyncio runs this: trio-asyncio runs them inside a task of Trio."""
    try:
        return asyncio.current_task() is not None
    except RuntimeError:
        return False


async def wait(future: Future, timeout: Optional[float]) -> None:
    """Wait until ``future`` is done, or ``timeout`` seconds have passed. Then it is cancelled."""
    if isinstance(future, TrioFuture):
        with future.trio.move_on_after(math.inf if timeout is None else timeout):
            await future
    else:
        await asyncio.wait([future], timeout=timeout)
    future.cancel()
