#!/bin/sh
# OpenVINO: for a request that was never started, `wait()` returns and `wait_for()` says "not done".
#
# `InferRequest.wait()` of such a request returns at once, as if it were complete.
# `InferRequest.wait_for(1000)` also returns at once, with False, which otherwise means that the
# second has passed without completion.
#
# Guess before the run: the two agree, and False comes only after the time has passed.
#
# Why it matters: an event that was never recorded is complete in CUDA and PyTorch, and an unmet
# wait with a time limit sleeps. Here, a loop of `while not request.wait_for(10)` over a pool of
# requests turns for ever on one that is idle, without sleeping. Ask only requests that were
# started.
#
# Seen on 2026-11-28 with openvino 2026.4.1, Python 3.11, CPU device, Linux x86-64:
#   wait(): None after 0.000 s
#   wait_for(1000): False after 0.000 s
#   wait_for(1000) after a run: True
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet openvino==2026.4.1 numpy==2.4.6
"$dir/venv/bin/python" - <<'PY'
import sys
import time

import numpy
import openvino
from openvino import opset13

number = opset13.parameter([1], numpy.float32)
model = openvino.Model([opset13.result(opset13.add(number, number))], [number], "sum")
request = openvino.Core().compile_model(model, "CPU").create_infer_request()

start = time.perf_counter()
waited = request.wait()
print(f"wait(): {waited} after {time.perf_counter() - start:.3f} s")
start = time.perf_counter()
done = request.wait_for(1000)
took = time.perf_counter() - start
print(f"wait_for(1000): {done} after {took:.3f} s")
request.infer([numpy.ones(1, numpy.float32)])
done_after = request.wait_for(1000)
print(f"wait_for(1000) after a run: {done_after}")
ok = waited is None and done is False and took < 0.5 and done_after is True
sys.exit(0 if ok else "the behaviour has changed")
PY
