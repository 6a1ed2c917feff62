"""``fencepost.otel``: spans that leave by OpenTelemetry's SDK."""

import asyncio
import inspect
import logging
import socket
import types

import pytest

import fencepost
from conftest import PATIENCE
from fencepost import Trace

pytest.importorskip("opentelemetry.sdk", reason="needs opentelemetry-sdk")

from opentelemetry import trace as api
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from fencepost import otel

ROOT = "fencepost trace"


@pytest.fixture
def sent():
    """Export a trace, and return the spans by their names."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))

    def export(trace):
        exporter.clear()
        count = otel.export(trace, provider)
        spans = exporter.get_finished_spans()
        named = {span.name: span for span in spans}
        assert len(named) == len(spans)
        return count, named

    export.provider = provider
    yield export
    provider.shutdown()


def record(name, start_ns, end_ns, **more):
    """What ``Trace.spans()`` lists."""
    whole = {
        "track": "loader",
        "device": None,
        "thread_id": 7,
        "state": "complete",
        "error": None,
        "is_instant": False,
        "attributes": {},
        "awaited": (),
    }
    return types.SimpleNamespace(name=name, start_ns=start_ns, end_ns=end_ns, **{**whole, **more})


def of(*records):
    """A trace that lists these."""
    return types.SimpleNamespace(spans=lambda: list(records))


def parent(span, named):
    ids = {other.context.span_id: name for name, other in named.items()}
    return span.parent and ids[span.parent.span_id]


def test_spans_are_children_of_what_they_lie_in(device, sent):
    stream, trace = device.stream(), Trace()
    with trace.span("step", number=3), trace.span("outer", stream, bytes=4096):
        with trace.span("inner", stream):
            pass
        trace.instant("checkpoint", stream, kind="full")
        trace.instant("signal")
    stream.synchronize(PATIENCE)
    # Listed once: another look at a device's clock may move its times by some nanoseconds.
    spans = trace.spans()
    count, named = sent(of(*spans))
    assert count == 5
    assert set(named) == {ROOT, "step", "outer", "inner"}
    assert parent(named[ROOT], named) is None
    assert parent(named["step"], named) == ROOT
    assert parent(named["outer"], named) == ROOT
    assert parent(named["inner"], named) == "outer"
    assert len({span.context.trace_id for span in named.values()}) == 1
    for found in spans:
        if not found.is_instant:
            span = named[found.name]
            assert (span.start_time, span.end_time) == (found.start_ns, found.end_ns)
            assert isinstance(span.start_time, int)
            assert span.status.status_code is StatusCode.UNSET
    (checkpoint,) = named["outer"].events
    (signal,) = named["step"].events
    assert (checkpoint.name, signal.name) == ("checkpoint", "signal")
    assert checkpoint.attributes["kind"] == "full"
    assert named["outer"].attributes["bytes"] == 4096
    assert named["outer"].attributes["fencepost.device"] == device.name
    assert str(stream.id) in named["outer"].attributes["fencepost.stream"]
    assert named["step"].attributes["thread.name"] == "MainThread"
    assert named["step"].instrumentation_scope.name == "fencepost"


def test_an_arrow_is_a_link(host, gate, sent):
    load, compute, trace = host.stream(), host.stream(), Trace()
    loaded, held = fencepost.Event(host), gate(load)
    with trace.span("load", load):
        pass
    loaded.record(load)
    with trace.span("compute", compute):
        loaded.wait(compute)
    assert sent(trace) == (0, {}), "what is not finished is left out"
    held.open()
    compute.synchronize(PATIENCE)
    _, named = sent(trace)
    (link,) = named["compute"].links
    assert link.context.span_id == named["load"].context.span_id
    assert named["load"].links == ()


def test_a_failed_span_has_the_status_error(host, gate, sent):
    stream, trace = host.stream(), Trace()
    held = gate(stream)
    with trace.span("step", stream):
        stream.launch(lambda: 1 / 0)
    held.open()
    with pytest.raises(RuntimeError):
        stream.synchronize(PATIENCE)
    _, named = sent(trace)
    assert named["step"].status.status_code is StatusCode.ERROR
    assert "ZeroDivisionError" in named["step"].status.description
    stream.clear_error()


def test_spans_that_overlap_without_nesting_are_all_there(sent):
    _, named = sent(
        of(
            record("a", 0, 10),
            record("b", 5, 15),
            record("c", 6, 9),
            record("d", 20, 30),
            record("e", 20, 30),
            record("other", 21, 22, thread_id=8),
            record("in c", 7, 7, is_instant=True),
            record("alone", 17, 17, is_instant=True),
        )
    )
    parents = {name: parent(span, named) for name, span in named.items()}
    assert parents == {
        ROOT: None,
        "a": ROOT,
        "b": ROOT,
        "c": "b",
        "d": ROOT,
        "e": "d",
        "other": ROOT,
    }
    assert [event.name for event in named["c"].events] == ["in c"]
    assert [event.name for event in named[ROOT].events] == ["alone"]
    assert (named[ROOT].start_time, named[ROOT].end_time) == (0, 30)


def test_what_the_protocol_does_not_hold_is_clamped_and_said(sent):
    _, named = sent(
        of(
            record("before 1970", -5, 10),
            record("backwards", 20, 15),
            record("right", 20, 30, attributes={"most": 2**64 - 1, "least": -(2**63)}),
        )
    )
    times = {name: (span.start_time, span.end_time) for name, span in named.items()}
    assert times["before 1970"] == (0, 10)
    assert times["backwards"] == (20, 20)
    assert times["right"] == (20, 30)
    said = {name: span.attributes.get("fencepost.times_clamped") for name, span in named.items()}
    assert said == {ROOT: None, "before 1970": True, "backwards": True, "right": None}
    assert named["right"].attributes["most"] == str(2**64 - 1)
    assert named["right"].attributes["least"] == -(2**63)


def test_an_export_belongs_to_the_span_that_is_current(sent):
    trace = Trace()
    trace.instant("tick")
    tracer = sent.provider.get_tracer("the program")
    with tracer.start_as_current_span("request") as request:
        _, named = sent(trace)
    assert named[ROOT].parent.span_id == request.get_span_context().span_id


def test_without_a_provider_the_global_one_is_meant(child):
    done = child(
        """
from opentelemetry import trace as api
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
import fencepost, fencepost.otel
trace = fencepost.Trace()
with trace.span("step"):
    pass
print(fencepost.otel.export(trace))  # nobody has set one up
exporter, provider = InMemorySpanExporter(), TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
api.set_tracer_provider(provider)
print(fencepost.otel.export(trace), len(exporter.get_finished_spans()))
"""
    )
    assert done.stdout.split() == ["1", "1", "2"]


def test_the_module_says_what_it_does():
    assert inspect.getdoc(otel)
    assert inspect.getdoc(otel.export)
    assert otel.__all__ == ["export"]


def test_a_receiver_gets_every_span_over_http(host, caplog):
    oteltap = pytest.importorskip("oteltap", reason="needs oteltap, a receiver of OTLP over HTTP")
    http = pytest.importorskip("opentelemetry.exporter.otlp.proto.http.trace_exporter")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    trace, names = Trace(), {f"step {number}" for number in range(1000)}
    stream = host.stream()
    for name in names:
        with trace.span(name, stream, kind="bf16"):
            pass
    stream.synchronize(PATIENCE)
    spans = trace.spans()

    def send():
        exporter = http.OTLPSpanExporter(endpoint=f"http://127.0.0.1:{port}/v1/traces")
        provider = TracerProvider()
        provider.add_span_processor(BatchSpanProcessor(exporter))
        odd = record("odd", -5, -10, attributes={"most": 2**64 - 1})
        otel.export(of(*spans, odd), provider)
        assert provider.force_flush(int(PATIENCE * 1000))
        provider.shutdown()

    async def receive():
        settings = oteltap.OtelTapHttpProtobufReceiverSettings(http_port=port)
        found = {}
        async with oteltap.OtelTapHttpProtobufReceiver(settings) as receiver:
            received = receiver.stream_traces()
            sending = asyncio.get_running_loop().run_in_executor(None, send)
            async for span in received:
                found[span.name] = span
                if len(found) == len(names) + 2:
                    break
            await sending
        return found

    with caplog.at_level(logging.WARNING):
        found = asyncio.run(asyncio.wait_for(receive(), PATIENCE))
    assert set(found) == names | {ROOT, "odd"}
    assert caplog.text == ""
    sent = {found.name: (found.start_ns, found.end_ns) for found in spans}
    for name in names:
        span = found[name]
        assert (span.start_time_unix_nano, span.end_time_unix_nano) == sent[name]
        assert {a.key: a.value.string_value for a in span.attributes}["kind"] == "bf16"
        assert span.parent_span_id == found[ROOT].span_id
    assert found["odd"].start_time_unix_nano == found["odd"].end_time_unix_nano == 0
    assert api.get_current_span() is api.INVALID_SPAN
