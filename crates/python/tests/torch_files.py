"""PyTorch 2.15's own ``torch/mps/event.py`` and ``streams.py``, on ``fencepost._C``.

Nothing of PyTorch is in this repository. The two files are taken out of PyTorch's wheel for macOS,
which pip downloads from the index once, into Cargo's target folder.
"""

import os
import subprocess
import sys
import tempfile
import types
import zipfile
from pathlib import Path

import pytest

from fencepost import _C

VERSION = "2.15.0"
FILES = ("event", "streams")
PUBLIC = ("Event", "Stream", "stream", "current_stream", "default_stream", "set_stream")
ROOT = Path(__file__).resolve().parents[3]

# pip takes seconds; only a network that does not answer takes this long.
LIMIT = 600.0


def folder():
    """Return where the two files are; skip the test where they cannot be had."""
    target = Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target")
    kept = target / f"torch-{VERSION}-mps"
    if not all((kept / f"{name}.py").is_file() for name in FILES):
        download(kept)
    return kept


def download(into):
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-cache-dir"]
    command += ["--platform", "macosx_14_0_arm64", "--python-version", "3.12"]
    command += ["--only-binary", ":all:", f"torch=={VERSION}"]
    with tempfile.TemporaryDirectory() as wheels:
        try:
            done = subprocess.run(
                [*command, "--dest", wheels], capture_output=True, text=True, timeout=LIMIT
            )
        except subprocess.TimeoutExpired:
            pytest.skip(f"pip does not get torch {VERSION} for macOS: no answer")
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no reason"])[-1]
            pytest.skip(f"pip does not get torch {VERSION} for macOS: {last}")
        (wheel,) = Path(wheels).glob("*.whl")
        into.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(wheel) as archive:
            for name in FILES:
                (into / f"{name}.py").write_bytes(archive.read(f"torch/mps/{name}.py"))


def load(monkeypatch):
    """Make a module ``torch`` of the two files and ``fencepost._C``, and return it."""
    if sys.version_info < (3, 10):
        pytest.skip(f"torch {VERSION} needs CPython 3.10")
    kept = folder()
    torch, utils, mps = (types.ModuleType(name) for name in ("torch", "torch._utils", "torch.mps"))
    torch.__file__ = "/nowhere/torch/__init__.py"
    torch._C, torch._utils, torch.mps = _C, utils, mps
    utils._dummy_type = None  # for builds without MPS
    for module in (torch, utils, mps):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    for name in FILES:
        file = kept / f"{name}.py"
        module = types.ModuleType(f"torch.mps.{name}")
        exec(compile(file.read_text(), str(file), "exec"), module.__dict__)
        vars(mps).update({name: vars(module)[name] for name in PUBLIC if name in vars(module)})
    return torch
