#!/bin/sh
# gevent: the time limit of `gevent.wait` counts from before the call, and may have passed by then.
#
# `wait` and `iwait` start a timer of the event loop, and such a timer counts from the loop's own
# idea of now. That is the time at which the loop last woke up, and stands still while a greenlet
# computes. After 300 ms of computation a limit of 100 ms is over before it begins: `wait` returns
# at once, with nothing. `spawn_later` starts its greenlet at once likewise. The waits of an event,
# of a greenlet and of a queue, and `sleep`, ask for the time first, and wait as long as they say.
#
# Guess before the run: each of them counts from the call.
#
# Why it matters: a program that prepares or launches work for a while, and then waits for the first
# of several results for so long, is told that none has come, though no time was given to them. Call
# `gevent.sleep(0)` and `gevent.get_hub().loop.update_now()` first.
#
# Seen on 2026-11-29 with gevent 26.9.0 (libev), Python 3.11, Linux x86-64 (times vary; the
# event is set by a greenlet that sleeps for 50 ms first, all limits and delays are 100 ms):
#   wait([event]): 0 of 1 after 0 ms
#   wait([event]), loop's time updated: 1 of 1 after 50 ms
#   event.wait: True after 50 ms
#   spawn_later: ran after 0 ms
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --no-cache-dir gevent==26.9.0
GEVENT_LOOP=libev-cext "$dir/venv/bin/python" - <<'PY'
import sys
import time

import gevent
import gevent.event

LIMIT = 0.1
loop = gevent.get_hub().loop


def compute():
    gevent.sleep(0.01)
    until = time.monotonic() + 0.3
    while time.monotonic() < until:
        pass


def set_after_sleep(event):
    gevent.sleep(0.05)
    event.set()


def measure(name, waits, update=False):
    compute()
    if update:
        loop.update_now()
    event = gevent.event.Event()
    setter = gevent.spawn(set_after_sleep, event)
    start = time.monotonic()
    said, value = waits(event)
    took = time.monotonic() - start
    print(f"{name}: {said} after {1000 * took:.0f} ms")
    setter.join()
    return value


def wait(event):
    ready = gevent.wait([event], timeout=LIMIT)
    return f"{len(ready)} of 1", len(ready)


def event_wait(event):
    done = event.wait(LIMIT)
    return done, done


def spawn_later(_event):
    started = gevent.spawn_later(LIMIT, time.monotonic)
    asked = time.monotonic()
    return "ran", started.get() - asked < LIMIT / 2


seen = [
    measure("wait([event])", wait),
    measure("wait([event]), loop's time updated", wait, update=True),
    measure("event.wait", event_wait),
    measure("spawn_later", spawn_later),
]
sys.exit(0 if seen == [0, 1, True, True] else "the behaviour has changed")
PY
