"""Correlations, and times on the clock of ``time.monotonic()``."""

import time

import pytest

import fencepost
from conftest import PATIENCE


def timed(device):
    """Return a complete timed marker, and reads of the host's clock around its completion."""
    stream = device.stream()
    before = time.monotonic_ns()
    marker = stream.record(enable_timing=True)
    marker.synchronize(timeout=PATIENCE)
    return marker, before, time.monotonic_ns()


def test_a_host_time_lies_between_reads_of_the_monotonic_clock(device):
    first = device.correlate()
    marker, before, after = timed(device)
    last = device.correlate()
    for correlation in (first, last, last.with_drift_since(first), None):
        at = marker.host_time(correlation)
        slack = at.uncertainty * 1e9
        assert before - slack <= at.monotonic_ns <= after + slack
        assert at.monotonic == pytest.approx(at.monotonic_ns / 1e9, abs=1e-6)
        assert repr(at).startswith("<fencepost.HostTime: ")
    assert repr(first).startswith(f"<fencepost.Correlation: {device.name}, ±")


def test_times_of_two_devices_compare(device):
    other = fencepost.Device.new_host(1)
    first = timed(device)[0].host_time(device.correlate())
    time.sleep(0.005)
    last = timed(other)[0].host_time(other.correlate())
    apart = (last.monotonic_ns - first.monotonic_ns) / 1e9
    assert apart >= 0.005 - first.uncertainty - last.uncertainty
    assert not last < first
    assert not last <= first
    assert first == first
    assert first <= first
    assert first != last
    assert len({first, last}) == 2
    with pytest.raises(TypeError):
        _ = first < 1.0


def test_a_correlation_tells_its_age_and_what_it_knows(device):
    first = device.correlate()
    assert first.clock == device.clock
    assert 0 <= first.age <= first.age
    exact = device.backend == "host"
    assert (first.uncertainty == 0.0) is exact
    assert first.drift_ppm == 0.0
    assert first.drift_bound_ppm == (0.0 if exact else pytest.approx(100.0))
    line = device.correlate().with_drift_since(first)
    assert line.drift_bound_ppm <= first.drift_bound_ppm


def test_a_host_time_needs_a_complete_timed_marker(device, gate):
    correlation = device.correlate()
    stream = device.stream()
    held = gate(stream)
    marker = stream.record(enable_timing=True)
    with pytest.raises(RuntimeError, match=r"^marker 1 of .* is not complete yet; call synch"):
        marker.host_time(correlation)
    held.open()
    marker.synchronize(timeout=PATIENCE)
    foreign = fencepost.Device.new_host(1).correlate()
    with pytest.raises(RuntimeError, match="two of the same device"):
        marker.host_time(foreign)
    with pytest.raises(RuntimeError, match="two of the same device"):
        correlation.with_drift_since(foreign)
    with pytest.raises(ValueError, match="^the event has no timing; make it with enable_timing"):
        stream.record().host_time(correlation)
