#!/bin/sh
# TVM FFI: the current stream of one asyncio task is that of others, and stays when all are done.
#
# `with tvm_ffi.use_raw_stream(device, stream)` sets the stream of the thread, and sets it back to
# what it was at the begin. Tasks of one event loop take turns on a thread: what one sets, the next
# one finds, and each sets back what it found. After three tasks that overlap, the stream of one of
# them stays current for the rest of the program. It also stays if one object of `use_raw_stream`
# is entered while it is entered already. Nothing is raised.
#
# Guess before the run: each task keeps its stream, as with a context variable; behind the blocks
# the stream is the default one.
#
# Why it matters: kernels of one request are launched on the stream of another, without the order
# that its events were to give. Let no `await` stand in the block, and make an object for each.
#
# Seen on 2026-11-28 with apache-tvm-ffi 0.1.15.post2, Python 3.11, Linux x86-64, no GPU; the stream
# is a number here, and 0 is the default one:
#   one block: inside 1, behind 0
#   three tasks: 1 finds 3, 2 finds 0, 3 finds 1, behind all of them 2
#   one object, entered twice: inside 1, behind 1
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --no-cache-dir apache-tvm-ffi==0.1.15.post2
"$dir/venv/bin/python" - <<'PY'
import asyncio
import sys
import threading

import tvm_ffi

DEVICE = tvm_ffi.device("cuda", 0)
seen = []


def current():
    return tvm_ffi.get_raw_stream(DEVICE)


def block():
    with tvm_ffi.use_raw_stream(DEVICE, 1):
        inside = current()
    return [inside, current()]


async def task(stream):
    with tvm_ffi.use_raw_stream(DEVICE, stream):
        await asyncio.sleep(0.2 * stream)
        return current()


async def tasks():
    return await asyncio.gather(*map(task, (1, 2, 3)))


def overlap():
    return [*asyncio.run(tasks()), current()]


def twice():
    context = tvm_ffi.use_raw_stream(DEVICE, 1)
    with context, context:
        inside = current()
    return [inside, current()]


for text, run in (
    ("one block: inside {}, behind {}", block),
    ("three tasks: 1 finds {}, 2 finds {}, 3 finds {}, behind all of them {}", overlap),
    ("one object, entered twice: inside {}, behind {}", twice),
):
    # The stream is the thread's, so each case has a new one.
    thread = threading.Thread(target=lambda: seen.append(run()))
    thread.start()
    thread.join()
    print(text.format(*seen[-1]))
sys.exit(0 if seen == [[1, 0], [3, 0, 1, 2], [1, 1]] else "the behaviour has changed")
PY
