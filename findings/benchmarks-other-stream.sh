#!/bin/sh
# Triton and CuPy: a benchmark of work on another stream reads the host's overhead, as a result.
#
# `triton.testing.do_bench`, `do_bench_cudagraph` and `cupyx.profiler.benchmark` record their events
# on the current stream. If the function works on a stream of its own, as much real code does, no
# event waits for that work. The three return a small number instead: microseconds, and for the
# graph variant some 25 nanoseconds. Triton and CuPy say nothing; PyTorch warns that the captured
# graph is empty.
#
# Guess before the run: the time of the work, or an error.
#
# Why it matters: the figure is wrong by a factor of a hundred to ten thousand and nothing tells.
# Have the current stream wait for the other one inside the function.
#
# Seen on 2026-11-28 with triton 3.6.0, torch 2.11.0, cupy-cuda13x 14.2.0, Python 3.12, an NVIDIA
# H200, driver 580.159.04 (times vary; milliseconds):
#   do_bench             current stream 0.5097   other stream 0.0059
#   do_bench_cudagraph   current stream 0.5082   other stream 0.0000
#   cupyx benchmark      current stream 1.0120   other stream 0.0086
#
# It needs an NVIDIA GPU. FINDING_PYTHON may name an interpreter that has the pinned versions.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
if [ -n "${FINDING_PYTHON:-}" ]; then
    python=$FINDING_PYTHON
else
    python3 -m venv "$dir/venv"
    python=$dir/venv/bin/python
    "$python" -m pip install --quiet --no-cache-dir \
        torch==2.11.0 triton==3.6.0 cupy-cuda13x==14.2.0
fi
cat >"$dir/other_stream.py" <<'PY'
import sys
import warnings
from importlib import metadata

import cupy
import torch
from cupyx.profiler import benchmark
from triton.testing import do_bench, do_bench_cudagraph

found = torch.__version__.split("+")[0], metadata.version("triton"), cupy.__version__
if found != ("2.11.0", "3.6.0", "14.2.0"):
    sys.exit(f"torch, triton and cupy are {found}: not the versions of this script")

SPIN = r"""
extern "C" __global__ void spin(long long nanoseconds) {
    unsigned long long start, now;
    asm volatile("mov.u64 %0, %globaltimer;" : "=l"(start));
    do {
        asm volatile("mov.u64 %0, %globaltimer;" : "=l"(now));
    } while ((long long)(now - start) < nanoseconds);
}
"""
spin = cupy.RawKernel(SPIN, "spin")
own_cupy_stream = cupy.cuda.Stream(non_blocking=True)
own_torch_stream = torch.cuda.Stream()
numbers = torch.zeros(1 << 28, device="cuda")


def add():
    numbers.add_(1)


def add_on_own_stream():
    with torch.cuda.stream(own_torch_stream):
        numbers.add_(1)


def spin_a_millisecond():
    spin((1,), (1,), (1_000_000,))


def spin_on_own_stream():
    with own_cupy_stream:
        spin_a_millisecond()


def with_cupy(function):
    return benchmark(function, n_repeat=20, n_warmup=3).gpu_times.mean() * 1e3


spin_a_millisecond()
warnings.simplefilter("ignore")  # PyTorch tells of the empty graph.
same = True
for name, measure, current, own in (
    ("do_bench", do_bench, add, add_on_own_stream),
    ("do_bench_cudagraph", do_bench_cudagraph, add, add_on_own_stream),
    ("cupyx benchmark", with_cupy, spin_a_millisecond, spin_on_own_stream),
):
    right, wrong = measure(current), measure(own)
    torch.cuda.synchronize()
    print(f"{name:20} current stream {right:.4f}   other stream {wrong:.4f}")
    same = same and wrong < right / 10
sys.exit(0 if same else "the behaviour has changed")
PY
"$python" "$dir/other_stream.py"
