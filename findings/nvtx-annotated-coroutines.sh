#!/bin/sh
# nvtx: the range of an annotated coroutine ends before it begins to run, and may have a wrong name.
#
# `@nvtx.annotate` opens a range, calls the function and closes the range. Calling an `async def`,
# or a generator, runs none of it, so its range is empty; there is no warning. An annotation without
# a message takes the name of the function that it is put on, and keeps it: the second function
# under one annotation object has ranges with the first one's name.
#
# Guess before the run: a range covers the awaits of a coroutine, as it does with the context
# manager; and each function has its own name, as the documentation says of the message.
#
# Why it matters: the ranges are what a profiler's timeline gives as the length of a step, and what
# kernels are attributed to by their launch. Steps that await the device have none of their kernels.
# Put `with nvtx.annotate(...)` into the function; an object is for one function only.
#
# Seen on 2026-11-28 with nvtx 0.2.17 and, as the tool that listens, forty lines of C with the
# headers of nvidia-nvtx 13.5.25; Python 3.11, Linux x86-64, no GPU (times vary):
#   a function that sleeps 100 ms: range "function" of 100 ms
#   a coroutine that sleeps 100 ms: range "coroutine" of 0 ms
#   a generator that sleeps 100 ms: range "generator" of 0 ms
#   functions a and b, one annotation: ranges "a" and "a"
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --no-cache-dir nvtx==0.2.17 nvidia-nvtx==13.5.25
cat >"$dir/tool.c" <<'C'
#include <nvtx3/nvToolsExt.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

static double milliseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return 1e3 * now.tv_sec + 1e-6 * now.tv_nsec;
}

static nvtxDomainHandle_t create(const char *name) { return (void *)strdup(name); }

static nvtxStringHandle_t intern(nvtxDomainHandle_t domain, const char *text) {
    (void)domain;
    return (void *)strdup(text);
}

static int push(nvtxDomainHandle_t domain, const nvtxEventAttributes_t *range) {
    (void)domain;
    printf("%.3f %s\n", milliseconds(), (const char *)range->message.registered);
    return fflush(stdout);
}

static int pop(nvtxDomainHandle_t domain) {
    (void)domain;
    printf("%.3f\n", milliseconds());
    return fflush(stdout);
}

int InitializeInjectionNvtx2(NvtxGetExportTableFunc_t export) {
    const NvtxExportTableCallbacks *callbacks = export(NVTX_ETID_CALLBACKS);
    NvtxFunctionTable table;
    unsigned size;
    if (!callbacks->GetModuleFunctionTable(NVTX_CB_MODULE_CORE2, &table, &size)) return 0;
    *table[NVTX_CBID_CORE2_DomainCreateA] = (NvtxFunctionPointer)create;
    *table[NVTX_CBID_CORE2_DomainRegisterStringA] = (NvtxFunctionPointer)intern;
    *table[NVTX_CBID_CORE2_DomainRangePushEx] = (NvtxFunctionPointer)push;
    *table[NVTX_CBID_CORE2_DomainRangePop] = (NvtxFunctionPointer)pop;
    return 1;
}
C
include=$(echo "$dir"/venv/lib/python*/site-packages/nvidia/cu13/include)
cc -shared -fPIC -D_DEFAULT_SOURCE -I"$include" "$dir/tool.c" -o "$dir/tool.so"
cat >"$dir/ranges.py" <<'PY'
import asyncio
import time

import nvtx


@nvtx.annotate()
def function():
    time.sleep(0.1)


@nvtx.annotate()
async def coroutine():
    await asyncio.sleep(0.1)


@nvtx.annotate()
def generator():
    time.sleep(0.1)
    yield


annotation = nvtx.annotate(color="red")


@annotation
def a():
    pass


@annotation
def b():
    pass


function()
asyncio.run(coroutine())
list(generator())
a()
b()
PY
NVTX_INJECTION64_PATH="$dir/tool.so" "$dir/venv/bin/python" "$dir/ranges.py" >"$dir/ranges.txt"
python3 - "$dir/ranges.txt" <<'PY'
import pathlib
import sys

lines = pathlib.Path(sys.argv[1]).read_text().splitlines()
begins = [line.split() for line in lines[::2]]
ranges = [(name, float(end) - float(begin)) for (begin, name), end in zip(begins, lines[1::2])]
kinds = ("a function", "a coroutine", "a generator")
for kind, (name, length) in zip(kinds, ranges):
    print(f'{kind} that sleeps 100 ms: range "{name}" of {length:.0f} ms')
(first, _), (second, _) = ranges[3:]
print(f'functions a and b, one annotation: ranges "{first}" and "{second}"')
slept = [length > 50 for _, length in ranges[:3]]
ok = slept == [True, False, False] and (first, second) == ("a", "a")
sys.exit(0 if ok else "the behaviour has changed")
PY
