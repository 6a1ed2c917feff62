#!/bin/sh
# XProf: the trace viewer counts times modulo 213.5 days, so a time since 1970 is another one.
#
# A line of an XSpace, the file of OpenXLA's profilers, has a 64-bit start in nanoseconds, and its
# events count picoseconds from there. The converter for the trace viewer adds the two in 64 bits of
# picoseconds, which hold 213.5 days. What is later begins again at 0; the file converts without a
# word. Two events of one line that lie on both sides of it are 213 days apart.
#
# Guess before the run: the start as it is in the file, or the distance from the profile's start.
#
# Why it matters: a profile with times since 1970 cannot be put beside a log or another profile by
# the times in the viewer, though the file has them right. Let lines count from the profile's start.
#
# Seen on 2026-11-28 with xprof 2.24.2, Python 3.11, Linux x86-64 (two events, 1.5 us apart):
#   line at 1000 ns: 1.0 us, 2.5 us
#   line at 10^15 ns: 1000000000000.0 us, 1000000000001.5 us
#   line at 1700000000000000000 ns: 2899545218721.3 us, 2899545218722.8 us
#   line at 18446744073709551 ns: 18446744073709.6 us, 1.5 us
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --no-cache-dir xprof==2.24.2
"$dir/venv/bin/python" - "$dir" 2>"$dir/log" <<'PY' || { tail -n 5 "$dir/log"; exit 1; }
import json
import pathlib
import sys

from xprof.convert import raw_to_tool_data

path = pathlib.Path(sys.argv[1]) / "host.xplane.pb"


def varint(value):
    data = b""
    while value > 127:
        data += bytes([value % 128 | 128])
        value //= 128
    return data + bytes([value])


def field(number, value):
    if isinstance(value, int):
        return varint(8 * number) + varint(value)
    return varint(8 * number + 2) + varint(len(value)) + value


def shown(nanoseconds):
    events = [
        field(1, 1) + field(2, picoseconds) + field(3, 1_500_000)
        for picoseconds in (0, 1_500_000)
    ]
    line = field(1, 1) + field(2, b"Stream #1") + field(3, nanoseconds)
    line += b"".join(field(4, event) for event in events)
    name = field(1, 1) + field(2, field(1, 1) + field(2, b"kernel"))
    plane = field(1, 1) + field(2, b"/device:GPU:0") + field(3, line) + field(4, name)
    path.write_bytes(field(1, plane))
    text = raw_to_tool_data.xspace_to_tool_data([str(path)], "trace_viewer", {})[0]
    found = json.loads(text)["traceEvents"]
    return [event["ts"] for event in found if event.get("ph") == "X"]


last = 2**64 // 1000
ok = True
for start in (1000, 10**15, 1_700_000_000 * 10**9, last):
    times = shown(start)
    label = "10^15" if start == 10**15 else start
    print(f"line at {label} ns: {', '.join(f'{time:.1f} us' for time in times)}")
    expected = [(1000 * start + offset) % 2**64 / 1e6 for offset in (0, 1_500_000)]
    ok = ok and all(abs(a - b) < 0.01 for a, b in zip(times, expected, strict=True))
sys.exit(0 if ok else "the behaviour has changed")
PY
