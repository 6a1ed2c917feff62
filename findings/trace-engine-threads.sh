#!/bin/sh
# Chrome's trace engine: spans written as begin and end events are lost where two threads overlap.
#
# The format says that begin and end events (`B`, `E`) are matched on their own thread. The engine
# of Chrome's DevTools keeps one stack for all threads: if another thread begins or ends a span in
# between, the names do not match, and both spans are dropped with a line on the console. One thread
# alone is read rightly, and so are events with a length (`X`). An end without a name, which the
# format allows, ends the whole import with a TypeError.
#
# Guess before the run: every span of both threads, as Perfetto reads them.
#
# Why it matters: a trace of two threads at work at one time loses spans, and nothing in the picture
# tells. Write events with a length.
#
# Seen on 2026-11-28 with @paulirish/trace_engine 0.0.65, node 20.20.2:
#   begin and end, one thread: 2 of 2 spans
#   begin and end, two threads: 0 of 2 spans
#   with a length, two threads: 2 of 2 spans
#   an end without a name: TypeError
#
# It needs node and npm.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
npm init --yes >/dev/null
npm install --silent --no-fund --no-audit @paulirish/trace_engine@0.0.65
cat >threads.mjs <<'JS'
import {TraceModel} from '@paulirish/trace_engine';

console.error = () => {}; // The line for each pair that does not match.

async function spans(events) {
  const named = {ph: 'M', pid: 1, tid: 1, name: 'thread_name', args: {name: 'one'}};
  const model = TraceModel.Model.createWithAllHandlers();
  try {
    await model.parse([named, ...events], {metadata: {}});
  } catch (error) {
    return error.constructor.name;
  }
  const renderer = model.parsedTrace().data.Renderer;
  const threads = [...renderer.processes.values()].flatMap((p) => [...p.threads.values()]);
  const found = threads.flatMap((thread) => thread.entries).filter((entry) => entry.dur > 0);
  return `${found.length} of 2 spans`;
}

const begin = (tid, ts, name) => ({ph: 'B', pid: 1, tid, ts, name, cat: 'c'});
const end = (tid, ts, name) => ({ph: 'E', pid: 1, tid, ts, name, cat: 'c'});
const whole = (tid, ts, dur, name) => ({ph: 'X', pid: 1, tid, ts, dur, name, cat: 'c'});
const cases = {
  'begin and end, one thread':
    [begin(1, 10, 'a'), end(1, 30, 'a'), begin(1, 30, 'b'), end(1, 40, 'b')],
  'begin and end, two threads':
    [begin(1, 10, 'a'), begin(2, 20, 'b'), end(1, 30, 'a'), end(2, 40, 'b')],
  'with a length, two threads': [whole(1, 10, 20, 'a'), whole(2, 20, 20, 'b')],
  'an end without a name': [begin(1, 10, 'a'), {ph: 'E', pid: 1, tid: 1, ts: 30}],
};
const seen = [];
for (const [name, events] of Object.entries(cases)) {
  seen.push(await spans(events));
  console.log(`${name}: ${seen.at(-1)}`);
}
const expected = ['2 of 2 spans', '0 of 2 spans', '2 of 2 spans', 'TypeError'];
process.exit(seen.join() === expected.join() ? 0 : 1);
JS
node threads.mjs || { echo "the behaviour has changed"; exit 1; }
