"""Hands what a trace has collected to OpenTelemetry, by the SDK that is installed.

``pip install fencepost[otel]`` brings the SDK. An exporter of yours sends the spans, as it sends
those of the rest of the program, so that one collector gathers those of many machines::

    with fencepost.Trace() as trace, trace.span("step"):
        ...
    fencepost.otel.export(trace)  # or: export(trace, tracer_provider)

How a trace is told:

================================  ==============================================================
one call of ``export``            a span "fencepost trace", from the first time to the last, which
                                  is a child of the span that is current
a span                            a span: a child of the innermost one of its stream or thread that
                                  it lies in, else of "fencepost trace"
an instant                        an event of the span that would be its parent
an arrow, for a wait              a link from the span that waited to the one that it waited for
a failed span                     status ERROR, with the reason
an unfinished span                is left out
================================  ==============================================================
"""

from __future__ import annotations

from typing import Any

from opentelemetry import trace as api
from opentelemetry.trace import SpanKind, Status, StatusCode, Tracer, TracerProvider

from fencepost._C import SpanRecord, Trace, __version__

__all__ = ["export"]

# What the protocol holds: one number beyond loses the whole batch that it is in, without an error.
_TIMES = range(1 << 64)
_NUMBERS = range(-(1 << 63), 1 << 63)


def export(trace: Trace, tracer_provider: TracerProvider | None = None) -> int:
    """Hand all finished spans of ``trace`` to ``tracer_provider``, by default the global one.

    Return how many these are. What is not finished is left out. A second call hands over all of
    them again: export a trace once, at its end.

    Never waits for work. The provider's processors say when the spans are sent: see its
    ``force_flush``.
    """
    provider = tracer_provider or api.get_tracer_provider()
    tracer = provider.get_tracer("fencepost", __version__)
    return _Export(tracer, trace.spans()).run()


class _Export:
    def __init__(self, tracer: Tracer, records: list[SpanRecord]) -> None:
        self.tracer = tracer
        self.records = records
        self.told: dict[int, api.Span] = {}

    def run(self) -> int:
        finished = [at for at, record in enumerate(self.records) if record.state != "unfinished"]
        if not finished:
            return 0
        times = [_times(self.records[at]) for at in finished]
        root = self.tracer.start_span("fencepost trace", start_time=min(t[0] for t in times))
        # An outer span is in front of those inside it.
        for at, parent in self.parents(finished).items():
            span = self.told.get(parent, root)
            if self.records[at].is_instant:
                self.add_event(at, span)
            else:
                self.begin(at, span)
        for at in finished:
            self.add_links(at)
        for at, span in self.told.items():
            span.end(end_time=_times(self.records[at])[1])
        root.end(end_time=max(t[1] for t in times))
        return len(finished)

    def parents(self, finished: list[int]) -> dict[int, int]:
        """For each of them the place of the innermost span that it lies in, or -1."""
        parents = {}
        open_on: dict[tuple[Any, ...], list[int]] = {}
        # Where starts are equal, spans stay in their order, and instants come last.
        for at in sorted(finished, key=lambda at: (_times(self.records[at])[0], at)):
            outer = open_on.setdefault(_track(self.records[at]), [])
            # One that ends earlier is over, or overlaps without nesting.
            while outer and not self.contains(outer[-1], at):
                outer.pop()
            parents[at] = outer[-1] if outer else -1
            if not self.records[at].is_instant:
                outer.append(at)
        return parents

    def contains(self, outer: int, inner: int) -> bool:
        (start, end), (first, last) = _times(self.records[outer]), _times(self.records[inner])
        return start <= first and last <= end

    def begin(self, at: int, parent: api.Span) -> None:
        record = self.records[at]
        span = self.tracer.start_span(
            record.name,
            api.set_span_in_context(parent),
            SpanKind.INTERNAL,
            attributes=_attributes(record),
            start_time=_times(record)[0],
        )
        if record.state == "failed":
            span.set_status(Status(StatusCode.ERROR, record.error))
        self.told[at] = span

    def add_event(self, at: int, span: api.Span) -> None:
        record = self.records[at]
        span.add_event(record.name, _attributes(record), _times(record)[0])

    def add_links(self, at: int) -> None:
        for awaited in self.records[at].awaited:
            if at in self.told and awaited in self.told:
                self.told[at].add_link(self.told[awaited].get_span_context())


def _track(record: SpanRecord) -> tuple[Any, ...]:
    return (record.device, record.thread_id, record.track)


def _times(record: SpanRecord) -> tuple[int, int]:
    """Start and end as the protocol holds them: never negative, and in order."""
    start = min(max(record.start_ns, 0), _TIMES[-1])
    end = min(max(record.end_ns, start), _TIMES[-1])
    return start, end


def _attributes(record: SpanRecord) -> dict[str, Any]:
    attributes: dict[str, Any] = {
        name: str(value) if isinstance(value, int) and value not in _NUMBERS else value
        for name, value in record.attributes.items()
    }
    if record.device is None:
        attributes["thread.name"] = record.track
        attributes["thread.id"] = record.thread_id
    else:
        attributes["fencepost.device"] = record.device
        attributes["fencepost.stream"] = record.track
    if _times(record) != (record.start_ns, record.end_ns):
        attributes["fencepost.times_clamped"] = True
    return attributes
