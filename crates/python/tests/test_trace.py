"""``fencepost.Trace``: what ran when."""

import asyncio
import errno
import inspect
import json
import math
import os
import pathlib
import threading
import time
import weakref

import pytest

import fencepost
from conftest import PATIENCE, at_once
from fencepost import Span, SpanRecord, Trace

# Its ``repr`` has an address, by which pytest-xdist's processes would name the test differently.
OBJECT = pytest.param(object(), id="object")


def named(trace, name):
    """The only span of this name."""
    found = [record for record in trace.spans() if record.name == name]
    assert len(found) == 1, (name, trace.spans())
    return found[0]


def test_a_span_of_a_stream_covers_the_work_submitted_in_its_block(device):
    stream = device.stream()
    before = time.time_ns()
    with Trace() as trace:
        with trace.span("load", stream, bytes=4096, ratio=0.5, kind="bf16", cold=True) as span:
            assert isinstance(span, Span)
            stream.record()
        with trace.span("compute", stream):
            pass
    stream.synchronize(PATIENCE)
    load, compute = trace.spans()
    assert isinstance(load, SpanRecord)
    assert [load.name, compute.name] == ["load", "compute"]
    assert load.state == compute.state == "complete"
    assert load.error is None
    assert load.device == device.name
    assert load.thread_id is None
    assert load.track == compute.track
    assert str(stream.id) in load.track
    assert load.attributes == {"bytes": 4096, "ratio": 0.5, "kind": "bf16", "cold": True}
    assert list(map(type, load.attributes.values())) == [int, float, str, bool]
    assert not load.is_instant
    assert load.start_ns <= load.end_ns <= compute.start_ns <= compute.end_ns
    # Since 1970: an hour more or less is not of this package's making.
    hour = 3600 * 10**9
    assert before - hour < load.start_ns < time.time_ns() + hour
    assert load.uncertainty_ns >= 0
    assert "load" in repr(load)
    assert "complete" in repr(load)


def test_without_a_stream_a_span_is_of_the_calling_thread():
    trace = Trace()

    def work():
        with trace.span("step", number=3), trace.span("load"):
            pass

    thread = threading.Thread(target=work, name="loader")
    thread.start()
    thread.join(PATIENCE)
    outer, inner = trace.spans()
    assert [outer.name, inner.name] == ["step", "load"]
    assert outer.start_ns <= inner.start_ns <= inner.end_ns <= outer.end_ns
    assert outer.track == "loader"
    assert outer.device is None
    assert outer.thread_id == inner.thread_id == thread.native_id
    assert outer.attributes == {"number": 3}


def test_nested_spans_of_a_stream_nest(device):
    stream, trace = device.stream(), Trace()
    with trace.span("outer", stream):
        with trace.span("first", stream):
            pass
        with trace.span("second", stream):
            pass
    stream.synchronize(PATIENCE)
    outer, first, second = trace.spans()
    assert [outer.name, first.name, second.name] == ["outer", "first", "second"]
    assert outer.start_ns <= first.start_ns <= first.end_ns <= second.start_ns
    assert second.start_ns <= second.end_ns <= outer.end_ns


def test_a_wait_between_streams_is_an_arrow(device):
    load, compute, trace = device.stream(), device.stream(), Trace()
    loaded = fencepost.Event(device)
    with trace.span("load", load):
        pass
    loaded.record(load)
    with trace.span("compute", compute):
        loaded.wait(compute)
    compute.synchronize(PATIENCE)
    load.synchronize(PATIENCE)
    found = trace.spans()
    awaited = {
        record.name: [found[place].name for place in record.awaited]
        for record in found
        if record.awaited
    }
    # A wait for what is complete may have been none.
    assert awaited in ({}, {"compute": ["load"]})


def test_a_wait_for_what_is_pending_is_an_arrow(host, gate):
    load, compute, trace = host.stream(), host.stream(), Trace()
    loaded = fencepost.Event(host)
    held = gate(load)
    with trace.span("load", load):
        pass
    loaded.record(load)
    with trace.span("compute", compute):
        loaded.wait(compute)
    assert trace.summary().unfinished == 2
    assert {record.state for record in trace.spans()} == {"unfinished"}
    held.open()
    compute.synchronize(PATIENCE)
    found = trace.spans()
    compute = named(trace, "compute")
    assert [found[place].name for place in compute.awaited] == ["load"]


def test_a_stream_is_what_record_takes_or_a_device_or_its_name(name, device):
    trace = Trace()
    stream = device.stream()
    for what in (stream, device, name, device.default_stream()):
        with trace.span("step", what):
            pass
        trace.instant("tick", what)
    with trace.span("step", stream=stream):
        pass
    if device.backend == "cuda":
        with trace.span("step", stream.cuda_stream):
            pass
    device.synchronize(PATIENCE)
    of_stream = [r for r in trace.spans() if str(stream.id) in r.track and not r.is_instant]
    assert len(of_stream) == (3 if device.backend == "cuda" else 2)
    assert trace.summary().dropped == 0


@pytest.mark.parametrize("wrong", [OBJECT, 1.5, [1], {}, b"cuda:0"], ids=repr)
def test_what_is_no_stream_is_a_type_error_that_names_the_argument(wrong):
    trace = Trace()
    span = trace.span("step", wrong)
    with pytest.raises(TypeError, match=r"span\(\) argument 'stream'.*a stream"), span:
        pass
    with pytest.raises(TypeError, match=r"instant\(\) argument 'stream'"):
        trace.instant("tick", wrong)
    assert trace.spans() == []


def test_an_unknown_device_is_a_value_error():
    with pytest.raises(ValueError, match="nonsense"), Trace().span("step", "nonsense"):
        pass


@pytest.mark.parametrize("wrong", [None, [1], {}, b"x", 1j, OBJECT], ids=repr)
def test_an_attribute_that_is_no_number_or_string_is_a_type_error_that_names_it(wrong):
    trace = Trace()
    with trace.span("step") as span:
        for call in (
            lambda: trace.span("load", size=wrong),
            lambda: trace.instant("tick", size=wrong),
            lambda: span.add(size=wrong),
        ):
            with pytest.raises(TypeError, match=r"\w+\(\) attribute 'size': expected an int"):
                call()


def test_attributes_hold_every_number_of_64_bits():
    trace = Trace()
    given = {
        "least": -(2**63),
        "most": 2**64 - 1,
        "infinite": math.inf,
        "name": "an attribute may have any name",
        "größe": "ä" * 1000,
        "empty": "",
    }
    trace.instant("tick", **given)
    assert named(trace, "tick").attributes == given
    for number in (2**64, -(2**63) - 1):
        with pytest.raises(OverflowError, match=r"attribute 'size'"):
            trace.instant("tick", size=number)


def test_attributes_may_be_added_while_the_span_is_open(host):
    stream, trace = host.stream(), Trace()
    for where in ((), (stream,)):
        with trace.span("decode", *where, batch=8) as span:
            span.add(tokens=17)
            span.add()
        with pytest.raises(RuntimeError, match="has not begun, or has ended"):
            span.add(late=True)
        with pytest.raises(RuntimeError, match="has not begun, or has ended"):
            trace.span("decode").add(early=True)
    stream.synchronize(PATIENCE)
    assert [r.attributes for r in trace.spans()] == [{"batch": 8, "tokens": 17}] * 2


def test_of_an_attribute_given_again_the_last_value_counts_also_in_files(host, tmp_path):
    stream, trace = host.stream(), Trace()
    for where in ((), (stream,)):
        with trace.span("loop", *where, step=-1, batch=8) as span:
            for step in range(5):
                span.add(step=step)
    stream.synchronize(PATIENCE)
    given = {"step": 4, "batch": 8}
    assert [list(r.attributes.items()) for r in trace.spans()] == [list(given.items())] * 2
    trace.save(tmp_path / "run.json")
    events = json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))["traceEvents"]
    saved = [event["args"] for event in events if event.get("name") == "loop"]
    steps = [{k: v for k, v in args.items() if k.startswith("step")} for args in saved]
    assert steps == [{"step": 4}] * 2


def test_a_lone_surrogate_is_replaced_and_never_raises(host, tmp_path):
    stream, trace, broken = host.stream(), Trace(), "a\udc80b"
    for where in ((), (stream,)):
        with trace.span(broken, *where, **{broken: 1}, path=broken) as span:
            span.add(more=broken)
        trace.instant(broken, *where, path=broken)
    thread = threading.Thread(target=lambda: trace.instant("tick"), name=broken)
    thread.start()
    thread.join(PATIENCE)
    stream.synchronize(PATIENCE)
    texts = []
    for record in trace.spans():
        if record.name == "tick":
            texts.append(record.track)
        else:
            values = record.attributes.values()
            texts += [record.name, *record.attributes, *(v for v in values if isinstance(v, str))]
    texts = set(texts) - {"path", "more"}
    assert len(texts) == 1
    text = texts.pop()
    assert text[0] + text[-1] == "ab"
    assert set(text[1:-1]) == {"\ufffd"}
    trace.save(tmp_path / "run.json")
    json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("wrong", [1, None, b"step", test_nested_spans_of_a_stream_nest])
def test_a_name_is_a_str(wrong):
    with pytest.raises(TypeError, match=r"span\(\) argument 'name': expected a str"):
        Trace().span(wrong)
    with pytest.raises(TypeError, match=r"instant\(\) argument 'name': expected a str"):
        Trace().instant(wrong)


def test_what_the_fast_entry_does_not_take_is_told_as_python_tells_it():
    trace = Trace()
    with pytest.raises(TypeError, match="name"):
        trace.span()
    with pytest.raises(TypeError, match="positional"):
        trace.span("step", None, None)
    with trace.span("step", None), trace.span("step", stream=None):
        pass
    assert len(trace.spans()) == 2
    stream = fencepost.Device("host").stream()
    for call in (trace.span, trace.instant):
        for first in (None, stream):
            with pytest.raises(TypeError, match="multiple values for argument 'stream'"):
                call("step", first, stream=stream)
            with pytest.raises(TypeError, match="multiple values for argument 'stream'"):
                call("step", first, size=1, **{"".join(("str", "eam")): None})
    # A name of a keyword that no source has is the same name.
    with trace.span("step", size=1, **{"".join(("str", "eam")): stream}):
        pass
    stream.synchronize(PATIENCE)
    assert [r.attributes for r in trace.spans() if r.device] == [{"size": 1}]
    span = trace.span("again")
    span.__enter__()
    with pytest.raises(TypeError):
        span.__exit__()
    assert span.__exit__(None, None, None) is False
    assert "stream=None" in str(inspect.signature(Trace.span))


def test_a_decorated_function_is_a_span_each_time(host):
    stream, trace = host.stream(), Trace()

    @trace.span("step", stream, kind="train")
    def step(number, *, scale=1):
        """Do a step."""
        return number * scale

    class Model:
        @trace.span("forward")
        def forward(self, x):
            return self, x

    assert step(3, scale=2) == 6
    assert step(4) == 4
    assert step.__name__ == "step"
    assert step.__doc__ == "Do a step."
    model = Model()
    assert model.forward(1) == (model, 1)
    stream.synchronize(PATIENCE)
    names = [record.name for record in trace.spans()]
    assert sorted(names) == ["forward", "step", "step"]
    assert all(r.attributes == {"kind": "train"} for r in trace.spans() if r.name == "step")


def test_a_span_decorates_no_class_and_no_method_that_a_decorator_made():
    trace = Trace()

    class Model:
        @trace.span("inside")
        def inside():
            return 3

        inside = staticmethod(inside)

    assert Model.inside() == Model().inside() == 3
    with pytest.raises(TypeError, match=r"span decorates a function.*got the class '.*Model'"):
        trace.span("model")(Model)
    for kind in (staticmethod, classmethod):
        name = kind.__name__
        with pytest.raises(TypeError, match=rf"@{name} above the span"):
            trace.span("x")(kind(lambda: 3))
    assert [record.name for record in trace.spans()] == ["inside"] * 2


def test_a_decorated_function_may_call_itself_and_run_on_many_threads():
    trace = Trace()

    @trace.span("count")
    def count(down):
        return 0 if down == 0 else 1 + count(down - 1)

    at_once(lambda _number: count(4), threads=8)
    assert len(trace.spans()) == 40
    assert len({record.thread_id for record in trace.spans()}) == 8


def test_coroutines_and_generators_are_spans_until_they_are_over():
    trace = Trace()

    @trace.span("fetch")
    async def fetch(number):
        await asyncio.sleep(0)
        return number

    @trace.span("walk")
    def walk():
        with trace.span("inside"):
            got = yield 1
        return got

    assert inspect.iscoroutinefunction(fetch)
    assert asyncio.run(fetch(3)) == 3
    walking = walk()
    assert next(walking) == 1
    with pytest.raises(StopIteration) as stop:
        walking.send(2)
    assert stop.value.value == 2
    fetched, walked, inside = (named(trace, name) for name in ("fetch", "walk", "inside"))
    assert fetched.end_ns <= walked.start_ns
    assert walked.start_ns <= inside.start_ns <= inside.end_ns <= walked.end_ns

    async def forever():
        yield 1

    with pytest.raises(TypeError, match="asynchronous generator"):
        trace.span("x")(forever)
    with pytest.raises(TypeError, match="decorates a function"):
        trace.span("x")(3)


def test_an_exception_ends_the_span_and_is_named(host):
    stream, trace = host.stream(), Trace()
    for where in ((), (stream,)):
        with pytest.raises(ZeroDivisionError), trace.span("step", *where):
            print(1 / 0)
    stream.synchronize(PATIENCE)
    assert [r.attributes for r in trace.spans()] == [{"exception": "ZeroDivisionError"}] * 2


def test_an_instant_is_a_moment(device):
    stream, trace = device.stream(), Trace()
    trace.instant("checkpoint", stream, step=3)
    trace.instant("signal", step=4)
    stream.synchronize(PATIENCE)
    for name, track, step in (("checkpoint", device.name, 3), ("signal", None, 4)):
        found = named(trace, name)
        assert found.is_instant
        assert found.start_ns == found.end_ns
        assert found.device == track
        assert found.attributes == {"step": step}
        assert "instant" in repr(found)


def test_a_span_that_is_open_cannot_begin_again(host):
    stream, trace = host.stream(), Trace()
    with trace.span("step", stream) as span:
        assert "open" in repr(span)
        with pytest.raises(RuntimeError, match="has begun and not ended"):
            span.__enter__()
    with span:
        pass
    stream.synchronize(PATIENCE)
    assert len(trace.spans()) == 2
    # Ending what is not open is nothing.
    span.__exit__(None, None, None)
    assert trace.summary().finished == 2


def test_a_span_may_end_on_another_thread_and_one_that_is_dropped_ends(host):
    stream, trace = host.stream(), Trace()
    span = trace.span("request", stream)
    span.__enter__()
    at_once(lambda _number: span.__exit__(None, None, None), threads=1)
    trace.span("lost", stream).__enter__()
    trace.span("lost too").__enter__()
    stream.synchronize(PATIENCE)
    names = sorted(record.name for record in trace.spans())
    assert names == ["lost", "lost too", "request"]
    assert trace.summary().unfinished == 0


def test_a_span_of_a_failed_stream_is_shown_as_failed(host, gate):
    stream, trace = host.stream(), Trace()
    held = gate(stream)
    with trace.span("step", stream):
        stream.launch(lambda: 1 / 0)
    held.open()
    with pytest.raises(RuntimeError):
        stream.synchronize(PATIENCE)
    record = named(trace, "step")
    assert record.state == "failed"
    assert "ZeroDivisionError" in record.error
    assert trace.summary().failed == 1
    stream.clear_error()


def test_a_trace_keeps_as_much_as_it_is_told_to_and_counts_the_rest(host, gate):
    trace = Trace(capacity=10)
    for number in range(25):
        trace.instant("tick", number=number)
    assert [r.attributes["number"] for r in trace.spans()] == list(range(15, 25))
    assert trace.summary().dropped == 15

    stream, trace = host.stream(), Trace(pending=4)
    held = gate(stream)
    for _ in range(10):
        with trace.span("step", stream):
            pass
    summary = trace.summary()
    assert (summary.finished, summary.unfinished, summary.dropped) == (0, 4, 6)
    assert summary.first_error is None
    assert str(summary) == "0 finished, 0 failed, 4 unfinished, 6 dropped"
    assert str(summary) in repr(trace)
    assert str(summary) in repr(summary)
    held.open()
    stream.synchronize(PATIENCE)
    assert trace.summary().finished == 4


@pytest.mark.parametrize("argument", ["capacity", "pending"])
def test_how_much_a_trace_keeps_is_a_positive_number(argument):
    for wrong in (0, -1, 1 << 63):
        with pytest.raises(ValueError, match=rf"Trace\(\) argument '{argument}'.*got {wrong}"):
            Trace(**{argument: wrong})
    for wrong, name in (("many", "str"), (1.5, "float")):
        with pytest.raises(TypeError, match=rf"Trace\(\) argument '{argument}'.*got {name}"):
            Trace(**{argument: wrong})


def test_a_trace_is_saved_by_suffix(host, tmp_path):
    stream, trace = host.stream(), Trace()
    with trace.span("load", stream, bytes=4096):
        pass
    stream.synchronize(PATIENCE)
    trace.save(str(tmp_path / "run.json"))
    text = (tmp_path / "run.json").read_text(encoding="utf-8")
    assert any(event.get("name") == "load" for event in json.loads(text)["traceEvents"])
    trace.save(pathlib.Path(tmp_path / "run.pftrace"))
    assert b"load" in (tmp_path / "run.pftrace").read_bytes()


def test_what_cannot_be_saved_is_told_and_the_trace_is_kept(tmp_path):
    trace = Trace()
    trace.instant("tick")
    for name in ("run.txt", "run", ".pftrace"):
        with pytest.raises(ValueError, match=r"\.pftrace.*\.json"):
            trace.save(tmp_path / name)
    with pytest.raises(FileNotFoundError, match="the trace is kept"):
        trace.save(tmp_path / "nowhere" / "run.json")
    for wrong in (3, None):
        with pytest.raises(TypeError):
            trace.save(wrong)
    assert os.listdir(tmp_path) == []
    assert len(trace.spans()) == 1


def test_an_error_of_the_system_has_what_every_oserror_of_python_has(tmp_path):
    trace, path = Trace(), tmp_path / "nowhere" / "run.json"
    for given in (path, str(path)):
        with pytest.raises(FileNotFoundError) as failed:
            trace.save(given)
        error = failed.value
        assert error.errno == errno.ENOENT
        assert error.filename == str(path)
        assert error.filename2 is None
        assert error.strerror.startswith("the trace is kept")
        assert "os error" not in str(error)
    os.mkdir(tmp_path / "run.json")
    with pytest.raises(OSError, match="the trace is kept") as failed:
        trace.save(tmp_path / "run.json")
    assert failed.value.errno > 0
    assert failed.value.filename == str(tmp_path / "run.json")


def test_a_path_is_a_str_or_a_pathlike_of_str(tmp_path):
    class Path:
        def __init__(self, path):
            self.path = path

        def __fspath__(self):
            return self.path

    trace, path = Trace(), os.path.join(tmp_path, "run.json")
    for wrong in (3, None, path.encode(), Path(path.encode()), Path(3)):
        expected = r"save\(\) argument 'path': expected a str, or an os\.PathLike of str; got .*"
        with pytest.raises(TypeError, match=expected + type(wrong).__name__):
            trace.save(wrong)
    assert os.listdir(tmp_path) == []
    trace.save(Path(path))
    assert os.listdir(tmp_path) == ["run.json"]


def test_the_repr_of_a_span_has_its_name_as_python_writes_it():
    trace, name = Trace(), "\0ctl\x1b\x07 'q' \U0001f40d"
    trace.instant(name)
    assert repr(trace.spans()[0]).startswith(f"<fencepost.SpanRecord {name!r} of ")


def test_a_trace_and_its_spans_may_be_dropped_in_any_order(host):
    trace, stream = Trace(), host.stream()
    span, gone = trace.span("step", stream), weakref.ref(trace)
    span.__enter__()
    del trace
    assert gone() is not None
    span.__exit__(None, None, None)
    del span
    assert gone() is None
    stream.synchronize(PATIENCE)


def test_in_a_forked_child_nothing_is_traced(child):
    done = child(
        """
import os, fencepost
trace = fencepost.Trace()
stream = fencepost.Device("host").stream()
span, there = trace.span("step", stream), trace.span("thread")
span.__enter__(), there.__enter__()
pid = os.fork()
if pid == 0:
    trace.instant("tick")
    with trace.span("inner"):
        pass
    span.__exit__(None, None, None), there.__exit__(None, None, None)
    os._exit(0 if trace.spans() == [] else 1)
_, status = os.waitpid(pid, 0)
span.__exit__(None, None, None), there.__exit__(None, None, None)
stream.synchronize(PATIENCE)
print(os.waitstatus_to_exitcode(status), len(trace.spans()))
"""
        if hasattr(os, "fork")
        else "print(0, 2)"
    )
    assert done.stdout.split() == ["0", "2"], done.stderr


def test_spans_from_many_threads_are_all_there(device):
    stream, trace = device.stream(), Trace(pending=2000)

    def record(number):
        for _ in range(100):
            with trace.span("stream", stream), trace.span("thread", number=number):
                pass

    at_once(record)
    stream.synchronize(PATIENCE)
    summary = trace.summary()
    assert summary.finished + summary.dropped == 1600
    assert summary.failed == summary.unfinished == 0
    assert len([r for r in trace.spans() if r.name == "thread"]) == 800
