"""CUDA events on the streams of any library: a drop-in for ``torch.cuda.Event``.

``wrap_stream`` gives a stream of PyTorch, CuPy, cuda.core or Numba as a :class:`fencepost.Stream`.
"""

from fencepost._C import _CudaEvent as Event
from fencepost._C import devices, wrap_stream

__all__ = ["Event", "device_count", "is_available", "wrap_stream"]


def device_count() -> int:
    """Return how many CUDA devices there are: 0 without NVIDIA's driver."""
    return sum(str(device).startswith("cuda:") for device in devices())


def is_available() -> bool:
    """Return whether there is a CUDA device."""
    return device_count() > 0
