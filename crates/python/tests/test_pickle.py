"""What was found out can be sent to another process; what belongs to a process cannot."""

import copy
import multiprocessing
import pickle

import pytest

import fencepost
from fencepost import Event, Gate, Marker, Measurement, SpanRecord, Stream, Summary, Trace

EVERY_WAY = [lambda value, at=at: pickle.loads(pickle.dumps(value, at)) for at in range(6)]
EVERY_WAY += [copy.copy, copy.deepcopy]


def public(value):
    """What a value tells, by name."""
    names = [name for name in dir(value) if not name.startswith("_")]
    return {name: getattr(value, name) for name in names if not callable(getattr(value, name))}


def same(value):
    """Check that a copy of each kind tells what the value does, and return the last one."""
    for way in EVERY_WAY:
        made = way(value)
        assert type(made) is type(value)
        assert public(made) == public(value)
        assert (str(made), repr(made)) == (str(value), repr(value))
    return made


def measured(work=lambda: sum(range(100))):
    stream = fencepost.Device("host").stream()
    return fencepost.measure(lambda: stream.launch(work), stream, budget=0.01)


def test_a_measurement_can_be_pickled():
    for found in (measured(), fencepost.measure(lambda: None, Stream("host"), budget=0.01)):
        assert isinstance(found, Measurement)
        made = same(found)
        assert made.quantile(0.25) == found.quantile(0.25)
        assert str(same(made.plot())) == str(found.plot())
        assert made._repr_html_() == found._repr_html_()


def traced():
    trace = Trace()
    load, compute = fencepost.Stream("host", name="load"), Stream("host")
    with trace.span("step", number=-1, big=2**63, ratio=float("inf"), exact=True, name="läuft"):
        gate = Gate("host")
        gate.wait(load)
        with trace.span("load", load, bytes=4096):
            pass
        compute.wait_event(load.record_event())
        gate.open()
        with trace.span("compute", compute):
            pass
        trace.instant("checkpoint", compute)
    compute.synchronize()
    failing = Stream("host")
    failing.launch(fails)
    with trace.span("failing", failing):
        pass
    with pytest.raises(RuntimeError):
        failing.synchronize()
    return trace


def fails():
    raise OSError("the disk is full")


def test_spans_can_be_pickled():
    trace = traced()
    records = trace.spans()
    assert {record.state for record in records} == {"complete", "failed"}
    assert any(record.awaited for record in records)
    for record in records:
        assert isinstance(record, SpanRecord)
        same(record)
    assert [repr(made) for made in pickle.loads(pickle.dumps(records))] == list(map(repr, records))


def test_a_summary_can_be_pickled():
    summary = traced().summary()
    assert isinstance(summary, Summary)
    assert same(summary).failed == 1


def test_another_process_sends_what_it_measured():
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        found = pool.apply(measured)
    assert len(found.samples) > 0


def test_what_belongs_to_a_process_cannot_be_pickled():
    stream = Stream("host")
    for mine in (stream, stream.record(), Event("host"), Gate("host"), Trace()):
        assert isinstance(mine, (Stream, Marker, Event, Gate, Trace))
        with pytest.raises(TypeError, match="pickle"):
            pickle.dumps(mine)
