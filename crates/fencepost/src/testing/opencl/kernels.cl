// The suite's kernels, in OpenCL C 1.2.

// A log is a count, and behind it the tokens.
kernel void fencepost_append(global uint *log, uint token, uint capacity) {
    uint at = atomic_inc(log);
    if (at < capacity)
        log[1 + at] = token;
}

kernel void fencepost_spin(global uint *out, ulong rounds) {
    uint state = *out;
    for (ulong i = 0; i < rounds; i++)
        state = state * 1664525u + 1013904223u + (uint)i;
    *out = state;
}

// Each group counts in local memory first. `counts` are zero before.
kernel void fencepost_histogram(global const uchar *data, ulong len, global uint *counts) {
    local uint mine[256];
    for (uint bin = get_local_id(0); bin < 256; bin += get_local_size(0))
        mine[bin] = 0;
    barrier(CLK_LOCAL_MEM_FENCE);
    for (ulong i = get_global_id(0); i < len; i += get_global_size(0))
        atomic_inc(&mine[data[i]]);
    barrier(CLK_LOCAL_MEM_FENCE);
    for (uint bin = get_local_id(0); bin < 256; bin += get_local_size(0))
        if (mine[bin])
            atomic_add(&counts[bin], mine[bin]);
}

// Not every device has atomic operations on 64 bits, so a chunk is counted in 32.
kernel void fencepost_widen(global const uint *counts, global ulong *bins) {
    bins[get_global_id(0)] = counts[get_global_id(0)];
}

kernel void fencepost_reduce(global const ulong *from, global ulong *to) {
    to[get_global_id(0)] += from[get_global_id(0)];
}
