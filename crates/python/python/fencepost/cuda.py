"""CUDA events on the streams of any library: a drop-in for ``torch.cuda.Event``.

``wrap_stream`` gives a stream of PyTorch, CuPy, cuda.core, Numba or Warp as a
:class:`fencepost.Stream`.
"""

from fencepost import _C, _asking
from fencepost._C import _CudaEvent as Event
from fencepost._C import wrap_stream

__all__ = ["Event", "device_count", "is_available", "wrap_stream"]


def device_count() -> int:
    """Return how many CUDA devices there are: 0 without NVIDIA's driver.

    Processes forked later can still use CUDA: NVIDIA's management library (NVML) is asked, or,
    where that cannot tell, another process.
    """
    count = _C._cuda_count()
    if count is None:
        return sum(name.startswith("cuda:") for name in _asking.names())
    return count


def is_available() -> bool:
    """Return whether there is a CUDA device. As ``device_count``, it initialises no driver here."""
    return device_count() > 0
