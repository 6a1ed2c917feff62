#!/bin/sh
# luma.gl: a time read behind a second pass is that of the first one, if a read was under way.
#
# A `QuerySet` keeps the last results, and a submit that writes to it marks them as old. If a read
# of the results before is not over at that moment, its end takes the mark away. Every further
# `readTimestampDuration` then returns the first pass's time, also long after the second pass is
# done, until something is submitted again. Nothing is raised.
#
# Guess before the run: a read that begins when the second pass is done has its time. The comments
# of the source say so: a read repeats itself if a later submit came in between.
#
# Why it matters: the usual loop submits a frame and reads its time without waiting, and the read
# takes longer than a frame. A slow frame's time then stands for the next one, too. Have a query set
# for each submit whose time is still to be read.
#
# Seen on 2026-11-29 with @luma.gl/core and @luma.gl/webgpu 9.4.2, webgpu 0.6.2 (Dawn), Node 20,
# SwiftShader of Debian 12's package chromium-common 156.0.8078, Linux x86-64 (times vary):
#   one after the other: long pass 683 ms, short pass 34 ms
#   short pass submitted while the long one is read: long pass 706 ms
#   short pass, read when it is done: 706 ms, and again: 706 ms
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
driver=/usr/lib/chromium/libvk_swiftshader.so
if [ ! -e "$driver" ]; then
    apt-get download --quiet chromium-common && dpkg -x chromium-common_*.deb .
    driver=$dir$driver
fi
npm install --silent --no-fund --no-audit webgpu@0.6.2 @luma.gl/core@9.4.2 \
    @luma.gl/webgpu@9.4.2 >/dev/null
cat >swiftshader.json <<JSON
{"file_format_version": "1.0.0", "ICD": {"library_path": "$driver", "api_version": "1.3.0"}}
JSON
cat >read.mjs <<'JS'
import { create, globals } from "webgpu";
import { Buffer, luma } from "@luma.gl/core";
import { webgpuAdapter } from "@luma.gl/webgpu";

const SIZE = 1 << 16;
const GROUP = 64;
Object.assign(globalThis, globals);
const navigator = { gpu: create([]), userAgent: "node" };
Object.defineProperty(globalThis, "navigator", { value: navigator, configurable: true });
const device = await luma.createDevice({
  type: "webgpu",
  adapters: [webgpuAdapter],
  createCanvasContext: false,
  optionalFeatures: ["timestamp-query"],
});
const values = device.createBuffer({ byteLength: 4 * SIZE, usage: Buffer.STORAGE });
const times = device.createQuerySet({ type: "timestamp", count: 2 });

function pipeline(steps) {
  const source = `
    @group(0) @binding(0) var<storage, read_write> values: array<f32>;
    @compute @workgroup_size(${GROUP})
    fn main(@builtin(global_invocation_id) id: vec3<u32>) {
      var value = values[id.x];
      for (var step = 0; step < ${steps}; step++) { value = value * 0.999 + 0.1; }
      values[id.x] = value;
    }`;
  const made = device.createComputePipeline({
    shader: device.createShader({ source, stage: "compute" }),
    shaderLayout: { bindings: [{ name: "values", type: "storage", group: 0, location: 0 }] },
  });
  made.setBindings({ values });
  return made;
}

function submit(which) {
  const encoder = device.createCommandEncoder({});
  const pass = encoder.beginComputePass({
    timestampQuerySet: times,
    beginTimestampIndex: 0,
    endTimestampIndex: 1,
  });
  pass.setPipeline(which);
  pass.dispatch(SIZE / GROUP);
  pass.end();
  device.submit(encoder.finish());
}

const done = () => device.createFence().signaled;
const read = () => times.readTimestampDuration(0, 1);
const show = (time) => `${time.toFixed(0)} ms`;
const [long, short] = [pipeline(4000), pipeline(200)];
submit(long);
submit(short);
await done();

submit(long);
const longTime = await read();
submit(short);
const shortTime = await read();
console.log(`one after the other: long pass ${show(longTime)}, short pass ${show(shortTime)}`);

submit(long);
const underWay = read();
// The read submits a copy of the results, and waits for that.
await new Promise((resolve) => setTimeout(resolve, 5));
submit(short);
const first = await underWay;
await done();
const text = "short pass submitted while the long one is read";
console.log(`${text}: long pass ${show(first)}`);
const [behind, again] = [await read(), await read()];
console.log(`short pass, read when it is done: ${show(behind)}, and again: ${show(again)}`);
const stale = behind === first && again === first;
const ok = shortTime * 4 < longTime && shortTime * 4 < first && stale;
if (!ok) {
  console.log("the behaviour has changed");
}
process.exit(ok ? 0 : 1);
JS
XDG_RUNTIME_DIR="$dir" VK_ICD_FILENAMES="$dir/swiftshader.json" node read.mjs
