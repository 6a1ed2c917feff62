// The work of the conformance suite on wgpu. Each kernel is one invocation.

struct Log {
    count: atomic<u32>,
    tokens: array<u32>,
}

@group(0) @binding(0) var<storage, read_write> log: Log;
@group(0) @binding(1) var<storage, read> given: array<u32>;

// One word behind what ran before; a full log counts on and keeps no more.
@compute @workgroup_size(1)
fn fencepost_append() {
    let at = atomicAdd(&log.count, 1u);
    if at < arrayLength(&log.tokens) {
        log.tokens[at] = given[0];
    }
}

@group(0) @binding(0) var<storage, read_write> words: array<atomic<u32>>;

// Runs until the host writes the first word.
@compute @workgroup_size(1)
fn fencepost_gate() {
    while atomicLoad(&words[given[0]]) == 0u {
    }
}

// Takes time.
@compute @workgroup_size(1)
fn fencepost_spin() {
    var word = 1u;
    for (var round = 0u; round < given[0]; round++) {
        word = word * 1664525u + 1013904223u;
    }
    atomicAdd(&words[0], word);
}
