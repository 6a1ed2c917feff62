#!/bin/sh
# Dr.Jit on LLVM: a reversed pair of events reads 0.0 ms, and asking for a pending pair waits.
#
# `start.elapsed_time(end)` of `drjit.llvm.Event` blocks until the end event is complete; its
# documentation names the errors that it raises, but no wait. With the arguments exchanged it
# returns exactly 0.0: neither a negative time nor an error.
#
# Guess before the run: as in PyTorch, an error while an event is pending; a negative time for a
# reversed pair.
#
# Why it matters: a loop that polls with `elapsed_time` serialises host and device. Exchanged
# arguments look like an operation that takes no time. Poll with `query()`, and check the order
# where 0.0 comes back.
#
# Seen on 2026-11-28 with drjit 1.5.0, Python 3.11, libLLVM 15.0.6 of Debian 12 (libllvm15), Linux
# x86-64 (times vary):
#   the end event is complete: False
#   elapsed_time: 1418.1 ms, returned after 1410 ms
#   reversed: 0.0 ms
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
llvm=$(ldconfig -p | sed -n 's/.*libLLVM-15\.so\.1 .*=> //p' | head -n 1)
if [ -z "$llvm" ]; then
    (cd "$dir" && apt-get download --quiet libllvm15 && dpkg -x libllvm15_*.deb .)
    llvm=$(find "$dir" -name 'libLLVM-15.so.1' | head -n 1)
fi
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet drjit==1.5.0
DRJIT_LIBLLVM_PATH=$llvm "$dir/venv/bin/python" - <<'PY'
import sys
import time

import drjit
from drjit.llvm import Event, Float

numbers = drjit.arange(Float, 4_000_000)
drjit.eval(numbers)


def start_work():
    result = numbers
    for _ in range(300):
        result = drjit.sin(result)
    drjit.eval(result)
    return result


start_work()
drjit.sync_thread()
start, end = Event(), Event()
start.record()
kept = start_work()
end.record()
complete = end.query()
asked = time.perf_counter()
elapsed = start.elapsed_time(end)
took = 1000 * (time.perf_counter() - asked)
backwards = end.elapsed_time(start)
print(f"the end event is complete: {complete}")
print(f"elapsed_time: {elapsed:.1f} ms, returned after {took:.0f} ms")
print(f"reversed: {backwards} ms")
ok = not complete and elapsed > 0 and took > elapsed / 2 and backwards == 0
sys.exit(0 if ok else "the behaviour has changed")
PY
