#!/bin/sh
# Google Benchmark: with manual time the minimum time counts the reported time alone.
#
# `use_manual_time` lets a benchmark report, say, the time between two device events. Iterations
# are then added until the sum of the reported times reaches `min_time`; the time that passes on
# the host is not looked at. A kernel of 20 us that costs the host 1 ms each runs fifty times as
# long as asked for: half a second becomes 25 s.
#
# Guess before the run: the benchmark ends when either clock has passed the minimum time several
# times over, as it does for benchmarks that report CPU time.
#
# Why it matters: short kernels are what device events are used for. criterion 0.8 errs in the
# other direction, by wall time alone. Set the number of iterations by hand for short kernels.
#
# Seen on 2026-11-28 with google-benchmark 1.9.5, Python 3.11, Linux x86-64 (times vary):
#   asked for 0.01 s:
#   1 iterations, 0.001 s on the host
#   10 iterations, 0.011 s on the host
#   100 iterations, 0.109 s on the host
#   700 iterations, 0.752 s on the host
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet google-benchmark==1.9.5
cat >"$dir/manual.py" <<'PY'
import time

import google_benchmark as benchmark


@benchmark.register
@benchmark.option.use_manual_time()
@benchmark.option.min_time(0.01)
def short_kernel(state):
    started = time.perf_counter()
    while state:
        time.sleep(0.001)
        state.set_iteration_time(20e-6)
    print(f"{state.iterations} iterations, {time.perf_counter() - started:.3f} s on the host")


benchmark.main()
PY
echo "asked for 0.01 s:"
"$dir/venv/bin/python" "$dir/manual.py" 2>/dev/null | grep 'on the host' | tee "$dir/seen"
# 0.01 s of 20 us each are 500 iterations, which cost at least 0.5 s.
tail -n 1 "$dir/seen" | awk '$1 < 500 || $3 < 0.5 { print "the behaviour has changed"; exit 1 }'
