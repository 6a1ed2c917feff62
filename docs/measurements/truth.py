#!/usr/bin/env python3
"""What several ways of timing say of the same kernels, beside lengths that are known.

    python docs/measurements/truth.py [--device 0] [--budget 0.2] [--json FILE]

Needs an NVIDIA GPU, PyTorch, and fencepost. Triton, CuPy and torch.profiler's CUPTI are used where
they are there. It prints tables in Markdown, then one line for each check, and exits with 1 if one
failed.

- `spin` kernels run for 2, 5, 20 and 100 µs by the GPU's own clock (`%globaltimer`). Nobody knows
  how long a launch takes on top, but it is the same for all of them: so the differences of their
  times are the differences of their lengths.
- an addition of 16 floats, and multiplications of 64×64 and 4096×4096 matrices by PyTorch.
"""

import argparse
import contextlib
import json
import math
import statistics
import sys
import time

SPIN = r"""
extern "C" __global__ void spin(int ns) {
    unsigned long long begin, now;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(begin));
    do {
        asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now));
    } while (now - begin < ns);
}
"""
SPINS = [2, 5, 20, 100]
LAUNCHES = 100
# One step of the GPU's clock, in microseconds. A spin and its times cannot be told closer.
STEP = 0.032


def main(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--device", type=int, default=0, help="the index of the GPU")
    parser.add_argument("--budget", type=float, default=0.2, help="seconds for fencepost.measure")
    parser.add_argument("--json", metavar="FILE", help="write all figures there too")
    options = parser.parse_args(arguments)

    import torch

    torch.cuda.set_device(options.device)
    # Triton captures graphs on a stream that is not the default one, so all use one such stream.
    with torch.cuda.stream(torch.cuda.Stream()):
        return run(torch, options)


def run(torch, options):
    describe(torch)
    works = kernels(torch)
    table = {name: {} for name in works}
    notes = []
    for name, call in works.items():
        for way, measure in ways(torch, options).items():
            table[name][way] = attempt(lambda: measure(call), notes, f"{name}, {way}")
    show(table)
    costs = {name: attempt(lambda: cost(works[name], options), notes, f"{name}, cost")
             for name in ["add 16", "mm 64", "spin 20"]}
    show_costs(costs)
    graphs = [attempt(lambda: rested_graph(torch, works["mm 4096"]), notes, "mm 4096")
              for _ in range(3)]
    checks = list(check(table, costs, [g for g in graphs if g is not None]))
    for note in notes:
        print(f"note: {note}")
    gap = gap_over_cupti(table)
    if gap is not None:
        print(f"for information: the launch gap of a stream over CUPTI's time is {gap:.3f} µs")
    for passed, text in checks:
        print(f"{'holds' if passed else 'FAILS'}: {text}")
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump({"seconds": table, "costs": costs, "graphs": graphs, "notes": notes,
                       "checks": checks}, file, indent=1)
    return 0 if all(passed for passed, _ in checks) else 1


def describe(torch):
    import fencepost

    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, "
          f"CUDA {torch.version.cuda}, fencepost {fencepost.__version__}")
    for module in ["triton", "cupy"]:
        with contextlib.suppress(ImportError):
            print(f"{module} {__import__(module).__version__}")
    print()


def kernels(torch):
    """What is measured, by name."""
    spin = spin_kernel(torch)
    x = torch.zeros(16, device="cuda")
    small = torch.randn(64, 64, device="cuda")
    large = torch.randn(4096, 4096, device="cuda", dtype=torch.bfloat16)
    small_out, large_out = torch.empty_like(small), torch.empty_like(large)
    works = {f"spin {us}": (lambda us=us: spin(us * 1000)) for us in SPINS}
    works["add 16"] = lambda: x.add_(1.0)
    works["mm 64"] = lambda: torch.mm(small, small, out=small_out)
    works["mm 4096"] = lambda: torch.mm(large, large, out=large_out)
    return works


def spin_kernel(torch):
    """A function that launches the kernel on PyTorch's current stream."""
    if hasattr(torch.cuda, "_compile_kernel"):
        kernel = torch.cuda._compile_kernel(SPIN, "spin")
        return lambda ns: kernel(grid=(1, 1, 1), block=(1, 1, 1), args=(ns,))
    import cupy

    kernel = cupy.RawKernel(SPIN, "spin")

    def launch(ns):
        # The current one each time: Triton captures on a stream of its own.
        with cupy.cuda.ExternalStream(torch.cuda.current_stream().cuda_stream):
            kernel((1,), (1,), (cupy.int32(ns),))

    return launch


def ways(torch, options):
    """Each way of timing: a function from the work to seconds."""
    return {
        "events": lambda call: events(torch, call),
        "torch.utils.benchmark": lambda call: timer(call),
        "do_bench": lambda call: do_bench(call),
        "graph": lambda call: graph(call),
        "cupyx": lambda call: cupyx(torch, call),
        "CUPTI": lambda call: cupti(torch, call),
        "alone": lambda call: measured(call, options).alone,
        "slope": lambda call: measured(call, options).median,
    }


def attempt(what, notes, name):
    try:
        return what()
    except ImportError as error:
        note = f"{error.name} is not installed"
    except Exception as error:  # noqa: BLE001: one way that fails must not hide the others
        note = f"{name}: {type(error).__name__}: {error}"
    if note not in notes:
        notes.append(note)
    return None


def measured(call, options):
    import fencepost

    found = fencepost.measure(call, budget=options.budget)
    if found.notes:
        print(f"({'; '.join(found.notes)})")
    return found


def events(torch, call):
    """A pair of events around each call: what most people write."""
    call()
    torch.cuda.synchronize()
    times = []
    for _ in range(LAUNCHES):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        call()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) / 1e3)
    return statistics.median(times)


def timer(call):
    """The host's clock, over many calls and one synchronize."""
    from torch.utils.benchmark import Timer

    return Timer("call()", globals={"call": call}).blocked_autorange(min_run_time=0.2).median


def do_bench(call):
    from triton.testing import do_bench as bench

    return bench(call, return_mode="median") / 1e3


def graph(call):
    from triton.testing import do_bench_cudagraph as bench

    return bench(call, return_mode="median") / 1e3


def rested_graph(torch, call):
    """A call of a graph that is replayed with pauses, as a held stream has them between batches.

    Replayed without pauses, large kernels take a GPU to its power limit, and its clock down.
    """
    calls, stream = 10, torch.cuda.current_stream()
    recorded = torch.cuda.CUDAGraph()
    with torch.cuda.graph(recorded, stream=stream):
        for _ in range(calls):
            call()
    times = []
    for _ in range(30):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record(stream)
        recorded.replay()
        end.record(stream)
        end.synchronize()
        times.append(start.elapsed_time(end) / 1e3 / calls)
        time.sleep(0.005)
    return statistics.median(times)


def cupyx(torch, call):
    import cupy
    from cupyx.profiler import benchmark

    stream = cupy.cuda.ExternalStream(torch.cuda.current_stream().cuda_stream)
    with stream:
        return float(statistics.median(benchmark(call, n_repeat=LAUNCHES).gpu_times[0]))


def cupti(torch, call):
    """The kernels alone, as the profiler sees them."""
    from torch.profiler import ProfilerActivity, profile

    call()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        for _ in range(LAUNCHES):
            call()
        torch.cuda.synchronize()
    total = sum(event.self_device_time_total for event in profiler.key_averages()
                if event.device_type == torch.autograd.DeviceType.CUDA)
    if total == 0:
        raise RuntimeError("the profiler saw no kernel")
    return total / LAUNCHES / 1e6


def interval(samples):
    """The distribution-free interval of the median of at least 95 %; None if there is none."""
    samples, n, below = sorted(samples), len(samples), 0.0
    for rank in range(n):
        below += math.comb(n, rank) / 2**n
        if below > 0.025:
            return (samples[rank - 1], samples[n - rank]) if rank else None
    return None


def cost(call, options):
    """Seconds that each way takes, warm, and the relative width of its interval."""
    import fencepost
    from triton.testing import do_bench_cudagraph

    found = {}
    for _ in range(2):  # the first round warms both up
        began = time.perf_counter()
        result = fencepost.measure(call, budget=options.budget)
        took = time.perf_counter() - began
        low, high = result.interval or (-math.inf, math.inf)
        found["slope"] = (took, (high - low) / result.median)
        began = time.perf_counter()
        samples = do_bench_cudagraph(call, return_mode="all")
        took = time.perf_counter() - began
        low, high = interval(samples) or (-math.inf, math.inf)
        found["graph"] = (took, (high - low) / statistics.median(samples))
    return found


def for_same_width(found):
    """How long the graph would take for the width of the slope's interval, over the slope's time.

    A width falls with the square root of the time. A graph that is narrower than it need be is
    taken as it is: it has no way to stop early.
    """
    (took, width), (graph_took, graph_width) = found["slope"], found["graph"]
    return graph_took * max(1.0, (graph_width / width) ** 2 if width else 1.0) / took


def show(table):
    columns = list(next(iter(table.values())))
    print("Microseconds a call:\n")
    print("| kernel | " + " | ".join(columns) + " |")
    print("|---" * (len(columns) + 1) + "|")
    for name, row in table.items():
        cells = ["–" if row[c] is None else f"{row[c] * 1e6:.3f}" for c in columns]
        print(f"| {name} | " + " | ".join(cells) + " |")
    print()


def show_costs(costs):
    print("Seconds spent, warm, and the width of the 95 % interval as a share of the median:\n")
    print("| kernel | fencepost.measure | width | do_bench_cudagraph | width |")
    print("|---|---|---|---|---|")
    for name, found in costs.items():
        if found is not None:
            (took, width), (graph_took, graph_width) = found["slope"], found["graph"]
            print(f"| {name} | {took:.3f} | {width:.2%} | {graph_took:.3f} | {graph_width:.2%} |")
    print()


def gap_over_cupti(table):
    """By how many microseconds the slopes of the spins exceed CUPTI's times; None without both."""
    rows = [table[f"spin {us}"] for us in SPINS]
    gaps = [(row["slope"] - row["CUPTI"]) * 1e6 for row in rows
            if row["slope"] is not None and row["CUPTI"] is not None]
    return statistics.median(gaps) if gaps else None


def check(table, costs, graphs):
    """Each claim, and whether it holds. Times are compared in microseconds."""
    slope = {name: row["slope"] * 1e6 for name, row in table.items() if row["slope"] is not None}
    if all(f"spin {us}" in slope for us in SPINS):
        for short, long in [(2, 5), (5, 20), (20, 100), (2, 100)]:
            seen, known = slope[f"spin {long}"] - slope[f"spin {short}"], long - short
            off = seen / known - 1
            text = f"slopes of spins of {long} and {short} µs differ by {seen:.3f} ({off:+.2%})"
            yield abs(seen - known) <= max(0.01 * known, STEP), text
        gap = statistics.median(slope[f"spin {us}"] - us for us in SPINS)
        yield gap > 0, f"the launch gap of a stream over the spin's own length is {gap:.3f} µs"
        for name in ["add 16", "mm 64"]:
            kernel = table[name]["CUPTI"]
            if kernel is not None and name in slope:
                kernel *= 1e6
                text = (f"{name}: the slope {slope[name]:.3f} µs lies between CUPTI's "
                        f"{kernel:.3f} and that plus the gap, {kernel + gap:.3f}")
                yield kernel <= slope[name] <= kernel + gap, text
    loaded = table["mm 4096"]["graph"]
    if graphs and loaded is not None and "mm 4096" in slope:
        low, high = min(graphs) * 1e6, max(*graphs, loaded) * 1e6
        # A held stream loads the GPU for more of the time than one, and for less than the other.
        text = (f"mm 4096: the slope {slope['mm 4096']:.2f} µs lies within 4 % of a graph with "
                f"pauses, {low:.2f}, to one without, {high:.2f}")
        yield low * 0.96 <= slope["mm 4096"] <= high * 1.04, text
    for name, found in costs.items():
        if found is not None:
            ratio = for_same_width(found)
            text = f"{name}: the graph takes {ratio:.1f} times as long for the same width"
            yield ratio >= 2, text


if __name__ == "__main__":
    sys.exit(main())
