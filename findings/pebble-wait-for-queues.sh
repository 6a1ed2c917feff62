#!/bin/sh
# Pebble: waiting for one of several queues ends early with none, if another thread takes the item.
#
# `waitforqueues` is to return when a queue is ready, or the limit is over. It is woken by any item,
# and then says which queues have one. If a second thread that was in `get()` has taken it
# meanwhile, none has: the list is empty, as it is after the limit, and long before that.
#
# Guess before the run: the wait goes on until a queue is ready, or the limit is over.
#
# Why it matters: several threads take results of devices from queues, and one of them looks at all.
# An empty list is taken for the limit: the device seems to hang, or `ready[0]` raises. Compare the
# time with the limit, and wait again.
#
# Seen on 2026-11-29 with Pebble 5.2.3, Python 3.11, Linux x86-64 (an item comes after 20 ms;
# numbers vary):
#   nobody else takes it: 200 of 200 waits ended with the queue, 0 early with none
#   another thread takes it: 166 of 200 waits ended with the queue, 34 early with none
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --no-cache-dir pebble==5.2.3
"$dir/venv/bin/python" - <<'PY'
import queue
import sys
import threading
import time

import pebble

LIMIT = 2
ROUNDS = 200


def wait_once(taken):
    results = queue.Queue()
    other = queue.Queue()
    if taken:
        threading.Thread(target=results.get).start()
        time.sleep(0.01)
    setter = threading.Timer(0.02, results.put, [1])
    start = time.monotonic()
    setter.start()
    ready = list(pebble.waitforqueues([results, other], timeout=LIMIT))
    took = time.monotonic() - start
    setter.join()
    return len(ready), took


for taken in (False, True):
    waits = [wait_once(taken) for _ in range(ROUNDS)]
    early = [took for ready, took in waits if not ready and took < LIMIT / 2]
    full = sum(1 for ready, _ in waits if ready)
    name = "another thread takes it" if taken else "nobody else takes it"
    print(f"{name}: {full} of {ROUNDS} waits ended with the queue, {len(early)} early with none")
    if taken != bool(early):
        sys.exit("the behaviour has changed")
PY
