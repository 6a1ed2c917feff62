// What a stalled CUDA stream holds up, how deep records queue, and what the bare calls cost.
//
//   nvcc -O2 -o cuda-stalls cuda-stalls.cu -lcuda && ./cuda-stalls
//
// `./cuda-stalls queue` asks only what waits for a full queue, and `./cuda-stalls query` what a
// query of an event waits for.
//
// Each stall is ended by a watchdog, so nothing here hangs: "held up" means that the call or work
// came back only after the watchdog had let the stalled stream go.
#include <cuda.h>
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>
#include <vector>

using Clock = std::chrono::steady_clock;
static double ms_since(Clock::time_point t) {
    return std::chrono::duration<double, std::milli>(Clock::now() - t).count();
}
static const char *name(CUresult r) {
    const char *s = nullptr;
    cuGetErrorName(r, &s);
    return s ? s : "?";
}
#define CK(x)                                                                                      \
    do {                                                                                           \
        CUresult r_ = (x);                                                                         \
        if (r_ != CUDA_SUCCESS) {                                                                  \
            printf("line %d: %s: %s\n", __LINE__, #x, name(r_));                                   \
            fflush(stdout);                                                                        \
            _exit(1);                                                                              \
        }                                                                                          \
    } while (0)

// A kernel that ends when a word in pinned memory is set, and one that does nothing.
static const char *PTX = R"(
.version 6.5
.target sm_70
.address_size 64
.visible .entry hold(.param .u64 word) {
    .reg .pred %p<2>; .reg .b32 %r<2>; .reg .b64 %rd<2>;
    ld.param.u64 %rd1, [word];
L:  ld.volatile.global.u32 %r1, [%rd1];
    setp.eq.u32 %p1, %r1, 0;
    @%p1 bra L;
    ret;
}
.visible .entry nothing() { ret; }
.visible .entry trap_now() { trap; ret; }
)";
static const char *PTX_OTHER = R"(
.version 6.5
.target sm_70
.address_size 64
.visible .entry another() { ret; }
)";

static CUdevice device;
static CUcontext context;
static volatile unsigned *word; // pinned
static CUdeviceptr word_dev;
static CUfunction hold_f, nothing_f, trap_f;

static void setup() {
    CK(cuInit(0));
    CK(cuDeviceGet(&device, 0));
    CK(cuDevicePrimaryCtxRetain(&context, device));
    CK(cuCtxSetCurrent(context));
    void *p;
    CK(cuMemHostAlloc(&p, 4096, CU_MEMHOSTALLOC_PORTABLE | CU_MEMHOSTALLOC_DEVICEMAP));
    word = (volatile unsigned *)p;
    CK(cuMemHostGetDevicePointer(&word_dev, p, 0));
    CUmodule module;
    CK(cuModuleLoadData(&module, PTX));
    CK(cuModuleGetFunction(&hold_f, module, "hold"));
    CK(cuModuleGetFunction(&nothing_f, module, "nothing"));
    CK(cuModuleGetFunction(&trap_f, module, "trap_now"));
    CUstream s;
    CK(cuStreamCreate(&s, CU_STREAM_NON_BLOCKING));
    *word = 1;
    void *args[] = {&word_dev};
    CK(cuLaunchKernel(hold_f, 1, 1, 1, 1, 1, 1, 0, s, args, nullptr));
    CK(cuLaunchKernel(nothing_f, 1, 1, 1, 1, 1, 1, 0, s, nullptr, nullptr));
    CK(cuStreamSynchronize(s));
    CK(cuStreamDestroy(s));
}
static void launch(CUstream s) {
    CK(cuLaunchKernel(nothing_f, 1, 1, 1, 1, 1, 1, 0, s, nullptr, nullptr));
}
static void hold(CUstream s) {
    void *args[] = {&word_dev};
    CK(cuLaunchKernel(hold_f, 1, 1, 1, 1, 1, 1, 0, s, args, nullptr));
}

enum Stall { WAIT_VALUE, EVENT };
// Stalls `s`: by a value, or by an event behind a running kernel of `helper`.
static void stall(Stall kind, CUstream s, CUstream helper, CUevent e) {
    *word = 0;
    if (kind == WAIT_VALUE) {
        CK(cuStreamWaitValue32(s, word_dev, 1, CU_STREAM_WAIT_VALUE_GEQ));
    } else {
        hold(helper);
        CK(cuEventRecord(e, helper));
        CK(cuStreamWaitEvent(s, e, 0));
    }
    launch(s);
}

// Opens the word after `limit` unless told that the caller came back.
struct Watchdog {
    std::atomic<bool> done{false}, fired{false};
    std::thread thread;
    explicit Watchdog(int limit_ms)
        : thread([this, limit_ms] {
              auto start = Clock::now();
              while (!done && ms_since(start) < limit_ms)
                  std::this_thread::sleep_for(std::chrono::milliseconds(5));
              if (!done) {
                  fired = true;
                  *word = 1;
              }
          }) {}
    ~Watchdog() {
        done = true;
        thread.join();
    }
};

static void other_streams(Stall kind, int others, bool one_stalled_first) {
    CUstream stalled, helper;
    CUevent e;
    std::vector<CUstream> streams(others);
    std::vector<CUevent> events(others);
    CK(cuStreamCreate(&helper, CU_STREAM_NON_BLOCKING));
    if (one_stalled_first) CK(cuStreamCreate(&stalled, CU_STREAM_NON_BLOCKING));
    for (auto &s : streams) CK(cuStreamCreate(&s, CU_STREAM_NON_BLOCKING));
    if (!one_stalled_first) CK(cuStreamCreate(&stalled, CU_STREAM_NON_BLOCKING));
    CK(cuEventCreate(&e, CU_EVENT_DISABLE_TIMING));
    for (auto &x : events) CK(cuEventCreate(&x, CU_EVENT_DISABLE_TIMING));
    for (auto &s : streams) launch(s);
    CK(cuCtxSynchronize());
    stall(kind, stalled, helper, e);
    int finished = 0;
    {
        Watchdog dog(2000);
        for (int i = 0; i < others; i++) {
            launch(streams[i]);
            CK(cuEventRecord(events[i], streams[i]));
        }
        auto start = Clock::now();
        while (ms_since(start) < 300) {
            finished = 0;
            for (auto &x : events) finished += cuEventQuery(x) == CUDA_SUCCESS;
            if (finished == others) break;
        }
        dog.done = true;
        if (dog.fired) printf("  (submitting blocked) ");
    }
    *word = 1;
    CK(cuCtxSynchronize());
    printf("  %3d other streams: %3d ran, %3d held up\n", others, finished, others - finished);
    for (auto &s : streams) cuStreamDestroy(s);
    for (auto &x : events) cuEventDestroy(x);
    cuEventDestroy(e);
    cuStreamDestroy(stalled);
    cuStreamDestroy(helper);
}

static void calls(Stall kind) {
    CUstream s, helper, idle, busy;
    CUevent e, pending, free_event;
    CK(cuStreamCreate(&helper, CU_STREAM_NON_BLOCKING));
    CK(cuStreamCreate(&s, CU_STREAM_NON_BLOCKING));
    CK(cuStreamCreate(&idle, CU_STREAM_NON_BLOCKING));
    CK(cuStreamCreate(&busy, CU_STREAM_NON_BLOCKING));
    CK(cuEventCreate(&e, CU_EVENT_DISABLE_TIMING));
    CK(cuEventCreate(&free_event, CU_EVENT_DISABLE_TIMING));
    CUdeviceptr memory, made = 0;
    void *host;
    CUevent made_event;
    CUstream made_stream;
    CUmodule other, third;
    CUfunction another, first;
    CK(cuModuleLoadData(&third, PTX_OTHER));
    CK(cuModuleGetFunction(&first, third, "another"));
    auto one = [&](const char *what, std::function<CUresult()> call) {
        // Fresh for each call, so that none profits from the one before.
        CK(cuMemAlloc(&memory, 1 << 20));
        CK(cuMemHostAlloc(&host, 4096, CU_MEMHOSTALLOC_PORTABLE));
        CK(cuEventCreate(&pending, CU_EVENT_DISABLE_TIMING));
        CUstream victim;
        CK(cuStreamCreate(&victim, CU_STREAM_NON_BLOCKING));
        launch(idle);
        CK(cuCtxSynchronize());
        stall(kind, s, helper, e);
        CK(cuEventRecord(pending, s));
        CK(cuStreamWaitEvent(victim, pending, 0));
        busy = victim;
        auto start = Clock::now();
        bool fired;
        CUresult r;
        {
            Watchdog dog(700);
            r = call();
            dog.done = true;
            fired = dog.fired;
        }
        double took = ms_since(start);
        *word = 1;
        CUresult after = cuCtxSynchronize();
        printf("  %-44s %-10s %9.3f ms  %s%s\n", what, fired ? "HELD UP" : "returns", took, name(r),
               after ? name(after) : "");
    };
    one("cuMemAlloc", [&] { return cuMemAlloc(&made, 1 << 20); });
    one("cuMemFree", [&] { return cuMemFree(memory); });
    one("cuMemHostAlloc", [&] { return cuMemHostAlloc(&host, 1 << 16, CU_MEMHOSTALLOC_PORTABLE); });
    one("cuMemFreeHost", [&] { return cuMemFreeHost(host); });
    one("cuEventCreate", [&] { return cuEventCreate(&made_event, CU_EVENT_DISABLE_TIMING); });
    one("cuEventDestroy (idle event)", [&] { return cuEventDestroy(free_event); });
    one("cuEventDestroy (pending event)", [&] { return cuEventDestroy(pending); });
    one("cuStreamCreate", [&] { return cuStreamCreate(&made_stream, CU_STREAM_NON_BLOCKING); });
    one("cuStreamDestroy (idle stream)", [&] { return cuStreamDestroy(made_stream); });
    one("cuStreamDestroy (stream that waits)", [&] { return cuStreamDestroy(busy); });
    one("cuModuleLoadData", [&] { return cuModuleLoadData(&other, PTX_OTHER); });
    one("cuModuleGetFunction", [&] { return cuModuleGetFunction(&another, other, "another"); });
    one("first launch of a loaded module's kernel",
        [&] { return cuLaunchKernel(first, 1, 1, 1, 1, 1, 1, 0, idle, nullptr, nullptr); });
    one("cuMemcpyDtoH (blocking, 4 bytes)", [&] {
        unsigned x;
        return cuMemcpyDtoH(&x, made, 4);
    });
    one("launch on the legacy default stream",
        [&] { return cuLaunchKernel(nothing_f, 1, 1, 1, 1, 1, 1, 0, 0, nullptr, nullptr); });
    one("cuEventQuery (pending)", [&] { return cuEventQuery(pending); });
    one("cuStreamDestroy (the stalled stream itself)", [&] { return cuStreamDestroy(s); });
}

static void depth(const char *what, Stall kind, std::function<CUresult(CUstream, int)> call,
                  int most) {
    CUstream s, helper;
    CUevent e;
    CK(cuStreamCreate(&helper, CU_STREAM_NON_BLOCKING));
    CK(cuStreamCreate(&s, CU_STREAM_NON_BLOCKING));
    CK(cuEventCreate(&e, CU_EVENT_DISABLE_TIMING));
    CK(cuCtxSynchronize());
    stall(kind, s, helper, e);
    std::atomic<int> count{0};
    std::atomic<bool> done{false};
    int stuck_at = -1;
    std::thread dog([&] {
        int last = -1;
        auto moved = Clock::now();
        while (!done) {
            int now = count;
            if (now != last) {
                last = now;
                moved = Clock::now();
            }
            if (ms_since(moved) > 500) {
                stuck_at = now;
                *word = 1;
                return;
            }
            std::this_thread::sleep_for(std::chrono::milliseconds(2));
        }
    });
    CUresult r = CUDA_SUCCESS;
    auto start = Clock::now();
    while (count < most && r == CUDA_SUCCESS && stuck_at < 0) {
        r = call(s, count);
        count++;
    }
    double took = ms_since(start);
    done = true;
    dog.join();
    *word = 1;
    CK(cuCtxSynchronize());
    if (stuck_at >= 0) printf("  %-46s blocks at call %d\n", what, stuck_at + 1);
    else
        printf("  %-46s %d calls, none blocks (%.1f ns each) %s\n", what, (int)count,
               took * 1e6 / count, r ? name(r) : "");
    cuStreamDestroy(s);
    cuStreamDestroy(helper);
    cuEventDestroy(e);
}

static void cost(const char *what, int n, std::function<void()> call) {
    double best = 1e9, all[9];
    for (int i = 0; i < 100; i++) call();
    for (auto &x : all) {
        CK(cuCtxSynchronize());
        auto start = Clock::now();
        for (int i = 0; i < n; i++) call();
        x = ms_since(start) * 1e6 / n;
        if (x < best) best = x;
    }
    std::sort(all, all + 9);
    printf("  %-52s median %8.1f ns  min %8.1f ns\n", what, all[4], best);
}

static void costs() {
    CUstream s, t;
    CUevent off, on, done;
    CK(cuStreamCreate(&s, CU_STREAM_NON_BLOCKING));
    CK(cuStreamCreate(&t, CU_STREAM_NON_BLOCKING));
    CK(cuEventCreate(&off, CU_EVENT_DISABLE_TIMING));
    CK(cuEventCreate(&on, 0));
    CK(cuEventCreate(&done, CU_EVENT_DISABLE_TIMING));
    CUevent sleepy;
    CK(cuEventCreate(&sleepy, CU_EVENT_DISABLE_TIMING | CU_EVENT_BLOCKING_SYNC));
    CK(cuEventRecord(done, s));
    CK(cuCtxSynchronize());
    cost("cuEventRecord, timing off", 500, [&] { cuEventRecord(off, s); });
    cost("cuEventRecord, timing on", 500, [&] { cuEventRecord(on, s); });
    cost("cuEventRecord, off + blocking sync", 500, [&] { cuEventRecord(sleepy, s); });
    cost("create + record + destroy, off", 500, [&] {
        CUevent x;
        cuEventCreate(&x, CU_EVENT_DISABLE_TIMING);
        cuEventRecord(x, s);
        cuEventDestroy(x);
    });
    cost("create + record + destroy, on", 500, [&] {
        CUevent x;
        cuEventCreate(&x, 0);
        cuEventRecord(x, s);
        cuEventDestroy(x);
    });
    cost("create + destroy, off", 500, [&] {
        CUevent x;
        cuEventCreate(&x, CU_EVENT_DISABLE_TIMING);
        cuEventDestroy(x);
    });
    cost("cuEventQuery, complete", 2000, [&] { cuEventQuery(done); });
    cost("cuStreamWaitEvent, complete", 2000, [&] { cuStreamWaitEvent(t, done, 0); });
    cost("record + synchronize, spinning", 200, [&] {
        cuEventRecord(off, s);
        cuEventSynchronize(off);
    });
    cost("record + synchronize, blocking sync", 200, [&] {
        cuEventRecord(sleepy, s);
        cuEventSynchronize(sleepy);
    });
    cost("record + query until complete", 200, [&] {
        cuEventRecord(off, s);
        while (cuEventQuery(off)) {}
    });
    cost("cuStreamIsCapturing", 2000, [&] {
        CUstreamCaptureStatus c;
        cuStreamIsCapturing(s, &c);
    });
    cost("cuStreamGetId", 2000, [&] {
        unsigned long long id;
        cuStreamGetId(s, &id);
    });
    cost("cuCtxGetCurrent", 2000, [&] {
        CUcontext c;
        cuCtxGetCurrent(&c);
    });
    cost("cuCtxPushCurrent + cuCtxPopCurrent", 2000, [&] {
        CUcontext c;
        cuCtxPushCurrent(context);
        cuCtxPopCurrent(&c);
    });
    cost("cuThreadExchangeStreamCaptureMode twice", 2000, [&] {
        CUstreamCaptureMode m = CU_STREAM_CAPTURE_MODE_RELAXED;
        cuThreadExchangeStreamCaptureMode(&m);
        cuThreadExchangeStreamCaptureMode(&m);
    });
    cost("cuStreamCreate + cuStreamDestroy", 50, [&] {
        CUstream x;
        cuStreamCreate(&x, CU_STREAM_NON_BLOCKING);
        cuStreamDestroy(x);
    });
}

static void other_questions() {
    // Without a current context.
    CUstream s;
    CUevent off, a, b;
    CK(cuStreamCreate(&s, CU_STREAM_NON_BLOCKING));
    CK(cuEventCreate(&off, CU_EVENT_DISABLE_TIMING));
    CK(cuEventCreate(&a, 0));
    CK(cuEventCreate(&b, 0));
    std::thread([&] {
        CUcontext c;
        CUstream made;
        CUevent e;
        unsigned long long id;
        CUstreamCaptureStatus st;
        CUcontext of;
        float t;
        CK(cuCtxGetCurrent(&c));
        printf("  no current context (%p):\n", (void *)c);
        printf("    cuEventRecord %s\n", name(cuEventRecord(off, s)));
        printf("    cuEventSynchronize %s\n", name(cuEventSynchronize(off)));
        printf("    cuEventQuery %s\n", name(cuEventQuery(off)));
        printf("    cuStreamWaitEvent %s\n", name(cuStreamWaitEvent(s, off, 0)));
        printf("    cuStreamWaitValue32 %s\n",
               name(cuStreamWaitValue32(s, word_dev, 0, CU_STREAM_WAIT_VALUE_GEQ)));
        printf("    cuStreamIsCapturing %s\n", name(cuStreamIsCapturing(s, &st)));
        printf("    cuStreamGetId %s\n", name(cuStreamGetId(s, &id)));
        printf("    cuStreamGetCtx %s\n", name(cuStreamGetCtx(s, &of)));
        printf("    cuLaunchKernel %s\n",
               name(cuLaunchKernel(nothing_f, 1, 1, 1, 1, 1, 1, 0, s, nullptr, nullptr)));
        cuEventRecord(a, s);
        cuEventRecord(b, s);
        cuEventSynchronize(b);
        printf("    cuEventElapsedTime %s\n", name(cuEventElapsedTime(&t, a, b)));
        printf("    cuEventCreate %s\n", name(cuEventCreate(&e, 0)));
        printf("    cuStreamCreate %s\n", name(cuStreamCreate(&made, 1)));
        CUevent d;
        (void)d;
        printf("    cuEventDestroy %s\n", name(cuEventDestroy(off)));
        printf("    cuStreamDestroy %s\n", name(cuStreamDestroy(s)));
    }).join();
    CK(cuStreamCreate(&s, CU_STREAM_NON_BLOCKING));
    CK(cuEventRecord(a, s));
    CK(cuEventSynchronize(a));
    usleep(5000);
    CK(cuEventRecord(b, s));
    CK(cuEventSynchronize(b));
    float ab, ba, aa;
    CK(cuEventElapsedTime(&ab, a, b));
    CK(cuEventElapsedTime(&ba, b, a));
    CK(cuEventElapsedTime(&aa, a, a));
    printf("  elapsed: %.9g forward, %.9g backward, %.9g to itself\n", ab, ba, aa);
    float least = 1e9;
    int zeros = 0;
    for (int i = 0; i < 1000; i++) {
        CK(cuEventRecord(a, s));
        CK(cuEventRecord(b, s));
        CK(cuEventSynchronize(b));
        CK(cuEventElapsedTime(&ab, a, b));
        if (ab == 0) zeros++;
        else if (ab < least) least = ab;
    }
    printf("  back to back: least nonzero %.9g ms, zeros %d of 1000\n", least, zeros);
    // Capture in global mode: what a query elsewhere does to it.
    for (int mode = 0; mode < 3; mode++) {
        CUevent x, y;
        CK(cuEventCreate(&x, CU_EVENT_DISABLE_TIMING));
        CK(cuEventCreate(&y, CU_EVENT_DISABLE_TIMING));
        CUstream t;
        CK(cuStreamCreate(&t, CU_STREAM_NON_BLOCKING));
        CK(cuEventRecord(x, t));
        CK(cuStreamSynchronize(t));
        CK(cuStreamBeginCapture(s, CU_STREAM_CAPTURE_MODE_GLOBAL));
        launch(s);
        CUresult q = CUDA_SUCCESS, m = CUDA_SUCCESS, rec = CUDA_SUCCESS, w = CUDA_SUCCESS;
        auto asks = [&](bool relaxed) {
            if (relaxed) {
                CUstreamCaptureMode mm = CU_STREAM_CAPTURE_MODE_RELAXED;
                cuThreadExchangeStreamCaptureMode(&mm);
            }
            cuCtxSetCurrent(context);
            CUevent made;
            m = cuEventCreate(&made, CU_EVENT_DISABLE_TIMING);
            rec = cuEventRecord(y, t);
            w = cuStreamWaitEvent(t, y, 0);
            q = cuEventQuery(x);
        };
        const char *who = mode == 0   ? "the capturing thread"
                          : mode == 1 ? "another thread"
                                      : "another thread, relaxed";
        if (mode == 0) asks(false);
        else std::thread([&] { asks(mode == 2); }).join();
        CUgraph g = nullptr;
        CUresult endr = cuStreamEndCapture(s, &g);
        printf("  during a capture in global mode, %s: create %s, record %s, wait %s, query %s; "
               "capture ends %s\n",
               who, name(m), name(rec), name(w), name(q), name(endr));
        CK(cuCtxSynchronize());
    }
    // A captured event, asked.
    CUevent c;
    CK(cuEventCreate(&c, 0));
    CK(cuStreamBeginCapture(s, CU_STREAM_CAPTURE_MODE_RELAXED));
    CUresult r1 = cuEventRecord(c, s), r2 = cuEventQuery(c);
    CUgraph g;
    CUresult r3 = cuStreamEndCapture(s, &g), r4 = cuEventQuery(c), r5 = cuEventSynchronize(c);
    printf("  a captured event: record %s, query inside %s, end %s, query after %s, synchronize "
           "after %s\n",
           name(r1), name(r2), name(r3), name(r4), name(r5));
    r1 = cuEventRecord(c, s);
    CK(cuStreamSynchronize(s));
    printf("  recorded again after: %s, query %s\n", name(r1), name(cuEventQuery(c)));
}

// A thread is blocked in cuEventRecord because its stream's queue is full: which calls of another
// thread, on other streams, does it hold up?
static void full_queue() {
    CUstream s, other;
    CUevent done, fresh, timed;
    CK(cuEventCreate(&done, CU_EVENT_DISABLE_TIMING));
    CK(cuEventCreate(&fresh, CU_EVENT_DISABLE_TIMING));
    CK(cuEventCreate(&timed, 0));
    CK(cuStreamCreate(&other, CU_STREAM_NON_BLOCKING));
    CK(cuEventRecord(done, other));
    CK(cuStreamSynchronize(other));
    auto one = [&](const char *what, std::function<CUresult()> call) {
        CK(cuStreamCreate(&s, CU_STREAM_NON_BLOCKING));
        CK(cuCtxSynchronize());
        stall(WAIT_VALUE, s, s, done);
        std::thread filler([&] {
            cuCtxSetCurrent(context);
            for (int i = 0; i < 1500; i++) cuEventRecord(timed, s);
        });
        usleep(100000);
        auto start = Clock::now();
        bool fired;
        CUresult r;
        {
            Watchdog dog(500);
            r = call();
            dog.done = true;
            fired = dog.fired;
        }
        double took = ms_since(start);
        *word = 1;
        filler.join();
        CK(cuCtxSynchronize());
        printf("  %-44s %-10s %9.3f ms  %s\n", what, fired ? "HELD UP" : "returns", took, name(r));
        cuStreamDestroy(s);
    };
    CUstream made;
    CUevent made_event;
    unsigned long long id;
    CUstreamCaptureStatus status;
    CUcontext popped;
    one("cuCtxGetId", [&] { return cuCtxGetId(context, &id); });
    one("cuCtxPushCurrent + cuCtxPopCurrent", [&] {
        cuCtxPushCurrent(context);
        return cuCtxPopCurrent(&popped);
    });
    one("cuEventQuery (complete event)", [&] { return cuEventQuery(done); });
    one("cuEventQuery (pending event of the stream)", [&] { return cuEventQuery(timed); });
    one("cuStreamIsCapturing (another stream)",
        [&] { return cuStreamIsCapturing(other, &status); });
    one("cuEventRecord (another stream)", [&] { return cuEventRecord(fresh, other); });
    one("cuStreamWaitEvent (another stream)", [&] { return cuStreamWaitEvent(other, done, 0); });
    one("cuEventSynchronize (complete event)", [&] { return cuEventSynchronize(done); });
    one("cuLaunchKernel (another stream)",
        [&] { return cuLaunchKernel(nothing_f, 1, 1, 1, 1, 1, 1, 0, other, nullptr, nullptr); });
    one("cuEventCreate", [&] { return cuEventCreate(&made_event, CU_EVENT_DISABLE_TIMING); });
    one("cuStreamCreate", [&] { return cuStreamCreate(&made, CU_STREAM_NON_BLOCKING); });
    one("cuStreamDestroy", [&] { return cuStreamDestroy(made); });
}

static void faults() {
    fflush(stdout);
    if (fork() == 0) {
        setup();
        CUstream s, t;
        CUevent before, done, behind, other;
        CK(cuStreamCreate(&s, CU_STREAM_NON_BLOCKING));
        CK(cuStreamCreate(&t, CU_STREAM_NON_BLOCKING));
        for (auto e : {&before, &done, &behind, &other})
            CK(cuEventCreate(e, CU_EVENT_DISABLE_TIMING));
        CK(cuEventRecord(done, s));
        CK(cuStreamSynchronize(s));
        CK(cuEventRecord(before, s));
        CK(cuLaunchKernel(trap_f, 1, 1, 1, 1, 1, 1, 0, s, nullptr, nullptr));
        CK(cuEventRecord(behind, s));
        usleep(300000);
        printf("  after a trap: event behind %s; before %s; long done %s; other stream's record "
               "%s; create %s\n",
               name(cuEventQuery(behind)), name(cuEventQuery(before)), name(cuEventQuery(done)),
               name(cuEventRecord(other, t)), name(cuEventCreate(&other, 0)));
        printf("    cuEventDestroy %s, cuStreamDestroy %s, cuStreamCreate %s, cuMemFreeHost %s\n",
               name(cuEventDestroy(before)), name(cuStreamDestroy(t)), name(cuStreamCreate(&t, 1)),
               name(cuMemFreeHost((void *)word)));
        fflush(stdout);
        _exit(0);
    }
    int st;
    wait(&st);
    if (st) printf("  (child ended with %d)\n", st);
    fflush(stdout);
    if (fork() == 0) {
        setup();
        CUstream s;
        CUevent e;
        CK(cuStreamCreate(&s, CU_STREAM_NON_BLOCKING));
        CK(cuEventCreate(&e, CU_EVENT_DISABLE_TIMING));
        unsigned long long id = 0, now = 0;
        unsigned flags;
        int active;
        CK(cuCtxGetId(context, &id));
        CK(cuEventRecord(e, s));
        CK(cuStreamSynchronize(s));
        CK(cuDevicePrimaryCtxReset(device));
        CK(cuDevicePrimaryCtxGetState(device, &flags, &active));
        CUresult r = cuCtxGetId(context, &now);
        printf("  after cuDevicePrimaryCtxReset: active %d, cuCtxGetId %s (%llu, was %llu)\n",
               active, name(r), now, id);
        fflush(stdout);
        printf("    cuEventQuery %s\n", name(cuEventQuery(e)));
        fflush(stdout);
        printf("    cuEventRecord %s\n", name(cuEventRecord(e, s)));
        fflush(stdout);
        printf("    cuEventDestroy %s\n", name(cuEventDestroy(e)));
        fflush(stdout);
        printf("    cuStreamDestroy %s\n", name(cuStreamDestroy(s)));
        fflush(stdout);
        _exit(0);
    }
    wait(&st);
    if (st) printf("  (child ended with status %d: signal %d)\n", st, WTERMSIG(st));
}

// A thread is blocked in a call that returns only once the stalled stream goes on. Does a query of
// an event, by another thread, return meanwhile?
static void queries() {
    CUstream s, other;
    CUevent pending, done;
    CK(cuStreamCreate(&s, CU_STREAM_NON_BLOCKING));
    CK(cuStreamCreate(&other, CU_STREAM_NON_BLOCKING));
    CK(cuEventCreate(&pending, CU_EVENT_DISABLE_TIMING));
    CK(cuEventCreate(&done, CU_EVENT_DISABLE_TIMING));
    CK(cuEventRecord(done, other));
    auto wait_for_word = [](void *) {
        while (!*word) usleep(1000);
    };
    auto one = [&](const char *what, std::function<void()> prepare,
                   std::function<CUresult()> call) {
        for (bool is_pending : {true, false}) {
            CK(cuCtxSynchronize());
            prepare();
            stall(WAIT_VALUE, s, s, done);
            CK(cuEventRecord(pending, s));
            std::atomic<bool> back{false};
            std::thread blocked([&] {
                cuCtxSetCurrent(context);
                call();
                back = true;
            });
            usleep(100000);
            const char *state = back ? "was NOT blocked" : "blocked";
            double longest = 0;
            int times = 0;
            CUresult r = CUDA_SUCCESS;
            Watchdog dog(500);
            for (; times < 10000 && !dog.fired; times++) {
                auto start = Clock::now();
                r = cuEventQuery(is_pending ? pending : done);
                longest = std::max(longest, ms_since(start));
            }
            dog.done = true;
            bool fired = dog.fired;
            *word = 1;
            blocked.join();
            printf("  %-28s %-15s %-16s %-10s %d queries, longest %.3f ms  %s\n", what, state,
                   is_pending ? "pending event" : "complete event", fired ? "HELD UP" : "returns",
                   times, longest, name(r));
        }
    };
    CUdeviceptr memory;
    void *host;
    CUmodule module;
    auto nothing = [] {};
    one("cuMemFree", [&] { CK(cuMemAlloc(&memory, 1 << 20)); }, [&] { return cuMemFree(memory); });
    one("cuMemFreeHost", [&] { CK(cuMemHostAlloc(&host, 4096, CU_MEMHOSTALLOC_PORTABLE)); },
        [&] { return cuMemFreeHost(host); });
    one("cuModuleLoadData", nothing, [&] { return cuModuleLoadData(&module, PTX_OTHER); });
    one("cuStreamSynchronize", nothing, [&] { return cuStreamSynchronize(s); });
    one("cuEventSynchronize", nothing, [&] { return cuEventSynchronize(pending); });
    one("cuCtxSynchronize", nothing, [] { return cuCtxSynchronize(); });
    one("a host function", nothing, [&] {
        cuLaunchHostFunc(other, wait_for_word, nullptr);
        return cuStreamSynchronize(other);
    });
}

int main(int argc, char **argv) {
    int version;
    if (argc > 1) {
        setup();
        if (!strcmp(argv[1], "query")) {
            printf("queries of a thread while another one is blocked\n");
            queries();
            return 0;
        }
        printf("calls of another thread while one is blocked in cuEventRecord by a full queue\n");
        full_queue();
        return 0;
    }
    printf("faults (each in a process of its own)\n");
    faults();
    setup();
    char dev[100];
    CK(cuDeviceGetName(dev, 100, device));
    CK(cuDriverGetVersion(&version));
    const char *connections = getenv("CUDA_DEVICE_MAX_CONNECTIONS");
    printf("%s, CUDA driver API %d, CUDA_DEVICE_MAX_CONNECTIONS %s\n", dev, version,
           connections ? connections : "unset");
    for (Stall kind : {WAIT_VALUE, EVENT}) {
        const char *by = kind == WAIT_VALUE ? "cuStreamWaitValue32" : "an unfinished event";
        for (bool first : {true, false}) {
            printf("one stream stalled by %s, created %s the others\n", by,
                   first ? "before" : "after");
            for (int n : {1, 3, 7, 8, 15, 31, 32, 63, 127, 128}) other_streams(kind, n, first);
        }
        printf("calls made while one stream is stalled by %s (and another waits for it)\n", by);
        calls(kind);
        fflush(stdout);
    }
    printf("how deep a stalled stream queues\n");
    CUevent off, on;
    CK(cuEventCreate(&off, CU_EVENT_DISABLE_TIMING));
    CK(cuEventCreate(&on, 0));
    std::vector<CUevent> many(120000);
    for (auto &e : many) CK(cuEventCreate(&e, CU_EVENT_DISABLE_TIMING));
    for (Stall kind : {WAIT_VALUE, EVENT}) {
        printf(" by %s\n", kind == WAIT_VALUE ? "cuStreamWaitValue32" : "an unfinished event");
        depth(
            "cuEventRecord, one event, timing off", kind,
            [&](CUstream s, int) { return cuEventRecord(off, s); }, 110000);
        depth(
            "cuEventRecord, one event, timing on", kind,
            [&](CUstream s, int) { return cuEventRecord(on, s); }, 110000);
        depth(
            "cuEventRecord, an event each, timing off", kind,
            [&](CUstream s, int i) { return cuEventRecord(many[i], s); }, 110000);
        depth(
            "cuStreamWriteValue32", kind,
            [&](CUstream s, int i) { return cuStreamWriteValue32(s, word_dev + 64, i, 0); },
            110000);
        depth(
            "cuStreamWaitEvent on a complete event", kind,
            [&](CUstream s, int i) { return cuStreamWaitEvent(s, many[119999], 0); }, 110000);
        depth(
            "launch of an empty kernel", kind,
            [&](CUstream s, int) {
                return cuLaunchKernel(nothing_f, 1, 1, 1, 1, 1, 1, 0, s, nullptr, nullptr);
            },
            110000);
        fflush(stdout);
    }
    printf("calls of another thread while one is blocked in cuEventRecord by a full queue\n");
    full_queue();
    printf("queries of a thread while another one is blocked\n");
    queries();
    printf("bare costs\n");
    costs();
    printf("other questions\n");
    other_questions();
    return 0;
}
