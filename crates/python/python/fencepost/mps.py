"""Events and streams as in ``torch.mps``: on Metal on a Mac, elsewhere on the best device there is.

So code for MPS runs, and can be tested, on any machine. Where PyTorch is loaded and uses MPS, a
call without a stream means PyTorch's current stream, and events take a ``torch.mps.Stream`` too.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Optional

from fencepost import _C, _asking
from fencepost._C import _MpsEvent as Event
from fencepost._C import _MpsStream as Stream

__all__ = [
    "Event",
    "Stream",
    "current_stream",
    "default_stream",
    "device_count",
    "is_available",
    "set_stream",
    "stream",
    "synchronize",
]


def is_available() -> bool:
    """Return whether there is a device. On a Mac: whether there is one of Metal; elsewhere True.

    Where the environment variable ``FENCEPOST_DEVICE`` names a device: whether that is there. No
    device is opened, and processes forked later can still use all of them.
    """
    named = os.environ.get("FENCEPOST_DEVICE") or ("metal" if sys.platform == "darwin" else "host")
    if named == "host":
        return True
    return any(name in _asking.names() for name in (named, f"{named}:0"))


def device_count() -> int:
    """Return how many devices there are: 1, or 0 if none is available."""
    return int(is_available())


def synchronize(timeout: Optional[float] = None) -> None:
    """Block until everything submitted to any stream of the device is done.

    PyTorch's own streams are included. After ``timeout`` seconds, an argument that PyTorch's lacks,
    it raises TimeoutError.
    """
    _C._mps_synchronize(timeout)


def default_stream() -> Stream:
    """Return the default stream, number 0."""
    return Stream(stream_id=0)


def current_stream() -> Stream:
    """Return this thread's current stream: calls without a stream use it."""
    return _C._mps_current_stream()


def set_stream(stream: Optional[Stream]) -> None:
    """Make ``stream`` this thread's current one. None changes nothing."""
    if stream is not None:
        _C._mps_set_stream(stream)


@contextmanager
def stream(stream: Optional[Stream]) -> Iterator[None]:
    """Make ``stream`` this thread's current one inside a ``with``. None changes nothing."""
    before = current_stream()
    set_stream(stream)
    try:
        yield
    finally:
        set_stream(before)
