#!/bin/sh
# bench-node: a function that returns a promise is timed until it returns, not until that is done.
#
# A benchmark is awaited if its function is written with `async`. One that returns a promise without
# the keyword is run as a synchronous one: the promise is dropped, and the next call begins at once.
# Both are asynchronous for their callers, and other harnesses (tinybench, mitata) await both.
#
# Guess before the run: what is returned is awaited, if it can be.
#
# Why it matters: `() => device.queue.onSubmittedWorkDone()` is such a function. The result is the
# price of the call alone, and the work piles up on the device while the next benchmark is measured.
# Write `async () => await …`.
#
# Seen on 2026-11-29 with bench-node 0.15.0, Node 20, Linux x86-64 (a launch of 0.2 ms, and work of
# 20 ms; times vary):
#   async () => { await work() }: 21.198 ms a run, at most 1 at once
#   () => work(): 0.507 ms a run, at most 851 at once
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
npm install --silent --prefix "$dir" bench-node@0.15.0
cat >"$dir/bench.js" <<'JS'
const { Suite } = require("bench-node");

let running = 0;
let most = 0;

function work() {
  most = Math.max(most, ++running);
  for (const until = performance.now() + 0.2; performance.now() < until; );
  return new Promise((done) => setTimeout(done, 20)).then(() => running--);
}

async function measure(name, run) {
  most = 0;
  const suite = new Suite({ reporter: false });
  suite.add(name, { minTime: 0.1, maxTime: 0.3 }, run);
  const [{ opsSec }] = await suite.run();
  const milliseconds = 1000 / opsSec;
  console.log(`${name}: ${milliseconds.toFixed(3)} ms a run, at most ${most} at once`);
  return { milliseconds, most };
}

async function main() {
  const awaited = await measure("async () => { await work() }", async () => {
    await work();
  });
  const returned = await measure("() => work()", () => work());
  const ok = awaited.milliseconds >= 19 && awaited.most === 1;
  if (ok && returned.milliseconds < 10 && returned.most > 10) return;
  console.log("the behaviour has changed");
  process.exitCode = 1;
}

main();
JS
node --allow-natives-syntax "$dir/bench.js"
