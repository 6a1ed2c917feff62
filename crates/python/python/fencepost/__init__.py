"""Device events: markers on the work queues of an accelerator.

They tell how far the device has come, and how long work took on the device's own clock, and they
order streams.

>>> import fencepost
>>> device = fencepost.Device("host")
>>> stream = device.stream()
>>> start, end = (fencepost.Event(device, enable_timing=True) for _ in range(2))
>>> start.record(stream)
>>> stream.launch(lambda: print("the work to time"))
>>> end.record(stream)
>>> print(f"{end - start:.3f} ms")  # doctest: +SKIP

- :mod:`fencepost.mps` stands in for ``torch.mps``: its events and streams, on any machine.
- :mod:`fencepost.cuda` stands in for ``torch.cuda.Event``, on the streams of any library.
- :mod:`fencepost.otel` hands what a trace has collected to OpenTelemetry.
- :mod:`fencepost._C` has the functions that PyTorch's own ``torch.mps.Event`` calls.
"""

import atexit

from fencepost import _C, cuda, mps
from fencepost._asking import devices
from fencepost._C import (
    Correlation,
    Device,
    Event,
    Gate,
    HostTime,
    Marker,
    Measurement,
    Plot,
    Span,
    SpanRecord,
    Stream,
    Summary,
    TimeKeeper,
    Trace,
    __version__,
    locations,
    measure,
)
from fencepost._many import (
    ALL_COMPLETED,
    FIRST_COMPLETED,
    FIRST_EXCEPTION,
    DoneAndNotDone,
    as_completed,
    as_completed_async,
    wait,
    wait_async,
)

__all__ = [
    "ALL_COMPLETED",
    "FIRST_COMPLETED",
    "FIRST_EXCEPTION",
    "_C",
    "Correlation",
    "Device",
    "DoneAndNotDone",
    "Event",
    "Gate",
    "HostTime",
    "Marker",
    "Measurement",
    "Plot",
    "Span",
    "SpanRecord",
    "Stream",
    "Summary",
    "TimeKeeper",
    "Trace",
    "__version__",
    "as_completed",
    "as_completed_async",
    "cuda",
    "devices",
    "locations",
    "measure",
    "mps",
    "wait",
    "wait_async",
]

# Threads of the library must not run Python once the interpreter ends.
atexit.register(_C._close)
