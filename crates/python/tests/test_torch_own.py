"""The runner of PyTorch's own tests, on made-up tests and a made-up PyTorch, without a GPU."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import PATIENCE

RUNNER = Path(__file__).with_name("torch_own.py")

TORCH = {
    "__init__.py": """
from . import cuda
class Event:
    def __init__(self, device=None, *, enable_timing=False): pass
    def elapsed_time(self, end): raise ValueError("created with argument 'enable_timing=True'")
""",
    "cuda/__init__.py": "from .streams import Event\ndef current_device(): return 0",
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


ACCELERATOR = """
import unittest
import torch

class TestAccelerator(unittest.TestCase):
    def test_of_nothing(self): raise SystemError("it uses no events, and must be left out")
    def test_generic_event_behavior(self):
        events = [torch.Event(), torch.Event("cuda", enable_timing=False)]
        with self.assertRaisesRegex(ValueError, "created with argument 'enable_timing=True'"):
            events[0].elapsed_time(events[1])
    def test_whose(self):
        event = torch.Event("cuda:0", enable_timing=True)
        self.assertTrue(event.query())
        self.assertIn("fencepost.Event of cuda:0", repr(event))
    def test_that_we_fail(self): self.assertEqual(type(torch.Event()).__name__, "Event")
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Run the runner on a folder with these files. Return its exit code, results and output."""
    for name, text in TORCH.items():
        path = tmp_path / "site/torch" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"), prepend=os.pathsep)
    tests = tmp_path / "test"
    tests.mkdir()

    def run(files):
        for name, text in files.items():
            (tests / name).write_text(text)
        done = subprocess.run(
            [sys.executable, RUNNER, tests], capture_output=True, text=True, timeout=PATIENCE
        )
        became = {}
        for line in done.stdout.splitlines():
            for what in ("passed", "skipped", "cannot", "not ours", "FAILED"):
                if line.startswith(f"{what:8} test_"):
                    name, _, why = line[9:].partition(": ")
                    became[name.rpartition(".")[2]] = (what, why)
        return done, became

    return run


def what_became(became):
    return {name: what for name, (what, _) in became.items()}


def test_it_tells_what_fails_from_what_cannot_pass(own):
    done, became = own({"test_cuda.py": TESTS})
    assert done.returncode == 1, done.stderr
    assert what_became(became) == {
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


@pytest.mark.cuda
def test_the_generic_class_is_assigned_where_that_is_tested(own, cuda):
    done, became = own({"test_accelerator.py": ACCELERATOR})
    assert what_became(became) == {
        "test_generic_event_behavior": "passed",
        "test_whose": "passed",
        "test_that_we_fail": "FAILED",
    }, done.stdout


def test_a_folder_without_tests_is_an_error(own):
    done, became = own({})
    assert (done.returncode, became) == (2, {})
    assert "no tests of events in" in done.stderr
    assert "not there: test_cuda.py" in done.stdout
