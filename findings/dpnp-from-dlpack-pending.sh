#!/bin/sh
# dpnp: an array taken over by DLPack is on another queue, which does not wait for the first one.
#
# `dpnp.from_dlpack(array)` returns an array on the same memory and on the library's own queue of
# the device, whatever queue the array had. Nobody waits for what is still to be done to it: the
# consumer passes no stream to `__dlpack__`, and for None nothing is synchronized. A kernel on the
# new array reads what stood in the memory before. To the CPU (`device=(1, 0)`) it waits.
#
# Guess before the run: right in both cases. In the array API's protocol the consumer says by the
# stream what is to wait, and a library that consumes its own arrays knows both queues.
#
# Why it matters: DLPack is the border between libraries, where nobody sees both queues. A result is
# wrong, only where the device is slow enough, and nothing is raised. Wait for `array.sycl_queue`
# in front of it.
#
# Seen on 2026-11-29 with dpnp 0.20.0, dpctl 0.22.1, intel-opencl-rt 2026.2.0 (CPU), Python 3.11,
# Linux x86-64. A product of matrices, of whose last element, 3000.0, one is to be subtracted:
#   through DLPack to NumPy: 2999.0
#   through DLPack: -1.0
#   through DLPack, behind a wait: 2999.0
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
TO_CPU = (1, 0)
queue = dpctl.SyclQueue("cpu")
ones = dpnp.ones((SIZE, SIZE), dtype="float32", sycl_queue=queue)
queue.wait()


def last_less_one(array):
    return float(dpnp.asnumpy(array - 1)[-1, -1])


def waited(array):
    array.sycl_queue.wait()
    return array


# The first use of an operation compiles it.
last_less_one(dpnp.from_dlpack(ones @ ones))
seen = []
for text, take in (
    (" to NumPy", lambda array: dpnp.from_dlpack(array, device=TO_CPU)),
    ("", dpnp.from_dlpack),
    (", behind a wait", lambda array: dpnp.from_dlpack(waited(array))),
):
    product = ones @ ones
    value = last_less_one(take(product))
    queue.wait()
    assert float(dpnp.asnumpy(product)[-1, -1]) == SIZE
    print(f"through DLPack{text}: {value}")
    seen.append(value == SIZE - 1)
sys.exit(0 if seen == [True, False, True] else "the behaviour has changed")
PY
