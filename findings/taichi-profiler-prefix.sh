#!/bin/sh
# Taichi: a kernel's time, asked for by name, includes every kernel whose name begins the same way.
#
# `query_kernel_profiler_info("step")` returns launches, minimum, maximum and average of the kernel
# `step`. The name is matched as a prefix. When `step` and `step_large` have run equally often, the
# answer for "step" is the sum of both, without a word. When they have run unequally often, Taichi
# logs a warning and leaves out some. A prefix such as "st" is accepted as a name, too.
#
# Guess before the run: "step" answers for the kernel `step` alone.
#
# Why it matters: whoever compares a kernel's time from this profiler with a pair of events around
# its launch sees a factor that comes from another kernel. Names that are no prefix of each other
# avoid it.
#
# Seen on 2026-11-28 with taichi 1.7.4, Python 3.11, CPU backend, Linux x86-64 (times in ms vary):
#   step: 5 launches, at least 3.606 ms
#   step_large: 5 launches, at least 3.587 ms
#   st: 5 launches, at least 3.606 ms
#   step, when it ran without step_large: at least 0.035 ms
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet taichi==1.7.4
cat >"$dir/profile.py" <<'PY'
import sys

import taichi as ti

ti.init(arch=ti.cpu, kernel_profiler=True, log_level=ti.WARN, offline_cache=False)
small, large = ti.field(ti.f32, 1000), ti.field(ti.f32, 2_000_000)


@ti.kernel
def step():
    for i in small:
        small[i] += 1.0


@ti.kernel
def step_large():
    for i in large:
        large[i] = ti.sin(large[i] + 1.0)


def run(*kernels):
    ti.sync()
    ti.profiler.clear_kernel_profiler_info()
    for _ in range(5):
        for kernel in kernels:
            kernel()
    ti.sync()


def ask(name):
    return ti.profiler.query_kernel_profiler_info(name)


step(), step_large()
run(step)
alone = ask("step").min
run(step, step_large)
answers = [ask(name) for name in ("step", "step_large", "st")]
for name, answer in zip(("step", "step_large", "st"), answers):
    print(f"{name}: {answer.counter} launches, at least {answer.min:.3f} ms")
print(f"step, when it ran without step_large: at least {alone:.3f} ms")
both, big, prefix = answers
ok = both.counter == 5 and both.min >= big.min > alone and prefix.min == both.min
sys.exit(0 if ok else "the behaviour has changed")
PY
(cd "$dir" && "$dir/venv/bin/python" profile.py)
