"""The cost of each call beside that of ``torch.cuda.Event``, on a real GPU, in one run.

    python bench/torch_floors.py [--rounds N] [--json FILE]

Each round runs a batch of calls of each class, in alternating order. Between batches the GPU is
drained, which is not measured. Each row shows the medians over the rounds with the 10th and 90th
percentile, their ratio, and this project's goal for the ratio.

With a wheel for tests (feature ``testing``) it also shows what no such call can do without, and
that in parts of torch's time. Made in a loop in C: CUDA's driver, with one release of the
interpreter's lock where the driver may block; PyTorch's own answer which stream is current; the
making of the smallest object. And made in a loop in Python: the call of a method that does nothing.
A goal below that is ``below the bare call``: no package meets it.

A goal is ``MISSED`` if nine of ten rounds miss it, and ``near`` if fewer do. The exit code is 1 if
a goal that is not below the bare call is missed.
"""

import argparse
import gc
import json
import platform
import statistics
import sys
import time
from typing import Callable, NamedTuple, Optional

import torch

import fencepost
from fencepost import _C

BATCH = 400


def record(module, event, stream):
    """Record one event again and again on a given stream."""
    for _ in range(BATCH):
        event.record(stream)


def record_current(module, event, stream):
    """Record without a stream, so that the current one has to be found."""
    for _ in range(BATCH):
        event.record()


def elapsed(module, event, stream):
    """Take the time between two complete events."""
    other = PAIR[module]
    for _ in range(BATCH):
        event.elapsed_time(other)


def wait(module, event, stream):
    """Wait for a complete event on a given stream."""
    for _ in range(BATCH):
        event.wait(stream)


def query(module, event, stream):
    """Query an event."""
    for _ in range(BATCH):
        event.query()


def create(module, event, stream):
    """Make an event and drop it."""
    make = module.Event
    for _ in range(BATCH):
        make()


def life(module, event, stream):
    """Make an event, record it, drop it."""
    make = module.Event
    for _ in range(BATCH):
        make().record(stream)


def timed_life(module, event, stream):
    """Make an event with timing, record it, drop it."""
    make = module.Event
    for _ in range(BATCH):
        make(enable_timing=True).record(stream)


def record_two(module, event, stream):
    """Record on two streams in turn, so that each record is on another stream than the last."""
    other = OTHER
    for _ in range(BATCH // 2):
        event.record(stream)
        event.record(other)


class Row(NamedTuple):
    """A call that is measured."""

    name: str
    batch: Callable
    timing: bool = False
    goal: Optional[float] = None
    bare: Optional[str] = None
    pending: bool = False


ROWS = [
    Row("record(stream)", record, goal=0.4, bare="record"),
    Row("record(stream), timing", record, timing=True, goal=0.62, bare="record timed"),
    Row("record()", record_current, goal=0.07, bare="record current"),
    Row("record(), timing", record_current, timing=True, bare="record current timed"),
    Row("record on two streams in turn", record_two, goal=0.36, bare="record in turn"),
    Row("query(), complete", query, goal=0.4),
    Row("query(), pending", query, goal=0.5, bare="query released", pending=True),
    Row("elapsed_time(), complete", elapsed, timing=True, goal=0.3, bare="elapsed"),
    Row("wait(stream), complete", wait),
    Row("Event()", create, goal=0.25),
    Row("Event().record(stream), drop", life, goal=0.17, bare="life"),
    Row(
        "Event(timing).record(stream), drop", timed_life, timing=True, goal=0.36, bare="life timed"
    ),
]
# How many nanoseconds `record(stream)` may take over the bare call with one release.
OVER_BARE = 40

OTHER = None
# By module: an event that is complete, to take times to.
PAIR = {}


def measure(row, rounds):
    """Return the nanoseconds per call of each side, as a list over the rounds."""
    timing = row.timing
    stream = torch.cuda.Stream()
    sides = {"fencepost": fencepost.cuda, "torch": torch.cuda}
    events = {name: module.Event(enable_timing=timing) for name, module in sides.items()}
    times = {name: [] for name in sides}
    for turn in range(rounds + 3):
        names = list(sides) if turn % 2 else list(reversed(sides))
        for name in names:
            event = events[name]
            event.record(stream)
            if timing:
                PAIR[sides[name]] = sides[name].Event(enable_timing=True)
                PAIR[sides[name]].record(stream)
            torch.cuda.synchronize()
            event.query()
            if timing:
                PAIR[sides[name]].query()
            if row.pending:
                with torch.cuda.stream(stream):
                    torch.cuda._sleep(20_000_000)
                event.record(stream)
            gc.disable()
            with torch.cuda.stream(stream):
                start = time.perf_counter_ns()
                row.batch(sides[name], event, stream)
                taken = time.perf_counter_ns() - start
            gc.enable()
            if row.pending and event.query():
                raise SystemExit("the GPU was done before the measurement")
            torch.cuda.synchronize()
            # The first rounds warm up.
            if turn >= 3:
                times[name].append(taken / BATCH)
    return times


def floor_of(call, rounds):
    """Return the nanoseconds of a bare call, made from Python; None where there is none to show."""
    made = bare(call, rounds)
    return None if made is None else made + statistics.median(nothing() for _ in range(rounds))


def bare(call, rounds):
    """Return the nanoseconds of a bare call, made in C; None where there is none to show."""
    if call is None or not hasattr(_C, "_bare_call"):
        return None
    stream, times = torch.cuda.Stream(), []
    for _ in range(rounds):
        torch.cuda.synchronize()
        with torch.cuda.stream(stream):
            if call.startswith("query"):
                torch.cuda._sleep(20_000_000)
            times.append(_C._bare_call(call, stream.cuda_stream, BATCH, OTHER.cuda_stream))
    torch.cuda.synchronize()
    return statistics.median(times)


def spread(values):
    """Return the median and the 10th and 90th percentile."""
    deciles = statistics.quantiles(values, n=10)
    return statistics.median(values), deciles[0], deciles[-1]


def verdict(goal, ratio, ratios, floor):
    """Say how the ratio is to the goal, given that of each round and that of the bare call."""
    if goal is None:
        return ""
    if ratio <= goal:
        return "met"
    if floor is not None and floor > goal:
        return "below the bare call"
    return "MISSED" if spread(ratios)[1] > goal else "near"


def show(row, rounds):
    """Measure a row and print it."""
    times = measure(row, rounds)
    ours, theirs = spread(times["fencepost"]), spread(times["torch"])
    ratio = ours[0] / theirs[0]
    ratios = [mine / its for mine, its in zip(times["fencepost"], times["torch"])]
    needed = floor_of(row.bare, rounds)
    floor = None if needed is None else needed / theirs[0]
    said = verdict(row.goal, ratio, ratios, floor)
    shown = [f"{median:7.0f} ({low:.0f}..{high:.0f})" for median, low, high in (ours, theirs)]
    print(
        f"{row.name:36} {shown[0]:>22} {shown[1]:>24} {ratio:6.2f} {row.goal or '':>5} "
        f"{'' if needed is None else round(needed):>6} "
        f"{'' if floor is None else format(floor, '.2f'):>6}  {said}"
    )
    return {
        "name": row.name,
        "fencepost": ours,
        "torch": theirs,
        "ratio": ratio,
        "goal": row.goal,
        "bare": needed,
        "verdict": said,
    }


def nothing():
    """Return the nanoseconds of a call of a method that takes a stream and does nothing."""
    event = _C._Nothing()
    start = time.perf_counter_ns()
    record(None, event, OTHER)
    return (time.perf_counter_ns() - start) / BATCH


def over_bare(ours, rounds):
    """Print what `record(stream)` takes over the bare call; return whether that is too much."""
    needed = bare("record", rounds)
    if needed is None:
        return False
    asked = bare("record asked", rounds)
    called = statistics.median(nothing() for _ in range(rounds))
    over, least = ours[0] - needed, ours[1] - needed
    floor = asked - needed + called
    if over <= OVER_BARE:
        said = "met"
    elif floor > OVER_BARE:
        said = "below what it needs"
    else:
        said = "MISSED" if least > OVER_BARE else "near"
    print(
        f"record(stream) takes {over:.0f} ns over the bare call with one release; the goal is "
        f"{OVER_BARE}: {said}. {asked - needed:.0f} of them are two questions to the driver, and "
        f"{called:.0f} the interpreter's loop and its call of a method that does nothing."
    )
    return said == "MISSED"


def main():
    """Measure every row and print it."""
    global OTHER
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--json", help="also write the results to this file")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("this needs PyTorch with a CUDA device", file=sys.stderr)
        return 2
    torch.cuda.init()
    OTHER = torch.cuda.Stream()
    print(
        f"{torch.cuda.get_device_name()}, torch {torch.__version__}, "
        f"CPython {platform.python_version()}, fencepost {fencepost.__version__}, "
        f"{options.rounds} rounds of {BATCH} calls; ns a call"
    )
    print(
        f"{'':36} {'fencepost':>22} {'torch':>24} {'ratio':>6} {'goal':>5} {'bare':>6} "
        f"{'/torch':>6}"
    )
    results = [show(row, options.rounds) for row in ROWS]
    for call, words in (
        ("release", "a release of the interpreter's lock"),
        ("query", "a query of a pending event, without a release"),
    ):
        nanos = bare(call, options.rounds)
        if nanos is not None:
            print(f"{words} takes {nanos:.0f} ns")
    late = over_bare(results[0]["fencepost"], options.rounds)
    if options.json:
        with open(options.json, "w") as file:
            json.dump(results, file, indent=1)
    return int(late or any(result["verdict"] == "MISSED" for result in results))


if __name__ == "__main__":
    sys.exit(main())
