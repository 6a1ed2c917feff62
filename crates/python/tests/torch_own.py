"""PyTorch's own event tests, with ``fencepost.cuda.Event`` assigned over ``torch.cuda.Event``.

    python tests/torch_own.py PYTORCH/test [--list] [--only TEXT] [--timeout SECONDS]

In the tests of ``torch.accelerator``, ``fencepost.Event`` is assigned over ``torch.Event``, the
class for events of any device.

Takes the ``test`` folder of a PyTorch checkout, preferably of the installed version, and runs each
test in it that uses CUDA events: its code, or that of a helper it calls, names ``torch.cuda.Event``
or a method for events. Needs a CUDA device, ``fencepost``, and the packages that PyTorch's test
utilities need: ``numpy`` and ``expecttest``. Some tests need two devices.

Each test runs in its own process. The files are not changed. A copy of each is made in a temporary
folder:

- with the assignment in front, so that processes which the tests start have it too;
- without the tests that do not use events;
- without imports that the installed version no longer has.

A test that fails runs again with PyTorch's own class. If it fails there too, it says nothing about
this class.

Prints a line for each test:

- ``passed``
- ``skipped``, with the test's own reason
- ``cannot``: only a class of PyTorch's C++ can pass it; the reason is in ``CANNOT``
- ``not ours``: it fails with PyTorch's own class too
- ``FAILED``, with the end of its output; the exit code is then 1
"""

import argparse
import ast
import collections
import fnmatch
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

FILES = [
    "test_cuda.py",
    "test_cuda_multigpu.py",
    "test_cuda_trace.py",
    "test_cuda_sanitizer.py",
    "test_multiprocessing.py",
    "test_accelerator.py",
    "jit/test_cuda.py",
    "dynamo/test_ctx_manager.py",
    "dynamo/test_streams.py",
]

EVENTS = re.compile(
    r"cuda\.Event\b|streams\.Event\b|torch\.Event\b|_CudaEventBase"
    r"|\brecord_event\b|\bwait_event\b|\bwait_stream\b|\belapsed_time\b"
)

SUBCLASS = (
    "needs a subclass of torch.Event: PyTorch's C++ reads such an object's fields at their places "
    "in memory"
)
TRACE = (
    "counts the calls of PyTorch's trace hooks, which PyTorch's C++ makes for its own events only"
)
SCRIPT = "TorchScript compiles torch.cuda.Event to the C++ class that it knows by this name"
DYNAMO = "Dynamo traces only events that are instances of torch.Event"

# Tests that no class outside of PyTorch can pass, and why. They run nevertheless.
CANNOT = {
    "test_cuda.*.test_generic_stream_event": SUBCLASS,
    "test_cuda_trace.*": TRACE,
    "test_cuda_sanitizer.*": TRACE,
    "jit/test_cuda.*": SCRIPT,
    "dynamo/*": DYNAMO,
}

SWITCH = "FENCEPOST_OVER_TORCH"

# The begin of each copy. PyTorch's code looks the class up in these two places.
PRELUDE = f"""
import os as _os
import torch as _torch
if _os.environ.get({SWITCH!r}) == "1":
    import fencepost.cuda as _cuda
    _torch.cuda.Event = _torch.cuda.streams.Event = _cuda.Event
"""

# Where the class for all devices is tested. Elsewhere PyTorch's own is used beside that of CUDA,
# and is its base. Without a device, and without an index, it means the current one.
GENERIC = ["test_accelerator.py"]
GENERIC_PRELUDE = f"""
if _os.environ.get({SWITCH!r}) == "1":
    import fencepost as _fencepost

    class _Event(_fencepost.Event):
        def __new__(cls, device=None, **flags):
            if device is None or str(device) == "cuda":
                device = f"cuda:{{_torch.cuda.current_device()}}"
            return super().__new__(cls, device, **flags)

    _torch.Event = _Event
"""

# PyTorch's utilities make several tests of one (``several``), for each device or parameter. All of
# them run.
Test = collections.namedtuple("Test", "file cls name several")
MAKE_SEVERAL = {"instantiate_device_type_tests", "parametrize", "optims", "dtypes", "ops"}


def title(test):
    return f"{test.file.removesuffix('.py')}.{test.cls}.{test.name}"


def is_function(node):
    return isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))


def is_test(node):
    return is_function(node) and node.name.startswith("test")


def names_in(node):
    """Return each name that a piece of code mentions, attributes included."""
    found = set()
    for inner in ast.walk(node):
        if isinstance(inner, ast.Name):
            found.add(inner.id)
        elif isinstance(inner, ast.Attribute):
            found.add(inner.attr)
    return found


def using_events(tree, source):
    """Return the tests that use events, by themselves or through helpers of their file."""
    functions = [node for node in tree.body if is_function(node)]
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    methods = [(cls, node) for cls in classes for node in cls.body if is_function(node)]
    everything = functions + [node for _, node in methods]
    uses = {node for node in everything if EVENTS.search(ast.get_source_segment(source, node))}
    while True:
        helpers = {node.name for node in uses if not is_test(node)}
        more = {node for node in everything if node not in uses and names_in(node) & helpers}
        if not more:
            break
        uses |= more
    calls = [
        node.value
        for node in tree.body
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
    ]
    made = set().union(*(names_in(call) for call in calls if names_in(call.func) & MAKE_SEVERAL))
    chosen = []
    for cls, node in methods:
        if node in uses and is_test(node):
            decorators = set().union(*map(names_in, node.decorator_list))
            chosen.append(
                (cls.name, node.name, cls.name in made or bool(decorators & MAKE_SEVERAL))
            )
    return chosen


def attempt(node):
    """Let a statement fail: the installed version may lack what it imports."""
    handler = ast.ExceptHandler(
        type=ast.Name("Exception", ast.Load()), name=None, body=[ast.Pass()]
    )
    return ast.Try(body=[node], handlers=[handler], orelse=[], finalbody=[])


def pruned(tree, chosen):
    """Return the file's code with the chosen tests only."""
    body = []
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module == "__future__":
            continue
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            for name in node.names:
                # This hook refuses the tests of any other file than the one that was started.
                if name.name == "load_tests":
                    continue
                fields = {"names": [name]}
                if isinstance(node, ast.ImportFrom):
                    fields |= {"module": node.module, "level": node.level}
                body.append(attempt(type(node)(**fields)))
        elif isinstance(node, ast.ClassDef) and any(cls == node.name for cls, _ in chosen):
            node.body = [
                item for item in node.body if not is_test(item) or (node.name, item.name) in chosen
            ]
            body.append(node)
        else:
            body.append(attempt(node))
    return ast.fix_missing_locations(ast.Module(body=body, type_ignores=[]))


def prepare(folder, copies, files):
    """Write the copies. Return the tests in them, and the files that are missing."""
    tests, missing = [], []
    for file in files:
        path = folder / file
        if not path.is_file():
            missing.append(file)
            continue
        source = path.read_text()
        tree = ast.parse(source)
        chosen = using_events(tree, source)
        tests += [Test(file, *test) for test in chosen]
        copy = copies / file
        copy.parent.mkdir(parents=True, exist_ok=True)
        # Imports from __future__ must come first, in front of the prelude too.
        copy.write_text("from __future__ import annotations\n" * ("annotations" in future(tree)))
        with copy.open("a") as out:
            out.write(PRELUDE + GENERIC_PRELUDE * (file in GENERIC))
            out.write(ast.unparse(pruned(tree, {test[:2] for test in chosen})) + "\n")
    return tests, missing


def future(tree):
    imports = (
        node
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.module == "__future__"
    )
    return [name.name for node in imports for name in node.names]


def run(test, copies, ours, timeout):
    """Run one test. Return its exit code, None if it took too long, and its output."""
    copy = copies / test.file
    env = {**os.environ, SWITCH: str(int(ours))}
    env["PYTHONPATH"] = os.pathsep.join(filter(None, [str(copy.parent), env.get("PYTHONPATH")]))
    command = [sys.executable, "-m", "unittest", "-v"]
    if test.several:
        command += ["-k", f"{copy.stem}.{test.cls}*.{test.name}_*", copy.stem]
    else:
        command.append(f"{copy.stem}.{test.cls}.{test.name}")
    try:
        done = subprocess.run(
            command, env=env, cwd=copy.parent, capture_output=True, text=True, timeout=timeout
        )
    except subprocess.TimeoutExpired as late:
        output = late.stderr or b""
        return None, output.decode(errors="replace") if isinstance(output, bytes) else output
    return done.returncode, done.stdout + done.stderr


def reason_not_to(test):
    for pattern, reason in CANNOT.items():
        if fnmatch.fnmatchcase(title(test), pattern):
            return reason
    return None


def verdict(test, copies, timeout):
    """Run one test. Return the result, and why."""
    code, output = run(test, copies, ours=True, timeout=timeout)
    if code == 0:
        ran = re.search(r"^Ran (\d+) test", output, re.MULTILINE)
        skipped = re.findall(r"\.\.\. skipped (['\"])(.*)\1", output)
        if not ran or ran[1] == "0":
            return "not ours", "the loaded file does not have it"
        if len(skipped) == int(ran[1]):
            return "skipped", skipped[0][1]
        return "passed", f"{ran[1]} of this name" if test.several else ""
    if run(test, copies, ours=False, timeout=timeout)[0] != 0:
        return "not ours", last_line(output)
    reason = reason_not_to(test)
    if reason:
        return "cannot", f"{reason} [{last_line(output)}]"
    return "FAILED", f"{'took too long: ' if code is None else ''}{output[-3000:]}"


def last_line(output):
    """Return the line that names the exception."""
    lines = [
        line
        for line in output.splitlines()
        if re.match(r"[\w.]+(Error|Exception|Unsupported|Failure)\b", line)
    ]
    return lines[-1][:200] if lines else "no exception in the output"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="PyTorch's folder 'test'")
    parser.add_argument(
        "--list", action="store_true", help="list the tests, and run none; needs no PyTorch"
    )
    parser.add_argument(
        "--only", default="", metavar="TEXT", help="only the tests with this in their names"
    )
    parser.add_argument(
        "--timeout", type=float, default=120.0, metavar="SECONDS", help="for each test"
    )
    options = parser.parse_args()
    copies = Path(tempfile.mkdtemp(prefix="torch-own-"))
    try:
        tests, missing = prepare(options.folder, copies, FILES)
        tests = [test for test in tests if options.only in title(test)]
        counts = collections.Counter()
        for test in tests:
            if options.list:
                print(
                    title(test), f"(cannot: {reason_not_to(test)})" if reason_not_to(test) else ""
                )
                continue
            what, why = verdict(test, copies, options.timeout)
            counts[what] += 1
            print(f"{what:8} {title(test)}{': ' if why else ''}{why}", flush=True)
        for file in missing:
            print(f"not there: {file}")
        if not tests:
            print(f"no tests of events in {options.folder}", file=sys.stderr)
            return 2
        print(
            ", ".join(f"{count} {what}" for what, count in counts.items()) or f"{len(tests)} tests"
        )
        return int(counts["FAILED"] > 0)
    finally:
        shutil.rmtree(copies, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
