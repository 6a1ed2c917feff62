#!/bin/sh
# SlangPy on the CPU: a fence can be signalled backwards, and then gives out a value twice.
#
# `Fence.signal(2)` on a fence at 3 sets it back to 2 without an error. A wait for 3, which had
# been reached, now times out. `signal()` without a value means "the next one", and after the step
# back that is 3 again, so two different points of the program share the value.
#
# Guess before the run: an error, or the higher value stays.
#
# Why it matters: Vulkan forbids a signal that does not raise a timeline semaphore's value, and
# whoever stores (fence, value) pairs as events relies on that. On this device the rule has to be
# kept by the caller. That the CPU device runs a test without complaint says nothing about Vulkan.
#
# Seen on 2026-11-28 with slangpy 0.43.1, Python 3.11, device type cpu, Linux x86-64:
#   signal(3): value 3, wait(3) returned
#   signal(2): value 2, wait(3) timed out
#   signal(): 3
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet slangpy==0.43.1 numpy==2.4.6
"$dir/venv/bin/python" - <<'PY'
import sys

import slangpy

MILLISECOND = 1_000_000
fence = slangpy.Device(type=slangpy.DeviceType.cpu).create_fence()


def wait(value):
    try:
        fence.wait(value, MILLISECOND)
    except RuntimeError as error:
        return "timed out" if "TIME_OUT" in str(error) else "raised"
    return "returned"


fence.signal(3)
value, reached = fence.current_value, wait(3)
print(f"signal(3): value {value}, wait(3) {reached}")
fence.signal(2)
lower, lost = fence.current_value, wait(3)
print(f"signal(2): value {lower}, wait(3) {lost}")
again = fence.signal()
print(f"signal(): {again}")
ok = (value, reached, lower, lost, again) == (3, "returned", 2, "timed out", 3)
sys.exit(0 if ok else "the behaviour has changed")
PY
