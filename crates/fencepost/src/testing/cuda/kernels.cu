// The conformance suite's device work. kernels.ptx is made from it by
//   nvcc -ptx -arch=compute_75 -o kernels.ptx kernels.cu
// Then ".version" is lowered to 6.5 and ".target" to sm_70 by hand, for older drivers and chips.
// One block each, except where a launch says otherwise.
typedef unsigned int u32;
typedef unsigned long long u64;

// Appends `token` to a log: word 0 counts, word 1 is the capacity, the tokens follow.
extern "C" __global__ void fencepost_append(u32 *log, u32 token) {
    u32 at = atomicAdd(log, 1);
    if (at < log[1]) log[2 + at] = token;
    __threadfence_system();
}

// Adds the count of each byte value in `data` to `bins`.
extern "C" __global__ void fencepost_histogram(const unsigned char *data, u64 len, u64 *bins) {
    __shared__ u32 local[256];
    for (u32 i = threadIdx.x; i < 256; i += blockDim.x) local[i] = 0;
    __syncthreads();
    u64 step = (u64)gridDim.x * blockDim.x;
    for (u64 i = (u64)blockIdx.x * blockDim.x + threadIdx.x; i < len; i += step)
        atomicAdd(&local[data[i]], 1);
    __syncthreads();
    for (u32 i = threadIdx.x; i < 256; i += blockDim.x)
        if (local[i]) atomicAdd(&bins[i], (u64)local[i]);
}

// Adds the 256 counts of `from` to those of `into`.
extern "C" __global__ void fencepost_reduce(const u64 *from, u64 *into) {
    for (u32 i = threadIdx.x; i < 256; i += blockDim.x) into[i] += from[i];
}

// Spins for `ns` nanoseconds of the GPU's own clock.
extern "C" __global__ void fencepost_spin(u64 ns) {
    u64 start, now;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(start));
    do asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now));
    while (now - start < ns);
}

// A fault: the context does not survive it.
extern "C" __global__ void fencepost_trap() { asm volatile("trap;"); }
