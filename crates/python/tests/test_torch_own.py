"""The runner of PyTorch's own tests, on made-up tests and a made-up PyTorch, without a GPU."""

import os
import subprocess
import sys
from pathlib import Path

from conftest import PATIENCE

RUNNER = Path(__file__).with_name("torch_own.py")

TORCH = {
    "__init__.py": "from . import cuda",
    "cuda/__init__.py": "from .streams import Event",
    "cuda/streams.py": """
class Event:
    def __repr__(self): return "torch's"
    def query(self): return True
""",
}

TESTS = """
import multiprocessing, unittest
import torch
from torch.testing import gone, and_gone
from multiprocessing import get_context

def in_a_child(queue):
    queue.put(repr(torch.cuda.Event()))

def helper():
    return torch.cuda.Event()

@gone
def not_needed(): pass

class TestCuda(unittest.TestCase):
    def test_of_nothing(self): raise SystemError("it uses no events, and must be left out")
    def test_that_holds(self): self.assertIn("torch.cuda.Event", repr(helper()))
    def test_that_is_skipped(self): raise unittest.SkipTest("no " + torch.cuda.Event.__name__)
    def test_generic_stream_event(self): self.assertEqual(repr(torch.cuda.Event()), "torch's")
    def test_that_we_fail(self): self.assertEqual(repr(torch.cuda.streams.Event()), "torch's")
    def test_that_all_fail(self): torch.cuda.Event().nothing()
    def test_in_a_child(self):
        context = get_context("spawn")
        queue = context.SimpleQueue()
        child = context.Process(target=in_a_child, args=(queue,))
        child.start()
        self.assertIn("torch.cuda.Event", queue.get())
        child.join()
"""


def test_it_tells_what_fails_from_what_cannot_pass(tmp_path, monkeypatch):
    for name, text in TORCH.items():
        path = tmp_path / "site/torch" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "test").mkdir()
    (tmp_path / "test/test_cuda.py").write_text(TESTS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"), prepend=os.pathsep)
    done = subprocess.run(
        [sys.executable, RUNNER, tmp_path / "test"],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    became = {}
    for line in done.stdout.splitlines():
        for what in ("passed", "skipped", "cannot", "not ours", "FAILED"):
            if line.startswith(f"{what:8} test_cuda.TestCuda."):
                name, _, why = line[9:].partition(": ")
                became[name.rpartition(".")[2]] = (what, why)
    assert done.returncode == 1, done.stderr
    assert {name: what for name, (what, _) in became.items()} == {
        "test_that_holds": "passed",
        "test_that_is_skipped": "skipped",
        "test_generic_stream_event": "cannot",
        "test_that_we_fail": "FAILED",
        "test_that_all_fail": "not ours",
        "test_in_a_child": "passed",
    }
    assert became["test_that_is_skipped"][1] == "no Event"
    assert "subclass of torch.Event" in became["test_generic_stream_event"][1]
    assert "not there: test_cuda_trace.py" in done.stdout
