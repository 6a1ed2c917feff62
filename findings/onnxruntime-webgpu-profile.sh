#!/bin/sh
# ONNX Runtime on WebGPU: a node's kernel_time is its launch, and the GPU's own times begin at 0.
#
# In a profile the events `NAME_kernel_time` have the category Node. On the CPU they are the time
# that the kernel took. With the WebGPU provider they end when the kernel has been enqueued. What
# the GPU took is in further events of category Api, of process -1. These count from the first
# kernel's begin, not from the profile's start as all others do, and nothing in the file ties the
# two. So the GPU is drawn at work before the model is loaded.
#
# Guess before the run: kernel_time is the GPU's time, or both are there on one clock.
#
# Why it matters: sums by operator, the usual use of this file, count launches; and in a picture the
# kernels lie beside other host work than they ran beside. Add up the category Api, and use its
# times only among themselves.
#
# Seen on 2026-11-28 with onnxruntime-webgpu 1.27.0 and onnx 1.23.2, Python 3.11, SwiftShader of
# Debian 12's package chromium-common (156.0.8078.108), Linux x86-64 (numbers vary; a second run):
#   node: kernel_time begins at 2391 ms and takes 0.1 ms
#   its kernel on the GPU: begins at 1283 ms and takes 233.6 ms
#   first kernel of the session: on the GPU at 0 ms, launched at 233 ms
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
driver=/usr/lib/chromium/libvk_swiftshader.so
if [ ! -e "$driver" ]; then
    (cd "$dir" && apt-get download --quiet chromium-common && dpkg -x chromium-common_*.deb .)
    driver=$dir$driver
fi
cat >"$dir/swiftshader.json" <<JSON
{"file_format_version": "1.0.0", "ICD": {"library_path": "$driver", "api_version": "1.0.5"}}
JSON
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --no-cache-dir onnxruntime-webgpu==1.27.0 onnx==1.23.2 \
    numpy==2.4.6
cd "$dir"
XDG_RUNTIME_DIR=$dir VK_ICD_FILENAMES="$dir/swiftshader.json" \
    VK_DRIVER_FILES="$dir/swiftshader.json" "$dir/venv/bin/python" - 2>"$dir/log" <<'PY' \
    || { tail -n 5 "$dir/log"; exit 1; }
import json
import sys
import time

import numpy
import onnxruntime
from onnx import TensorProto, helper

SIZE = 256
tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [SIZE, SIZE]) for name in "xy"]
node = helper.make_node("MatMul", ["x", "x"], ["y"], name="multiply")
graph = helper.make_graph([node], "square", tensors[:1], tensors[1:])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
model.ir_version = 9

options = onnxruntime.SessionOptions()
options.enable_profiling = True
session = onnxruntime.InferenceSession(
    model.SerializeToString(), options, providers=["WebGpuExecutionProvider"]
)
array = numpy.full((SIZE, SIZE), 0.01, numpy.float32)
session.run(None, {"x": array})
time.sleep(1)
session.run(None, {"x": array})
with open(session.end_profiling()) as file:
    events = json.load(file)

launched, ran = (
    [
        (event["ts"] / 1000, event["dur"] / 1000)
        for event in events
        if event["cat"] == category and "multiply" in event["name"]
        and (category == "Api" or event["name"].endswith("kernel_time"))
    ]
    for category in ("Node", "Api")
)
print(f"node: kernel_time begins at {launched[1][0]:.0f} ms and takes {launched[1][1]:.1f} ms")
print(f"its kernel on the GPU: begins at {ran[1][0]:.0f} ms and takes {ran[1][1]:.1f} ms")
print(
    f"first kernel of the session: on the GPU at {ran[0][0]:.0f} ms,"
    f" launched at {launched[0][0]:.0f} ms"
)
launch_only = len(launched) == len(ran) == 2 and 5 * launched[1][1] < ran[1][1]
too_early = ran[0][0] == 0 < launched[0][0] and ran[1][0] < launched[1][0]
sys.exit(0 if launch_only and too_early else "the behaviour has changed")
PY
