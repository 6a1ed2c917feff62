#!/bin/sh
# WebGPU in Node: timestamps are multiples of 65,536 ns, so short passes take 0 ns.
#
# The package `webgpu` is Dawn, the implementation of Chrome, without a browser. It rounds
# timestamps as a browser does against spying pages, to multiples of 65,536 ns. The toggle
# `timestamp_quantization` turns that off. `resolveQuerySet` gives nanoseconds either way.
#
# Guess before the run: the steps of the device, which counts single nanoseconds here; there is no
# web page to protect against.
#
# Why it matters: a pass of 20 µs reads 0 or 65.536 µs, and the mean over a few hundred looks
# plausible. Make the instance with `create(["disable-dawn-features=timestamp_quantization"])`.
#
# Seen on 2026-11-28 with webgpu 0.6.2, Node 20, SwiftShader of Debian 12's package
# chromium-common (156.0.8078.108), 200 short passes (the last two numbers vary):
#   default: all multiples of 65536: true, passes of 0 ns: 148, shortest of the others: 65536 ns
#   disabled: all multiples of 65536: false, passes of 0 ns: 0, shortest of the others: 6280 ns
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
npm install --silent --prefix "$dir" webgpu@0.6.2
cat >"$dir/passes.mjs" <<'JS'
import { create, globals } from "webgpu";

const COUNT = 200;
const code = `
  @group(0) @binding(0) var<storage, read_write> numbers: array<u32>;
  @compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3u) {
    numbers[id.x] = numbers[id.x] * 1664525u + 1013904223u;
  }`;
Object.assign(globalThis, globals);

async function measure(name, options) {
  const instance = create(options);
  const adapter = await instance.requestAdapter();
  const device = await adapter.requestDevice({ requiredFeatures: ["timestamp-query"] });
  const compute = { module: device.createShaderModule({ code }), entryPoint: "main" };
  const pipeline = device.createComputePipeline({ layout: "auto", compute });
  const buffer = (size, usage) => device.createBuffer({ size, usage });
  const numbers = buffer(4 * 64, GPUBufferUsage.STORAGE);
  const entries = [{ binding: 0, resource: { buffer: numbers } }];
  const group = device.createBindGroup({ layout: pipeline.getBindGroupLayout(0), entries });
  const querySet = device.createQuerySet({ type: "timestamp", count: 2 * COUNT });
  const resolved = buffer(16 * COUNT, GPUBufferUsage.QUERY_RESOLVE | GPUBufferUsage.COPY_SRC);
  const read = buffer(16 * COUNT, GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST);
  const encoder = device.createCommandEncoder();
  for (let n = 0; n < COUNT; n++) {
    const at = { beginningOfPassWriteIndex: 2 * n, endOfPassWriteIndex: 2 * n + 1 };
    const pass = encoder.beginComputePass({ timestampWrites: { querySet, ...at } });
    pass.setPipeline(pipeline);
    pass.setBindGroup(0, group);
    pass.dispatchWorkgroups(1);
    pass.end();
  }
  encoder.resolveQuerySet(querySet, 0, 2 * COUNT, resolved, 0);
  encoder.copyBufferToBuffer(resolved, 0, read, 0, 16 * COUNT);
  device.queue.submit([encoder.finish()]);
  await read.mapAsync(GPUMapMode.READ);
  const stamps = [...new BigUint64Array(read.getMappedRange())];
  const coarse = stamps.every((stamp) => stamp % 65536n === 0n);
  const lasting = stamps.flatMap((stamp, n) => (n % 2 ? [Number(stamp - stamps[n - 1])] : []));
  const zeros = lasting.filter((length) => length === 0).length;
  const shortest = Math.min(...lasting.filter((length) => length > 0));
  console.log(
    `${name}: all multiples of 65536: ${coarse}, passes of 0 ns: ${zeros}, ` +
      `shortest of the others: ${shortest} ns`,
  );
  return coarse;
}

const [name, expected, ...options] = process.argv.slice(2);
const coarse = await measure(name, options);
if (String(coarse) !== expected) console.log("the behaviour has changed");
process.exit(String(coarse) === expected ? 0 : 1);
JS
export XDG_RUNTIME_DIR="$dir" VK_ICD_FILENAMES="$dir/swiftshader.json"
node "$dir/passes.mjs" default true
node "$dir/passes.mjs" disabled false disable-dawn-features=timestamp_quantization
