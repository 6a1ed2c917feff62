"""Fixtures of all tests, and the closing line that ``cargo xtask test`` reads."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import fencepost
from fencepost import _C

# These need stand-ins, which a separate step of ``cargo xtask test`` builds.
ON_STAND_INS = ["test_torch_mps.py", "test_torch_mps_streams.py"]
collect_ignore = [] if os.environ.get("FENCEPOST_TORCH_LIBRARY") else [*ON_STAND_INS]
# Another step has pyopencl and a driver of OpenCL.
if not os.environ.get("FENCEPOST_TEST_OPENCL"):
    collect_ignore.append("test_opencl.py")

# Only a hang takes longer, whatever else the machine does. A program that a test runs in a child
# process may name it too: see ``child``.
PATIENCE = 120.0

# These tests hold streams back. On Vulkan streams may share one queue, where a stream that is held
# holds the others too.
if not fencepost.cuda.is_available():
    os.environ.setdefault("FENCEPOST_DEVICE", "host")


@pytest.fixture
def host():
    return fencepost.Device("host")


@pytest.fixture
def cuda():
    """The first CUDA device, or that of the stand-in for the driver."""
    if not fencepost.cuda.is_available():
        pytest.skip("no CUDA device; FENCEPOST_CUDA_LIBRARY may name the stand-in for the driver")
    return fencepost.Device("cuda:0")


@pytest.fixture(params=["host", "cuda:0"])
def name(request):
    """The name of each device that the generic classes are tested on."""
    if request.param != "host":
        request.getfixturevalue("cuda")
    return request.param


@pytest.fixture
def device(name):
    """Each device that the generic classes are tested on."""
    return fencepost.Device(name)


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
    """Run a program in a new Python process, with the value of ``PATIENCE`` where it has that."""

    def run(program, *, check=True, **env):
        done = subprocess.run(
            [sys.executable, "-c", program.replace("PATIENCE", str(PATIENCE))],
            capture_output=True,
            text=True,
            # Longer than what the program may wait for.
            timeout=PATIENCE * 2,
            env={**os.environ, **env},
        )
        if check:
            assert done.returncode == 0, (done.returncode, done.stdout, done.stderr)
        return done

    return run


def at_once(work, threads=8):
    """Run ``work(number)`` on this many threads, which begin together."""
    start, failures = threading.Barrier(threads), []

    def run(number):
        try:
            start.wait(PATIENCE)
            work(number)
        except BaseException as error:
            failures.append(error)

    running = [threading.Thread(target=run, args=(number,)) for number in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join(PATIENCE * 3)
    assert not any(thread.is_alive() for thread in running)
    assert failures == []


def pytest_terminal_summary(terminalreporter):
    """Print what was skipped and why, and the totals, for the summary of all test steps."""
    stats = terminalreporter.stats

    def count(*names):
        return sum(len(stats.get(name, [])) for name in names)

    for report in stats.get("skipped", []):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        name = report.nodeid.split("::")[-1] or Path(str(report.fspath)).stem
        terminalreporter.write_line(
            f"SKIPPED: {Path(name).stem}: {reason.removeprefix('Skipped: ')}"
        )
    failed = count("failed", "error")
    terminalreporter.write_line(
        f"{count('passed')} passed, {failed} failed, {count('skipped')} skipped"
    )
