#!/bin/sh
# IREE: a semaphore that is signalled to 2^31 - 1 or more has failed, and the signal says nothing.
#
# Values are 64 bits wide and signals accept them. From 2^31 - 1 on, `signal` returns as always, and
# the semaphore has then failed with INTERNAL: `query` raises, and so does every wait, also for a
# value that was reached before. A semaphore created at such a value is born failed. A wait for such
# a value is accepted and times out.
#
# Guess before the run: 64 bits as in Vulkan and Metal, or an error from `signal`.
#
# Why it matters: a clock's nanoseconds or a counter shared with Vulkan soon pass 2^31, and a frame
# counter of a long service does in time. The failure shows elsewhere, in whoever waits, and names
# no value. Start at 0 and count by one.
#
# Seen on 2026-11-28 with iree-base-runtime 3.13.0, Python 3.11, device local-task, Linux x86-64:
#   signal(2147483646): None, query() 2147483646, wait(1) True
#   signal(2147483647): None, query() RuntimeError, wait(1) RuntimeError
#   signal(4294967296): None, query() RuntimeError, wait(1) RuntimeError
#   signal(1000000000000): None, query() RuntimeError, wait(1) RuntimeError
#   created at 2147483647: query() RuntimeError
#   wait(4294967296) at 1: False
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --no-cache-dir iree-base-runtime==3.13.0 numpy==2.4.6
"$dir/venv/bin/python" - <<'PY'
import sys

import iree.runtime

MILLISECOND = 1_000_000
device = iree.runtime.get_device("local-task")


def outcome(call, *arguments, **options):
    try:
        return call(*arguments, **options)
    except (RuntimeError, ValueError) as error:
        return type(error).__name__


seen = []
for value in (2**31 - 2, 2**31 - 1, 2**32, 10**12):
    semaphore = device.create_semaphore(1)
    signalled = outcome(semaphore.signal, value)
    asked, waited = outcome(semaphore.query), outcome(semaphore.wait, 1, timeout=0)
    print(f"signal({value}): {signalled}, query() {asked}, wait(1) {waited}")
    seen.append((signalled, asked, waited))
created = outcome(device.create_semaphore(2**31 - 1).query)
print(f"created at {2**31 - 1}: query() {created}")
waited = outcome(device.create_semaphore(1).wait, 2**32, timeout=MILLISECOND)
print(f"wait({2**32}) at 1: {waited}")
failed = (None, "RuntimeError", "RuntimeError")
ok = seen == [(None, 2**31 - 2, True), failed, failed, failed]
ok = ok and created == "RuntimeError" and waited is False
sys.exit(0 if ok else "the behaviour has changed")
PY
