#!/bin/sh
# OpenTelemetry for JavaScript: a span with a given start ends in whole milliseconds, often at 0.
#
# `span.end()` takes a precise time of its own, unless the span was started with a `startTime`. It
# then takes `Date.now()`, which is cut to milliseconds, while the start keeps its nanoseconds. An
# end that comes out before the start is moved to it, and the duration is 0. Only a diagnostic
# logger, which is off by default, is told.
#
# Guess before the run: the end is as precise as without a given start.
#
# Why it matters: whoever gives a start has one from elsewhere, such as a device's clock. All such
# spans are half a millisecond too short on average, and many of those below one millisecond read
# 0. Give `end` a time as well: `span.end(performance.timeOrigin + performance.now())`.
#
# Seen on 2026-11-28 with @opentelemetry/sdk-trace-base 2.12.1, Node 20, and likewise with
# @opentelemetry/sdk-trace 3.1.1; 400 spans around a wait of 0.5 ms (numbers vary):
#   no start given, end(): 0 read 0, median 0.501 ms
#   start given, end(): 187 read 0, median 0.024 ms
#   start given, end given: 0 read 0, median 0.504 ms
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
npm install --silent --prefix "$dir" @opentelemetry/sdk-trace-base@2.12.1
cat >"$dir/spans.js" <<'JS'
const sdk = require("@opentelemetry/sdk-trace-base");

const COUNT = 400;
const exporter = new sdk.InMemorySpanExporter();
const spanProcessors = [new sdk.SimpleSpanProcessor(exporter)];
const tracer = new sdk.BasicTracerProvider({ spanProcessors }).getTracer("spans");
const now = () => performance.timeOrigin + performance.now();

function measure(name, begin, end) {
  exporter.reset();
  for (let n = 0; n < COUNT; n++) {
    const span = begin();
    for (const until = performance.now() + 0.5; performance.now() < until; );
    end(span);
  }
  const spans = exporter.getFinishedSpans();
  const lasting = spans.map(({ duration }) => 1e3 * duration[0] + duration[1] / 1e6);
  const zeros = lasting.filter((length) => length === 0).length;
  const median = lasting.sort((one, other) => one - other)[COUNT / 2];
  console.log(`${name}: ${zeros} read 0, median ${median.toFixed(3)} ms`);
  return { zeros, median };
}

const plain = () => tracer.startSpan("wait");
const given = () => tracer.startSpan("wait", { startTime: now() });
const neither = measure("no start given, end()", plain, (span) => span.end());
const start = measure("start given, end()", given, (span) => span.end());
const both = measure("start given, end given", given, (span) => span.end(now()));
const ok = neither.zeros === 0 && both.zeros === 0 && start.zeros > COUNT / 10;
if (!ok || start.median > neither.median) console.log("the behaviour has changed");
process.exit(ok && start.median < neither.median ? 0 : 1);
JS
node "$dir/spans.js"
