#!/bin/sh
# Firefox Profiler: async spans of a Chrome trace are matched by name, so lengths are exchanged.
#
# The format matches the begin and end of an async span (`b`, `e`) by category and id; the two may
# be on different threads. The importer takes no notice of the id, and ends the span of this name
# that began last on the same thread. An end on another thread makes a marker without length there,
# and the span runs on to the end of the profile. An end event without a name, which the format
# allows for spans of threads (`B`, `E`), makes it refuse the whole file.
#
# Guess before the run: as in Perfetto, which has each span with the length that was written.
#
# Why it matters: async spans are what overlaps, such as the work of two streams, or what begins on
# one thread and is told complete on another. All lengths look plausible. Give each a row (`tid`) of
# its own and write it with a length (`X`), or give each a name of its own.
#
# Seen on 2026-11-28 with @firefox-devtools/profiler-cli 0.10.0 (the importer of
# profiler.firefox.com), Node 24.21.0 of npm; times in microseconds:
#   written: copy 5 to 20, copy 6 to 40, one thread: read 5 to 40, 6 to 20
#   written: copy 5 to 20, kernel 6 to 40, one thread: read 5 to 20, 6 to 40
#   written: copy 5 to 20, ended on another thread: read 5 to 505, 20 to 20
#   written: work 5 to 20, an end without a name: the file is refused
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
npm install --silent --prefix "$dir" @firefox-devtools/profiler-cli@0.10.0 node@24.21.0
cat >"$dir/spans.py" <<'PY'
import json
import pathlib
import subprocess
import sys

folder = pathlib.Path(sys.argv[1]) / "node_modules"
trace = pathlib.Path(sys.argv[1]) / "trace.json"
program = folder / "@firefox-devtools/profiler-cli/dist/profiler-cli.js"
LAST = {"ph": "X", "name": "all", "pid": 1, "tid": 3, "ts": 0, "dur": 50}


def call(*arguments):
    command = [str(folder / "node/bin/node"), str(program), *arguments]
    return subprocess.run(command, capture_output=True, text=True)


def read(events):
    trace.write_text(json.dumps({"traceEvents": [*events, LAST]}))
    loaded = call("load", str(trace))
    if loaded.returncode:
        call("stop", "--all")
        assert "did not follow the expected form" in loaded.stdout + loaded.stderr, loaded
        return None
    threads = json.loads(call("thread", "list", "--json").stdout)["threads"]
    found = []
    for thread in threads:
        listed = call("thread", "markers", "--thread", thread["threadHandle"], "--list", "--json")
        found += json.loads(listed.stdout)["flatMarkers"]
    call("stop", "--all")
    times = [(1000 * m["start"], 1000 * (m["start"] + m["duration"])) for m in found]
    return sorted((round(begin), round(end)) for begin, end in times if round(begin) > 0)


def spans(*names, ends_on=1):
    for number, (name, begin, end) in enumerate(zip(names, (5, 6), (20, 40))):
        both = {"name": name, "cat": "work", "pid": 1, "id": str(number)}
        yield both | {"ph": "b", "tid": 1, "ts": begin}
        yield both | {"ph": "e", "tid": ends_on, "ts": end}


thread = {"pid": 1, "tid": 1, "cat": "work"}
nameless = [thread | {"ph": "B", "name": "work", "ts": 5}, thread | {"ph": "E", "ts": 20}]
seen = []
for written, events in (
    ("copy 5 to 20, copy 6 to 40, one thread", spans("copy", "copy")),
    ("copy 5 to 20, kernel 6 to 40, one thread", spans("copy", "kernel")),
    ("copy 5 to 20, ended on another thread", spans("copy", ends_on=2)),
    ("work 5 to 20, an end without a name", nameless),
):
    times = read(sorted(events, key=lambda event: event["ts"]))
    seen.append(times)
    texts = [f"{begin} to {end}" for begin, end in times or ()]
    print(f"written: {written}:", "read " + ", ".join(texts) if times else "the file is refused")
expected = [[(5, 40), (6, 20)], [(5, 20), (6, 40)], [(5, 505), (20, 20)], None]
sys.exit(0 if seen == expected else "the behaviour has changed")
PY
HOME="$dir" python3 "$dir/spans.py" "$dir"
