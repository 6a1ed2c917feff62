#!/bin/sh
# CUPTI: once there was a subscriber, short kernels of CUDA graphs take a sixth longer, for good.
#
# A program subscribes to CUPTI, enables no callback and no activity, and unsubscribes at once. From
# then on each kernel of a graph of small kernels takes some 140 ns longer on the device, until the
# process ends. A subscriber that stays costs the same, whatever callbacks it enables. Kernels that
# are launched one by one are not slower on the device.
#
# Guess before the run: CUPTI costs host time in the calls that are subscribed to, and after
# `cuptiUnsubscribe` nothing.
#
# Why it matters: profilers, watchers and measuring tools that attach "only to look" change what a
# graph takes, and a benchmark behind a profile in the same process is slower than without it.
#
# Seen on 2026-11-29 with torch 2.11.0, CUPTI 13.0, Python 3.12, an NVIDIA H200, driver 580.159.04
# (the least of five, each in a process of its own; times vary by some 10 ns):
#   plain        853 ns a kernel, 1.00 of plain
#   subscribed   988 ns a kernel, 1.16 of plain
#   unsubscribed 987 ns a kernel, 1.16 of plain
#
# It needs an NVIDIA GPU. FINDING_PYTHON may name an interpreter that has the pinned version.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
if [ -n "${FINDING_PYTHON:-}" ]; then
    python=$FINDING_PYTHON
else
    python3 -m venv "$dir/venv"
    python=$dir/venv/bin/python
    "$python" -m pip install --quiet --no-cache-dir torch==2.11.0 numpy
fi
cat >"$dir/graph.py" <<'PY'
"""Nanoseconds that a small kernel takes in a graph of a hundred, behind what argv[1] says."""
import ctypes
import sys
import time

import torch

if torch.__version__.split("+")[0] != "2.11.0":
    sys.exit(f"torch is {torch.__version__}: not the version of this script")
CALLBACK = ctypes.CFUNCTYPE(
    None, ctypes.c_void_p, ctypes.c_int, ctypes.c_uint32, ctypes.c_void_p
)
ignore = CALLBACK(lambda *_: None)
if sys.argv[1] != "plain":
    # PyTorch has loaded it.
    cupti = ctypes.CDLL("libcupti.so.13")
    subscriber = ctypes.c_void_p()
    if cupti.cuptiSubscribe(ctypes.byref(subscriber), ignore, None):
        sys.exit("cuptiSubscribe failed")
    if sys.argv[1] == "unsubscribed" and cupti.cuptiUnsubscribe(subscriber):
        sys.exit("cuptiUnsubscribe failed")

numbers = torch.zeros(16, device="cuda")
numbers.add_(1)
torch.cuda.synchronize()
graph = torch.cuda.CUDAGraph()
with torch.cuda.graph(graph):
    for _ in range(100):
        numbers.add_(1)


def kernel():
    torch.cuda.synchronize()
    start = time.perf_counter_ns()
    for _ in range(20):
        graph.replay()
    torch.cuda.synchronize()
    return (time.perf_counter_ns() - start) / 2000


kernel()
print(sorted(kernel() for _ in range(41))[20])
PY
cat >"$dir/turns.py" <<'PY'
import subprocess
import sys

least = {}
for _ in range(5):
    for case in ("plain", "subscribed", "unsubscribed"):
        ran = subprocess.run(
            [sys.executable, sys.argv[1], case], check=True, capture_output=True, text=True
        )
        least[case] = min(float(ran.stdout), least.get(case, float("inf")))
for case, took in least.items():
    print(f"{case:12} {took:.0f} ns a kernel, {took / least['plain']:.2f} of plain")
slower = all(least[case] > 1.08 * least["plain"] for case in ("subscribed", "unsubscribed"))
sys.exit(0 if slower else "the behaviour has changed")
PY
"$python" "$dir/turns.py" "$dir/graph.py"
