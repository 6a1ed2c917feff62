#!/bin/sh
# Numba: events of the CUDA simulator lack `query`, so code that polls runs on a GPU only.
#
# With NUMBA_ENABLE_CUDASIM=1 `numba.cuda.event()` has `record`, `wait`, `synchronize` and
# `elapsed_time`. The `query` of the real class is missing and raises AttributeError; the stream
# lacks `add_callback` and `async_done`, the other ways to learn of completion without blocking.
# `elapsed_time` gives 0.0 with a warning, whether or not the events were recorded.
#
# Guess before the run: everything completes at once, so `query()` is True.
#
# Why it matters: the simulator is how code is tested where there is no GPU. A scheduler that polls
# events or awaits a stream cannot be tested on it without a substitute for these.
#
# Seen on 2026-11-28 with numba 0.68.1, Python 3.11, Linux x86-64:
#   event: missing query, of elapsed_time query record synchronize wait
#   stream: missing add_callback, async_done, of add_callback async_done auto_synchronize
#     synchronize
#   elapsed_time, never recorded: 0.0, 1 warning
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet numba==0.68.1 numpy==2.4.6
NUMBA_ENABLE_CUDASIM=0 "$dir/venv/bin/python" - >"$dir/real" <<'PY'
from numba.cuda.cudadrv.driver import Event, Stream

for kind in Event, Stream:
    print(*sorted(name for name in vars(kind) if not name.startswith("_")))
PY
NUMBA_ENABLE_CUDASIM=1 "$dir/venv/bin/python" - "$dir/real" <<'PY'
import pathlib
import sys
import warnings

from numba import cuda

real_event, real_stream = pathlib.Path(sys.argv[1]).read_text().splitlines()
missing_event = set(real_event.split()) - set(dir(cuda.event()))
missing_stream = set(real_stream.split()) - set(dir(cuda.stream()))
print(f"event: missing {', '.join(sorted(missing_event))}, of {real_event}")
print(f"stream: missing {', '.join(sorted(missing_stream))}, of {real_stream}")
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    elapsed = cuda.event().elapsed_time(cuda.event())
print(f"elapsed_time, never recorded: {elapsed}, {len(caught)} warning")
ok = missing_event == {"query"} and missing_stream == {"add_callback", "async_done"}
sys.exit(0 if ok and elapsed == 0 and len(caught) == 1 else "the behaviour has changed")
PY
