#!/bin/sh
# OpenVINO on the CPU: the profile of a request is the mean over all runs of all requests.
#
# `InferRequest.profiling_info` gives a time for each node. It is not that of the request's last
# run: it is the mean since the model was compiled, with the runs of every other request of it.
# A second request that has run once reports the mean, too.
#
# Guess before the run: the times of this request's last run, as `InferRequest.latency` is.
#
# Why it matters: the cold first run stays in every later profile, a slow run is never seen, and
# times added up over the runs count each run several times. To get the time of one run, multiply
# by the number of runs so far, and subtract what that was before.
#
# Seen on 2026-11-28 with openvino 2026.4.1, Python 3.11, CPU device, Linux x86-64 (times vary):
#   run 1, 1500 x 1500: latency 53.19 ms, profile 39.16 ms
#   run 2, 10 x 10: latency 7.14 ms, profile 19.60 ms
#   run 8, 10 x 10: latency 0.01 ms, profile 4.90 ms
#   another request's only run, 10 x 10: latency 0.02 ms, profile 4.36 ms
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --no-cache-dir openvino==2026.4.1 numpy==2.4.6
"$dir/venv/bin/python" - <<'PY'
import sys

import numpy
import openvino
from openvino import opset13

matrix = opset13.parameter([-1, -1], numpy.float32)
product = opset13.matmul(matrix, matrix, False, False)
model = openvino.Model([opset13.result(product)], [matrix], "square")
compiled = openvino.Core().compile_model(model, "CPU", {"PERF_COUNT": "YES"})


def run(name, request, size):
    request.infer([numpy.full((size, size), 1 / size, numpy.float32)])
    nodes = [node.real_time.total_seconds() for node in request.profiling_info]
    profile = 1e3 * sum(nodes)
    shape = f"{size} x {size}"
    print(f"{name}, {shape}: latency {request.latency:.2f} ms, profile {profile:.2f} ms")
    return request.latency, profile


request = compiled.create_infer_request()
_, first = run("run 1", request, 1500)
_, second = run("run 2", request, 10)
for _ in range(5):
    request.infer([numpy.ones((10, 10), numpy.float32)])
latency, eighth = run("run 8", request, 10)
_, other = run("another request's only run", compiled.create_infer_request(), 10)


def close(value, runs):
    return 0.7 < runs * value / first < 1.5


ok = close(second, 2) and close(eighth, 8) and close(other, 9) and latency < eighth / 5
sys.exit(0 if ok else "the behaviour has changed")
PY
