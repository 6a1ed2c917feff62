#!/bin/sh
# PyTorch on Gloo: a wait whose limit is over closes the connections, and nothing works afterwards.
#
# `work.wait(timeout)` raises when the limit is over, and the documentation has it in a `try` with
# "some handling". On the Gloo backend, the connections of the group are closed by then. Waiting for
# the same receive again fails, though its message is sent later; so does each later call of the
# group in this process, also with a third process that has nothing to do with the receive. The
# sender's own call fails, too. The wait for a collective, with the same limit, can be repeated.
#
# Guess before the run: the receive stays pending, so that one can wait again, as with an event.
#
# Why it matters: a short limit is how one looks whether a message is there, and does something else
# if it is not. The first look that comes too early ends the job, of all processes. Wait without a
# limit on a thread of its own, and let the limit be that thread's.
#
# Seen on 2026-11-29 with torch 2.15.0, Python 3.11, Linux x86-64, three processes (the last
# lines but one in any order):
#   process 0: all_reduce, limit 0.2 s: timed out
#   process 0: the same, limit 20 s: done
#   process 0: receive, limit 0.2 s: Timed out
#   process 0: the same, limit 20 s: timeout caused pair closure
#   process 0: send to process 2: timeout caused pair closure
#   process 1: send to process 0: closed by peer
#   process 2: receive from process 0: closed by peer
#   process 0 ends
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --no-cache-dir torch==2.15.0 numpy==2.4.6
cat >"$dir/limit.py" <<'PY'
import sys
import time
from datetime import timedelta

import torch
from torch import distributed

rank, folder = int(sys.argv[1]), sys.argv[2]
distributed.init_process_group(
    "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=3
)
LIMITS = timedelta(milliseconds=200), timedelta(seconds=20)
failed = []


def attempt(name, call):
    try:
        call()
    except RuntimeError as error:
        reason = error.args[0]
        for words in ("timed out", "Timed out", "timeout caused pair closure", "closed by peer"):
            reason = words if words in reason else reason
        failed.append(name)
    else:
        reason = "done"
    print(f"process {rank}: {name}: {reason}", flush=True)


numbers = torch.zeros(2)
if rank == 1:
    time.sleep(1)
reduced = distributed.all_reduce(numbers, async_op=True)
if rank == 0:
    attempt("all_reduce, limit 0.2 s", lambda: reduced.wait(LIMITS[0]))
    attempt("the same, limit 20 s", lambda: reduced.wait(LIMITS[1]))
else:
    reduced.wait()
if rank == 0:
    received = distributed.irecv(numbers, 1)
    attempt("receive, limit 0.2 s", lambda: received.wait(LIMITS[0]))
    attempt("the same, limit 20 s", lambda: received.wait(LIMITS[1]))
    attempt("send to process 2", lambda: distributed.send(numbers, 2))
    expected = ["all_reduce, limit 0.2 s", "receive, limit 0.2 s"]
    expected += ["the same, limit 20 s", "send to process 2"]
    # What the others see is not the end of this process.
    time.sleep(4)
    print("process 0 ends", flush=True)
elif rank == 1:
    time.sleep(1)
    attempt("send to process 0", lambda: distributed.send(numbers, 0))
    expected = ["send to process 0"]
else:
    attempt("receive from process 0", lambda: distributed.recv(numbers, 0))
    expected = ["receive from process 0"]
if failed != expected:
    sys.exit("the behaviour has changed")
PY
for rank in 0 1 2; do
    "$dir/venv/bin/python" -W ignore "$dir/limit.py" $rank "$dir" &
    pids="${pids:-} $!"
done
for pid in $pids; do
    wait "$pid"
done
