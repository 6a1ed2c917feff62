#!/bin/sh
# dpnp: `astype` with another queue of the device reads the array before it is computed.
#
# An operation on an array is enqueued and is still to be done when the call returns. `astype` with
# `device=queue` copies it on the other queue without waiting for its own queue, and the copy has
# what stood in the memory before. `dpnp.asarray` and `copy` wait for the same two queues. To the
# array that `to_device` returns, the same happens; its documentation says of `stream` that None,
# the default, synchronizes nothing, and that of `astype` has no such parameter and no such word.
#
# Guess before the run: all of these are right, however long the first queue has to compute.
#
# Why it matters: a result is wrong, only where the device is slow enough, and nothing is raised.
# Wait for `array.sycl_queue` before giving an array to another queue.
#
# Seen on 2026-11-29 with dpnp 0.20.0, dpctl 0.22.1, intel-opencl-rt 2026.2.0 (CPU), Python 3.11,
# Linux x86-64. A product of matrices whose last element is 3000.0:
#   copied by asarray: 3000.0
#   copied by copy: 3000.0
#   copied by astype: 0.0
#   copied by astype behind a wait: 3000.0
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --no-cache-dir dpnp==0.20.0 dpctl==0.22.1 numpy==2.4.6 \
    intel-opencl-rt==2026.2.0 intel-cmplr-lib-rt==2026.2.0 intel-sycl-rt==2026.2.0
mkdir "$dir/vendors"
echo "$dir/venv/lib/libintelocl.so" >"$dir/vendors/intel.icd"
LD_LIBRARY_PATH="$dir/venv/lib" OCL_ICD_VENDORS="$dir/vendors" "$dir/venv/bin/python" - <<'PY'
import sys

import dpctl
import dpnp

SIZE = 3000
one, other = dpctl.SyclQueue("cpu"), dpctl.SyclQueue("cpu")
ones = dpnp.ones((SIZE, SIZE), dtype="float32", sycl_queue=one)
one.wait()
# The first use of an operation compiles it.
dpnp.asnumpy((ones @ ones).astype("float64", device=other))


def waited(array):
    array.sycl_queue.wait()
    return array


seen = []
for text, copy in (
    ("asarray", lambda array: dpnp.asarray(array, sycl_queue=other)),
    ("copy", lambda array: array.copy(device=other)),
    ("astype", lambda array: array.astype("float64", device=other)),
    ("astype behind a wait", lambda array: waited(array).astype("float64", device=other)),
):
    product = ones @ ones
    copied = copy(product)
    value = float(dpnp.asnumpy(copied)[-1, -1])
    one.wait()
    assert float(dpnp.asnumpy(product)[-1, -1]) == SIZE
    print(f"copied by {text}: {value}")
    seen.append(value == SIZE)
sys.exit(0 if seen == [True, True, False, True] else "the behaviour has changed")
PY
