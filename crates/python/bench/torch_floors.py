"""The cost of each call beside that of ``torch.cuda.Event``, on a real GPU, in one run.

    python bench/torch_floors.py [--rounds N] [--json FILE]

Each round runs a batch of calls of each class, in alternating order. Between batches the GPU is
drained, which is not measured. Each row shows the medians over the rounds with the 10th and 90th
percentile, their ratio, and this project's bound on the ratio. With a wheel for tests (feature
``testing``) it also shows the bare call of CUDA's driver, made in a loop in C, and for ``record``
with one release of the interpreter's lock, which both classes need. Where a bound is less than the
bare call it cannot be kept. The exit code is 1 if a bound is missed.
"""

import argparse
import gc
import json
import platform
import statistics
import sys
import time

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


# Name, batch, whether with timing, the bound on the ratio if there is one, whether the event is
# pending meanwhile, and the bare call.
ROWS = [
    ("record(stream)", record, False, 0.4, False, "record"),
    ("record(stream), timing", record, True, 0.75, False, "record timed"),
    ("record()", record_current, False, 0.1, False, "record"),
    ("record(), timing", record_current, True, None, False, "record timed"),
    ("record on two streams in turn", record_two, False, None, False, "record"),
    ("query(), complete", query, False, 0.4, False, None),
    ("query(), pending", query, False, None, True, "query"),
    ("elapsed_time(), complete", elapsed, True, 0.3, False, "elapsed"),
    ("wait(stream), complete", wait, False, None, False, None),
    ("Event()", create, False, 0.25, False, None),
    ("Event().record(stream), drop", life, False, 0.25, False, None),
    ("Event(timing).record(stream), drop", timed_life, True, 0.45, False, None),
]

OTHER = None
# By module: an event that is complete, to take times to.
PAIR = {}


def measure(batch, timing, pending, rounds):
    """Return the nanoseconds per call of each side, as a list over the rounds."""
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
            if pending:
                with torch.cuda.stream(stream):
                    torch.cuda._sleep(20_000_000)
                event.record(stream)
            gc.disable()
            with torch.cuda.stream(stream):
                start = time.perf_counter_ns()
                batch(sides[name], event, stream)
                taken = time.perf_counter_ns() - start
            gc.enable()
            if pending and event.query():
                raise SystemExit("the GPU was done before the measurement")
            torch.cuda.synchronize()
            # The first rounds warm up.
            if turn >= 3:
                times[name].append(taken / BATCH)
    return times


def bare(call, rounds):
    """Return the nanoseconds of a bare call; None where there is none to show."""
    if call is None or not hasattr(_C, "_bare_call"):
        return None
    stream, times = torch.cuda.Stream(), []
    for _ in range(rounds):
        torch.cuda.synchronize()
        if call == "query":
            with torch.cuda.stream(stream):
                torch.cuda._sleep(20_000_000)
        times.append(_C._bare_call(call, stream.cuda_stream, BATCH))
    torch.cuda.synchronize()
    return statistics.median(times)


def spread(values):
    """Return the median and the 10th and 90th percentile."""
    deciles = statistics.quantiles(values, n=10)
    return statistics.median(values), deciles[0], deciles[-1]


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
    print(f"{'':36} {'fencepost':>22} {'torch':>24} {'ratio':>6} {'bound':>6} {'bare':>6}")
    release = bare("release", options.rounds)
    if release is not None:
        print(f"a release of the interpreter's lock alone: {release:.0f}")
    results, missed = [], 0
    for name, batch, timing, bound, pending, call in ROWS:
        times = measure(batch, timing, pending, options.rounds)
        ours, theirs = spread(times["fencepost"]), spread(times["torch"])
        ratio = ours[0] / theirs[0]
        floor = bare(call, options.rounds)
        kept = bound is None or ratio <= bound
        missed += not kept
        shown = [f"{median:7.0f} ({low:.0f}..{high:.0f})" for median, low, high in (ours, theirs)]
        print(
            f"{name:36} {shown[0]:>22} {shown[1]:>24} {ratio:6.2f} {bound or '':>6} "
            f"{'' if floor is None else round(floor):>6} {'' if kept else 'MISSED'}"
        )
        results.append(
            {
                "name": name,
                "fencepost": ours,
                "torch": theirs,
                "ratio": ratio,
                "bound": bound,
                "bare": floor,
            }
        )
    if options.json:
        with open(options.json, "w") as file:
            json.dump(results, file, indent=1)
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
