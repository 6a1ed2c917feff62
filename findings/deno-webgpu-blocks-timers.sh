#!/bin/sh
# Deno: while a program awaits the GPU, no timer and no other task of it runs.
#
# `await device.queue.onSubmittedWorkDone()` and `await buffer.mapAsync(…)` give promises, and the
# event loop stands still until the work is done. A timer of 5 ms fires some three times in half a
# second. It is the same on two drivers. Dawn in Node does better: its timers are late, but run.
#
# Guess before the run: the loop goes on turning, as in a browser; that is what the promise is for.
#
# Why it matters: a server that runs a model answers nobody meanwhile, and a time limit by `race`
# with a timer never fires in time. Give the GPU a worker of its own.
#
# Seen on 2026-11-28 with deno 2.9.6 of npm, Node 20, SwiftShader of Debian 12's package
# chromium-common (156.0.8078.108), Linux x86-64 (times vary; on lavapipe likewise):
#   a sleep: 500 ms, the timer of 5 ms ran 90 times
#   onSubmittedWorkDone: 560 ms, the timer of 5 ms ran 3 times
#   mapAsync: 551 ms, the timer of 5 ms ran 3 times
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
driver=/usr/lib/chromium/libvk_swiftshader.so
if [ ! -e "$driver" ]; then
    (cd "$dir" && apt-get download --quiet chromium-common && dpkg -x chromium-common_*.deb .)
    driver=$dir$driver
fi
cat >"$dir/swiftshader.json" <<JSON
{"file_format_version": "1.0.0", "ICD": {"library_path": "$driver", "api_version": "1.0.5"}}
JSON
npm install --silent --no-fund --no-audit --prefix "$dir" deno@2.9.6
cat >"$dir/timers.mjs" <<'JS'
const adapter = await navigator.gpu.requestAdapter();
const device = await adapter.requestDevice();
const code = `
@group(0) @binding(0) var<storage, read_write> values: array<f32>;
@compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3u) {
  var value = values[id.x];
  for (var i = 0u; i < 20000u; i++) { value = sin(value) + 0.5; }
  values[id.x] = value;
}`;
const compute = { module: device.createShaderModule({ code }), entryPoint: "main" };
const pipeline = device.createComputePipeline({ layout: "auto", compute });
const size = 4 * 64 * 4096;
const { STORAGE, COPY_SRC, COPY_DST, MAP_READ } = GPUBufferUsage;
const buffer = device.createBuffer({ size, usage: STORAGE | COPY_SRC });
const result = device.createBuffer({ size, usage: MAP_READ | COPY_DST });
const entries = [{ binding: 0, resource: { buffer } }];
const group = device.createBindGroup({ layout: pipeline.getBindGroupLayout(0), entries });

function submit(groups) {
  const encoder = device.createCommandEncoder();
  const pass = encoder.beginComputePass();
  pass.setPipeline(pipeline);
  pass.setBindGroup(0, group);
  pass.dispatchWorkgroups(groups);
  pass.end();
  encoder.copyBufferToBuffer(buffer, 0, result, 0, size);
  device.queue.submit([encoder.finish()]);
}

let ticks = 0;
async function during(what, wait) {
  const start = performance.now();
  ticks = 0;
  await wait();
  const took = performance.now() - start;
  const seen = ticks;
  if (what) console.log(`${what}: ${took.toFixed(0)} ms, the timer of 5 ms ran ${seen} times`);
  return [took, seen];
}

let groups = 8;
for (let took = 0; took < 400 && groups < 4096; ) {
  groups *= 2;
  submit(groups);
  [took] = await during("", () => device.queue.onSubmittedWorkDone());
}
const timer = setInterval(() => ticks++, 5);
const sleep = () => new Promise((resolve) => setTimeout(resolve, 500));
const [, asleep] = await during("a sleep", sleep);
submit(groups);
const done = await during("onSubmittedWorkDone", () => device.queue.onSubmittedWorkDone());
submit(groups);
const mapped = await during("mapAsync", () => result.mapAsync(GPUMapMode.READ));
clearInterval(timer);
const stands = [done, mapped].every(([took, seen]) => took > 200 && seen < 8);
if (asleep < 40 || !stands) {
  console.log("the behaviour has changed");
  Deno.exit(1);
}
JS
XDG_RUNTIME_DIR=$dir VK_ICD_FILENAMES="$dir/swiftshader.json" \
    VK_DRIVER_FILES="$dir/swiftshader.json" DENO_DIR="$dir/deno" DENO_NO_UPDATE_CHECK=1 \
    "$dir/node_modules/.bin/deno" run --allow-all "$dir/timers.mjs"
