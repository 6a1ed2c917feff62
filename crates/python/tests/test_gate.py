"""Gates, which the host opens."""

import gc

import pytest

import fencepost
from conftest import PATIENCE


@pytest.fixture
def stream(device):
    return fencepost.Stream(device)


def test_a_gate_holds_its_stream_until_it_is_opened(device, stream):
    gate = fencepost.Gate(device, limit=None, name="upload")
    gate.wait(stream)
    event = stream.record_event()
    assert not event.query()
    assert not gate.is_open
    assert gate.device == device
    assert gate.name == "upload"
    assert '"upload"' in repr(gate)
    assert repr(gate).endswith(", closed>")
    gate.open()
    event.synchronize(PATIENCE)
    assert gate.is_open
    assert repr(gate).endswith(", open>")
    gate.open()
    gate.wait(stream)
    stream.synchronize(PATIENCE)


def test_a_block_opens_its_gate(device, stream):
    with fencepost.Gate(device, limit=None) as gate:
        gate.wait(stream)
        event = stream.record_event()
        assert not event.query()
    event.synchronize(PATIENCE)


def test_a_block_that_raises_fails_its_gate(device, stream):
    class Ours(Exception):
        pass

    gate = fencepost.Gate(device, limit=None)

    def fails():
        with gate:
            gate.wait(stream)
            stream.record_event(event)
            raise Ours("the disk is full")

    event = fencepost.Event(device)
    with pytest.raises(Ours):
        fails()
    with pytest.raises(RuntimeError, match=r"Ours: the disk is full \(at .*test_gate.py:\d+\)"):
        event.synchronize(PATIENCE)
    assert not gate.is_open
    stream.clear_error()
    stream.synchronize(PATIENCE)


def test_a_gate_fails_for_a_reason(device, stream):
    gate = fencepost.Gate(device, limit=None)
    gate.wait(stream)
    gate.fail("the file is gone")
    gate.fail("too late")
    with pytest.raises(RuntimeError, match="the file is gone"):
        stream.synchronize(PATIENCE)


def test_a_gate_that_is_dropped_fails(device, stream):
    gate = fencepost.Gate(device, limit=None)
    gate.wait(stream)
    del gate
    gc.collect()
    with pytest.raises(RuntimeError, match="test_gate.py:.* was dropped before it was opened"):
        stream.synchronize(PATIENCE)


def test_a_gate_fails_at_its_limit(device, stream):
    gate = fencepost.Gate(device, limit=0.01)
    gate.wait(stream)
    limit = "was not opened within 10 ms of its first wait, which is its limit"
    with pytest.raises(RuntimeError, match=limit):
        stream.synchronize(PATIENCE)
    assert not gate.is_open
    assert repr(gate).endswith(", failed>")


@pytest.mark.parametrize("limit", ["1", 1j, [1.0]])
def test_a_limit_that_is_no_number_is_refused_by_its_name(limit):
    kind = type(limit).__name__
    with pytest.raises(TypeError, match=rf"Gate\(\) argument 'limit': .*; got {kind}"):
        fencepost.Gate("host", limit=limit)


@pytest.mark.parametrize("limit", [-1.0, float("nan"), 10**400])
def test_a_limit_that_is_none_is_refused(limit):
    with pytest.raises(ValueError, match="limit"):
        fencepost.Gate("host", limit=limit)


def test_a_limit_may_be_endless():
    for limit in [None, float("inf"), 1e300]:
        gate = fencepost.Gate("host", limit=limit)
        gate.wait(fencepost.Stream("host"))
        gate.open()


def test_a_gate_of_another_device_is_refused(device, stream):
    gate = fencepost.Gate(fencepost.Device.new_host(1))
    with pytest.raises(RuntimeError, match="same device"):
        gate.wait(stream)
    stream.synchronize(PATIENCE)


def test_what_is_no_stream_is_refused():
    with pytest.raises(TypeError, match=r"wait\(\) argument 'stream': expected a stream"):
        fencepost.Gate("host").wait("host")


def test_without_a_stream_it_is_the_current_one(device):
    with fencepost.Gate(device, limit=None) as gate:
        gate.wait()
        event = fencepost.Event(device)
        event.record()
        assert not event.query()
    event.synchronize(PATIENCE)


def test_a_timeout_names_the_gate(device, stream):
    with fencepost.Gate(device, limit=None, name="upload") as gate:
        gate.wait(stream)
        event = stream.record_event()
        with pytest.raises(TimeoutError, match=r'gate \d+ "upload" .* is not opened yet') as told:
            event.synchronize(0.05)
        assert "test_gate.py:" in str(told.value)


@pytest.mark.parametrize("end", ["pass", "raise SystemExit(0)", "1 / 0", "sys.exit()"])
def test_a_program_ends_with_a_closed_gate(child, name, end):
    program = f"""
import sys, fencepost
device = fencepost.Device("{name}")
stream, gate = fencepost.Stream(device), fencepost.Gate(device, limit=None)
gate.wait(stream)
event = stream.record_event()
sys.keep = gate, stream, event
{end}
"""
    # Nothing waits for the gate, which has no limit; else the child would be killed.
    done = child(program, check=False)
    assert done.returncode == int("1 / 0" in end), done.stderr


@pytest.mark.parametrize("held", ["gate", "marker"])
def test_finalizers_free_memory_while_a_stream_is_held(child, cuda, held):
    done = child(f"""
import ctypes, os
import fencepost

device, host = fencepost.Device("cuda:0"), fencepost.Device("host")
driver = ctypes.CDLL(os.environ.get("FENCEPOST_CUDA_LIBRARY") or "libcuda.so.1")
context, memory = ctypes.c_void_p(), ctypes.c_uint64()
assert driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0) == 0
assert driver.cuCtxSetCurrent(context) == 0
assert driver.cuMemAlloc_v2(ctypes.byref(memory), ctypes.c_size_t(4096)) == 0

class Buffer:
    def __del__(self, free=driver.cuMemFree_v2, memory=memory, write=os.write):
        # It waits for all streams of the context.
        assert free(memory) == 0
        write(1, b"freed")

buffer = Buffer()
stream, upstream = device.stream(), host.stream()
gate = fencepost.Gate(device if {held!r} == "gate" else host, limit=None)
gate.wait(stream if {held!r} == "gate" else upstream)
if {held!r} == "marker":
    upstream.record_event().wait_foreign(stream)
event = stream.record_event()
assert not event.query()
""")
    assert done.stdout == "freed", done.stderr
