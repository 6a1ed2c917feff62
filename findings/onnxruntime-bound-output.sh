#!/bin/sh
# ONNX Runtime: a result taken from an I/O binding has the values of the binding's next run.
#
# `bind_output("y")` without memory leaves it to the runtime where the output is. The first run
# allocates it; the next run of the binding writes to the same memory. The `OrtValue` from
# `get_outputs` and its `numpy()` are views of it, so the first result has the second's values, also
# when the input was bound anew. For the same reason an input of another length is an error, though
# the model takes any. `copy_outputs_to_cpu`, and `bind_output` before each run, are right.
#
# Guess before the run: without memory of the caller's each run allocates its output, as `run` does.
#
# Why it matters: a loop that collects results, or hands them to another thread, has many names of
# the last one, and nothing is raised. That bindings are there to avoid copies makes it likely that
# nobody copies.
#
# Seen on 2026-11-29 with onnxruntime 1.32.0, onnx 1.23.2, Python 3.11, Linux x86-64. The model adds
# 1 to its input, and is run for 1 and for 2:
#   bound once: first result 2.0; when the second one has run: 3.0 and 3.0
#   bound before each run: first result 2.0; when the second one has run: 2.0 and 3.0
#   bound once, an input of another length: an error
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --no-cache-dir onnxruntime==1.32.0 onnx==1.23.2 numpy==2.4.6
"$dir/venv/bin/python" - <<'PY'
import sys

import numpy
import onnx
import onnxruntime
from onnx import helper

FLOAT = onnx.TensorProto.FLOAT
graph = helper.make_graph(
    [helper.make_node("Add", ["x", "one"], ["y"])],
    "add",
    [helper.make_tensor_value_info("x", FLOAT, ["length"])],
    [helper.make_tensor_value_info("y", FLOAT, ["length"])],
    [helper.make_tensor("one", FLOAT, [1], [1.0])],
)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
model.ir_version = 8
options = onnxruntime.SessionOptions()
options.log_severity_level = 4
session = onnxruntime.InferenceSession(model.SerializeToString(), options)


def run(binding, value, length=3):
    binding.bind_cpu_input("x", numpy.full(length, value, numpy.float32))
    session.run_with_iobinding(binding)
    return binding.get_outputs()[0]


def first(result):
    return float(result.numpy()[0])


seen = []
for text, again in (("bound once", False), ("bound before each run", True)):
    binding = session.io_binding()
    binding.bind_output("y")
    one = run(binding, 1)
    before = first(one)
    if again:
        binding.bind_output("y")
    two = run(binding, 2)
    seen.append((before, first(one), first(two)))
    then = f"{first(one)} and {first(two)}"
    print(f"{text}: first result {before}; when the second one has run: {then}")
binding = session.io_binding()
binding.bind_output("y")
run(binding, 1)
try:
    run(binding, 1, length=5)
    answer = "no error"
except Exception:
    answer = "an error"
print(f"bound once, an input of another length: {answer}")
ok = seen == [(2.0, 3.0, 3.0), (2.0, 2.0, 3.0)] and answer == "an error"
sys.exit(0 if ok else "the behaviour has changed")
PY
