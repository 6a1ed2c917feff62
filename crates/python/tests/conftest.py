"""What all tests share, and the closing line that ``cargo xtask test`` reads."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import fencepost
from fencepost import _C

# They need stand-ins that a step of their own builds: see xtask.
collect_ignore = [] if os.environ.get("FENCEPOST_TORCH_LIBRARY") else ["test_torch_mps.py"]

# Passing this means a hang.
PATIENCE = 20.0

# Streams of a Vulkan device may share one queue, where a stream that is held holds the others: not for these tests.
if not fencepost.cuda.is_available():
    os.environ.setdefault("FENCEPOST_DEVICE", "host")


@pytest.fixture
def host():
    return fencepost.Device("host")


@pytest.fixture
def cuda():
    """The first CUDA device; the stand-in for the driver serves as well."""
    if not fencepost.cuda.is_available():
        pytest.skip("no CUDA device; FENCEPOST_CUDA_LIBRARY may name the stand-in for the driver")
    return fencepost.Device("cuda:0")


@pytest.fixture(params=["host", "cuda:0"])
def device(request):
    """Each device that the generic classes are tried on."""
    if request.param != "host" and not fencepost.cuda.is_available():
        pytest.skip("no CUDA device; FENCEPOST_CUDA_LIBRARY may name the stand-in for the driver")
    return fencepost.Device(request.param)


@pytest.fixture
def gate():
    """Hold a stream until the gate is opened, or the test ends."""
    gates = []

    def hold(stream):
        gates.append(_C._Gate(stream))
        return gates[-1]

    yield hold
    for held in gates:
        held.open()


@pytest.fixture
def child():
    """Run a program in a Python of its own."""

    def run(program, *, timeout=60.0, check=True, **env):
        done = subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            text=True,
            timeout=timeout,
            env={**os.environ, **env},
        )
        if check:
            assert done.returncode == 0, (done.returncode, done.stdout, done.stderr)
        return done

    return run


def pytest_terminal_summary(terminalreporter):
    """Say what was skipped and why, and the totals, in the form that the summary of all tests reads."""
    stats = terminalreporter.stats

    def count(*names):
        return sum(len(stats.get(name, [])) for name in names)

    for report in stats.get("skipped", []):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        name = report.nodeid.split("::")[-1] or Path(str(report.fspath)).stem
        terminalreporter.write_line(f"SKIPPED: {Path(name).stem}: {reason.removeprefix('Skipped: ')}")
    failed = count("failed", "error")
    terminalreporter.write_line(f"{count('passed')} passed, {failed} failed, {count('skipped')} skipped")
