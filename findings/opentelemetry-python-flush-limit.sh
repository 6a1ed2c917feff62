#!/bin/sh
# OpenTelemetry for Python: `force_flush` waits past its limit, and says True of what was not sent.
#
# `force_flush(timeout_millis)` of a provider or of its batch processor is to return False once the
# limit is exceeded, and True if all spans were flushed. The batch processor does not look at the
# limit, nor at what its exporter says: it exports all in the caller's thread, and returns True.
#
# Guess before the run: False after 100 ms, and False if the exporter has failed.
#
# Why it matters: a program flushes with a limit before it exits or is frozen. If the collector is
# slow it hangs there for as long as the exporter tries, batch by batch, and if the spans were
# refused it goes on as if they were safe. Count in the exporter what has been sent.
#
# Seen on 2026-11-29 with opentelemetry-sdk 1.45.2, Python 3.11, Linux x86-64 (times vary):
#   3 spans, exporter takes 1 s: True after 1000 ms with a limit of 100 ms
#   3 spans, exporter fails: True after 0 ms, 0 sent
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --no-cache-dir opentelemetry-sdk==1.45.2
"$dir/venv/bin/python" - <<'PY'
import sys
import time

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult


class Exporter(SpanExporter):
    def __init__(self, seconds, result):
        self.seconds = seconds
        self.result = result

    def export(self, spans):
        time.sleep(self.seconds)
        return self.result


def flush(count, exporter):
    provider = TracerProvider()
    # The processor's own thread stays out of it.
    processor = BatchSpanProcessor(exporter, schedule_delay_millis=600_000)
    provider.add_span_processor(processor)
    tracer = provider.get_tracer("flush")
    for _ in range(count):
        tracer.start_span("kernel").end()
    start = time.monotonic()
    said = provider.force_flush(timeout_millis=100)
    return said, 1000 * (time.monotonic() - start)


slow, took = flush(3, Exporter(1, SpanExportResult.SUCCESS))
print(f"3 spans, exporter takes 1 s: {slow} after {took:.0f} ms with a limit of 100 ms")
failed, briefly = flush(3, Exporter(0, SpanExportResult.FAILURE))
print(f"3 spans, exporter fails: {failed} after {briefly:.0f} ms, 0 sent")
same = slow and took >= 900 and failed
sys.exit(0 if same else "the behaviour has changed")
PY
