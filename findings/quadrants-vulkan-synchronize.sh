#!/bin/sh
# Quadrants on Vulkan: synchronizing with an event or a stream returns while the work runs.
#
# `Event.synchronize()` should "block the host until this event has been reached",
# `Stream.synchronize()` "until all operations on this stream complete". On Vulkan both return at
# once, as do `record` and `wait`. The documentation calls the two no-ops on backends without them,
# and names the CPU. There a kernel is complete when its call returns, so that a no-op is right. On
# Vulkan the call returns early, and nothing waits but `quadrants.sync()`.
#
# Guess before the run: as on CUDA, or an error from `create_event()`.
#
# Why it matters: a program of two streams that is right on CUDA and on the CPU measures 0 ms on
# Vulkan, and frees or overwrites what the GPU still reads. Call `quadrants.sync()` there.
#
# Seen on 2026-11-28 with quadrants 1.3.3, Python 3.11, lavapipe of Debian 12's package
# mesa-vulkan-drivers (22.3.6), Linux x86-64 (times vary):
#   cpu: the call of the kernel 411 ms, event 0 ms, stream 0 ms, sync() 0 ms
#   vulkan: the call of the kernel 0 ms, event 0 ms, stream 0 ms, sync() 512 ms
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
driver=/usr/share/vulkan/icd.d/lvp_icd.x86_64.json
[ -e "$driver" ] || { echo "it needs mesa-vulkan-drivers"; exit 2; }
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --no-cache-dir quadrants==1.3.3 numpy==2.4.6
cat >"$dir/wait.py" <<'PY'
import sys
import time

import quadrants as qd

name = sys.argv[1]
qd.init(arch=getattr(qd, name), log_level=qd.WARN, offline_cache=False)
values = qd.field(qd.f32, shape=1 << 14)


@qd.kernel
def spin(count: qd.i32):
    for i in values:
        value = values[i]
        for _ in range(count):
            value = qd.sin(value) + 0.5
        values[i] = value


def milliseconds(call, *arguments):
    start = time.perf_counter()
    call(*arguments)
    return 1000 * (time.perf_counter() - start)


def whole(count):
    spin(count)
    qd.sync()


whole(1)
count = 100
while milliseconds(whole, count) < 300:
    count *= 2
event, stream = qd.create_event(), qd.create_stream()
called = milliseconds(spin, count)
event.record()
times = [called] + [milliseconds(wait) for wait in (event.synchronize, stream.synchronize, qd.sync)]
print(
    "{}: the call of the kernel {:.0f} ms, event {:.0f} ms, stream {:.0f} ms,"
    " sync() {:.0f} ms".format(name, *times)
)
expected = [True, False, False, False] if name == "cpu" else [False, False, False, True]
sys.exit(0 if [time > 100 for time in times] == expected else "the behaviour has changed")
PY
for backend in cpu vulkan; do
    VK_ICD_FILENAMES=$driver VK_DRIVER_FILES=$driver \
        "$dir/venv/bin/python" "$dir/wait.py" $backend 2>"$dir/log" >"$dir/out" ||
        { cat "$dir/out" "$dir/log"; exit 1; }
    grep -v '^\[Quadrants\]' "$dir/out"
done
