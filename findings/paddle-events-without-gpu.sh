#!/bin/sh
# PaddlePaddle without a GPU: events are there by name and raise NameError, synchronize TypeError.
#
# In the CPU wheel `paddle.device.Event`, `paddle.device.Stream` and `paddle.Event` exist and are
# exported. Making one raises NameError on a private name, also with device "cpu".
# `paddle.device.synchronize()` and `current_stream()` raise TypeError, although the current device
# is "cpu"; `paddle.device.cuda.Event()` raises RuntimeError.
#
# Guess before the run: synchronize is a no-op on the CPU, and an event raises RuntimeError.
#
# Why it matters: code that is to run with or without a GPU tests `hasattr` or catches RuntimeError,
# the error of PyTorch. Here both let the error through. Ask `paddle.device.get_device()` first.
#
# Seen on 2026-11-28 with paddlepaddle 3.3.1, Python 3.11, Linux x86-64:
#   current device: cpu
#   paddle.device.Event(): NameError
#   paddle.device.Event("cpu"): NameError
#   paddle.device.Stream(): NameError
#   paddle.device.synchronize(): TypeError
#   paddle.device.current_stream(): TypeError
#   paddle.device.cuda.Event(): RuntimeError
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --no-cache-dir paddlepaddle==3.3.1 numpy==2.4.6
"$dir/venv/bin/python" -W ignore - <<'PY'
import sys

import paddle

device = paddle.device
print(f"current device: {device.get_device()}")
expected = {
    "paddle.device.Event()": (device.Event, (), "NameError"),
    'paddle.device.Event("cpu")': (device.Event, ("cpu",), "NameError"),
    "paddle.device.Stream()": (device.Stream, (), "NameError"),
    "paddle.device.synchronize()": (device.synchronize, (), "TypeError"),
    "paddle.device.current_stream()": (device.current_stream, (), "TypeError"),
    "paddle.device.cuda.Event()": (device.cuda.Event, (), "RuntimeError"),
}
ok = device.get_device() == "cpu"
for call, (function, arguments, name) in expected.items():
    try:
        function(*arguments)
        seen = "returned"
    except Exception as error:
        seen = type(error).__name__
    print(f"{call}: {seen}")
    ok = ok and seen == name
sys.exit(0 if ok else "the behaviour has changed")
PY
