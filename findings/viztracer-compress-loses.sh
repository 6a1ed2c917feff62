#!/bin/sh
# VizTracer: a trace that is compressed and restored has other times and other categories.
#
# `viztracer --compress` is for traces in the Chrome format, and `--decompress` makes JSON of its
# file again. Start and length of a complete event (`X`) come back in steps of 10 ns, cut off, and
# its category is "FEE" whatever it was. Other kinds of events come back as they were. A trace that
# gives the order of a thread (`thread_sort_index`) is refused, with "Unable to find traceEvents".
#
# Guess before the run: the same events, as from other compression, or a note of what is dropped.
#
# Why it matters: a span of 4 ns takes no time, a sum of 10,000 short ones is up to 0.1 ms too low,
# and a selection by category, by which device work is told from host calls, finds nothing. Compress
# the JSON with gzip, which Perfetto reads as it is.
#
# Seen on 2026-11-28 with viztracer 1.1.1, Python 3.11, Linux x86-64:
#   written: span of gpu at 1000.019 us for 112.689; read: span of FEE at 1000.01 us for 112.68
#   written: span of gpu at 1200.123 us for 0.004; read: span of FEE at 1200.12 us for 0.0
#   written: instant of gpu at 1200.123 us; read: instant of gpu at 1200.123 us
#   with the order of a thread: refused, Unable to find traceEvents
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --no-cache-dir viztracer==1.1.1
cat >"$dir/compress.py" <<'PY'
import json
import pathlib
import subprocess
import sys

folder = pathlib.Path(sys.argv[1])
program = [sys.executable, "-m", "viztracer"]
plain, small, again = (str(folder / name) for name in ("plain.json", "small.cvf", "again.json"))
GPU = {"cat": "gpu", "name": "kernel", "pid": 1, "tid": 2}
WRITTEN = [
    GPU | {"ph": "X", "ts": 1000.019, "dur": 112.689},
    GPU | {"ph": "X", "ts": 1200.123, "dur": 0.004},
    GPU | {"ph": "i", "ts": 1200.123, "s": "t"},
]
ORDER = {"ph": "M", "name": "thread_sort_index", "pid": 1, "tid": 2, "args": {"sort_index": 1}}


def run(*arguments):
    return subprocess.run([*program, *arguments], capture_output=True, text=True)


def compress(events):
    trace = {"traceEvents": events, "file_info": {"files": {}, "functions": {}}}
    pathlib.Path(plain).write_text(json.dumps(trace))
    return run("--compress", plain, "-o", small)


def text(event):
    kind = "span" if event["ph"] == "X" else "instant"
    length = f" for {event['dur']}" if "dur" in event else ""
    return f"{kind} of {event['cat']} at {event['ts']} us{length}"


compress(WRITTEN).check_returncode()
run("--decompress", small, "-o", again).check_returncode()
read = json.loads(pathlib.Path(again).read_text())["traceEvents"]
key = lambda event: (event["ph"], event["ts"])
pairs = list(zip(sorted(WRITTEN, key=key), sorted(read, key=key)))
for one, other in pairs:
    print(f"written: {text(one)}; read: {text(other)}")
refused = compress([*WRITTEN, ORDER])
reason = refused.stderr.strip().splitlines()[-1].split(": ")[-1] if refused.returncode else ""
print(f"with the order of a thread: {'refused, ' + reason if reason else 'compressed'}")
spans = [(event["cat"], event["ts"], event["dur"]) for _, event in pairs if event["ph"] == "X"]
expected = [("FEE", 1000.01, 112.68), ("FEE", 1200.12, 0.0)]
(same,) = (one == other for one, other in pairs if one["ph"] == "i")
ok = spans == expected and same and reason == "Unable to find traceEvents"
sys.exit(0 if ok else "the behaviour has changed")
PY
"$dir/venv/bin/python" "$dir/compress.py" "$dir"
