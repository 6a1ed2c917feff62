#!/bin/sh
# OpenVINO: the latency of a request that is still running is a negative number, not an error.
#
# `InferRequest.latency` is the time in milliseconds between the start and the end of the last run.
# While the request runs, the end is that of the run before, and the start is already the new one.
# In the first run the end is zero, so the answer is the time since 1970 with a minus in front.
# In a later run it is the pause between the two runs, negative.
#
# Guess before the run: an error, or the latency of the last completed run.
#
# Why it matters: an average over requests that are polled is ruined by one number of -1.8e12 ms,
# or, worse, pulled down unseen by a small negative one. PyTorch and CUDA refuse to give the
# elapsed time of an event that is not complete; code moved over from them does not expect this.
#
# Seen on 2026-11-28 with openvino 2026.4.1, Python 3.11, CPU device, Linux x86-64 (times vary):
#   before any run: 0.0
#   in the first run: -1795842359494.5623
#   after it: 103.822803
#   in the second run, a second later: -1000.776293
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

matrix = opset13.parameter([1200, 1200], numpy.float32)
product = matrix
for _ in range(8):
    product = opset13.matmul(product, matrix, False, False)
model = openvino.Model([opset13.result(product)], [matrix], "products")
request = openvino.Core().compile_model(model, "CPU").create_infer_request()
values = numpy.full((1200, 1200), 1 / 1200, numpy.float32)

before = request.latency
request.start_async([values])
first = request.latency
request.wait()
after = request.latency
time.sleep(1)
request.start_async([values])
second = request.latency
request.wait()
print(f"before any run: {before}")
print(f"in the first run: {first}")
print(f"after it: {after}")
print(f"in the second run, a second later: {second}")
ok = before == 0 and first < -1e12 and after > 0 and -60_000 < second < -900
sys.exit(0 if ok else "the behaviour has changed")
PY
