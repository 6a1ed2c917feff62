#!/bin/sh
# Holistic Trace Analysis: kernels of 0.9 µs take negative time, and others lose a microsecond.
#
# The parser rounds each start up and each end down to whole microseconds, and takes the difference
# as the duration. A kernel that lies within one microsecond then lasts -1 µs, and others lose one
# microsecond on average. The breakdown by kernel adds these up. A warning in the log says that
# events are rounded.
#
# Guess before the run: durations in steps of nanoseconds, as PyTorch writes them, or rounded to
# the nearest microsecond.
#
# Why it matters: small kernels and memory copies are what such a breakdown is asked about, and
# their sum comes out as zero or less, whatever they took. Set HTA_DISABLE_NS_ROUNDING=1.
#
# Seen on 2026-11-28 with HolisticTraceAnalysis 0.5.0, pandas 3.1.1, Python 3.11; 1,000 kernels
# each, in a trace as torch.profiler writes it:
#   lasting 0.896 µs, 896 µs together: sum -80 µs, from -1 to 0 µs
#   lasting 2.5 µs, 2500 µs together: sum 1510 µs, from 1 to 2 µs
#   HTA_DISABLE_NS_ROUNDING=1, lasting 0.896 µs, 896 µs together: sum 896 µs, from 1 to 1 µs
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --no-cache-dir HolisticTraceAnalysis==0.5.0 \
    pandas==3.1.1 numpy==2.4.6 plotly==7.1.0
cat >"$dir/sums.py" <<'PY'
import json
import logging
import os
import pathlib
import sys

from hta.trace_analysis import TraceAnalysis

logging.disable()
COUNT = 1000


def written(duration, every):
    ids = [{"correlation": n, "External id": n} for n in range(1, COUNT + 1)]
    events = [
        {"ph": "X", "cat": "user_annotation", "name": "ProfilerStep#1", "pid": 1, "tid": 1}
        | {"ts": 1000.0, "dur": COUNT * every + 100, "args": {}}
    ]
    for n, link in enumerate(ids):
        launched = round(1001 + n * every, 3)
        call = {"ph": "X", "cat": "cuda_runtime", "name": "cudaLaunchKernel", "pid": 1, "tid": 1}
        events.append(call | {"ts": launched, "dur": 0.4, "args": link})
        kernel = {"ph": "X", "cat": "kernel", "name": "add", "pid": 0, "tid": 7}
        at = {"ts": round(launched + 4, 3), "dur": duration}
        events.append(kernel | at | {"args": link | {"device": 0, "stream": 7, "context": 1}})
    ranks = {"rank": 0, "world_size": 1, "backend": "nccl"}
    return {"schemaVersion": 1, "distributedInfo": ranks, "traceEvents": events}


def breakdown(name, duration, every):
    folder = pathlib.Path(sys.argv[1], name)
    folder.mkdir()
    (folder / "rank0.json").write_text(json.dumps(written(duration, every)))
    _, kernels = TraceAnalysis(trace_dir=str(folder)).get_gpu_kernel_breakdown(visualize=False)
    total, least, most = kernels.loc[0, ["sum (us)", "min (us)", "max (us)"]]
    print(f"lasting {duration} µs, {COUNT * duration:.0f} µs together: ", end="")
    print(f"sum {total:.0f} µs, from {least:.0f} to {most:.0f} µs")
    return total, least, most


short = breakdown("short", 0.896, 1.12)
longer = breakdown("longer", 2.5, 3.31)
os.environ["HTA_DISABLE_NS_ROUNDING"] = "1"
print("HTA_DISABLE_NS_ROUNDING=1, ", end="")
exact = breakdown("exact", 0.896, 1.12)
ok = short[0] < 0 and short[1] == -1 and 1400 < longer[0] < 1600 and exact[0] > 890
sys.exit(0 if ok else "the behaviour has changed")
PY
"$dir/venv/bin/python" -W ignore "$dir/sums.py" "$dir"
