"""``fencepost watch``, as the package brings it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import fencepost
from conftest import PATIENCE

HERE = Path(__file__).parent
LIBRARY = Path(fencepost.__file__).with_name("lib") / "libfencepost_watch.so"

pytestmark = pytest.mark.skipif(
    not LIBRARY.exists(), reason="this package was built without what watches: see xtask wheel"
)


def watch(*program, **env):
    own = {name: value for name, value in os.environ.items() if name != "FENCEPOST_WATCH_LIBRARY"}
    return subprocess.run(
        [sys.executable, "-m", "fencepost", "watch", "--", *program],
        capture_output=True,
        text=True,
        env={**own, **env},
        timeout=PATIENCE * 2,
    )


def test_a_program_is_run():
    done = watch("sh", "-c", "exit 5")
    assert done.returncode == 5
    assert done.stderr == "fencepost watch: no process was seen to use CUDA or Vulkan\n"


@pytest.mark.cuda
def test_a_program_that_uses_cuda_is_watched():
    driver = os.environ.get("FENCEPOST_CUDA_LIBRARY")
    if not driver:
        pytest.skip("on the stand-in for the driver, which has CUPTI's functions, alone")
    lines = [
        "import ctypes, os",
        "cuda = ctypes.CDLL(os.environ['FENCEPOST_CUDA_LIBRARY'])",
        "context, stream = ctypes.c_size_t(), ctypes.c_size_t()",
        "assert cuda.cuInit(0) == 0",
        "cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0)",
        "cuda.cuCtxSetCurrent(context)",
        "assert cuda.cuStreamCreate(ctypes.byref(stream), 1) == 0",
        "assert cuda.cuStreamSynchronize(stream) == 0",
    ]
    done = watch(sys.executable, "-c", "; ".join(lines), FENCEPOST_CUPTI_LIBRARY=driver)
    assert done.returncode == 0, done.stderr
    assert "fencepost watch: nothing was stuck, in " in done.stderr
