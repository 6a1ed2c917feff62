#!/bin/sh
# mpi4py: a request gives its message out once; whoever asks next gets None, as if None were sent.
#
# The calls with small letters send Python objects, and `test` and `wait` of a receive return them.
# The first of them that sees the request complete gets the message, and the request forgets it: a
# `wait` behind a `test`, or a second `wait`, returns None. `waitall` behind `waitany`, and a second
# `testall`, have None in the place of what was given out. Nothing is raised.
#
# Guess before the run: a complete request keeps its message, as a future does, so that `wait`
# returns it however often it is asked; or it raises.
#
# Why it matters: "poll with `test`, then take the message with `wait`" loses every message that
# arrives before the loop ends, and keeps the others: which ones depends on time. A logging line
# that calls `test` is enough. Keep what the first successful call returns.
#
# Seen on 2026-11-29 with mpi4py 4.1.2, mpich 5.0.2, Python 3.11, Linux x86-64:
#   test: (True, 'text 0'), then test: (True, None), then wait: None
#   waitany: (0, 'text 0'), then waitall: [None, 'text 1', 'text 2']
#   testall: (True, ['text 0', 'text 1', 'text 2']), then testall: (True, [None, None, None])
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --no-cache-dir mpi4py==4.1.2 mpich==5.0.2
cat >"$dir/messages.py" <<'PY'
import sys

from mpi4py import MPI

comm = MPI.COMM_SELF


def receives(count):
    """Receives whose messages have been sent, and the sends, which are to be kept."""
    received = [comm.irecv(source=0, tag=tag) for tag in range(count)]
    return received, [comm.isend(f"text {tag}", dest=0, tag=tag) for tag in range(count)]


def until_complete(test):
    while True:
        answer = test()
        if answer[0]:
            return answer


seen = []
(received,), sent = receives(1)
seen += [until_complete(received.test), received.test(), received.wait()]
print(f"test: {seen[0]}, then test: {seen[1]}, then wait: {seen[2]}")
MPI.Request.waitall(sent)

received, sent = receives(3)
seen += [MPI.Request.waitany(received), MPI.Request.waitall(received)]
print(f"waitany: {seen[3]}, then waitall: {seen[4]}")
MPI.Request.waitall(sent)

received, sent = receives(3)
seen += [until_complete(lambda: MPI.Request.testall(received)), MPI.Request.testall(received)]
print(f"testall: {seen[5]}, then testall: {seen[6]}")
MPI.Request.waitall(sent)

messages = [f"text {tag}" for tag in range(3)]
first, given = seen[3]
expected = [
    (True, messages[0]),
    (True, None),
    None,
    (first, messages[first]),
    [None if tag == first else message for tag, message in enumerate(messages)],
    (True, messages),
    (True, [None] * 3),
]
sys.exit(0 if seen == expected else "the behaviour has changed")
PY
"$dir/venv/bin/mpiexec" -n 1 "$dir/venv/bin/python" "$dir/messages.py"
