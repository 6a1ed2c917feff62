#!/bin/sh
# numba-vulkan: of a device the last 1024 records have times; an older event has another one's.
#
# All events of a device share 1024 places for their times, and each record takes the next place.
# An event that was recorded 1024 records ago has the time of the event that took its place, so
# `elapsed_time` of an old pair is a time between two other events. If only the start has lost its
# place, it is later than the end, and the time reads 18446744072829 ms: a negative one is taken
# modulo 2^64 ns. Nothing is raised, and the documentation of `Event` does not say it.
#
# Guess before the run: an event keeps its time as long as it lives, as in `numba.cuda`, whose names
# these are; or an error tells that too many are in use.
#
# Why it matters: a program that times each of its steps and sums up at the end has right times for
# 512 steps. With more, the first ones have those of others, which look as likely. Read the times
# before 1024 further records.
#
# Seen on 2026-11-29 with numba-vulkan 0.1.0, numba 0.68.1, lavapipe of Debian 12's
# mesa-vulkan-drivers 22.3.6, Python 3.11, Linux x86-64 (times vary):
#   a kernel between two events: 862 ms
#   after 1022 further events: 862 ms
#   after 1023 further events: 18446744072829 ms
#   after 1024 further events: 0 ms
set -eu
driver=$(find /usr/share/vulkan/icd.d -name 'lvp_icd*.json' | head -n 1)
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --no-cache-dir numba-vulkan==0.1.0 numba==0.68.1 \
    vulkan==1.3.275.1 numpy==2.4.6
cat >"$dir/events.py" <<'PY'
import sys

import numba_vulkan as nv
import numpy

SIZE, GROUP = 1 << 18, 64


@nv.jit
def work(values, steps):
    value = values[nv.global_id(0)]
    for _ in range(steps):
        value = value * numpy.float32(0.999) + numpy.float32(0.1)
    values[nv.global_id(0)] = value


values = nv.to_device(numpy.ones(SIZE, numpy.float32))
work[SIZE // GROUP, GROUP](values, 1)
nv.synchronize()
start, end = nv.event(), nv.event()
start.record()
work[SIZE // GROUP, GROUP](values, 3000)
end.record()
nv.synchronize()


def elapsed(text):
    time = start.elapsed_time(end)
    print(f"{text}: {time:.0f} ms")
    return time


right = elapsed("a kernel between two events")
further = [nv.event().record() for _ in range(1022)]
nv.synchronize()
kept = elapsed("after 1022 further events")
further.append(nv.event().record())
nv.synchronize()
start_lost = elapsed("after 1023 further events")
further.append(nv.event().record())
nv.synchronize()
both_lost = elapsed("after 1024 further events")
ok = right == kept and right > 50 and start_lost > 1e12 and both_lost < right / 10
sys.exit(0 if ok else "the behaviour has changed")
PY
VK_ICD_FILENAMES="$driver" XDG_RUNTIME_DIR="$dir" NUMBA_CACHE_DIR="$dir/cache" HOME="$dir" \
    "$dir/venv/bin/python" -W ignore "$dir/events.py"
