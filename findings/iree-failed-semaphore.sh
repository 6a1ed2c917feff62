#!/bin/sh
# IREE: failing a semaphore takes back values already reached, and a later signal seems to work.
#
# After `HalSemaphore.fail`, `query` raises and the last value can no longer be had. A wait for a
# value that was reached before the failure raises, too, although the same wait returned True a
# moment earlier. `signal` with a higher value returns without an error and changes nothing, while
# a signal that does not advance a healthy semaphore raises.
#
# Guess before the run: the failure concerns values not yet reached, and signals are refused.
#
# Why it matters: with Vulkan's timeline semaphores and Metal's shared events a value once reached
# stays reached. Code that releases buffers when their value has passed must do so before it learns
# of a failure, or remember the last value itself; and a producer does not hear from its signals
# that nobody will see them.
#
# Seen on 2026-11-28 with iree-base-runtime 3.13.0, Python 3.11, device local-task, Linux x86-64:
#   signal(5) at 5: ValueError
#   wait(2) at 5: True
#   after fail: wait(2) RuntimeError, query() RuntimeError
#   signal(10): None, then wait(10) RuntimeError
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet iree-base-runtime==3.13.0 numpy==2.4.6
"$dir/venv/bin/python" - <<'PY'
import sys

import iree.runtime


def outcome(call, *arguments, **options):
    try:
        return call(*arguments, **options)
    except (RuntimeError, ValueError) as error:
        return type(error).__name__


semaphore = iree.runtime.get_device("local-task").create_semaphore(0)
semaphore.signal(5)
stale = outcome(semaphore.signal, 5)
print(f"signal(5) at 5: {stale}")
reached = outcome(semaphore.wait, 2, timeout=0)
print(f"wait(2) at 5: {reached}")
semaphore.fail("lost")
reached_later, asked = outcome(semaphore.wait, 2, timeout=0), outcome(semaphore.query)
print(f"after fail: wait(2) {reached_later}, query() {asked}")
signalled = outcome(semaphore.signal, 10)
waited = outcome(semaphore.wait, 10, timeout=0)
print(f"signal(10): {signalled}, then wait(10) {waited}")
seen = (stale, reached, reached_later, asked, signalled, waited)
expected = ("ValueError", True, "RuntimeError", "RuntimeError", None, "RuntimeError")
sys.exit(0 if seen == expected else "the behaviour has changed")
PY
