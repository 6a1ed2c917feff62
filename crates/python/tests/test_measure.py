"""``fencepost.measure``: how long one call takes on the device."""

import array
import math
import sys
import time
import types
import weakref

import pytest

import fencepost
from conftest import PATIENCE
from fencepost import Measurement, measure


def measured_until(good, *arguments, **options):
    """Measure until ``good`` holds: where the machine is busy, one measurement may be all noise."""
    deadline = time.monotonic() + PATIENCE
    while True:
        found = measure(*arguments, **options)
        if good(found) or time.monotonic() > deadline:
            return found


def test_a_call_takes_what_its_work_takes(host):
    stream = host.stream()
    # Of a known length on the device's clock, whatever else the machine does: at least this long.
    length = 1e-3

    def call():
        stream.launch(lambda: time.sleep(length))

    def is_long(found):
        return min(found.median, found.alone) > length * 0.9

    found = measured_until(is_long, call, stream, budget=0.1)
    assert isinstance(found, Measurement)
    print(f"{found.median / length - 1:+.1%} of a known length")
    assert is_long(found), found
    assert isinstance(found.samples, array.array)
    assert found.samples.typecode == "d"
    assert len(found.samples) >= 1
    assert found.quantile(0) == min(found.samples)
    assert found.quantile(1) == max(found.samples)
    assert found.quantile(0.5) == found.median
    few, more = found.calls
    assert 1 == few < more
    assert weakref.ref(found)() is found


def test_the_text_is_short_and_a_notebook_shows_a_picture(host):
    stream = host.stream()
    found = measure(lambda: stream.launch(lambda: None), stream, budget=0.05)
    assert 2 <= len(repr(found).splitlines()) <= 5
    plot = found.plot()
    assert str(plot) == plot._repr_svg_()
    assert str(plot).startswith("<svg ")
    assert "SVG" in repr(plot)
    assert found._repr_html_().startswith("<pre>")
    assert str(plot) in found._repr_html_()
    if found.interval is not None:
        low, high = found.interval
        assert low <= found.median <= high


def test_with_a_cold_cache_a_call_is_alone(device):
    stream = device.stream()
    found = measure(lambda: None, stream, budget=0.02, cold=True)
    assert found.calls == (0, 1)
    assert found.alone == found.median
    assert len(found.samples) >= 1


def test_the_stream_is_held_while_calls_are_queued(device):
    """Without a stream of its own to hold, each call would be complete when the next is queued."""
    stream = device.stream()
    complete = []

    def call():
        complete.append(stream.query())

    found = measure(call, stream, budget=0.05)
    assert found.gated or found.notes
    if found.gated:
        assert False in complete


def test_work_on_another_stream_is_told(device):
    stream, other = device.stream(), device.stream()

    def says_so(found):
        return any("no work was seen" in note for note in found.notes) or not found.gated

    found = measured_until(says_so, lambda: other.record(), stream, budget=0.05)
    assert says_so(found), found


def test_a_function_that_waits_for_the_device_is_measured_ungated(device):
    stream = device.stream()

    def call():
        stream.record().synchronize(timeout=PATIENCE)

    found = measure(call, stream, budget=0.05)
    assert not found.gated
    assert any("did not return while it was" in note for note in found.notes), found.notes
    assert len(found.samples) >= 1


def test_while_pytorchs_profiler_is_on_it_is_measured_ungated(device, monkeypatch):
    torch = types.ModuleType("torch")
    torch.autograd = types.SimpleNamespace(_profiler_enabled=lambda: True)
    monkeypatch.setitem(sys.modules, "torch", torch)
    found = measure(lambda: None, device.stream(), budget=0.02)
    told = any("PyTorch's profiler is on" in note for note in found.notes)
    assert told == (device.backend == "cuda")


@pytest.mark.parametrize("at", [1, 2, 7, 30])
def test_an_exception_comes_through_and_the_stream_goes_on(device, at):
    stream = device.stream()
    calls = []

    def call():
        calls.append(stream.record())
        if len(calls) == at:
            raise KeyError("no such luck")

    with pytest.raises(KeyError, match="no such luck"):
        measure(call, stream)
    assert len(calls) == at
    stream.record().synchronize(timeout=PATIENCE)
    assert stream.error is None
    calls[-1].synchronize(timeout=PATIENCE)


@pytest.mark.parametrize("budget", [0, -1, math.nan, math.inf, 1e-300])
def test_a_budget_that_is_no_time_is_an_error(host, budget):
    with pytest.raises(ValueError, match="budget must be a positive number of seconds"):
        measure(lambda: None, host.stream(), budget=budget)


def test_wrong_arguments_are_errors(host):
    with pytest.raises(TypeError, match="measure.. argument 'fn': expected a callable; got int"):
        measure(7)
    with pytest.raises(TypeError, match="measure.. argument 'stream': expected a stream"):
        measure(lambda: None, "stream")
    with pytest.raises(TypeError, match="budget must be a positive number of seconds; got str"):
        measure(lambda: None, host.stream(), budget="1")
    found = measure(lambda: None, host.stream(), budget=0.01)
    for q in [-0.1, 1.5, math.nan]:
        with pytest.raises(ValueError, match="q must be from 0 to 1"):
            found.quantile(q)


def test_without_a_stream_it_is_the_default_one():
    device = fencepost.Device()
    before = device.default_stream().progress[0]
    measure(lambda: None, budget=0.01)
    assert device.default_stream().progress[0] > before


def test_work_that_fails_is_an_error(host):
    stream = host.stream()

    def fail():
        raise LookupError("the work fails")

    with pytest.raises(RuntimeError, match="the work fails"):
        measure(lambda: stream.launch(fail), stream, budget=0.05)
    stream.clear_error()
    stream.synchronize(timeout=PATIENCE)
