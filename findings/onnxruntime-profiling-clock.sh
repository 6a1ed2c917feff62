#!/bin/sh
# ONNX Runtime: the start of a profile is on the wall clock, where its docstring names monotonic_ns.
#
# The docstring of `InferenceSession.get_profiling_start_time_ns` says "Comparable to
# time.monotonic_ns()". On Linux the number lies between two readings of `time.time_ns()` around
# the session's creation, and it is decades away from `time.monotonic_ns()`.
#
# Guess before the run: the monotonic clock, as documented.
#
# Why it matters: the profile's times count from this start. Whoever puts them beside spans on the
# monotonic clock, as the docstring invites, draws them some 56 years away; and a wall clock that
# is set meanwhile moves the profile. Take the wall clock's reading and convert it.
#
# Seen on 2026-11-28 with onnxruntime 1.32.0 and onnx 1.23.2, Python 3.11, the CPU provider,
# Linux x86-64:
#   documented: Comparable to time.monotonic_ns() after Python 3.3
#   between two readings of monotonic_ns: False
#   between two readings of time_ns: True
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --no-cache-dir onnxruntime==1.32.0 onnx==1.23.2 numpy==2.4.6
cd "$dir"
"$dir/venv/bin/python" - <<'PY'
import sys
import time

import onnxruntime
from onnx import TensorProto, helper

tensor = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in "xy"]
graph = helper.make_graph(
    [helper.make_node("Identity", ["x"], ["y"])], "copy", tensor[:1], tensor[1:]
)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
model.ir_version = 9

options = onnxruntime.SessionOptions()
options.enable_profiling = True
clocks = {"monotonic_ns": time.monotonic_ns, "time_ns": time.time_ns}
before = {name: read() for name, read in clocks.items()}
session = onnxruntime.InferenceSession(
    model.SerializeToString(), options, providers=["CPUExecutionProvider"]
)
after = {name: read() for name, read in clocks.items()}
start = session.get_profiling_start_time_ns()
session.end_profiling()

text = onnxruntime.InferenceSession.get_profiling_start_time_ns.__doc__ or ""
claim = [line.strip() for line in text.splitlines() if "omparable" in line]
print("documented:", *claim)
within = {name: before[name] <= start <= after[name] for name in clocks}
for name, inside in within.items():
    print(f"between two readings of {name}: {inside}")
same = "monotonic_ns" in "".join(claim) and within == {"monotonic_ns": False, "time_ns": True}
sys.exit(0 if same else "the behaviour has changed")
PY
