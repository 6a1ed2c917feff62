"""Which devices there are, asked so that processes forked later can use all of them.

A driver that is initialised in this process is lost to the processes forked from it. So the devices
are listed by a process of its own: a Python that loads the native module alone, lists, and ends.
"""

import json
import os
import subprocess
import sys
from typing import Optional

from fencepost import _C
from fencepost._C import Device

# A driver that takes longer hangs.
PATIENCE = 60.0

# Set for the process that lists. Where Python is embedded, ``sys.executable`` may be the program
# itself: it runs again, asks again, and must not start a third one.
LISTING = "FENCEPOST_LISTING"

# By its file: a folder in `sys.path` might bring modules in place of those of the standard library.
LIST = """
import importlib.util, json, sys
spec = importlib.util.spec_from_file_location("fencepost._C", sys.argv[1])
native = importlib.util.module_from_spec(spec)
spec.loader.exec_module(native)
print(json.dumps([device.name for device in native._devices()]))
"""

# The names by what was visible when they were listed.
_names: dict[Optional[str], list[str]] = {}


def devices() -> list[Device]:
    """Return the devices of this machine, the preferred one first. None of them is opened.

    Another process asks the drivers, so that processes forked from this one can still use them.
    Where no process can be started for that, this one asks.
    """
    return _C._devices(_listed())


def _listed() -> Optional[list[str]]:
    """Return the names that another process lists; None where none can be started for that."""
    if not sys.executable or getattr(sys, "frozen", False) or LISTING in os.environ:
        return None
    command = [sys.executable, "-I", "-c", LIST, _C.__file__]
    try:
        done = subprocess.run(
            command,
            env={**os.environ, LISTING: "1"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=PATIENCE,
            check=False,
        )
    except OSError:
        return None
    except subprocess.TimeoutExpired:
        message = f"listing the devices took longer than {PATIENCE:.0f} s; a driver hangs"
        raise RuntimeError(message) from None
    if done.returncode < 0:
        # It would end this process too.
        message = f"listing the devices ended by signal {-done.returncode}: a driver crashed"
        raise RuntimeError(message)
    try:
        # A driver may have written lines of its own before.
        names = json.loads(done.stdout.splitlines()[-1])
        return [str(name) for name in names]
    except (IndexError, TypeError, ValueError):
        # `sys.executable` is the program that Python is embedded in.
        return None


def names() -> list[str]:
    """Return the names of the devices, listed once for each value of ``CUDA_VISIBLE_DEVICES``."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible not in _names:
        _names[visible] = [device.name for device in devices()]
    return _names[visible]
