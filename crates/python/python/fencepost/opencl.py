"""OpenCL: queues of pyopencl as streams.

Calls that take a stream take a ``pyopencl.CommandQueue`` too. ``wrap_queue`` gives it as a
``fencepost.Stream``, whose ``device`` is that of the queue's context: events for the queue are made
on it.
"""

from typing import Any

from fencepost._C import Stream, wrap_stream

__all__ = ["wrap_queue"]


def wrap_queue(queue: Any) -> Stream:
    """Return a ``pyopencl.CommandQueue`` as a ``fencepost.Stream``, which retains the queue.

    Queues of one context are streams of one device. Raises TypeError for another object.
    """
    if not hasattr(queue, "int_ptr"):
        kind = f"{type(queue).__module__}.{type(queue).__qualname__}"
        raise TypeError(f"wrap_queue() takes a pyopencl.CommandQueue, not {kind}")
    return wrap_stream(queue)
