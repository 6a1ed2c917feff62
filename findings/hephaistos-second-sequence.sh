#!/bin/sh
# hephaistos: the second sequence on a timeline counts as finished before it has run.
#
# `beginSequence(timeline)` starts at the value 0, whatever value the timeline has reached. Of the
# second sequence on a timeline each step signals a value that has been passed long ago, so its
# `Submission` is finished at once, and `wait` returns while the device works. Nothing is raised.
# With `beginSequence(timeline, timeline.value)` it is right, if nothing else is pending on it.
#
# Guess before the run: a sequence without a start value begins behind what was submitted to this
# timeline before, and `wait` waits for it.
#
# Why it matters: what is read back behind the wait is the result of the step before, and a buffer
# that is written then is still being read. Give the start value, or make a timeline for each.
#
# Seen on 2026-11-29 with hephaistos 0.15.0, lavapipe of Debian 13's mesa-vulkan-drivers 25.0.7,
# Python 3.13, Linux x86-64 (it takes neither Debian 12's lavapipe nor SwiftShader). Each sequence
# fills a tensor sixty times, then with its number, and copies it back:
#   first sequence: finished at once False, read behind the wait 1
#   second, no start value: finished at once True, read behind the wait 1
#   third, from the timeline's value: finished at once False, read behind the wait 3
set -eu
driver=/usr/share/vulkan/icd.d/lvp_icd.json
if [ ! -e "$driver" ]; then
    echo "this needs Debian 13's packages libvulkan1 and mesa-vulkan-drivers" >&2
    exit 1
fi
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --no-cache-dir hephaistos==0.15.0 numpy==2.4.6
VK_DRIVER_FILES="$driver" XDG_RUNTIME_DIR="$dir" "$dir/venv/bin/python" - <<'PY'
import sys
import time

import hephaistos as hp

SIZE = 64 << 20
tensor, result = hp.UnsignedIntTensor(SIZE), hp.UnsignedIntBuffer(SIZE)
fill = hp.clearTensor(tensor, data=9)


def run(text, number, *start):
    sequence = hp.beginSequence(*start)
    for _ in range(60):
        sequence.Then(fill)
    sequence.Then(hp.clearTensor(tensor, data=number)).Then(hp.retrieveTensor(tensor, result))
    submission = sequence.Submit()
    at_once = submission.finished
    submission.wait()
    read = int(result.numpy()[-1])
    print(f"{text}: finished at once {at_once}, read behind the wait {read}")
    # What may still be running is to be over before the next sequence.
    while int(result.numpy()[-1]) != number:
        time.sleep(0.01)
    time.sleep(0.1)
    return at_once, read


timeline = hp.Timeline()
seen = [
    run("first sequence", 1, timeline),
    run("second, no start value", 2, timeline),
    run("third, from the timeline's value", 3, timeline, timeline.value),
]
ok = seen == [(False, 1), (True, 1), (False, 3)]
sys.exit(0 if ok else "the behaviour has changed")
PY
