#!/bin/sh
# MLX on the CPU: one failed operation is reported to one caller, who may be the wrong one.
#
# `async_eval` starts work on a stream. When that work fails, MLX raises the error in the next call
# that waits for the stream, and forgets it. If that call evaluates an unrelated array, the
# unrelated array gets the error, although its own value is right. The failed array then reads as
# plain numbers without any error, and operations on it succeed. `synchronize` behaves alike: the
# first call raises, the second returns, and the failed array is readable.
#
# Guess before the run: the error stays with the failed array, and whoever reads it gets the error.
#
# Why it matters: a caller who waits on a stream, an event or another array cannot tell whose work
# failed. A wrapper that catches the error and tries again reads wrong numbers. The failure has to
# be kept by whoever wraps the stream.
#
# Seen on 2026-11-28 with mlx 0.32.4 and mlx-cpu 0.32.4, Python 3.11, Linux x86-64:
#   synchronize: raised, then returned
#   failed array after synchronize: [[0.0, 0.0], [0.0, 0.0]], plus one: [[1.0, 1.0], [1.0, 1.0]]
#   unrelated array: eval raised, value [2.0, 2.0]
#   failed array after that: [[0.0, 0.0], [0.0, 0.0]]
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet mlx==0.32.4 mlx-cpu==0.32.4
"$dir/venv/bin/python" - <<'PY'
import sys

import mlx.core as mx

stream = mx.new_stream(mx.cpu)


def start_failing_work():
    """The inverse of zeros fails; the product in front delays it until the caller has returned."""
    zeros = mx.zeros((900, 900))
    product = mx.matmul(zeros, zeros, stream=stream)[:2, :2]
    inverse = mx.linalg.inv(mx.contiguous(product, stream=stream), stream=stream)
    mx.async_eval(inverse)
    return inverse


def outcome(call):
    try:
        value = call()
    except RuntimeError:
        return "raised"
    return "returned" if value is None else value


failed = start_failing_work()
first = outcome(lambda: mx.synchronize(stream))
second = outcome(lambda: mx.synchronize(stream))
print(f"synchronize: {first}, then {second}")
value, plus_one = outcome(failed.tolist), outcome((failed + 1).tolist)
print(f"failed array after synchronize: {value}, plus one: {plus_one}")
ok = (first, second) == ("raised", "returned") and "raised" not in (value, plus_one)

failed = start_failing_work()
unrelated = mx.add(mx.ones(2), 1, stream=stream)
blamed = outcome(lambda: mx.eval(unrelated))
print(f"unrelated array: eval {blamed}, value {outcome(unrelated.tolist)}")
value = outcome(failed.tolist)
print(f"failed array after that: {value}")
ok = ok and blamed == "raised" and unrelated.tolist() == [2.0, 2.0] and value != "raised"
sys.exit(0 if ok else "the behaviour has changed")
PY
