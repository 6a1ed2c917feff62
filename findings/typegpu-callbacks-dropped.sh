#!/bin/sh
# TypeGPU: while the times of one dispatch are being read, those of further ones are dropped.
#
# A pipeline made `withPerformanceCallback` calls back with the begin and end of its pass. All its
# dispatches share one query set, which cannot be used while it is being read. A dispatch in that
# time runs, but its callback never comes, and nothing is thrown or logged. The documentation
# names one call for several dispatches of one encoder; these have an encoder each.
#
# Guess before the run: a callback for each dispatch, in order.
#
# Why it matters: a loop that dispatches without awaiting, as programs for GPUs do, is timed by
# its first dispatch, the slowest; a sum over the callbacks is a fraction of the work. Await each
# callback before the next dispatch, or use a query set for each.
#
# Seen on 2026-11-28 with typegpu 0.12.5 and webgpu 0.6.2 (Dawn), Node 20, SwiftShader of Debian
# 12's package chromium-common (156.0.8078.108), Linux x86-64:
#   5 dispatches, each awaited with its callback: 5 callbacks
#   5 dispatches, awaited together: 1 callbacks
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
npm install --silent --no-fund --no-audit --prefix "$dir" typegpu@0.12.5 webgpu@0.6.2
cat >"$dir/callbacks.mjs" <<'JS'
import { create, globals } from "webgpu";

Object.assign(globalThis, globals);
const gpu = create([]);
Object.defineProperty(globalThis, "navigator", { value: { gpu }, configurable: true });
const { default: tgpu } = await import("typegpu");
const data = await import("typegpu/data");

const adapter = await gpu.requestAdapter();
const device = await adapter.requestDevice({ requiredFeatures: ["timestamp-query"] });
const root = tgpu.initFromDevice({ device });
const values = { storage: (count) => data.arrayOf(data.f32, count), access: "mutable" };
const layout = tgpu.bindGroupLayout({ values });
const buffer = root.createBuffer(data.arrayOf(data.f32, 4096)).$usage("storage");
const spin = tgpu.computeFn({ workgroupSize: [64], in: { id: data.builtin.globalInvocationId } })`{
  var value = layout.$.values[in.id.x];
  for (var i = 0u; i < 2000u; i++) { value = sin(value) + 0.5; }
  layout.$.values[in.id.x] = value;
}`.$uses({ layout });

let callbacks = 0;
const pipeline = root
  .createComputePipeline({ compute: spin })
  .with(root.createBindGroup(layout, { values: buffer }))
  .withPerformanceCallback(() => {
    callbacks += 1;
  });
const sleep = (time) => new Promise((resolve) => setTimeout(resolve, time));

async function run(what, after) {
  callbacks = 0;
  for (let count = 1; count <= 5; count++) {
    pipeline.dispatchWorkgroups(64);
    await after(count);
  }
  await device.queue.onSubmittedWorkDone();
  await sleep(2000);
  console.log(`5 dispatches, ${what}: ${callbacks} callbacks`);
  return callbacks;
}

const each = await run("each awaited with its callback", async (count) => {
  for (let turns = 0; callbacks < count && turns < 1000; turns++) await sleep(10);
  await sleep(50);
});
const together = await run("awaited together", () => {});
if (each !== 5 || together >= 5) {
  console.log("the behaviour has changed");
  process.exit(1);
}
process.exit(0);
JS
XDG_RUNTIME_DIR=$dir VK_ICD_FILENAMES="$dir/swiftshader.json" \
    VK_DRIVER_FILES="$dir/swiftshader.json" node "$dir/callbacks.mjs"
