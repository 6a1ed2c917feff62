"""Exceptions in launched work, and failures that nobody asks for."""

import asyncio
import gc
import sys
import threading
import traceback
import weakref

import pytest

import fencepost
from conftest import PATIENCE
from fencepost import Event


class Paper(LookupError):
    """An exception that can be referred to weakly."""


def line_of(function):
    return function.__code__.co_firstlineno


def test_every_error_has_the_original_as_its_cause(host):
    stream, other, event = host.stream(), host.stream(), Event(host)
    raised = Paper("no more paper")

    def deep(levels):
        if levels == 0:
            raise raised
        deep(levels - 1)

    async def awaits():
        await event

    stream.launch(lambda: deep(3))
    launched = sys._getframe().f_lineno - 1
    event.record(stream)
    other.wait_event(event)
    for call in [
        stream.synchronize,
        stream.query,
        event.synchronize,
        event.query,
        host.synchronize,
        other.synchronize,
        lambda: stream.launch(print),
        lambda: asyncio.run(awaits()),
    ]:
        with pytest.raises(RuntimeError) as failed:
            call()
        assert failed.value.__cause__ is raised
        text = str(failed.value)
        assert f"host work launched at {__file__}:{launched} raised Paper: no more paper" in text
        assert "panicked" not in text
    frames = traceback.extract_tb(raised.__traceback__)
    assert [frame.name for frame in frames] == ["<lambda>", *["deep"] * 4]
    other.clear_error()
    stream.clear_error()


@pytest.mark.parametrize("raised", [SystemExit, KeyboardInterrupt])
def test_work_that_ends_the_program_elsewhere_says_what_it_ends(host, raised):
    stream = host.stream()

    def ends():
        raise raised("enough")

    stream.launch(ends)
    with pytest.raises(
        RuntimeError, match=f"raised {raised.__name__}: enough.*work only"
    ) as failed:
        stream.synchronize(timeout=PATIENCE)
    assert type(failed.value.__cause__) is raised


def test_an_exception_without_a_text_is_told_by_its_name(host):
    stream = host.stream()

    def fails():
        raise AssertionError

    stream.launch(fails)
    with pytest.raises(RuntimeError, match=r"raised AssertionError \(at "):
        stream.synchronize(timeout=PATIENCE)
    stream.clear_error()


def test_a_failure_keeps_neither_the_stream_nor_the_works_variables(host, unraisable):
    class Big:
        pass

    seen = []

    def launches():
        stream, big = host.stream(), Big()
        seen.append(weakref.ref(big))

        def fails():
            mine = (stream, big)
            raise Paper(len(mine))

        stream.launch(fails)
        with pytest.raises(RuntimeError) as failed:
            stream.synchronize(timeout=PATIENCE)
        seen.append(weakref.ref(failed.value.__cause__))

    launches()
    gc.collect()
    assert [what() for what in seen] == [None, None]
    assert unraisable.reports == []


class Stubborn(Exception):
    """An exception whose attributes nobody may set by the usual way."""

    def __setattr__(self, name, value):
        raise TypeError(name)


def circle(stream):
    first, second = Paper("first"), Paper("second")
    for one, two in [(first, second), (second, first)]:
        try:
            raise one
        except Paper:
            one.__cause__ = two
    raise first


def chain(stream, levels=200):
    try:
        raise Paper(levels)
    except Paper:
        if levels == 0:
            raise
        chain(stream, levels - 1)


def lacks_an_attribute(stream):
    stream.no_such_attribute  # noqa: B018


def stubborn(stream):
    raise Stubborn(1)


def caught(stream):
    try:
        raise Paper("caught")
    except Paper as error:
        return error


def in_arguments(stream):
    raise Paper("not one", [caught(stream), 3])


def in_attributes(stream):
    error = Paper("more than one")
    error.others = [caught(stream)]
    raise error


def group(stream):
    inner = ExceptionGroup("one", [caught(stream)])  # noqa: F821
    raise ExceptionGroup("both", [caught(stream), inner])  # noqa: F821


KINDS = [circle, chain, lacks_an_attribute, stubborn, in_arguments, in_attributes]
if sys.version_info >= (3, 11):
    KINDS.append(group)


@pytest.mark.parametrize("fails", KINDS, ids=lambda fails: fails.__name__)
def test_whatever_an_exception_leads_to_keeps_no_stream(host, fails):
    gone = []

    def launches():
        stream = host.stream()
        gone.append(weakref.ref(stream))
        stream.launch(lambda: fails(stream))
        with pytest.raises(RuntimeError) as failed:
            stream.synchronize(timeout=PATIENCE)
        lines = traceback.extract_tb(failed.value.__cause__.__traceback__)
        assert fails.__name__ in [line.name for line in lines]

    launches()
    gc.collect()
    assert gone[0]() is None


@pytest.fixture
def unraisable(monkeypatch):
    """What ``sys.unraisablehook`` is called with."""

    class Reports:
        def __init__(self):
            self.reports, self.came = [], threading.Semaphore(0)

        def __call__(self, report):
            self.reports.append((report.exc_type, str(report.exc_value), report.object))
            self.came.release()

        def next(self):
            assert self.came.acquire(timeout=60), "no report came"
            return self.reports.pop(0)

    reports = Reports()
    monkeypatch.setattr(sys, "unraisablehook", reports)
    return reports


def has_failed(host, work):
    """Return a stream that has failed by ``work``, and that nobody has asked."""
    stream, go, skipped = host.stream(), threading.Event(), threading.Event()

    class Skipped:
        def __call__(self):
            raise AssertionError("it runs behind a failure")

        def __del__(self):
            skipped.set()

    def fails():
        go.wait(PATIENCE)
        work()

    stream.launch(fails)
    stream.launch(Skipped())
    go.set()
    while not skipped.is_set():
        # What a thread of the library drops is freed by the next call of the library.
        repr(fencepost.Event(host))
    return stream


def test_a_failure_that_nobody_asked_for_is_reported_once(host, unraisable):
    def fails():
        raise Paper("no more paper")

    stream = has_failed(host, fails)
    assert unraisable.reports == []
    del stream
    kind, text, what = unraisable.next()
    assert (kind, text) == (Paper, "no more paper")
    assert "whose failure nobody asked for: host work launched at " in what

    # Somebody has seen these.
    for ask in [
        lambda stream: stream.synchronize(),
        lambda stream: stream.query(),
        lambda stream: stream.launch(print),
    ]:
        stream = has_failed(host, fails)
        with pytest.raises(RuntimeError):
            ask(stream)
        del stream
    stream = has_failed(host, fails)
    assert "no more paper" in stream.error
    del stream

    # An event may still be asked, and streams that inherit a failure are one report.
    stream, other, event = has_failed(host, fails), host.stream(), Event(host)
    event.record(stream)
    other.wait_event(event)
    del stream, event
    assert unraisable.reports == []
    del other
    assert unraisable.next()[:2] == (Paper, "no more paper")

    # What came last shows that nothing came in between.
    stream = has_failed(host, lambda: 1 / 0)
    del stream
    assert unraisable.next()[0] is ZeroDivisionError
    assert unraisable.reports == []


@pytest.mark.parametrize("held", ["stream", "None"])
def test_what_nobody_asked_for_is_reported_at_exit(child, held):
    done = child(
        f"""
import time
import fencepost
stream = fencepost.Device("host").stream()
done = []
def work():
    done.append(1)
    1 / 0
stream.launch(work)
while not done: time.sleep(0.001)
stream = {held}
print("end")
"""
    )
    assert done.stdout == "end\n"
    assert done.stderr.count("ZeroDivisionError") == 2, "once in the text, once in the traceback"
    assert "in work\n" in done.stderr
