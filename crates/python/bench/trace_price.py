"""What a span of ``fencepost.Trace`` costs beside PyTorch's ways to the same, on a real GPU.

    python bench/trace_price.py [--rounds N] [--json FILE]

Each round runs a batch of each side, in alternating order. Between batches the GPU is drained and
the trace collects, which is not measured. Each row shows the medians over the rounds with the 10th
and 90th percentile, the ratio to the first row of its kind, and this project's bound on it. The
exit code is 1 if a bound is missed.
"""

import argparse
import gc
import json
import platform
import statistics
import sys
import time

import torch
from torch.profiler import ProfilerActivity, profile, record_function

import fencepost

# Well below the number of pending spans that a trace admits on CUDA.
BATCH = 200


def span(trace, stream):
    """Make spans of a stream."""
    for _ in range(BATCH):
        with trace.span("step", stream):
            pass


def span_with_attribute(trace, stream):
    """Make spans of a stream with an attribute each."""
    for _ in range(BATCH):
        with trace.span("step", stream, number=3):
            pass


def thread_span(trace, stream):
    """Make spans of the calling thread."""
    for _ in range(BATCH):
        with trace.span("step"):
            pass


def two_events(trace, stream):
    """Make two of PyTorch's events with timing, and record both."""
    make = torch.cuda.Event
    for _ in range(BATCH):
        make(enable_timing=True).record(stream)
        make(enable_timing=True).record(stream)


def function(trace, stream):
    """Name a range for PyTorch's profiler."""
    for _ in range(BATCH):
        with record_function("step"):
            pass


def taken(batch, trace, stream):
    """Return the nanoseconds that each of a batch takes."""
    gc.disable()
    start = time.perf_counter_ns()
    batch(trace, stream)
    took = time.perf_counter_ns() - start
    gc.enable()
    torch.cuda.synchronize()
    summary = trace.summary()
    if summary.dropped or summary.unfinished:
        raise SystemExit(f"the spans were not all recorded: {summary}")
    return took / BATCH


# Name, batch, and the bounds on the ratios to two events and to a named range.
ROWS = [
    ("two torch events with timing", two_events, None, None),
    ("record_function, profiler on", function, None, None),
    ("span of a stream", span, 0.3, 0.15),
    ("span of a stream, an attribute", span_with_attribute, None, None),
    ("span of the thread", thread_span, None, None),
]


def measure(rounds):
    """Return the nanoseconds of each row, as a list over the rounds."""
    stream, trace = torch.cuda.Stream(), fencepost.Trace(capacity=10 * BATCH)
    times = {name: [] for name, *_ in ROWS}
    for turn in range(rounds + 3):
        for name, batch, *_ in ROWS if turn % 2 else reversed(ROWS):
            if batch is function:
                with profile(activities=[ProfilerActivity.CPU]):
                    took = taken(batch, trace, stream)
            else:
                # A new trace, so that the count of dropped ones is of this batch.
                trace = fencepost.Trace(capacity=10 * BATCH)
                batch(trace, stream)
                torch.cuda.synchronize()
                trace.summary()
                took = taken(batch, trace, stream)
            # The first rounds warm up.
            if turn >= 3:
                times[name].append(took)
    return times


def spread(values):
    """Return the median and the 10th and 90th percentile."""
    deciles = statistics.quantiles(values, n=10)
    return statistics.median(values), deciles[0], deciles[-1]


def main():
    """Measure every row and print it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--json", help="also write the results to this file")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("this needs PyTorch with a CUDA device", file=sys.stderr)
        return 2
    torch.cuda.init()
    print(
        f"{torch.cuda.get_device_name()}, torch {torch.__version__}, "
        f"CPython {platform.python_version()}, fencepost {fencepost.__version__}, "
        f"{options.rounds} rounds of {BATCH}; ns each"
    )
    times = {name: spread(values) for name, values in measure(options.rounds).items()}
    events, ranges = (times[name][0] for name, *_ in ROWS[:2])
    missed = 0
    for name, _, *bounds in ROWS:
        median, low, high = times[name]
        ratios = (median / events, median / ranges)
        kept = all(bound is None or r <= bound for r, bound in zip(ratios, bounds))
        missed += not kept
        shown = " ".join(
            f"{ratio:6.2f} {f'(at most {bound})' if bound else '':14}"
            for ratio, bound in zip(ratios, bounds)
        )
        print(f"{name:32} {median:7.0f} ({low:.0f}..{high:.0f}) {shown} {'' if kept else 'MISSED'}")
    if options.json:
        with open(options.json, "w") as file:
            json.dump(times, file, indent=1)
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
