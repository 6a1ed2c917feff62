#!/bin/sh
# OTF2 for Python: a trace that is copied, or converted later, is dated to the moment of writing.
#
# The properties of an OTF2 trace say at which wall-clock time it lay, so that its ticks can be put
# beside other clocks: `realtime_timestamp` belongs to the tick `global_offset`. The writer sets it
# to the wall clock at the first event that is handed to it. A copy made with the definitions of the
# original, which have the date, is so dated anew. The writer has no argument for it. The number is
# a float's, in steps of 256 ns.
#
# Guess before the run: a copy keeps the date, or the date is left undefined.
#
# Why it matters: filtering a trace moves it in time, and nothing tells. A profile of a device that
# is converted an hour later cannot be put beside a log. Keep the date in a property of your own.
#
# Seen on 2026-11-28 with otf2 3.2 (PyPI), Python 3.11, Linux x86-64 (the date varies):
#   original: first tick 1000, dated 2026-11-28 14:45:02
#   copy, two seconds later: first tick 1000, dated 2.0 s later than the original
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --no-cache-dir otf2==3.2
"$dir/venv/bin/python" - "$dir" <<'PY'
import pathlib
import sys
import time

import otf2

SECOND = 1_000_000_000
folder = pathlib.Path(sys.argv[1])


def clock(name):
    with otf2.reader.open(str(folder / name / "traces.otf2")) as trace:
        return trace.definitions.clock_properties


def record(name):
    with otf2.writer.open(str(folder / name), timer_resolution=SECOND) as trace:
        region = trace.definitions.region("kernel")
        root = trace.definitions.system_tree_node("root")
        group = trace.definitions.location_group("device", system_tree_parent=root)
        stream = trace.event_writer("stream", group=group)
        stream.enter(1000, region)
        stream.leave(2000, region)


def copy(source, target):
    with otf2.reader.open(str(folder / source / "traces.otf2")) as trace:
        with otf2.writer.open(str(folder / target), definitions=trace.definitions) as written:
            for location, event in trace.events:
                written.event_writer_from_location(location)(event)


record("original")
time.sleep(2)
copy("original", "copy")
original, copied = clock("original"), clock("copy")
date = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(original.realtime_timestamp / SECOND))
print(f"original: first tick {original.global_offset}, dated {date}")
later = (copied.realtime_timestamp - original.realtime_timestamp) / SECOND
print(
    f"copy, two seconds later: first tick {copied.global_offset},"
    f" dated {later:.1f} s later than the original"
)
same = original.global_offset == copied.global_offset == 1000
sys.exit(0 if same and 1.9 < later < 60 else "the behaviour has changed")
PY
