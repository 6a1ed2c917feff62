// The work of the conformance suite and of `fencepost run` on Vulkan and Metal. build.rs translates
// it.
//
// | kernel             | bindings of group 0                           | push constant | does            |
// |--------------------|-----------------------------------------------|---------------|-----------------|
// | fencepost_append   | 0: count and tokens                           | token         | writes the token |
// | fencepost_histogram| 0: bytes; 1: 256 counts, low words, then high | length        | counts the bytes |
// | fencepost_reduce   | 0: counts from; 1: counts into                | unused        | adds, with carry |
// | fencepost_spin     | 0: a word                                     | rounds        | takes time       |
//
// In Metal the bindings are buffers of those numbers, the push constant is buffer 2, and the
// buffers' sizes are buffer 3. The histogram's workgroup memory is threadgroup memory 0, whose
// length the host sets.

struct Immediate {
    word: u32,
}
var<immediate> given: Immediate;

struct Log {
    count: atomic<u32>,
    tokens: array<u32>,
}

@group(0) @binding(0) var<storage, read_write> log: Log;

// One word behind what ran before; a full log counts on and keeps no more.
@compute @workgroup_size(1)
fn fencepost_append() {
    let at = atomicAdd(&log.count, 1u);
    if at < arrayLength(&log.tokens) {
        log.tokens[at] = given.word;
    }
}

@group(0) @binding(0) var<storage, read> bytes: array<u32>;
// The low words of the 256 counts, then the high ones.
@group(0) @binding(1) var<storage, read_write> counts: array<atomic<u32>, 512>;

var<workgroup> seen: array<atomic<u32>, 256>;

@compute @workgroup_size(256)
fn fencepost_histogram(
    @builtin(local_invocation_index) local: u32,
    @builtin(global_invocation_id) global: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
) {
    let len = given.word;
    let words = len / 4u;
    for (var at = global.x; at < words; at += groups.x * 256u) {
        let word = bytes[at];
        atomicAdd(&seen[word & 255u], 1u);
        atomicAdd(&seen[(word >> 8u) & 255u], 1u);
        atomicAdd(&seen[(word >> 16u) & 255u], 1u);
        atomicAdd(&seen[word >> 24u], 1u);
    }
    // Up to three bytes that fill no word.
    let rest = words * 4u + global.x;
    if rest < len {
        atomicAdd(&seen[(bytes[words] >> (global.x * 8u)) & 255u], 1u);
    }
    workgroupBarrier();
    let count = atomicLoad(&seen[local]);
    if count != 0u {
        atomicAdd(&counts[local], count);
    }
}

@group(0) @binding(0) var<storage, read> from_counts: array<u32, 512>;
@group(0) @binding(1) var<storage, read_write> into_counts: array<u32, 512>;

@compute @workgroup_size(256)
fn fencepost_reduce(@builtin(local_invocation_index) local: u32) {
    let low = into_counts[local] + from_counts[local];
    let carry = select(0u, 1u, low < from_counts[local]);
    into_counts[local] = low;
    into_counts[local + 256u] += from_counts[local + 256u] + carry;
}

@group(0) @binding(0) var<storage, read_write> word: array<u32>;

// A loop in which each round needs the last, so that it takes time.
@compute @workgroup_size(1)
fn fencepost_spin() {
    var value = word[0];
    for (var round = 0u; round < given.word; round += 1u) {
        value = value * 1664525u + 1013904223u;
    }
    word[0] = value;
}
